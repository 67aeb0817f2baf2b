"""From state to receipt: what is stored as ended must have the receipt that says so.

The audit of a ledger goes from log to receipt. A receipt that was deleted before its seal is in no
log, but its action still names it.
"""

from collections.abc import Iterator

from governor.fsm import ActionState
from governor.records import Action, Run, receipt_path
from ledger.receipt import receipt_id
from ledger.verify import Check, Finding
from ports import Ports
from ports.documents import Where, every
from tasks.runbook import OPEN

_ENDED = (
    ActionState.COMPLETE, ActionState.FAILED, ActionState.ROLLED_BACK, ActionState.ROLLBACK_FAILED,
)  # fmt: skip


def missing_receipts(ports: Ports, account_id: str) -> Iterator[Finding]:
    """A finding for each action and run of an account that lacks a receipt it must have.

    Raises:
        OutageError: the store is away, so nothing can be told.
    """
    ended = Where("state", "in", _ENDED)
    for document in every(ports.documents, f"tenants/{account_id}/actions", ended):
        action = Action.stored(document.data)
        for identity in _receipts_of(action):
            if ports.documents.get(receipt_path(account_id, identity)) is None:
                yield _finding(f"action {action.action_id}", action.state, identity)
    for document in every(ports.documents, "runs", Where("account_id", "==", account_id)):
        run = Run.stored(document.data)
        is_told = run.state not in OPEN and run.receipt_id
        if is_told and not ports.documents.get(receipt_path(account_id, str(run.receipt_id))):
            yield _finding(f"run {run.run_id}", run.state, str(run.receipt_id))


def _receipts_of(action: Action) -> list[str]:
    """The ids of the receipts that an action's end stands for."""
    told = [action.failure_receipt_id] if action.failure_receipt_id else []
    operation, attempt = {
        ActionState.COMPLETE: ("action_complete", 1),
        ActionState.ROLLED_BACK: ("action_rolled_back", 1),
        ActionState.ROLLBACK_FAILED: ("rollback_failed", action.rollback_attempts),
    }.get(action.state, ("action_timeout", 1))
    if action.state is ActionState.FAILED and action.resolution:
        operation = "action_resolved"
    elif action.state is ActionState.FAILED and told:
        return told
    return [*told, receipt_id(action.account_id, operation, action.action_id, attempt)]


def _finding(subject: str, state: str, identity: str) -> Finding:
    return Finding(subject, Check.COMPLETENESS, f"is {state}, and its receipt {identity} is gone")
