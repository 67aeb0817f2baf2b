"""Documents that fail on purpose: only while they shall, only for whom, and as they are told."""

import time
from pathlib import Path

import pytest

from adapters.drilled import DrilledDocuments, Switch
from adapters.local.sqlite import SqliteDocuments
from governor.errors import OutageError
from governor.health import Drill, Fault
from ports.documents import Create, Query

BOUND_S = 0.1


class Lever:
    """What a switch asks."""

    def __init__(self) -> None:
        self.drill: Drill | None = None
        self.asked = 0
        self.is_away = False

    def ask(self) -> Drill | None:
        self.asked += 1
        if self.is_away:
            raise OutageError("memory-unavailable", "Valkey does not answer")
        return self.drill


@pytest.fixture
def lever() -> Lever:
    return Lever()


@pytest.fixture
def documents(tmp_path: Path, lever: Lever) -> DrilledDocuments:
    inner = SqliteDocuments(tmp_path / "documents.db")
    inner.commit([Create("runs/r", {"a": 1}), Create("tenants/acme/actions/x", {"a": 1})])
    return DrilledDocuments(inner, Switch(lever.ask, 0), BOUND_S)


@pytest.mark.parametrize("fault", [f for f in Fault if f is not Fault.RANDOM])
def test_every_fault_fails_as_its_name_says(
    documents: DrilledDocuments, lever: Lever, fault: Fault
) -> None:
    lever.drill = Drill(drill_id="d", fault=fault)
    began = time.monotonic()

    try:
        found = documents.get("runs/r")
        is_read = found is not None and found.data == {"a": 1}
    except OutageError:
        is_read = False
    try:
        is_written = bool(documents.commit([Create("runs/new", {})]))
    except OutageError:
        is_written = False

    assert (is_read, is_written) == {
        Fault.SLOW: (True, True),
        Fault.DEAF: (False, True),
    }.get(fault, (False, False))
    if fault not in (Fault.SLOW, Fault.GARBAGE):
        with pytest.raises(OutageError):
            documents.scan(Query("runs"))
        with pytest.raises(OutageError):
            documents.created("tenants/acme/actions")
    if fault in (Fault.SLOW, Fault.HANG):
        assert time.monotonic() - began > BOUND_S
    lever.drill = None
    assert documents.get("runs/r")
    assert len(documents.scan(Query("runs"))) >= 1
    documents.close()


def test_chance_brings_every_fault(documents: DrilledDocuments, lever: Lever) -> None:
    lever.drill = Drill(drill_id="d", fault=Fault.RANDOM)
    seen = set()
    for _ in range(60):
        try:
            found = documents.get("runs/r")
            seen.add("garbage" if found and found.data != {"a": 1} else "slow")
        except OutageError as error:
            seen.add(error.status)

    assert seen == {"garbage", "slow", "UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
    documents.close()


def test_a_drill_of_some_tenants_leaves_the_others_alone(
    documents: DrilledDocuments, lever: Lever
) -> None:
    lever.drill = Drill(drill_id="d", fault=Fault.REFUSE, accounts=["acme"])

    assert documents.get("runs/r")
    assert documents.get("tenants/other") is None
    assert documents.scan(Query("actions", group=True))
    for path in ("tenants/acme", "tenants/acme/actions/x"):
        with pytest.raises(OutageError):
            documents.get(path)
    with pytest.raises(OutageError):
        documents.scan(Query("tenants/acme/actions"))
    with pytest.raises(OutageError):
        documents.commit([Create("runs/other", {}), Create("tenants/acme/actions/y", {})])
    assert documents.get("runs/other") is None
    documents.close()


def test_the_switch_is_asked_now_and_then_and_left_alone_while_memory_is_away(lever: Lever) -> None:
    switch = Switch(lever.ask, 3600)
    lever.drill = Drill(drill_id="d", fault=Fault.REFUSE)
    for _ in range(100):
        assert switch.drill() == lever.drill
    assert lever.asked == 1

    lever.is_away = True
    away = Switch(lever.ask, 0)
    for _ in range(100):
        assert away.drill() is None
    assert lever.asked == 2


def test_the_switch_is_asked_at_once_when_memory_has_answered_again(lever: Lever) -> None:
    answered_s = 0.0
    switch = Switch(lever.ask, 3600, lambda: answered_s)
    lever.is_away = True
    assert switch.drill() is None
    answered_s = time.monotonic() - 1  # before it went away
    assert switch.drill() is None
    assert lever.asked == 1

    lever.is_away, lever.drill = False, Drill(drill_id="d", fault=Fault.REFUSE)
    answered_s = time.monotonic()  # a health check of this process, for example

    assert switch.drill() == lever.drill
    assert switch.drill() == lever.drill
    assert lever.asked == 2
