"""One process carries out one action after the other: an end and the next claim are one commit."""

import dataclasses
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from governor import actions as rules
from governor.actions import Action
from governor.fsm import ActionState
from ports import Ports
from ports.documents import Write
from tasks import ticks
from tasks.actions import dispatch, transitions
from tasks.actions.admit import submit
from tasks.actions.execute import expire
from tasks.actions.recover import recover, roll_back
from tasks.outcomes import Outcome
from tests.engine.conftest import event, on_both
from tests.support.actions import (
    action_of,
    in_flight,
    later,
    operations,
    signal_of,
)
from tests.support.faults import Fault, FaultyDocuments, WatchedDocuments, Writes
from tests.support.runs import subscribe
from tests.support.stores import Stores

pytestmark = on_both
LIMIT_MS = 3_600


@pytest.fixture(autouse=True)
def _governor(ports: Ports) -> None:
    subscribe(ports, event(plan_type="professional"))


def _serve(ports: Ports, told: Callable[[Action, Outcome], None] = lambda *_: None) -> int:
    """What a process does that was called just now."""
    ports.dispatch.unserved()
    newest = ports.dispatch.leave(LIMIT_MS, "nobody", None).round
    return dispatch.serve(ports, LIMIT_MS, newest, lambda *_: None, told)


def _submitted(ports: Ports, count: int) -> list[str]:
    return [submit(ports, signal_of(f"s-{number}")) for number in range(count)]


def _with(ports: Ports, documents: Any) -> Ports:
    return dataclasses.replace(ports, documents=documents)


def test_an_end_and_the_next_claim_are_one_commit(ports: Ports) -> None:
    ids = _submitted(ports, 3)
    counting = FaultyDocuments(ports.documents, "lost", set())
    told: list[tuple[str, str]] = []

    assert _serve(_with(ports, counting), lambda a, o: told.append((a.action_id, o.ending))) == 3

    assert counting.commits == 4
    assert told == [(action_id, "done") for action_id in ids]
    for action_id in ids:
        assert operations(ports, action_id) == ["action_complete"]
    assert in_flight(ports) == 0
    assert ports.memory.claims() == []
    assert ports.memory.due(10) == []


@pytest.mark.parametrize("fault", ["lost", "landed"])
@pytest.mark.parametrize("failing", [1, 2, 3])
def test_whichever_commit_fails_once_each_action_ends_once(
    ports: Ports, fault: Fault, failing: int
) -> None:
    ids = _submitted(ports, 2)

    assert _serve(_with(ports, FaultyDocuments(ports.documents, fault, {failing}))) == 2

    for action_id in ids:
        assert operations(ports, action_id) == ["action_complete"]
    assert in_flight(ports) == 0


@pytest.mark.parametrize("fault", ["lost", "landed"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_wherever_the_process_dies_each_action_ends_once(
    ports: Ports, stores: Stores, fault: Fault, at: int
) -> None:
    ids = _submitted(ports, 2)
    child = stores.process(_serve_and_die, at, fault)
    child.join()
    assert child.exitcode == -signal.SIGKILL

    ticks.look(ports)
    _serve(ports)
    for action_id in ids:
        roll_back(later(ports, 1), "acme", action_id)

    lost = {(1, "landed"): 0, (2, "lost"): 0, (2, "landed"): 1, (3, "lost"): 1}.get((at, fault))
    for number, action_id in enumerate(ids):
        undone = ["action_failed", "action_rolled_back"]
        assert operations(ports, action_id) == (undone if number == lost else ["action_complete"])
    assert in_flight(ports) == 0


def _serve_and_die(ports: Ports, at: int, fault: Fault) -> None:
    writes = Writes(at, fault, lambda: os.kill(os.getpid(), signal.SIGKILL))
    _serve(_with(ports, WatchedDocuments(ports.documents, writes)))


class _Overtaken:
    """Documents where something happens just before an end and a claim are committed together."""

    def __init__(self, inner: Any, happen: Callable[[], object]) -> None:
        self._inner, self._happen = inner, happen

    def commit(self, writes: Sequence[Write]) -> list[str]:
        if sum("/actions/" in write.path for write in writes) == 2:
            self._happen()
        return list(self._inner.commit(writes))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_a_claim_that_is_refused_leaves_the_end_before_it(ports: Ports) -> None:
    first, second = _submitted(ports, 2)

    def cancel() -> None:
        held = transitions.load(ports, "acme", second)
        assert held
        assert expire(ports, held, code=rules.DRAINED, why="its entitlement was cancelled")

    _serve(_with(ports, _Overtaken(ports.documents, cancel)))

    assert operations(ports, first) == ["action_complete"]
    assert operations(ports, second) == ["action_timeout"]
    assert action_of(ports, second).error_code == rules.DRAINED
    assert in_flight(ports) == 0


def test_an_end_that_is_refused_leaves_the_claim_after_it(ports: Ports) -> None:
    first, second = _submitted(ports, 2)
    told: dict[str, Outcome] = {}

    def fence() -> None:
        held = transitions.load(ports, "acme", first)
        assert held
        recover(ports, held, rules.timed_out(held.action), run_ms=500, undo_here=False)

    overtaken = _with(ports, _Overtaken(ports.documents, fence))
    _serve(overtaken, lambda action, outcome: told.update({action.action_id: outcome}))

    assert operations(ports, first) == ["action_timeout"]
    assert action_of(ports, first).state is ActionState.ROLLING_BACK
    assert operations(ports, second) == ["action_complete"]
    assert told[first].why == "ended-by-the-reaper"


def test_an_end_is_not_lost_where_memory_does_not_answer_for_the_next(ports: Ports) -> None:
    first, second = _submitted(ports, 2)

    with pytest.raises(RuntimeError):
        _serve(dataclasses.replace(ports, memory=_GoneAfter(ports.memory, 1)))

    assert operations(ports, first) == ["action_complete"]
    assert action_of(ports, second).state is ActionState.PENDING


class _GoneAfter:
    """Memory that answers ``count`` questions for an action, and then no more."""

    def __init__(self, inner: Any, count: int) -> None:
        self._inner, self._left = inner, count

    def take(self, *args: Any, **kwargs: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise RuntimeError("a bug, or an outage")
        return self._inner.take(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
