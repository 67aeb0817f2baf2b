"""Ports on real adapters and a real broker, without workers: a test plays the worker's part."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from adapters.directory import DirectoryObjects
from adapters.key_files import KeyFiles
from adapters.log_alerts import LogAlerts
from adapters.pushers import TokenPushers
from adapters.secret_files import SecretFiles
from adapters.sqlite import SqliteDocuments
from adapters.streams import StreamSignals
from adapters.system import SystemClock, SystemProcesses
from adapters.valkey import ValkeyMemory
from config import settings
from governor.records import MarketplaceEvent
from ports import Ports
from tests.conftest import Valkey
from tests.faults import Fault, FaultyDocuments
from tests.leases import lease

POLICIES = sorted((Path(__file__).parents[2] / "config" / "policies").glob("*.json"))


@pytest.fixture(scope="session", autouse=True)
def _environment(
    valkey: Valkey, tmp_path_factory: pytest.TempPathFactory, _no_settings_of_the_desk: None
) -> None:
    os.environ["GGEN_STATE_DIR"] = str(tmp_path_factory.mktemp("engine"))
    os.environ["GGEN_BROKER_URL"] = valkey.broker_url
    settings.load.cache_clear()


@pytest.fixture
def ports(valkey: Valkey, tmp_path: Path) -> Iterator[Ports]:
    from tasks import policies

    redis.Redis.from_url(valkey.url).flushall()
    secrets = SecretFiles(tmp_path / "secrets")
    secrets.create_missing()
    keys = KeyFiles(tmp_path / "keys", "ledger.example")
    keys.create_missing()
    opened = Ports(
        documents=SqliteDocuments(tmp_path / "documents.db"),
        objects=DirectoryObjects(tmp_path / "objects"),
        signals=StreamSignals(valkey.url),
        memory=ValkeyMemory(valkey.url),
        secrets=secrets,
        keys=keys,
        alerts=LogAlerts(),
        clock=SystemClock(),
        processes=SystemProcesses(),
        pushers=TokenPushers(secrets),
    )
    for policy in POLICIES:
        policies.publish(opened, policy.read_bytes())
    lease(opened.memory)
    policies.forget_loaded()
    yield opened
    opened.documents.close()
    opened.memory.close()


@pytest.fixture
def faulty(ports: Ports) -> Callable[[Fault, set[int]], Ports]:
    def make(fault: Fault, failing: set[int]) -> Ports:
        documents = FaultyDocuments(ports.documents, fault, failing)
        return dataclasses.replace(ports, documents=documents)  # type: ignore[arg-type]

    return make


def event(**changes: str) -> MarketplaceEvent:
    return MarketplaceEvent.model_validate({
        "event_type": "entitlement.created", "event_id": "e-1", "account_id": "acme",
        "sku_id": "demo-sku", "plan_type": "starter", "region": "us-central1",
        "event_time": "2026-11-23T12:00:00.000000Z", **changes,
    })  # fmt: skip
