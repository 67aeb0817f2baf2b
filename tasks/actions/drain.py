"""An entitlement's actions as its cancellation sees them: on their way, under way, ended."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from governor import actions as rules
from governor import paths
from governor.actions import Action
from governor.errors import ConflictError
from governor.fsm import ActionState
from governor.times import elapsed_ms
from ledger.receipt import receipt_id
from ports import Ports
from ports.documents import Where, every
from tasks.actions import recover, transitions
from tasks.actions.execute import expire
from tasks.actions.storing import STORED_WITHIN_S
from tasks.actions.transitions import Held
from tasks.receipts import spool

"""The code of an action that was ended because its entitlement's drain took too long."""

Outcome = Literal["completed", "failed", "timed_out"]


def is_landing(ports: Ports, account_id: str, entitlement_id: str) -> bool:
    """Whether a signal was admitted that is not stored yet.

    Asked after the entitlement's door was shut; it is stored within a moment, or refused. A Memory
    that was lost a moment ago does not know.
    """
    return ports.governors.remembers_s() < STORED_WITHIN_S or any(
        ports.documents.get(paths.action_path(account_id, action_id)) is None
        for action_id in ports.governors.held(account_id, entitlement_id)
    )


def under_way(ports: Ports, account_id: str, entitlement_id: str) -> list[Action]:
    """The actions of an entitlement that have not ended, a failed rollback among them."""
    found = every(
        ports.documents, f"tenants/{account_id}/actions", Where("state", "in", rules.UNDER_WAY)
    )
    stored = [Action.stored(document.data) for document in found]
    return [action for action in stored if action.entitlement_id == entitlement_id]


def outcome(ports: Ports, account_id: str, action_id: str) -> Outcome:
    """How an action ended, by its own receipts.

    Raises:
        ConflictError: it has not ended.
    """
    held = transitions.load(ports, account_id, action_id)
    if held is None or held.action.state in rules.UNDER_WAY:
        raise ConflictError("still-under-way", f"action {action_id} has not ended")
    if held.action.state is ActionState.COMPLETE:
        return "completed"
    timeout = receipt_id(account_id, "action_timeout", action_id)
    has_timed_out = ports.documents.get(paths.receipt_path(account_id, timeout)) is not None
    return "timed_out" if has_timed_out else "failed"


def accepted(ports: Ports, account_id: str, entitlement_id: str) -> int:
    """How many actions an entitlement has ever had."""
    where = [Where("entitlement_id", "==", entitlement_id)]
    return ports.documents.count(f"tenants/{account_id}/actions", where)


def cut_short(ports: Ports, actions: Sequence[Action]) -> None:
    """End explicitly every action that has not ended by itself; a rollback under way goes on.

    A queued action is never started. The process of a running one is killed, and its action has
    timed out; whatever that process does until then, or on a machine that cannot be reached, counts
    for nothing, and the rollback waits until it is gone.
    """
    for action in actions:
        while not _is_cut(ports, action):
            pass  # it was moved meanwhile: queued, then begun, then ended


def _is_cut(ports: Ports, action: Action) -> bool:
    """End one action, unless it has ended; False where it moved meanwhile."""
    if spool.holds(ports, action.account_id, action.action_id):
        return True  # its end is known, and about to be committed
    held = transitions.load(ports, action.account_id, action.action_id)
    if held and held.action.state is ActionState.PENDING:
        return expire(
            ports, held, code=rules.DRAINED, why="the entitlement was cancelled before its start"
        )
    if held and held.action.state is ActionState.RUNNING:
        _stop(ports, held)
    return True


def _stop(ports: Ports, held: Held) -> None:
    """Kill the process of a running action: right after it was read, for it may end any moment.

    A process that has ended this action may be at another tenant's by now.
    """
    action, claim = held.action, held.action.claim
    if claim:
        ports.processes.kill(claim)
    since = claim.claimed_at if claim else action.accepted_at
    run_ms = elapsed_ms(since, ports.clock.now())
    failure = replace(
        rules.timed_out(action),
        error_code=rules.DRAINED,
        is_counted=False,
        error_detail=f"stopped after {run_ms} ms: its entitlement was cancelled",
    )
    recover.recover(ports, held, failure, run_ms=run_ms, undo_here=False)
