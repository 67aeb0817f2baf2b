"""What a failure means for a run: tried again, put off, undone, parked; by its family."""

import dataclasses
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from adapters.local.system import started_s
from governor import paths
from governor.errors import ConflictError, DeniedError, InputError, OutageError
from governor.fsm import RunState
from governor.runs import JournalEntry, Run
from governor.times import instant
from ports import Ports
from ports.documents import Update
from tasks.marketplace import begin
from tasks.outcomes import Ending
from tasks.runbooks.entitlement_lifecycle import RUNBOOK
from tasks.runs import failure
from tasks.runs.compensate import PARK_AFTER
from tasks.runs.definition import Result
from tests.engine.conftest import event
from tests.support.runs import (
    Act,
    LaterClock,
    everything_is_there,
    failing,
    later,
    link,
    nothing_is_left,
    operations,
    play,
    play_to_the_end,
    play_until,
    receipts,
    run_of,
    with_step,
)

STEPS = [s.name for s in RUNBOOK.steps]
DOWN = OutageError("down", "a dependency is down")


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A try in the same process goes on for a second; here many are waited for."""
    monkeypatch.setattr(failure, "PATIENCE_S", 0.2)


def _failing_times(step_name: str, times: int, error: Exception) -> Act:
    left = iter(range(times))
    act = RUNBOOK.step(step_name).act

    def fails(ports: Ports, run: Run) -> Result:
        if next(left, None) is not None:
            raise error
        return act(ports, run)

    return fails


@pytest.mark.parametrize("step_name", STEPS)
def test_an_outage_is_sat_out_until_the_deadline_and_then_all_is_undone(
    ports: Ports, step_name: str
) -> None:
    ticking = later(ports)
    run = begin(ticking, event(), b"{}")

    ended = play_to_the_end(ticking, run.run_id, failing(step_name, DOWN))

    assert ended.state is RunState.FAILED
    assert ended.error_code in ("run-deadline", "down")
    assert "a dependency is down" in (ended.error_detail or "")
    assert ticking.clock.now() >= instant(ended.deadline_at)
    assert nothing_is_left(ports)
    proof, alarm = receipts(ports)
    assert (proof["operation"], proof["failed_step"], proof["retryable"]) == (
        "entitlement_failed",
        step_name,
        True,
    )
    boot = step_name == "deploy_sku.governor"
    assert alarm["cause"] == ("governor_boot_failed" if boot else "run_failed")

    again = begin(ticking, event(), b"{}")
    assert again.attempt == 2
    assert play(ticking, again.run_id).state is RunState.COMPLETE


@pytest.mark.parametrize("step_name", STEPS)
def test_an_outage_that_passes_costs_the_run_nothing(ports: Ports, step_name: str) -> None:
    fails = _failing_times(step_name, 3, DOWN)

    ticking, runbook = later(ports), with_step(step_name, act=fails)
    ended = play_to_the_end(ticking, begin(ticking, event(), b"{}").run_id, runbook)

    assert ended.state is RunState.COMPLETE
    assert operations(ports) == ["entitlement_active"]


def test_a_run_that_is_put_off_is_taken_up_later_and_later(ports: Ports) -> None:
    ticking = later(ports)
    assert isinstance(ticking.clock, LaterClock)
    run = begin(ticking, event(), b"{}")
    broken = failing("deploy_sku.signals", DOWN)
    waits_s = []
    for n in range(1, 6):
        off = play(ticking, run.run_id, broken)
        entry = off.journal["deploy_sku.signals"]
        assert (off.state, entry.attempts, entry.claim) == (RunState.RUNNING, n, None)
        assert entry.error == "down: a dependency is down"
        assert off.retry_at
        assert play(ticking, run.run_id) == off  # whoever comes too early changes nothing
        waits_s.append((instant(off.retry_at) - ticking.clock.now()).total_seconds())
        ticking.clock.sleep_until(instant(off.retry_at))

    for n, wait_s in enumerate(waits_s):
        assert 0 < wait_s <= 0.5 * 2**n * 1.5
    assert waits_s[4] > waits_s[0]
    assert play(ticking, run.run_id).state is RunState.COMPLETE


def test_a_conflict_is_looked_at_again_at_once_and_then_undone(ports: Ports) -> None:
    moved = ConflictError("moved", "somebody moved it")
    fails = _failing_times("deploy_sku.documents", 2, moved)
    run = begin(ports, event(), b"{}")
    assert play(ports, run.run_id, with_step("deploy_sku.documents", act=fails)).retry_at is None
    assert everything_is_there(ports)

    other = begin(ports, event(event_id="e-2", account_id="other"), b"{}")
    ended = play(ports, other.run_id, failing("deploy_sku.documents", moved))
    assert (ended.state, ended.error_code) == (RunState.FAILED, "moved")
    assert nothing_is_left(ports, "other")


@pytest.mark.parametrize("error", [InputError("bad", "bad"), DeniedError("no", "no")])
def test_what_can_never_succeed_is_undone_for_good_at_once(ports: Ports, error: Exception) -> None:
    run = begin(ports, event(), b"{}")

    ended = play(ports, run.run_id, failing("deploy_sku.governor", error))

    assert ended.state is RunState.REFUSED
    assert nothing_is_left(ports)
    assert begin(ports, event(), b"{}") == ended
    assert operations(ports) == ["entitlement_failed"]


def test_a_fault_of_ours_is_undone_and_alarmed(ports: Ports) -> None:
    run = begin(ports, event(), b"{}")

    ended = play(ports, run.run_id, failing("deploy_sku.signals", KeyError("nobody knows")))

    assert (ended.state, ended.error_code) == (RunState.FAILED, "internal-error")
    assert operations(ports) == ["entitlement_failed", "alert_raised"]
    assert receipts(ports)[-1]["cause"] == "run_fault"
    assert nothing_is_left(ports)


# -- undoing


def _undo_fails(times: int) -> Callable[[Ports, Run, JournalEntry], None]:
    left = iter(range(times))
    undo = RUNBOOK.step("deploy_sku.signals").undo

    def fails(ports: Ports, run: Run, entry: JournalEntry) -> None:
        if next(left, None) is not None:
            raise RuntimeError("the topic cannot be deleted")
        undo(ports, run, entry)

    return fails


def test_an_undo_that_fails_is_tried_again_and_tells_nobody_when_it_holds(ports: Ports) -> None:
    ticking = later(ports)
    broken = failing("entitlement_lifecycle.finish", InputError("x", "x"))
    stuck = with_step("deploy_sku.signals", undo=_undo_fails(PARK_AFTER - 1), runbook=broken)

    ended = play_to_the_end(ticking, begin(ticking, event(), b"{}").run_id, stuck)

    assert ended.state is RunState.REFUSED
    assert operations(ports) == ["entitlement_failed"]
    assert nothing_is_left(ports)


def test_an_undo_that_keeps_failing_is_parked_alarmed_once_and_taken_up_again(ports: Ports) -> None:
    ticking = later(ports)
    assert isinstance(ticking.clock, LaterClock)
    broken = failing("entitlement_lifecycle.finish", InputError("x", "x"))
    stuck = with_step("deploy_sku.signals", undo=_undo_fails(PARK_AFTER + 2), runbook=broken)
    run = begin(ticking, event(), b"{}")
    for _ in range(PARK_AFTER):
        parked = play(ticking, run.run_id, stuck)
        assert parked.retry_at
        ticking.clock.sleep_until(instant(parked.retry_at))

    assert parked.state is RunState.PARKED
    assert operations(ports) == ["compensation_failed", "alert_raised"]
    assert receipts(ports)[-1]["severity"] == "critical"
    waiting = begin(ticking, event(event_id="e-2"), b"{}")
    assert play(ticking, waiting.run_id).state is RunState.PENDING  # the account is not clean yet

    ended = play_to_the_end(ticking, run.run_id, stuck)
    assert ended.state is RunState.REFUSED
    assert operations(ports) == ["compensation_failed", "alert_raised", "entitlement_failed"]
    assert nothing_is_left(ports)
    assert play(ticking, waiting.run_id).state is not RunState.PENDING


@pytest.mark.parametrize("failing_undo", range(2))
def test_undos_go_in_reverse_and_none_is_done_twice(ports: Ports, failing_undo: int) -> None:
    undone: list[str] = []

    def watched(name: str) -> Callable[[Ports, Run, JournalEntry], None]:
        undo, left = RUNBOOK.step(name).undo, iter(range(failing_undo))

        def carry_out(ports: Ports, run: Run, entry: JournalEntry) -> None:
            if name == "deploy_sku.documents" and next(left, None) is not None:
                raise RuntimeError("not now")
            undone.append(name)
            undo(ports, run, entry)

        return carry_out

    runbook = failing("entitlement_lifecycle.finish", ConflictError("x", "x"))
    for name in STEPS:
        runbook = with_step(name, undo=watched(name), runbook=runbook)
    ticking = later(ports)

    play_to_the_end(ticking, begin(ticking, event(), b"{}").run_id, runbook)

    assert undone == [name for name in reversed(STEPS) if RUNBOOK.step(name).undoes]


def test_an_undo_under_way_elsewhere_is_left_to_it_until_it_dies(ports: Ports) -> None:
    other = subprocess.Popen(["sleep", "600"])
    claim = ports.processes.claim(ports.clock.now()).evolve(
        pid=other.pid, process_started=started_s(other.pid)
    )
    run = play_until(ports, event(), "entitlement_lifecycle.finish")
    found = ports.documents.get(paths.run_path(run.run_id))
    assert found
    entry: JournalEntry = run.journal["deploy_sku.governor"].evolve(undo_claim=claim)
    undoing = run.evolve(
        state=RunState.COMPENSATING,
        error_code="x",
        error_detail="x",
        retryable=True,
        failed_step="deploy_sku.governor",
        journal={**run.journal, "deploy_sku.governor": entry},
    )
    ports.documents.commit([Update(found.path, undoing.document(), found.revision)])

    play(ports, run.run_id)
    assert run_of(ports, run.run_id).state is RunState.COMPENSATING
    other.kill()
    other.wait()
    play(ports, run.run_id)

    assert run_of(ports, run.run_id).state is RunState.FAILED
    assert nothing_is_left(ports)


def test_a_result_that_comes_after_the_step_was_taken_over_is_refused(ports: Ports) -> None:
    act = RUNBOOK.step("deploy_sku.signals").act

    def overtaken(ports: Ports, run: Run) -> Result:
        found = ports.documents.get(paths.run_path(run.run_id))
        assert found
        taken = Run.model_validate(found.data)
        entry = taken.journal["deploy_sku.signals"]
        assert entry.claim
        stolen = entry.evolve(claim=entry.claim.evolve(pid=1, host="elsewhere"))
        written = taken.evolve(journal={**taken.journal, "deploy_sku.signals": stolen})
        ports.documents.commit([Update(found.path, written.document(), found.revision)])
        return act(ports, run)

    run = play_until(ports, event(), "deploy_sku.signals")

    overtaking = with_step("deploy_sku.signals", act=overtaken)
    told = link(ports, "deploy_sku.signals", run.run_id, overtaking)
    assert told.ending is Ending.PUT_OFF
    late = run_of(ports, run.run_id)
    assert late.state is RunState.RUNNING
    assert late.journal["deploy_sku.signals"].state == "intent"


def test_what_was_found_is_left_when_a_run_is_undone(ports: Ports) -> None:
    ports.signals.create("acme", "us-central1")
    ports.signals.publish("acme", b"{}")

    run = begin(ports, event(), b"{}")
    play(ports, run.run_id, failing("deploy_sku.governor", ConflictError("x", "x")))

    assert ports.signals.backlog("acme") == 1


def test_a_store_that_is_away_leaves_the_run_to_the_reaper(ports: Ports) -> None:
    run = play_until(ports, event(), "deploy_sku.signals")

    class Away:
        def __getattr__(self, name: str) -> Any:
            def no(*_: object, **__: object) -> None:
                raise OutageError("documents-unavailable", "no answer")

            return no

    away = dataclasses.replace(ports, documents=Away())  # type: ignore[arg-type]
    with pytest.raises(OutageError):
        link(away, "deploy_sku.signals", run.run_id)

    assert run_of(ports, run.run_id) == run
    assert play(ports, run.run_id).state is RunState.COMPLETE
