"""The files of ``deploy/`` name what exists. Fields as KEDA's documentation of 2.x has them.

The published schema is not here to check against: the fields that are used are listed instead.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ingress.routes import metrics
from tasks.celery import RUNBOOKS

KEDA = sorted((Path(__file__).parents[2] / "deploy" / "keda").glob("*.yaml"))
SPEC = {
    "scaleTargetRef",
    "minReplicaCount",
    "maxReplicaCount",
    "pollingInterval",
    "cooldownPeriod",
    "fallback",
    "advanced",
    "triggers",
}
TRIGGERS = {
    "prometheus": {
        "serverAddress",
        "query",
        "threshold",
        "activationThreshold",
        "ignoreNullValues",
    },
    "redis": {
        "addressFromEnv",
        "passwordFromEnv",
        "listName",
        "listLength",
        "activationListLength",
        "databaseIndex",
    },
}


@pytest.mark.parametrize("path", KEDA, ids=lambda path: path.name)
def test_a_scaled_object_has_known_fields_and_never_scales_to_nothing(path: Path) -> None:
    told = yaml.safe_load(path.read_text())
    spec: dict[str, Any] = told["spec"]

    assert (told["apiVersion"], told["kind"]) == ("keda.sh/v1alpha1", "ScaledObject")
    assert set(spec) <= SPEC
    assert 1 <= spec["minReplicaCount"] < spec["maxReplicaCount"]
    assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
    for trigger in spec["triggers"]:
        assert set(trigger["metadata"]) <= TRIGGERS[trigger["type"]]
        assert all(isinstance(value, str) for value in trigger["metadata"].values())


def test_what_they_measure_exists() -> None:
    triggers = [t for path in KEDA for t in yaml.safe_load(path.read_text())["spec"]["triggers"]]
    asked = {trigger["type"]: trigger["metadata"] for trigger in triggers}

    for metric in (metrics.WAITING, metrics.BUSY):
        assert metric._name in asked["prometheus"]["query"]
    assert asked["redis"]["listName"] == RUNBOOKS
