"""Objectives: events, misses, and how both are reported."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY, generate_latest

from cli.monitoring import grafana, openslo
from governor.slo import contract
from governor.slo.counting import BOUNDS_MS, counts_of
from governor.slo.objective import Attainment, Judged, Match, Objective
from ingress.routes import metrics
from ledger.contracts import MODELS

PROMETHEUS = Path(__file__).parents[2] / "deploy" / "prometheus"
LATENCY = Objective(
    "latency",
    "how long",
    "< 100 ms",
    (Match("done", {"phase": "running"}),),
    bad=(Match("lost"),),
    value="run_ms",
    less="timeout_ms",
    below=100,
)


def _done(**fields: Any) -> dict[str, Any]:
    return {"operation": "done", "phase": "running", "duration_ms": 1, **fields}


@pytest.mark.parametrize(
    ("receipt", "judged"),
    [
        (_done(run_ms=99), Judged(is_good=True, value=99)),
        (_done(run_ms=100), Judged(is_good=False, value=100)),
        (_done(run_ms=540, timeout_ms=500), Judged(is_good=True, value=540)),
        (_done(run_ms=499, timeout_ms=500), Judged(is_good=False, value=499)),
        ({"operation": "lost"}, Judged(is_good=False)),
        (_done(run_ms=1, phase="queued"), None),
        (_done(), None),
        (_done(run_ms=1, drill=True), None),
        ({"operation": "other"}, None),
    ],
    ids=[
        "good",
        "at its bound",
        "late, within the margin",
        "early",
        "bad by kind",
        "of another phase",
        "of an earlier release",
        "of a drill",
        "of no concern",
    ],
)
def test_a_receipt_is_a_good_event_or_a_miss_or_none(
    receipt: dict[str, Any], judged: Judged | None
) -> None:
    assert LATENCY.judge(receipt) == judged


def test_without_a_value_every_event_is_good() -> None:
    objective = Objective("o", "m", "100 %", (Match("done"),), target=1)

    assert objective.judge({"operation": "done"}) == Judged(is_good=True)
    assert objective.each_counts
    assert objective.unit == ""
    assert LATENCY.unit == "ms"


@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(0, 20))
def test_attainment_is_the_share_of_good_events(values: list[float], misses: int) -> None:
    attained = Attainment(LATENCY)
    for value in values:
        attained.add(Judged(is_good=True, value=value))
    for _ in range(misses):
        attained.add(Judged(is_good=False))

    events = len(values) + misses
    assert attained.attained == 1 - misses / events
    assert attained.is_met == (attained.attained >= LATENCY.target)
    assert attained.budget_left == pytest.approx(1 - misses / events / 0.01)
    middle, highest = attained.quantile(0.5), attained.quantile(1)
    assert sum(value <= middle for value in values) >= len(values) / 2
    assert highest == max(values)


def test_without_events_an_objective_is_met_and_has_no_figures() -> None:
    attained = Attainment(LATENCY)

    assert attained.is_met
    assert attained.attained is attained.quantile(0.5) is attained.budget_left is None


def test_where_each_miss_counts_there_is_no_budget() -> None:
    attained = Attainment(contract.OBJECTIVES["deploy_sku_resources"])
    attained.add(Judged(is_good=False))

    assert (attained.budget_left, attained.is_met) == (None, False)


@pytest.mark.parametrize("objective", contract.OBJECTIVES.values(), ids=lambda o: o.name)
def test_the_contracts_of_receipts_have_what_an_objective_looks_at(objective: Objective) -> None:
    for match in objective.events:
        fields = MODELS[match.operation].model_fields
        needed = {objective.value, objective.less} - {""} | set(match.where)
        assert needed <= set(fields)
    for match in objective.bad:
        assert set(match.where) <= set(MODELS[match.operation].model_fields)


def test_receipts_are_counted_by_duration_and_objective() -> None:
    counts = counts_of(
        [
            {"operation": "action_rolled_back", "duration_ms": 7, "rollback_duration_ms": 7},
            {"operation": "action_rolled_back", "duration_ms": 130, "rollback_duration_ms": 130},
            {"operation": "action_timeout", "duration_ms": 15_000, "phase": "suspended"},
            {"operation": "key_rotated", "duration_ms": 99_000},
        ]
    )

    assert counts["duration|action_rolled_back|5"] == 0
    assert counts["duration|action_rolled_back|10"] == 1
    assert counts["duration|action_rolled_back|inf"] == 2
    assert counts["duration|action_rolled_back|sum"] == 137
    assert counts["events|recover_action_rollback"] == 2
    assert counts["bad|recover_action_rollback"] == 1
    assert not any(counts[f"duration|key_rotated|{bound}"] for bound in BOUNDS_MS)


# -- what monitoring takes


def test_metrics_have_at_most_2000_series_however_many_tenants() -> None:
    for rank in range(metrics.LONGEST_LISTS):
        metrics.LONGEST.labels(rank + 1).set(1)
    metrics.MEASURED.know({}, {})
    samples = [s for f in REGISTRY.collect() for s in f.samples]

    assert len(samples) <= 2_000
    assert not [s for s in samples if {"account", "account_id", "tenant"} & set(s.labels)]
    assert b"ggen_objective_events_total" in generate_latest()
    metrics.MEASURED.forget()  # Memory does not answer: no counter begins at 0 again
    assert b"ggen_objective_events_total" not in generate_latest()


def _names() -> set[str]:
    known = [*REGISTRY.collect(), *metrics.MEASURED.families()]
    return {s.name for f in known if f.name.startswith("ggen_") for s in f.samples} | {
        "ggen_webhooks_total",
        "ggen_signals_total",
        "ggen_waiting_actions_longest",
    }


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    queries = [t["expr"] for p in grafana.dashboard()["panels"] for t in p["targets"]]

    assert set(re.findall(r"ggen_\w+", json.dumps(queries))) <= _names()


def test_the_rules_ask_for_metrics_that_exist() -> None:
    rules = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())
    queries = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]

    assert set(re.findall(r"ggen_\w+", json.dumps(queries))) <= _names()


def test_openslo_documents_have_what_version_1_requires() -> None:
    service, *objectives = openslo.documents()

    assert service["kind"] == "Service"
    assert len(objectives) == sum(not o.each_counts for o in contract.OBJECTIVES.values())
    for each in objectives:
        assert (each["apiVersion"], each["kind"]) == ("openslo/v1", "SLO")
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", each["metadata"]["name"])
        spec = each["spec"]
        assert spec["service"] == service["metadata"]["name"]
        assert spec["budgetingMethod"] == "Occurrences"
        assert all(0 <= objective["target"] < 1 for objective in spec["objectives"])
        ratio = spec["indicator"]["spec"]["ratioMetric"]
        assert {"bad", "total", "counter"} == set(ratio)


@pytest.mark.parametrize(
    "words", [("check", "rules", "rules.yml"), ("test", "rules", "rules.test.yml")]
)
def test_promtool_accepts_the_alert_rules_and_their_cases(words: tuple[str, ...]) -> None:
    promtool = os.environ.get("PROMTOOL") or shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here: it is in Debian's package prometheus; CI unpacks it")
    done = subprocess.run(
        [promtool, *words], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
