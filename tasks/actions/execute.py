"""The hot path: an admitted action is carried out, at most once, inside its deadline (Runbook 5).

(1) look, and expire what waited too long: ``ready``; (2) claim; (3) ``run`` the handler; (4) one
commit of its end and receipt: ``finish``. What did not end well goes to ``tasks.actions.recover``.
``execute`` does it for one action, ``tasks.actions.dispatch`` for one after the other.
"""

import logging
import time
from dataclasses import dataclass, replace

from ggen_governor.handlers import ActionContext
from governor import actions as rules
from governor.actions import Action
from governor.errors import ConflictError, InputError, UnrecoverableError
from governor.fsm import ACTION, ActionState, advance
from governor.records import ProcessClaim
from governor.times import elapsed_ms, timestamp
from ledger import canonical
from ports import Ports
from ports.documents import Create, Write
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
ELSEWHERE = put_off("another process is at it")


@dataclass(frozen=True, slots=True)
class Finished:
    """An action whose handler has returned; its end, with its receipt, is not committed yet."""

    held: Held
    after: Action
    proof: Create
    run_s: float

    @property
    def writes(self) -> list[Write]:
        """What ends it, where nothing of it waits in the spool."""
        return transitions.writes(self.held, self.after, self.proof)


def execute(ports: Ports, account_id: str, action_id: str) -> Outcome:
    """Claim, run and end one action; does nothing when it is not pending any more."""
    found = transitions.load(ports, account_id, action_id)
    if found is None:
        return put_off("there is no such action")
    claim = ports.processes.claim(ports.clock.now())
    claimed = ready(ports, found, claim)
    if isinstance(claimed, Outcome):
        return claimed
    if not transitions.note_begun(ports, found.action, claim):
        return put_off("nothing is admitted")
    held = transitions.claim(ports, found, claimed)
    if held is None:
        return ELSEWHERE

    def to_its_end() -> Outcome:
        ended = run(ports, held)
        return finish(ports, ended) if isinstance(ended, Finished) else ended

    return or_kill_self(to_its_end)


def ready(ports: Ports, found: Held, claim: ProcessClaim) -> Action | Outcome:
    """A pending action as its claim makes it; or what became of one that is not to begin."""
    # A worker that finds it started changes nothing: the reaper ends what its claimer cannot.
    action = found.action
    if action.state is not ActionState.PENDING:
        return _as_it_is(action)
    # It waited too long: it ends without having begun (D10).
    queue_ms = elapsed_ms(action.accepted_at, ports.clock.now())
    if queue_ms >= action.queue_timeout_ms or _budget_ms(action, queue_ms) <= 0:
        is_expired = expire(ports, found)
        return failed(ActionTimedOut, rules.QUEUE_TIMEOUT) if is_expired else ELSEWHERE
    state = advance(ACTION, action.state, "claim")
    return action.evolve(state=state, claim=claim, queue_ms=queue_ms)


def run(ports: Ports, held: Held) -> Finished | Outcome:
    """Run the handler of an action that this process has claimed, under its deadline.

    What did not end well has been ended, and undone where it must be. Whoever calls this dies where
    it raises (``or_kill_self``): only this process knows what the handler did.
    """
    action = held.action
    budget_ms = _budget_ms(action, action.queue_ms or 0)
    context = transitions.context_of(action, ports.clock.monotonic_s() + budget_ms / 1000)
    ended = _run(ports, action, context, budget_ms)
    if ended.ending is Ending.RETURNED:
        return _finished(ports, held, ended)
    return replace(_recovered(ports, held, context, ended), run_s=ended.elapsed_s)


def finish(ports: Ports, finished: Finished, *, was_tried: bool = False) -> Outcome:
    """Commit the end of an action, or spool it; give its place back.

    With ``was_tried`` the store did not answer a commit of it in time: it is spooled at once.

    Raises:
        OutageError: the spool did not answer either; only this process knows of the end.
    """
    try:
        transitions.commit_or_spool(
            ports, finished.held, finished.after, finished.proof, was_tried=was_tried
        )
    except ConflictError:
        _LOG.warning(
            "action %s was ended by the reaper; its late result is refused",
            finished.after.action_id,
        )
        return failed(ActionFailed, "ended-by-the-reaper")
    transitions.free_slot(ports, finished.after)
    return replace(DONE, run_s=finished.run_s)


def _budget_ms(action: Action, queue_ms: int) -> int:
    return action.timeout_ms - (queue_ms if action.deadline_from_submit else 0)


def _as_it_is(action: Action) -> Outcome:
    """What a message finds that came again."""
    if action.state is ActionState.COMPLETE:
        return ALREADY_DONE
    if action.error_code:
        is_late = action.error_code in (rules.QUEUE_TIMEOUT, rules.DEADLINE_EXCEEDED)
        return failed(ActionTimedOut if is_late else ActionFailed, action.error_code)
    return ELSEWHERE


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


def _recovered(ports: Ports, held: Held, context: ActionContext, ended: Ended) -> Outcome:
    """What became of an action whose handler raised, or was stopped."""
    action, run_ms = held.action, round(ended.elapsed_s * 1000)
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


def _finished(ports: Ports, held: Held, ended: Ended) -> Finished:
    action, run_ms = held.action, round(ended.elapsed_s * 1000)
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
    return Finished(held, done, proof, ended.elapsed_s)
