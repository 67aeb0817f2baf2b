"""Runbooks 1 and 6 are killed at their writes, act and undo; the engine's own proof is elsewhere.

Afterwards there is a governor with all its resources and one ``entitlement_active``, or none of
them and one ``entitlement_failed``; whether the run succeeds, or fails at its end and is undone.
"""

import pytest

from governor.errors import ConflictError
from governor.fsm import RUN_OPEN, RunState
from governor.runs import Run
from ports import Ports
from tasks.marketplace import begin
from tasks.runbooks.entitlement_lifecycle import RUNBOOK
from tasks.runs.definition import Runbook
from tests.engine.conftest import event, on_both
from tests.support.faults import Fault, Writes, die, outage, watched
from tests.support.runs import (
    carry_on,
    everything_is_there,
    failing,
    later,
    nothing_is_left,
    operations,
    play_to_the_end,
    run_of,
)
from tests.support.stores import Stores

UNDONE = failing("entitlement_lifecycle.finish", ConflictError("x", "it fails at its end"))
WRITES = {"succeeds": 13, "undone": 24}
"""How many writes a run makes after it was begun; a test below counts them."""

RUNBOOKS = {"succeeds": RUNBOOK, "undone": UNDONE}
CASES = [
    pytest.param(backend, name, at, id=f"{backend}-{name}-{at}")
    for backend, every in (("embedded", 1), ("google", 4))
    for name, count in WRITES.items()
    for at in range(1, count + 1, every)
]


def _count(ports: Ports, runbook: Runbook) -> int:
    run = begin(ports, event(), b"{}")
    writes = Writes(0, "lost", outage)
    carry_on(watched(ports, writes), runbook, run.run_id)
    assert run_of(ports, run.run_id).state not in RUN_OPEN
    return writes.count


@on_both
@pytest.mark.parametrize("name", RUNBOOKS)
def test_a_run_makes_as_many_writes_as_are_broken_below(ports: Ports, name: str) -> None:
    assert _count(ports, RUNBOOKS[name]) == WRITES[name]


def _is_whole_or_gone(ports: Ports, run: Run) -> None:
    told = [operation for operation in operations(ports) if operation.startswith("entitlement")]
    if run.state is RunState.COMPLETE:
        assert everything_is_there(ports)
        assert told == ["entitlement_active"]
    else:
        assert run.state is RunState.FAILED
        assert nothing_is_left(ports)
        assert told == ["entitlement_failed"]


def _die(ports: Ports, name: str, at: int, fault: Fault, run_id: str) -> None:
    carry_on(watched(ports, Writes(at, fault, die)), RUNBOOKS[name], run_id)


def _killed(stores: Stores, name: str, at: int, fault: Fault, run_id: str) -> None:
    """A process of its own goes on with the run, and must die by its own hand."""
    child = stores.process(_die, name, at, fault, run_id)
    child.join(30)
    assert child.exitcode == -9


@pytest.mark.parametrize(("backend", "name", "at"), CASES, indirect=["backend"])
def test_killed_at_any_write_the_run_ends_whole_or_gone(
    ports: Ports, stores: Stores, name: str, at: int
) -> None:
    run = begin(ports, event(), b"{}")

    _killed(stores, name, at, "landed", run.run_id)

    ended = play_to_the_end(later(ports), run.run_id, RUNBOOKS[name])
    _is_whole_or_gone(ports, ended)


@pytest.mark.parametrize("first_at", [2, 6, 9, 14, 19])
@pytest.mark.parametrize("second_at", [1, 3, 5])
def test_killed_twice_the_run_ends_gone(
    ports: Ports, stores: Stores, first_at: int, second_at: int
) -> None:
    run = begin(ports, event(), b"{}")
    for at in (first_at, second_at):
        _killed(stores, "undone", at, "landed", run.run_id)

    _is_whole_or_gone(ports, play_to_the_end(later(ports), run.run_id, UNDONE))
