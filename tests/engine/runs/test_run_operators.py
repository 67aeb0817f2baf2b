"""Runs in an operator's hands: listed, taken up again, cancelled, planned."""

import pytest

from governor import paths
from governor.errors import ConflictError, InputError
from governor.fsm import RunState
from governor.runs import Effect
from ports import Ports
from ports.documents import Query
from tasks.marketplace import begin, new_run
from tasks.runbooks import RUNBOOKS
from tasks.runbooks.entitlement_lifecycle import RUNBOOK
from tasks.runs import operators
from tasks.runs.operators import attempt_again
from tasks.runs.plan import plan
from tests.engine.conftest import event
from tests.support.runs import (
    everything_is_there,
    failing,
    has_key,
    later,
    memory_knows,
    nothing_is_left,
    operations,
    play,
    play_until,
    receipts,
    run_of,
    subscribe,
    text_of,
)


@pytest.mark.parametrize("done_before", [s.name for s in RUNBOOK.steps])
def test_a_cancelled_run_is_undone_at_its_next_step_and_receipted(
    ports: Ports, done_before: str
) -> None:
    run = play_until(ports, event(), done_before)

    asked = operators.cancel(ports, RUNBOOKS, run.run_id, "alice", "wrong customer")
    assert asked.state is run.state  # stored, not acted upon
    ended = play(ports, run.run_id)

    assert (ended.state, ended.error_code) == (RunState.CANCELLED, "run-cancelled")
    assert nothing_is_left(ports)
    assert operations(ports) == ["entitlement_failed", "run_cancelled"]
    told = receipts(ports)[-1]
    assert (told["operator"], text_of(ports, told), told["run_id"]) == (
        "alice",
        "wrong customer",
        run.run_id,
    )
    assert begin(ports, event(), b"{}") == ended  # the same answer on redelivery


def test_a_run_cancelled_while_its_last_step_acts_is_undone(ports: Ports) -> None:
    from governor.runs import Run
    from tasks.runs.definition import Result
    from tests.support.runs import with_step

    def meanwhile(ports: Ports, run: Run) -> Result:
        operators.cancel(ports, RUNBOOKS, run.run_id, "alice", "just in time")
        return Result()

    run = begin(ports, event(), b"{}")
    ended = play(ports, run.run_id, with_step("entitlement_lifecycle.finish", act=meanwhile))

    assert ended.state is RunState.CANCELLED
    assert nothing_is_left(ports)


def test_an_operator_who_writes_between_read_and_commit_undoes_nothing(ports: Ports) -> None:
    import dataclasses
    from collections.abc import Sequence

    from ports.documents import Update, Write

    run = play_until(ports, event(), "deploy_sku.signals")
    moves = iter(range(1))

    class Meanwhile:
        def __getattr__(self, name: str) -> object:
            return getattr(ports.documents, name)

        def commit(self, writes: Sequence[Write]) -> list[str]:
            is_done = any(
                isinstance(w, Update)
                and w.data.get("journal", {}).get("deploy_sku.signals", {}).get("state") == "done"
                for w in writes
            )
            if is_done and next(moves, None) is not None:
                found = ports.documents.get(paths.run_path(run.run_id))
                assert found
                ports.documents.commit([Update(found.path, found.data, found.revision)])
            return ports.documents.commit(writes)

    ended = play(dataclasses.replace(ports, documents=Meanwhile()), run.run_id)  # type: ignore[arg-type]

    assert next(moves, None) is None
    assert ended.state is RunState.COMPLETE
    assert everything_is_there(ports)


def test_a_run_that_waits_its_turn_can_be_cancelled(ports: Ports) -> None:
    first = play_until(ports, event(), "deploy_sku.signals")
    second = begin(ports, event(event_id="e-2"), b"2")

    operators.cancel(ports, RUNBOOKS, second.run_id, "alice", "")

    assert play(ports, second.run_id).state is RunState.CANCELLED
    assert play(ports, first.run_id).state is RunState.COMPLETE
    assert everything_is_there(ports)


def test_what_ended_or_is_being_undone_cannot_be_cancelled(ports: Ports) -> None:
    run = subscribe(ports, event())

    with pytest.raises(ConflictError, match="complete"):
        operators.cancel(ports, RUNBOOKS, run.run_id, "alice", "")
    with pytest.raises(InputError, match="no run"):
        operators.cancel(ports, RUNBOOKS, "run-x", "alice", "")
    assert run_of(ports, run.run_id) == run


def test_a_failed_run_is_attempted_again_and_a_put_off_one_at_once(ports: Ports) -> None:
    from governor.errors import OutageError

    run = begin(ports, event(), b"{}")
    off = play(ports, run.run_id, failing("deploy_sku.signals", OutageError("down", "down")))
    assert off.retry_at
    assert operators.resume(ports, RUNBOOKS, run.run_id).retry_at is None
    play(ports, run.run_id, failing("deploy_sku.signals", ConflictError("x", "x")))
    assert run_of(ports, run.run_id).state is RunState.FAILED

    again = operators.resume(ports, RUNBOOKS, run.run_id)

    assert (again.state, again.attempt, again.journal) == (RunState.PENDING, 2, {})
    assert play(ports, run.run_id).state is RunState.COMPLETE
    with pytest.raises(ConflictError, match="complete"):
        operators.resume(ports, RUNBOOKS, run.run_id)


def test_of_two_new_attempts_at_once_one_is_made(ports: Ports) -> None:
    run = begin(ports, event(), b"{}")
    play(ports, run.run_id, failing("deploy_sku.signals", ConflictError("x", "x")))
    found = ports.documents.get(paths.run_path(run.run_id))
    assert found

    first = attempt_again(ports, RUNBOOK, found)
    second = attempt_again(ports, RUNBOOK, found)

    assert first == second
    assert first.attempt == 2


def test_runs_are_listed_newest_first(ports: Ports) -> None:
    done = subscribe(ports, event())
    waiting = begin(ports, event(event_id="e-2", account_id="other"), b"{}")

    listed = operators.listed(ports, None, only_open=False, limit=10)
    assert [r.run_id for r in listed] == [waiting.run_id, done.run_id]
    assert operators.listed(ports, None, only_open=True, limit=10) == [waiting]
    assert operators.listed(ports, "acme", only_open=False, limit=10) == [done]


def _everything(ports: Ports) -> list[object]:
    groups = ("tenants", "runs", "turns")
    return [
        *(ports.documents.scan(Query(name, limit=100)) for name in groups),
        *(
            ports.documents.scan(Query(n, group=True, limit=100))
            for n in ("entitlements", "receipts")
        ),
        ports.signals.look("acme", "us-central1"),
        memory_knows(ports, "acme"),
        has_key(ports, "acme"),
    ]


def test_a_plan_says_what_would_be_created_and_touches_nothing(ports: Ports) -> None:
    before = _everything(ports)

    planned = plan(ports, RUNBOOK, new_run(ports, event(), b"{}"))

    assert [s.name for s in planned.steps] == [s.name for s in RUNBOOK.steps]
    effects = {name: effect for s in planned.steps for name, effect in s.effects.items()}
    assert effects == dict.fromkeys(
        (
            "tenants/acme",
            "tenants/acme/entitlements/demo-sku",
            "tenants.acme.signals",
            "governor of acme",
        ),
        Effect.CREATE,
    )
    assert all(s.undoes for s in planned.steps if s.effects)
    assert planned.refusal is None
    assert _everything(ports) == before


def test_a_plan_of_a_change_says_what_is_kept(ports: Ports) -> None:
    subscribe(ports, event())

    planned = plan(ports, RUNBOOK, new_run(ports, event(event_id="e-2"), b"{}"))

    effects = {name: effect for s in planned.steps for name, effect in s.effects.items()}
    assert effects == {
        "tenants/acme": Effect.KEEP,
        "tenants/acme/entitlements/demo-sku": Effect.CHANGE,
        "tenants.acme.signals": Effect.KEEP,
        "governor of acme": Effect.CHANGE,
    }


def test_a_plan_of_a_refusal_says_which_step_would_refuse(ports: Ports) -> None:
    planned = plan(ports, RUNBOOK, new_run(ports, event(sku_id="nope"), b"{}"))

    assert planned.refusal
    step_name, error = planned.refusal
    assert (step_name, error.code) == ("entitlement_lifecycle.policy", "no-policy")
    assert planned.steps == []


def test_a_plan_of_an_old_event_says_that_nothing_would_change(ports: Ports) -> None:
    subscribe(ports, event())
    older = event(event_id="e-0", event_time="2026-11-23T11:00:00.000000Z")

    assert plan(ports, RUNBOOK, new_run(ports, older, b"{}")).ends_with
    assert operations(ports) == ["entitlement_active"]


def test_a_plan_names_the_run_it_would_wait_for(ports: Ports) -> None:
    under_way = play_until(ports, event(), "deploy_sku.signals")

    planned = plan(later(ports), RUNBOOK, new_run(ports, event(event_id="e-2"), b"{}"))

    assert planned.waits_for == under_way.run_id
