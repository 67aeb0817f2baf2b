"""Booting: what Memory knows of a governor is never older than what it knew before."""

import dataclasses

import pytest
import redis

from governor.quota import Verdict
from ports import Ports
from ports.documents import Update
from tasks.governors.boot import boot_governor
from tests.conftest import Valkey
from tests.engine.conftest import event
from tests.support.runs import ACCOUNT, memory_knows, subscribe


@pytest.fixture(autouse=True)
def _governor(ports: Ports) -> None:
    subscribe(ports, event())


def _shut(ports: Ports) -> None:
    found = ports.documents.get(f"tenants/{ACCOUNT}")
    assert found
    draining = {**found.data, "state": "draining"}
    ports.documents.commit([Update(found.path, draining, found.revision)])


def test_a_boot_that_read_earlier_does_not_open_a_door_that_was_shut(ports: Ports) -> None:
    class Slow:
        """Documents of a process that stands still after its reading; another one acts."""

        def __init__(self) -> None:
            self.reads = 0

        def __getattr__(self, name: str) -> object:
            return getattr(ports.documents, name)

        def scan(self, query: object) -> object:
            found = ports.documents.scan(query)  # type: ignore[arg-type]
            self.reads += 1
            if self.reads == 1:
                _shut(ports)
                boot_governor(ports, ACCOUNT)
                assert memory_knows(ports, ACCOUNT) is Verdict.DRAINING
            assert self.reads < 5
            return found

    slow = Slow()
    assert not boot_governor(dataclasses.replace(ports, documents=slow), ACCOUNT)  # type: ignore[arg-type]

    assert memory_knows(ports, ACCOUNT) is Verdict.DRAINING
    assert slow.reads > 1  # it has read again


def test_a_ticket_of_a_memory_that_was_lost_is_worth_nothing(ports: Ports, valkey: Valkey) -> None:
    server = redis.Redis.from_url(valkey.url)
    for _ in range(3):
        ticket = ports.governors.begin_boot()
    server.delete("ggen:boots")
    assert ports.governors.remembers_s() == 0
    ports.governors.begin_boot()

    assert not ports.governors.boot(ACCOUNT, ticket, "stable", [])
    assert not ports.governors.forget(ACCOUNT, ticket)
    assert ports.governors.remembers_s() < 60


def test_a_forgotten_governor_stays_forgotten_by_an_earlier_boot(ports: Ports) -> None:
    early = ports.governors.begin_boot()
    assert ports.governors.forget(ACCOUNT, ports.governors.begin_boot())

    assert not ports.governors.boot(ACCOUNT, early, "stable", [])

    assert memory_knows(ports, ACCOUNT) is Verdict.UNKNOWN_TENANT
