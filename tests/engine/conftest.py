"""Ports on real adapters and a real broker, without workers: a test plays the worker's part."""

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from config import settings
from governor.tenancy import MarketplaceEvent
from ports import Ports, Times
from tests.conftest import Valkey
from tests.support.faults import Fault, FaultyDocuments
from tests.support.google import new_bucket
from tests.support.leases import lease
from tests.support.live import new_project
from tests.support.stores import Google, Stores

POLICIES = sorted((Path(__file__).parents[2] / "config" / "policies").glob("*.json"))


@pytest.fixture(scope="session", autouse=True)
def _environment(
    valkey: Valkey, tmp_path_factory: pytest.TempPathFactory, _no_settings_of_the_desk: None
) -> None:
    os.environ["GGEN_STATE_DIR"] = str(tmp_path_factory.mktemp("engine"))
    os.environ["GGEN_BROKER_URL"] = valkey.broker_url
    settings.load.cache_clear()


on_both = pytest.mark.parametrize("backend", ["embedded", "google"], indirect=True)
"""A test that must hold on the embedded stores and on Google's, as the emulators have them."""


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", request.config.getoption("--backend")))


@pytest.fixture
def times() -> Times:
    """How long things may last; a module may have its own."""
    return Times()


@pytest.fixture
def stores(
    backend: str, request: pytest.FixtureRequest, valkey: Valkey, tmp_path: Path, times: Times
) -> Stores:
    """The stores of the test's ports, for processes of its own."""
    if backend == "embedded":
        return Stores(tmp_path, valkey.url, times=times)
    hosts = [request.getfixturevalue(each) for each in ("firestore", "pubsub", "storage")]
    return Stores(tmp_path, valkey.url, Google(*hosts, new_project(), new_bucket(hosts[2])), times)


@pytest.fixture
def ports(stores: Stores, valkey: Valkey) -> Iterator[Ports]:
    from tasks.governors import policies

    server = redis.Redis.from_url(valkey.url)
    server.flushall()
    known = {"id": "test", "number": 0, "at": 0, "server": server.info("server")["run_id"]}
    server.hset("ggen:boots", mapping=known)  # no new Memory
    # What handlers did for an action of the same id in another test.
    shutil.rmtree(os.environ["GGEN_STATE_DIR"])
    Path(os.environ["GGEN_STATE_DIR"]).mkdir()
    opened = stores.open()
    for policy in POLICIES:
        policies.register(opened, policy.read_bytes())
    lease(opened.memory)
    policies.forget_loaded()
    yield opened
    close(opened)


def close(ports: Ports) -> None:
    """Let go of every connection, as a process must that is about to fork."""
    for port in (ports.documents, ports.signals, ports.memory, ports.calls):
        port.close()


@pytest.fixture
def faulty(ports: Ports) -> Callable[[Fault, set[int]], Ports]:
    def make(fault: Fault, failing: set[int]) -> Ports:
        documents = FaultyDocuments(ports.documents, fault, failing)
        return dataclasses.replace(ports, documents=documents)  # type: ignore[arg-type]

    return make


def event(**changes: str) -> MarketplaceEvent:
    return MarketplaceEvent.model_validate(
        {
            "event_type": "entitlement.created",
            "event_id": "e-1",
            "account_id": "acme",
            "sku_id": "demo-sku",
            "plan_type": "starter",
            "region": "us-central1",
            "event_time": "2026-11-23T12:00:00.000000Z",
            **changes,
        }
    )
