"""From state to receipt: an action or run stored as ended must have the receipt of its end.

The audit of a ledger goes from log to receipt. A receipt that was deleted before its seal is in no
log, but its action still names it.
"""

from collections.abc import Iterator, Sequence

from governor.actions import Action
from governor.errors import UnreadableError
from governor.fsm import RUN_OPEN, ActionState
from governor.paths import receipt_path
from governor.runs import Run
from ledger.receipt import receipt_id
from ledger.verify import Check, Finding
from ports import Ports
from ports.documents import Document, Query, Where

_ENDED = (
    ActionState.COMPLETE,
    ActionState.FAILED,
    ActionState.ROLLED_BACK,
    ActionState.ROLLBACK_FAILED,
)


def missing_receipts(ports: Ports, account_id: str) -> Iterator[Finding]:
    """A finding for each action and run of an account that lacks a receipt it must have.

    Raises:
        OutageError: the store is away, so the receipts cannot be checked.
    """
    after = ""
    while page := page_after(ports, account_id, after):
        yield from missing_of(ports, account_id, page)
        after = page[-1].path


def page_after(ports: Ports, account_id: str, after: str, limit: int = 500) -> list[Document]:
    """Some actions and runs that have ended, past the one at ``after``: "" to begin.

    Actions come first, then runs; none are left where there are none.
    """
    actions, runs = f"tenants/{account_id}/actions", "runs"
    start = ("", after) if after else None
    if not after.startswith("runs/"):
        where = [Where("state", "in", _ENDED)]
        if page := ports.documents.scan(Query(actions, where=where, after=start, limit=limit)):
            return page
        start = None
    of_account = [Where("account_id", "==", account_id)]
    return ports.documents.scan(Query(runs, where=of_account, after=start, limit=limit))


def missing_of(ports: Ports, account_id: str, page: Sequence[Document]) -> Iterator[Finding]:
    """A finding for each of these actions and runs that lacks a receipt it must have."""
    for document in page:
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
    told = [run.receipt_id] if run.state not in RUN_OPEN and run.receipt_id else []
    return f"run {run.run_id}", run.state, told


def _receipts_of(action: Action) -> list[str]:
    """The ids of the receipts that an action's end must have."""
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
