"""Settings that name Google: what is incomplete or dangerous is refused by name."""

from pathlib import Path
from typing import Any

import pytest

from adapters.drilled import DrilledDocuments
from adapters.gcp.firestore import FirestoreDocuments
from adapters.gcp.oidc import OidcPushers
from adapters.gcp.pubsub import PubsubSignals
from adapters.gcp.storage import GcsObjects
from adapters.pushers import AnyPusher, TokenPushers
from adapters.wiring import open_documents, open_ports
from config.settings import Settings, environment
from governor.errors import InputError

MEMORY = {"memory_url": "redis://127.0.0.1:1/1", "broker_url": "redis://127.0.0.1:1/0"}
PUSHED = {
    "signals_url": "pubsub://project",
    "push_url": "https://ingress.example/v1/pubsub/signals",
    "push_service_account": "pusher@project.iam.gserviceaccount.com",
}


def _settings(tmp_path: Path, **changes: Any) -> Settings:
    return Settings(**{"state_dir": tmp_path, "signals_url": "redis://x/2", **MEMORY, **changes})


def test_the_urls_choose_googles_services(tmp_path: Path) -> None:
    ports = open_ports(
        _settings(
            tmp_path,
            documents_url="firestore://project/database",
            objects_url="gs://bucket",
            **PUSHED,
        )
    )

    assert isinstance(ports.documents, DrilledDocuments)
    documents = ports.documents._inner
    assert isinstance(documents, FirestoreDocuments)
    assert documents._database == "projects/project/databases/database"
    assert isinstance(ports.objects, GcsObjects)
    assert isinstance(ports.signals, PubsubSignals)
    assert isinstance(ports.pushers, OidcPushers)


def test_a_database_that_is_not_named_is_the_default_one(tmp_path: Path) -> None:
    documents = open_documents(_settings(tmp_path, documents_url="firestore://project"))

    assert isinstance(documents, FirestoreDocuments)
    assert documents._database == "projects/project/databases/(default)"


@pytest.mark.parametrize(
    "changes",
    [
        {"documents_url": "firestore:///database"},
        {"objects_url": "gs://"},
        {"documents_url": "firestore://p/a/b"},
        {"objects_url": "gs://bucket/prefix"},
        {**PUSHED, "signals_url": "pubsub://p/x"},
        {"documents_url": "dynamo://x"},
        {"objects_url": "s3://x"},
        {"signals_url": "kafka://x"},
        {**PUSHED, "signals_url": "pubsub://"},
        {**PUSHED, "push_url": ""},
        {**PUSHED, "push_url": "http://ingress.example/"},
        {**PUSHED, "push_service_account": ""},
    ],
    ids=str,
)
def test_what_is_incomplete_is_refused_and_says_which_setting(
    tmp_path: Path, changes: dict[str, str]
) -> None:
    with pytest.raises(InputError, match="GGEN_[A-Z_]+"):
        open_ports(_settings(tmp_path, **changes))


EMULATED = {**PUSHED, "pubsub_emulator_host": "127.0.0.1:1"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        PUSHED,
        {"firestore_emulator_host": "127.0.0.1:1"},
        {**EMULATED, "documents_url": "firestore://real"},
        {**EMULATED, "objects_url": "gs://real"},
    ],
    ids=str,
)
def test_pushes_without_a_token_are_refused_outside_the_emulator(
    tmp_path: Path, changes: dict[str, str]
) -> None:
    with pytest.raises(InputError, match="PUBSUB_EMULATOR_HOST"):
        open_ports(_settings(tmp_path, push_without_token=True, **changes))


def test_an_emulators_pushes_are_let_in_only_if_that_is_said(tmp_path: Path) -> None:
    emulated = {**PUSHED, "pubsub_emulator_host": "127.0.0.1:1"}

    assert isinstance(open_ports(_settings(tmp_path)).pushers, TokenPushers)
    assert isinstance(open_ports(_settings(tmp_path, **emulated)).pushers, OidcPushers)
    assert isinstance(
        open_ports(_settings(tmp_path, **emulated, push_without_token=True)).pushers, AnyPusher
    )


def test_a_child_sees_the_same_settings_under_googles_own_names(tmp_path: Path) -> None:
    told = environment(_settings(tmp_path, firestore_emulator_host="127.0.0.1:9"))

    assert told["FIRESTORE_EMULATOR_HOST"] == "127.0.0.1:9"
    assert "GGEN_FIRESTORE_EMULATOR_HOST" not in told
