"""The reaper: ends what its own process cannot end any more, every second.

It reads, fences and enqueues; handlers and undos are never run here. Documents decide: a slot or a
message is only a hint to look.
"""

import contextlib
import logging
from collections.abc import Iterator
from datetime import timedelta

from adapters import wiring
from governor import actions as rules
from governor import records
from governor.actions import Failure
from governor.errors import OutageError, RecoverableError, UnrecoverableError
from governor.fsm import ActionState, RunState
from governor.quota import month_of
from governor.records import Action, Run, elapsed_ms, instant
from ports import Ports
from ports.documents import Document, Where, every
from ports.memory import Slot
from tasks import actions, recover_action
from tasks.celery import app
from tasks.execute_action import execute, expire
from tasks.journal import claims_of, is_due, is_free, start
from tasks.runbook import OPEN, RUNBOOKS_BY_NAME

_LOG = logging.getLogger("ggen.reaper")
_UNDER_WAY = (
    ActionState.PENDING, ActionState.RUNNING, ActionState.ROLLING_BACK, ActionState.ROLLBACK_FAILED,
)  # fmt: skip
_BATCH = 500
_FIRST_REPUBLISH_S, _REPUBLISH_EVERY_S = 2.0, 5.0
_RUN_STALE_S, _RUN_RESTART_EVERY_S = 2.0, 3.0
_RUN_DEAD_EVERY_S, _RUN_RESTART_AT_LEAST_S, _UNKNOWN_EVERY_S = 1.0, 10.0, 600.0


@app.task(name="reap.sweep", send_events=False)
def sweep() -> None:
    """One look at everything under way, by one reaper at a time."""
    ports = wiring.ports()
    if ports.memory.claim_tick("reap", 0.8):
        look(ports)


def look(ports: Ports) -> None:
    """End what is past its time, take up what was dropped."""
    for document in every(ports.documents, "actions", Where("state", "in", _UNDER_WAY)):
        with _apart(document.path):
            _look_at_action(ports, document, Action.model_validate(document.data))
    for slot in ports.memory.overdue(_BATCH):
        with _apart(slot.action_id):
            _look_at_slot(ports, slot)
    for document in every(ports.documents, "runs", Where("state", "in", OPEN)):
        with _apart(document.path):
            _look_at_run(ports, Run.model_validate(document.data))


@contextlib.contextmanager
def _apart(what: str) -> Iterator[None]:
    """Keep one poisoned record from shielding all the others; an outage ends the sweep."""
    try:
        yield
    except OutageError:
        raise
    except Exception:
        _LOG.exception("the reaper could not deal with %s", what)


def _look_at_action(ports: Ports, found: Document, action: Action) -> None:
    age_ms = elapsed_ms(action.accepted_at, ports.clock.now())
    match action.state:
        case ActionState.PENDING:
            if age_ms >= action.queue_timeout_ms:
                expire(ports, found, action)
            elif age_ms >= _FIRST_REPUBLISH_S * 1000:
                _enqueue(ports, execute, action)
        case ActionState.RUNNING:
            if action.claim and ports.processes.is_gone(action.claim):
                _LOG.warning("action %s: its process is gone", action.action_id)
                lived = action.evolve(run_ms=elapsed_ms(action.claim.claimed_at, ports.clock.now()))
                recover_action.recover(ports, lived, _lost(ports, action), undo_here=False)
        case _:
            if recover_action.may_take_over(ports, action):
                _enqueue(ports, recover_action.roll_back, action)


def _look_at_slot(ports: Ports, slot: Slot) -> None:
    found = ports.documents.get(records.action_path(slot.account_id, slot.action_id))
    if found is None:
        # Admitted, and lost before it was stored: nobody was told it was accepted.
        ports.memory.release(slot, refund_month=month_of(ports.clock.now()))
        return
    action = Action.model_validate(found.data)
    if action.state in (ActionState.PENDING, ActionState.ROLLING_BACK):
        ports.memory.keep(slot, 1_000)
    elif action.state is ActionState.RUNNING:
        _look_at_overdue(ports, action)
    else:
        ports.memory.release(slot)


def _look_at_overdue(ports: Ports, action: Action) -> None:
    """A claim past its hard limit: fenced if it is on another host, killed first if it is here.

    Celery should have killed it; it does not while its worker's parent waits for the broker.
    """
    claim = action.claim
    limit = timedelta(milliseconds=rules.hard_limit_ms(action) + rules.SLOT_MARGIN_MS)
    is_over = claim is None or instant(claim.claimed_at) + limit <= ports.clock.now()
    own_host = ports.processes.claim(ports.clock.now()).host
    if is_over and (claim is None or claim.host != own_host):
        recover_action.recover(ports, action, rules.timed_out(action), undo_here=False)
        return
    if is_over and claim is not None:
        _LOG.warning("action %s is past its hard limit; its process is killed", action.action_id)
        ports.processes.kill(claim)
    ports.memory.keep(actions.slot_of(action), 1_000)


def _lost(ports: Ports, action: Action) -> Failure:
    """How an action ended whose process died: past its deadline it has timed out (D18)."""
    claimed_at = action.claim.claimed_at if action.claim else action.accepted_at
    if elapsed_ms(claimed_at, ports.clock.now()) >= action.timeout_ms:
        return rules.timed_out(action)
    kind = RecoverableError if action.recoverable else UnrecoverableError
    return rules.failed(action, kind("WORKER_LOST", "the process carrying it out died"))


def _look_at_run(ports: Ports, run: Run) -> None:
    """Have a run taken up again that nobody is at: put off, dropped, or left by a dead process."""
    age_s = elapsed_ms(run.started_at, ports.clock.now()) / 1000
    if not is_due(ports, run) or not is_free(ports, run):
        return
    is_late = ports.clock.now() > instant(run.deadline_at)
    every_s = _RUN_DEAD_EVERY_S
    if not (claims_of(run) or run.retry_at or is_late):
        # Its message was lost, or waits in a long queue: ask less and less often.
        every_s = min(_RUN_RESTART_AT_LEAST_S, max(_RUN_RESTART_EVERY_S, age_s / 2))
        if age_s < _RUN_STALE_S or _waits_its_turn(ports, run):
            return
    if run.runbook not in RUNBOOKS_BY_NAME:
        if ports.memory.claim_tick(f"unknown:{run.run_id}", _UNKNOWN_EVERY_S):
            _LOG.error("run %s is of %s, which nobody here knows", run.run_id, run.runbook)
        return
    if ports.memory.claim_tick(f"restart:{run.run_id}", every_s):
        _LOG.warning("run %s (%s) is taken up again", run.run_id, run.state)
        start(run, RUNBOOKS_BY_NAME[run.runbook])


def _waits_its_turn(ports: Ports, run: Run) -> bool:
    if run.state is not RunState.PENDING or run.cancellation:
        return False
    turn = ports.documents.get(records.turn_path(run.account_id))
    return turn is not None and turn.data["run_id"] != run.run_id


def _enqueue(ports: Ports, task: object, action: Action) -> None:
    if ports.memory.claim_tick(f"enqueue:{action.action_id}", _REPUBLISH_EVERY_S):
        actions.publish(task, action)
