"""Actions as an operator handles them: listed, looked at, their rollback taken up again."""

import contextlib

from governor import paths
from governor.actions import Action, Resolution
from governor.errors import ConflictError, InputError, OutageError
from governor.fsm import ACTION, ActionState, advance
from governor.times import timestamp
from ledger.receipt import SignedReceipt, receipt_id
from ports import Ports
from ports.documents import Query, Where
from ports.slots import Slot
from tasks import publish
from tasks.actions import transitions
from tasks.actions.transitions import Held
from tasks.receipts.commit import explained

_TRIES = 5
_ENDS = (
    "action_resolved",
    "action_complete",
    "action_timeout",
    "action_failed",
    "action_rolled_back",
)


def listed(
    ports: Ports,
    account_id: str | None,
    *,
    state: ActionState | None,
    limit: int,
    after: tuple[str, str] | None = None,
) -> list[Action]:
    """Actions of one account, or of all, newest first, past the one at ``after``."""
    found = ports.documents.scan(
        Query(
            f"tenants/{account_id}/actions" if account_id else "actions",
            group=account_id is None,
            where=[Where("state", "==", state)] if state else [],
            order_by="accepted_at",
            descending=True,
            after=after,
            limit=limit,
        )
    )
    return [Action.stored(document.data) for document in found]


def found(ports: Ports, account_id: str, action_id: str) -> Action:
    """One action. Raises InputError when there is none."""
    held = transitions.load(ports, account_id, action_id)
    if held is None:
        raise InputError("not-found", f"{account_id} has no action {action_id}")
    return held.action


def receipts(ports: Ports, action: Action) -> list[dict[str, object]]:
    """The receipts of an action, oldest first; of failed rollbacks the last hundred."""
    ids = [receipt_id(action.account_id, operation, action.action_id, 1) for operation in _ENDS]
    ids += [
        receipt_id(action.account_id, "rollback_failed", action.action_id, attempt)
        for attempt in range(action.rollback_attempts, 0, -1)[:100]
    ]
    stored = [ports.documents.get(paths.receipt_path(action.account_id, each)) for each in ids]
    told = [SignedReceipt.stored(each.data).fields() for each in stored if each]
    return sorted(told, key=lambda fields: str(fields["timestamp"]))


def retry_rollback(ports: Ports, account_id: str, action_id: str) -> Action:
    """Have a rollback that failed tried again now, instead of when its rest is over.

    Raises:
        InputError: there is no such action.
        ConflictError: its rollback has not failed; nothing was changed.
    """
    for _ in range(_TRIES):
        held = _rollback_failed(ports, account_id, action_id)
        due = held.action.evolve(retry_at=timestamp(ports.clock.now()))
        try:
            transitions.commit(ports, held, due)
        except ConflictError:
            continue  # it is being tried just now, or has been
        with contextlib.suppress(OutageError):  # the look only matters should there be no broker
            ports.slots.look_again(Slot.of(due), 0)
        publish.roll_back(due)
        return due
    raise ConflictError("action-busy", f"action {action_id} is moving just now; try again")


def resolve(ports: Ports, account_id: str, action_id: str, operator: str, reason: str) -> Action:
    """End an action whose rollback keeps failing: an operator has undone it by hand, and says so.

    Raises:
        InputError: there is no such action.
        ConflictError: its rollback has not failed; nothing was changed.
    """
    for _ in range(_TRIES):
        held = _rollback_failed(ports, account_id, action_id)
        now = timestamp(ports.clock.now())
        wish = Resolution(operator=operator, reason=reason, resolved_at=now)
        ended = held.action.evolve(
            state=advance(ACTION, held.action.state, "resolve"),
            ended_at=now,
            retry_at=None,
            resolution=wish,
        )
        proofs = explained(
            ports,
            "action_resolved",
            account_id,
            action_id,
            reason,
            named="reason_sha256",
            status="resolved",
            **transitions.names(ended),
            previous_action_receipt_id=ended.failure_receipt_id,
            rollback_attempts=ended.rollback_attempts,
            operator=operator,
        )
        try:
            transitions.commit(ports, held, ended, *proofs)
        except ConflictError:
            continue  # it is being tried just now, or has been
        transitions.free_slot(ports, ended)
        return ended
    raise ConflictError("action-busy", f"action {action_id} is moving just now; try again")


def _rollback_failed(ports: Ports, account_id: str, action_id: str) -> Held:
    held = transitions.load(ports, account_id, action_id)
    if held is None:
        raise InputError("not-found", f"{account_id} has no action {action_id}")
    if held.action.state is not ActionState.ROLLBACK_FAILED:
        raise ConflictError(
            "no-failed-rollback",
            f"action {action_id} is {held.action.state}; only a rollback that failed can be tried "
            "again or resolved, and nothing was changed",
        )
    return held
