"""Runbook 5: an action that failed or ran out of time is receipted, undone, and never forgotten.

=========  =====================================================================================
recover    one commit: the failure's state and receipt (and alert, when nothing can undo it)
roll_back  the handler's rollback under its own deadline, then one commit: undone, or failed again
=========  =====================================================================================

A rollback runs in the child that ran the handler, right after it; when that child died, the reaper
has the actions worker take the claim over. Never beside its own handler (D18).
"""

import logging
from datetime import timedelta
from typing import Any

from governor import actions as rules
from governor.actions import Action, Failure
from governor.errors import ConflictError
from governor.fsm import ACTION, ActionState, advance
from governor.quota import Verdict
from governor.times import instant, timestamp
from ports import Ports
from ports.documents import Create
from tasks import publish
from tasks.actions import transitions
from tasks.actions.calls import handler_of
from tasks.actions.deadline import Ended, Ending, run_within
from tasks.actions.transitions import Held
from tasks.outcomes import ALREADY_DONE, DONE, Outcome, RollbackFailed, failed, put_off
from tasks.receipts import spool
from tasks.receipts.commit import alert, explained, receipt
from tasks.receipts.fence import or_kill_self

_LOG = logging.getLogger("ggen.actions")


def recover(
    ports: Ports,
    held: Held,
    failure: Failure,
    *,
    run_ms: int,
    undo_here: bool = True,
    learned: str | None = None,
) -> bool:
    """End a running action as failed or timed out and, where the failure allows, undo it.

    False where another process had ended it. With ``undo_here`` false (the reaper) the undo is left
    to the actions worker.
    """
    action = held.action
    ended = action.evolve(
        state=failure.state,
        run_ms=run_ms,
        ended_at=None if failure.rolls_back else timestamp(ports.clock.now()),
        error_code=failure.error_code,
        error_detail=failure.error_detail,
        learned=learned,
        is_counted=failure.is_counted,
    )
    proof, *texts = _failure_receipts(ports, ended, failure)
    writes, told = [proof, *texts], None
    if failure.rollback == "impossible":
        raised, told = alert(
            ports,
            "critical",
            "action_failed",
            action.account_id,
            action.action_id,
            f"{failure.error_code}: {failure.error_detail}",
            cause_receipt=proof,
        )
        writes += raised
    ended = ended.evolve(failure_receipt_id=proof.data["receipt_id"])
    try:
        if undo_here:
            now_held = transitions.commit_or_spool(ports, held, ended, *writes)
        else:
            now_held = transitions.commit(ports, held, ended, *writes, asks_for_seal=False)
    except ConflictError:
        _LOG.warning("action %s had been ended by another process", action.action_id)
        return False
    if told:
        ports.alerts.send(told)
    if not failure.rolls_back:
        transitions.free_slot(ports, ended)
    elif undo_here:
        if ended.claim:
            transitions.note_undo(ports, ended, ended.claim)
        _undo(ports, now_held)
    else:
        publish.roll_back(ended)
    return True


def roll_back(ports: Ports, account_id: str, action_id: str) -> Outcome:
    """Claim a rollback that is due and carry it out; does nothing when it is not.

    Raises:
        OutageError: Memory, Documents or the spool does not answer; nothing was undone.
    """
    if ports.lease.standing(account_id) is not Verdict.ADMITTED:
        return put_off("nothing is admitted")  # the reaper hands it out again, afterwards
    found = transitions.load(ports, account_id, action_id)
    if found is None:
        return put_off("there is no such action")
    action = found.action
    if action.state is ActionState.ROLLED_BACK:
        return ALREADY_DONE
    if why := _why_not_now(ports, action):
        return put_off(why)
    events = ["retry"] if action.state is ActionState.ROLLBACK_FAILED else []
    claim = ports.processes.claim(ports.clock.now())
    transitions.note_undo(ports, action, claim)
    claimed = action.evolve(
        state=advance(ACTION, action.state, *events),
        claim=claim,
        rollback_attempts=action.rollback_attempts + (0 if events else 1),
    )
    held = transitions.claim(ports, found, claimed)
    if held is None:
        return put_off("another process is at it")
    return or_kill_self(lambda: _undo(ports, held))


def _why_not_now(ports: Ports, action: Action) -> str:
    if not may_take_over(ports, action):
        return "it is not due, or another process is at it"
    is_kept = spool.holds(ports, action.account_id, action.action_id)
    return "it was undone; its end waits in the spool" if is_kept else ""


def may_take_over(ports: Ports, action: Action) -> bool:
    """Whether a rollback is due and no other process is at it."""
    now = ports.clock.now()
    if action.state is ActionState.ROLLBACK_FAILED:
        return action.retry_at is not None and instant(action.retry_at) <= now
    if action.state is not ActionState.ROLLING_BACK or action.claim is None:
        return False
    rest = timedelta(seconds=rules.retry_after_s(action.rollback_attempts))
    rested = action.rollback_attempts == 0 or instant(action.claim.claimed_at) + rest <= now
    return rested and transitions.is_abandoned(ports, action, action.claim)


def _undo(ports: Ports, held: Held) -> Outcome:
    action = held.action
    ended = _run_rollback(ports, action)
    elapsed = round(ended.elapsed_s * 1000)
    if ended.ending is Ending.RETURNED:
        after, proofs = _undone(ports, action), [_undone_receipt(ports, action, elapsed)]
        transitions.commit_or_spool(ports, held, after, *proofs)
        transitions.free_slot(ports, after)
        return DONE
    if ended.error:
        transitions.log_failure(action, "rollback", ended.error)
    after = _undo_failed(ports, action, ended).evolve(is_alerted=True)
    proofs = _undo_failed_receipts(ports, after, elapsed, rules.rollback_limit_ms(action))
    told = None
    # One alert an action: its state and ggen status tell the rest. Release 0.1.0 alerted each time.
    is_first = after.rollback_attempts == 1 if action.is_alerted is None else not action.is_alerted
    if is_first:
        raised, told = alert(
            ports,
            "critical",
            "rollback_failed",
            action.account_id,
            action.action_id,
            f"{after.error_code}: it is tried again with more time, until it holds, or until: "
            f"ggen actions resolve {action.action_id} --account-id {action.account_id}",
            cause_receipt=proofs[0],
        )
        proofs += raised
    transitions.commit_or_spool(ports, held, after, *proofs)
    if told:
        ports.alerts.send(told)
    rest_ms = round(rules.retry_after_s(after.rollback_attempts) * 1000)
    transitions.free_slot(ports, after, look_in_ms=rest_ms)
    return failed(RollbackFailed, after.error_code or "unknown")


def _run_rollback(ports: Ports, action: Action) -> Ended:
    handler = handler_of(ports, action)
    seconds = rules.rollback_limit_ms(action) / 1000
    if handler is None:
        missing = LookupError(f"this worker has no handler {action.handler!r}")
        return Ended(Ending.RAISED, 0.0, error=missing)
    try:
        payload = handler.parse(action.payload)
    except Exception as error:  # whatever a model raises, the rollback is still owed
        return Ended(Ending.RAISED, 0.0, error=error)
    context = transitions.context_of(action, ports.clock.monotonic_s() + seconds)
    return run_within(seconds, lambda: handler.roll_back(context, payload))


def _undone(ports: Ports, action: Action) -> Action:
    return action.evolve(
        state=advance(ACTION, action.state, "undone"),
        ended_at=timestamp(ports.clock.now()),
        retry_at=None,
    )


def _undo_failed(ports: Ports, action: Action, ended: Ended) -> Action:
    attempts = action.rollback_attempts + 1
    retry_at = ports.clock.now() + timedelta(seconds=rules.retry_after_s(attempts))
    timed_out = ended.ending is Ending.TIMED_OUT
    return action.evolve(
        state=advance(ACTION, action.state, "undo_failed"),
        rollback_attempts=attempts,
        retry_at=timestamp(retry_at),
        error_code="ROLLBACK_TIMEOUT"
        if timed_out
        else rules.error_code(ended.error or Exception()),
        error_detail=(
            f"the rollback did not end within {rules.rollback_limit_ms(action)} ms"
            if timed_out
            else rules.text_of(ended.error or Exception())
        ),
    )


def _failure_receipts(ports: Ports, ended: Action, failure: Failure) -> list[Create]:
    """The receipt of a failure, and the text it names."""
    fields: dict[str, Any] = {
        "status": "failed",
        "duration_ms": (ended.queue_ms or 0) + (ended.run_ms or 0),
        "error_code": failure.error_code,
        "rollback": failure.rollback,
        **transitions.end_fields(ended),
    }
    of = ports, failure.operation, ended.account_id, ended.action_id
    if failure.operation == "action_timeout":
        return [receipt(*of, phase="running", timeout_ms=ended.timeout_ms, **fields)]
    return explained(*of, failure.error_detail, is_recoverable=failure.is_recoverable, **fields)


def _undone_receipt(ports: Ports, action: Action, elapsed: int) -> Create:
    return receipt(
        ports,
        "action_rolled_back",
        action.account_id,
        action.action_id,
        status="rolled_back",
        duration_ms=elapsed,
        rollback_duration_ms=elapsed,
        **transitions.names(action),
        previous_action_receipt_id=action.failure_receipt_id,
    )


def _undo_failed_receipts(ports: Ports, after: Action, elapsed: int, limit_ms: int) -> list[Create]:
    return explained(
        ports,
        "rollback_failed",
        after.account_id,
        after.action_id,
        after.error_detail or "",
        rollback_timeout_ms=limit_ms,
        attempt=after.rollback_attempts,
        status="failed",
        duration_ms=elapsed,
        rollback_attempt=after.rollback_attempts,
        **transitions.names(after),
        previous_action_receipt_id=after.failure_receipt_id,
        error_code=after.error_code,
        retry_at=after.retry_at,
    )
