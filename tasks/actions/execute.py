"""The hot path: an admitted action is carried out, at most once, inside its deadline (Runbook 5).

(1) look, (2) expire what waited too long, (3) claim, (4) run the handler, (5) one commit of its end
and receipt. What did not end well goes to ``tasks.actions.recover``.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from ggen_governor.handlers import ActionContext
from governor import actions as rules
from governor.actions import Action
from governor.errors import ConflictError, InputError, UnrecoverableError
from governor.fsm import ACTION, ActionState, advance
from governor.records import ProcessClaim
from governor.times import elapsed_ms, timestamp
from ledger import canonical
from ports import Ports
from tasks.actions import recover, transitions
from tasks.actions.calls import handler_of
from tasks.actions.deadline import Ended, Ending, run_within
from tasks.actions.transitions import Held
from tasks.outcomes import (
    ALREADY_DONE,
    DONE,
    ActionFailed,
    ActionTimedOut,
    Outcome,
    failed,
    put_off,
)
from tasks.receipts.commit import receipt
from tasks.receipts.fence import or_kill_self

_LOG = logging.getLogger("ggen.actions")
_ELSEWHERE = "another process is at it"


def execute(ports: Ports, account_id: str, action_id: str) -> Outcome:
    """Carry out one action by its id; see ``carry_out``."""
    found = transitions.load(ports, account_id, action_id)
    return carry_out(ports, found) if found else put_off("there is no such action")


def carry_out(
    ports: Ports,
    found: Held,
    begun: ProcessClaim | None = None,
    free: Callable[[Ports, Action], None] = transitions.free_slot,
) -> Outcome:
    """Claim, run and end one action; does nothing when it is not pending any more.

    Args:
        ports: everything it needs.
        found: the action.
        begun: by which claim it was begun already.
        free: gives back the place of an action that has ended well.
    """
    # (1) A worker that finds it started changes nothing: the reaper ends what its claimer cannot.
    action = found.action
    if action.state is not ActionState.PENDING:
        return _as_it_is(action)
    # (2) It waited too long: it ends without having begun (D10).
    queue_ms = elapsed_ms(action.accepted_at, ports.clock.now())
    budget_ms = action.timeout_ms - (queue_ms if action.deadline_from_submit else 0)
    if queue_ms >= action.queue_timeout_ms or budget_ms <= 0:
        is_expired = expire(ports, found)
        return failed(ActionTimedOut, rules.QUEUE_TIMEOUT) if is_expired else put_off(_ELSEWHERE)
    # (3) The claim, unless all that is new is refused; only one process ever gets past it.
    claim = begun or ports.processes.claim(ports.clock.now())
    if not begun and not transitions.note_begun(ports, action, claim):
        return put_off("nothing is admitted")
    action = action.evolve(
        state=advance(ACTION, action.state, "claim"), claim=claim, queue_ms=queue_ms
    )
    held = transitions.claim(ports, found, action)
    if held is None:
        return put_off(_ELSEWHERE)
    # (4) The handler, under its deadline. (5) The end: state and receipt in one commit; then what
    # must be undone.
    context = transitions.context_of(action, ports.clock.monotonic_s() + budget_ms / 1000)

    def run() -> Outcome:
        ended = _run(ports, action, context, budget_ms)
        return replace(_end(ports, held, context, ended, free), run_s=ended.elapsed_s)

    return or_kill_self(run)


def _as_it_is(action: Action) -> Outcome:
    """What a message finds that came again."""
    if action.state is ActionState.COMPLETE:
        return ALREADY_DONE
    if action.error_code:
        is_late = action.error_code in (rules.QUEUE_TIMEOUT, rules.DEADLINE_EXCEEDED)
        return failed(ActionTimedOut if is_late else ActionFailed, action.error_code)
    return put_off(_ELSEWHERE)


def expire(ports: Ports, found: Held, *, code: str = rules.QUEUE_TIMEOUT, why: str = "") -> bool:
    """End an action that was never started: failed, receipted, nothing to undo (D10).

    False where another process was first.
    """
    now, action = ports.clock.now(), found.action
    queue_ms = elapsed_ms(action.accepted_at, now)
    ended = action.evolve(
        state=advance(ACTION, action.state, "expire"),
        ended_at=timestamp(now),
        queue_ms=queue_ms,
        run_ms=0,
        error_code=code,
        error_detail=why or f"not started within {action.queue_timeout_ms} ms",
    )
    proof = receipt(
        ports,
        "action_timeout",
        action.account_id,
        action.action_id,
        status="failed",
        duration_ms=queue_ms,
        phase="queued",
        timeout_ms=action.queue_timeout_ms,
        rollback="none",
        error_code=ended.error_code,
        **transitions.end_fields(ended),
    )
    try:
        transitions.commit(ports, found, ended, proof, asks_for_seal=False)
    except ConflictError:
        return False  # claimed or ended meanwhile
    transitions.free_slot(ports, ended)
    return True


def _run(ports: Ports, action: Action, context: ActionContext, budget_ms: int) -> Ended:
    handler = handler_of(ports, action)
    if handler is None:
        missing = UnrecoverableError(
            "unknown-handler", f"this worker has no handler {action.handler!r}"
        )
        return Ended(Ending.RAISED, 0.0, error=missing)
    try:
        payload = handler.parse(action.payload)
    except Exception as error:  # the ingress takes what a model of another version refuses
        refused = UnrecoverableError("payload-invalid", str(error))
        refused.__cause__ = error
        return Ended(Ending.RAISED, 0.0, error=refused)
    # Its time begins now, not when the payload began to be read.
    context = replace(context, deadline_s=time.monotonic() + budget_ms / 1000)
    return run_within(budget_ms / 1000, lambda: handler.run(context, payload))


def _learned(context: ActionContext) -> str | None:
    """What a failed handler noted for its rollback; nothing where it spoilt that itself."""
    try:
        text = canonical.dumps(context.learned).decode() if context.learned else None
    except (InputError, TypeError, ValueError):
        return None
    return text if text is None or len(text) <= rules.MAX_RESULT_BYTES else None


def _end(
    ports: Ports,
    held: Held,
    context: ActionContext,
    ended: Ended,
    free: Callable[[Ports, Action], None],
) -> Outcome:
    action, run_ms = held.action, round(ended.elapsed_s * 1000)
    if ended.ending is not Ending.RETURNED:
        if ended.error:
            transitions.log_failure(action, "handler", ended.error)
        failure = (
            rules.timed_out(action)
            if ended.ending is Ending.TIMED_OUT
            else rules.failed(action, ended.error or RuntimeError("no error"))
        )
        learned = _learned(context)
        recover.recover(ports, held, failure, run_ms=run_ms, learned=learned)
        is_late = ended.ending is Ending.TIMED_OUT
        if is_late:
            _LOG.warning("action %s timed out after %d ms", action.action_id, run_ms)
        return failed(ActionTimedOut if is_late else ActionFailed, failure.error_code)
    done = action.evolve(
        state=advance(ACTION, action.state, "succeed"),
        ended_at=timestamp(ports.clock.now()),
        run_ms=run_ms,
        result=ended.value,
    )
    proof = receipt(
        ports,
        "action_complete",
        action.account_id,
        action.action_id,
        duration_ms=(action.queue_ms or 0) + run_ms,
        **transitions.end_fields(done),
    )
    try:
        transitions.commit_or_spool(ports, held, done, proof)
    except ConflictError:
        _LOG.warning(
            "action %s was ended by the reaper; its late result is refused", action.action_id
        )
        return failed(ActionFailed, "ended-by-the-reaper")
    free(ports, done)
    return DONE
