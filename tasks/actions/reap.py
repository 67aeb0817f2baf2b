"""The reaper's look at actions: lost messages, dead processes, time that has run out.

Memory says where to look: slots whose time has come, and claims whose process is gone. What it has
forgotten is found once a minute, in the store. Documents decide.
"""

import logging
from collections.abc import Callable, Iterator

from governor import actions as rules
from governor.actions import Action, Failure
from governor.errors import OutageError, RecoverableError, UnrecoverableError
from governor.fsm import ActionState
from governor.health import Scope
from governor.quota import Verdict, month_of
from governor.records import ProcessClaim
from governor.times import elapsed_ms
from ports import Ports
from ports.documents import Where, every
from ports.slots import Slot
from tasks import publish
from tasks.action_events import ActionEvents
from tasks.actions import dispatch, recover, transitions
from tasks.actions.execute import expire
from tasks.actions.transitions import Held
from tasks.outcomes import ActionFailed, ActionTimedOut, failed
from tasks.receipts import spool
from tasks.sweep import for_a_while, isolating_errors

_LOG = logging.getLogger("ggen.reaper")
_BATCH = 500
PATIENCE_S = 4.0
"""How long one sweep begins new looks at due slots; the next goes on, a second later."""


def look_at_due(ports: Ports) -> None:
    """Look at what Memory says is due, and at whatever has lost the process that was at it."""
    for slot, age_ms in for_a_while(ports, _due(ports), PATIENCE_S):
        _look_apart(ports, slot, age_ms)


def _due(ports: Ports) -> Iterator[tuple[Slot, int | None]]:
    """Each slot to look at, and how long ago Memory admitted its action, if Memory knows."""
    for due in ports.slots.due(_BATCH):
        yield due.slot, due.age_ms
    for slot, claim in ports.slots.claims():
        if ports.processes.is_gone(claim):
            yield slot, None


def _look_apart(ports: Ports, slot: Slot, age_ms: int | None) -> None:
    """Look at one; where its store fails, at others first the next time."""
    with isolating_errors(slot.action_id):
        try:
            _look_at_slot(ports, slot, age_ms)
        except OutageError as error:
            ports.slots.look_again(slot, rules.FIRST_LOOK_MS)
            if ports.lease.standing(slot.account_id) is Verdict.ADMITTED and not _is_drilled(ports):
                raise
            _LOG.info("%s waits for its tenant's store: %s", slot.action_id, error)


def _is_drilled(ports: Ports) -> bool:
    """Whether a drill fails some tenants' store: other tenants' actions must not wait for it."""
    drill = ports.modes.drill()
    return drill is not None and drill.scope is Scope.SOME


def look_at_all(ports: Ports) -> int:
    """Look at every action under way, whatever Memory knows; how many had been lost sight of."""
    orphans, states = 0, dict.fromkeys((f"action|{state}" for state in rules.UNDER_WAY), 0)
    under_way = Where("state", "in", rules.UNDER_WAY)
    for document in every(ports.documents, "actions", under_way, group=True):
        with isolating_errors(document.path):
            held = Held(transitions.known(Action.stored(document.data)), document.revision)
            states[f"action|{held.action.state}"] += 1
            overdue = rules.is_overdue(held.action, ports.clock.now())
            if overdue and not ports.slots.is_watched(Slot.of(held.action)):
                orphans += 1
                _LOG.error("action %s had been lost sight of", held.action.action_id)
            _look(ports, held)
    ports.measures.note_states(states)
    return orphans


def _look_at_slot(ports: Ports, slot: Slot, age_ms: int | None) -> None:
    held = transitions.load(ports, slot.account_id, slot.action_id)
    if held is not None:
        _look(ports, held)
    elif age_ms is not None and age_ms < rules.UNSTORED_MS:
        ports.slots.look_again(slot, rules.UNSTORED_MS - age_ms)
    else:
        # Admitted, and lost before it was stored: the ingress never acknowledged its signal.
        ports.slots.release(slot, refund_month=month_of(ports.clock.now()))


def _look(ports: Ports, held: Held) -> None:
    action = held.action
    match action.state:
        case ActionState.PENDING:
            _look_at_queued(ports, held)
        case ActionState.RUNNING:
            _look_at_running(ports, held)
        case ActionState.ROLLING_BACK | ActionState.ROLLBACK_FAILED:
            _look_at_undo(ports, action)
        case _:
            transitions.free_slot(ports, action)


def _look_at_queued(ports: Ports, held: Held) -> None:
    """Look at an action no worker claimed: it expired, or it is put into its list, if not there."""
    action = held.action
    _hold_if_unknown(ports, action)
    age_ms = elapsed_ms(action.accepted_at, ports.clock.now())
    if age_ms >= action.queue_timeout_ms:
        expire(ports, held)
        return
    look_in_ms = rules.queued_look_in_ms(action, age_ms)
    _hand_out(ports, lambda one: dispatch.enqueue(ports, [one]), action, look_in_ms)


def _hold_if_unknown(ports: Ports, action: Action) -> None:
    """Count what landed after Memory was rebuilt, and whose ingress died or could not say so."""
    slot = Slot.of(action)
    if ports.slots.is_watched(slot):
        return
    now = transitions.load(ports, action.account_id, action.action_id)  # after Memory was asked
    if now is not None and now.action.state is ActionState.PENDING:
        ports.slots.hold(slot, action.month, "")


def _look_at_running(ports: Ports, held: Held) -> None:
    action, claim = held.action, held.action.claim
    if claim and not _has_ended(ports, action, claim):
        return
    if _is_spooled(ports, action):  # asked after its process is gone: nothing more is coming
        return
    _LOG.warning("action %s: its process is gone", action.action_id)
    since = claim.claimed_at if claim else action.accepted_at
    run_ms = elapsed_ms(since, ports.clock.now())
    lost = _lost(action, run_ms)
    if recover.recover(ports, held, lost, run_ms=run_ms, undo_here=False):
        kind = ActionTimedOut if lost.error_code == rules.DEADLINE_EXCEEDED else ActionFailed
        ActionEvents.ended_elsewhere(action, failed(kind, lost.error_code))
    ports.slots.look_again(Slot.of(action), rules.FIRST_LOOK_MS)


def _look_at_undo(ports: Ports, action: Action) -> None:
    """Hand out an undo that is due, each time after a longer rest; kill one that hangs."""
    if action.claim and action.state is ActionState.ROLLING_BACK:
        _has_ended(ports, action, action.claim)
    if _is_spooled(ports, action):
        return
    rest_ms = rules.undo_rest_ms(action, ports.clock.now())
    if recover.may_take_over(ports, action):
        _hand_out(ports, publish.roll_back, action, rest_ms)


def _has_moved(ports: Ports, action: Action) -> bool:
    """Whether its end has landed since it was read; asked after the spool, never before."""
    now = transitions.load(ports, action.account_id, action.action_id)
    return now is None or now.action != action


def _is_spooled(ports: Ports, action: Action) -> bool:
    """Whether its end is known, and only waits for the store to be drained into."""
    if not spool.holds(ports, action.account_id, action.action_id):
        return False
    ports.slots.look_again(Slot.of(action), rules.FIRST_LOOK_MS)
    return True


def _hand_out(ports: Ports, send: Callable[[Action], None], action: Action, rest_ms: int) -> None:
    """Publish a message again, once within its rest."""
    ports.slots.look_again(Slot.of(action), rest_ms)
    if ports.watches.claim_tick(f"enqueue:{action.action_id}", rest_ms / 2000):
        send(action)


def _has_ended(ports: Ports, action: Action, claim: ProcessClaim) -> bool:
    """Whether a claim's process cannot act any more; here, one past its hard limit is killed.

    Celery should have done so, and does not while its worker's parent waits for the broker.
    """
    if transitions.is_abandoned(ports, action, claim):
        return True
    left_ms = rules.look_in_ms(action) - elapsed_ms(claim.claimed_at, ports.clock.now())
    if left_ms <= 0:
        if _is_spooled(ports, action) or _has_moved(ports, action):
            return False  # its process lives, and is at something else by now
        _LOG.warning("action %s is past its hard limit; its process is killed", action.action_id)
        ports.processes.kill(claim)
    ports.slots.look_again(Slot.of(action), max(500, left_ms))
    return False


def _lost(action: Action, run_ms: int) -> Failure:
    """How an action ended whose process died: past its deadline it has timed out (D18)."""
    if run_ms >= action.timeout_ms:
        return rules.timed_out(action)
    kind = RecoverableError if action.recoverable else UnrecoverableError
    return rules.failed(action, kind(rules.WORKER_LOST, "the process carrying it out died"))
