"""From state to receipt: what is stored as ended must have the receipt that says so.

The audit of a ledger goes from log to receipt. A receipt that was deleted before its seal is in no
log, but its action still names it.
"""

import math
from collections.abc import Iterator
from itertools import chain

from governor.errors import UnreadableError
from governor.fsm import ActionState
from governor.records import Action, Run, receipt_path
from ledger.receipt import receipt_id
from ledger.verify import Check, Finding
from ports import Ports
from ports.documents import Document, Where, every
from tasks.runbook import OPEN

_ENDED = (
    ActionState.COMPLETE, ActionState.FAILED, ActionState.ROLLED_BACK, ActionState.ROLLBACK_FAILED,
)  # fmt: skip


def missing_receipts(
    ports: Ports, account_id: str, *, within_s: float = math.inf
) -> Iterator[Finding]:
    """A finding for each action and run of an account that lacks a receipt it must have.

    ``within_s`` bounds the work: what was not looked at by then is left to ``ggen verify-ledger``.

    Raises:
        OutageError: the store is away, so nothing can be told.
    """
    stop_at_s = ports.clock.monotonic_s() + within_s
    ended = Where("state", "in", _ENDED)
    of_account = Where("account_id", "==", account_id)
    for document in chain(
        every(ports.documents, f"tenants/{account_id}/actions", ended),
        every(ports.documents, "runs", of_account),
    ):
        if ports.clock.monotonic_s() > stop_at_s:
            return
        try:
            subject, state, identities = _ended(document)
        except UnreadableError as error:
            yield Finding(document.path, Check.COMPLETENESS, error.detail)
            continue
        for identity in identities:
            if ports.documents.get(receipt_path(account_id, identity)) is None:
                fault = f"is {state}, and its receipt {identity} is gone"
                yield Finding(subject, Check.COMPLETENESS, fault)


def _ended(document: Document) -> tuple[str, str, list[str]]:
    """An action or a run, its state, and the ids of the receipts it must have."""
    if not document.path.startswith("runs/"):
        action = Action.stored(document.data)
        return f"action {action.action_id}", action.state, _receipts_of(action)
    run = Run.stored(document.data)
    told = [run.receipt_id] if run.state not in OPEN and run.receipt_id else []
    return f"run {run.run_id}", run.state, told


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
