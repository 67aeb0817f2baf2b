"""Erasure: what a customer wrote is removed once nothing of the account is active any more.

An operator asks for it (``ggen tenant purge``), or the marketplace does (``entitlement.deleted``).
Archives that a retention protects are deleted by a later run, which begins by itself on that day.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from pydantic import Field

from governor import paths
from governor.errors import ConflictError, DeniedError, InputError
from governor.fsm import ENTITLEMENT, ENTITLEMENT_ENDED, EntitlementState, RunState, advance
from governor.records import AccountId, Record, Timestamp
from governor.runs import Effect, Run, StepResult, Trigger
from governor.tenancy import Entitlement, MarketplaceEvent, Tenant
from governor.times import elapsed_ms, timestamp
from ports import Ports
from ports.documents import Create, Delete, Document, Query, Update, Write, every
from tasks.archives import segments
from tasks.governors.boot import boot_governor
from tasks.manual import Door, Manual
from tasks.receipts.commit import explained, receipt
from tasks.runbooks import erasure
from tasks.runbooks.events import entitlement_of, event_of, ignored
from tasks.runs import intake
from tasks.runs.definition import Result, Runbook, Step
from tasks.sweep import isolating_errors

NAME, DELETED = "tenant_purge", "entitlement_deleted"


class Purge(Record):
    """What an operator asks for."""

    account_id: AccountId = Field(description="whose texts are removed")
    operator: str = Field(min_length=1, max_length=256, description="the system's user")
    reason: str = Field(min_length=1, max_length=1024, description="why; kept beside the ledger")
    archives: bool = Field(default=False, description="whether the archives go, too")


class Due(Record):
    """``purges/{account_id}``: a purge that goes on when a retention has run out."""

    account_id: AccountId
    due_at: Timestamp
    operator: str
    reason: str
    generation: int = Field(description="of the governor that had ended; another one ends the plan")


class _Archives(StepResult):
    step = f"{NAME}.archives"

    deleted: int = 0
    retained: int = 0
    retained_until: Timestamp | None = None


def ask(ports: Ports, asked: Purge, key: str, trigger: Trigger = Trigger.COMMAND) -> Run:
    """Begin a purge; the run.

    Raises:
        InputError: there is no such account.
        DeniedError: ``still-active``: something of it is; nothing was begun.
        OutageError: it may have begun; repeating is safe.
    """
    refuse_if_active(ports, asked.account_id)
    run = intake.new_run(
        ports,
        RUNBOOK,
        asked.document(),
        account_id=asked.account_id,
        trigger=trigger,
        dedupe_key=key,
    )
    return intake.begin(ports, RUNBOOK, run)


def begin_due(ports: Ports) -> None:
    """Begin the purges whose retention has run out; drop those of a customer who came back."""
    now = timestamp(ports.clock.now())
    for document in every(ports.documents, "purges"):
        with isolating_errors(document.path):
            _begin_if_due(ports, document, now)


def _begin_if_due(ports: Ports, document: Document, now: str) -> None:
    due = Due.stored(document.data)
    if due.generation != _generation(ports, due.account_id):
        ports.documents.commit([Delete(document.path, document.revision)])
    elif due.due_at <= now:
        asked = Purge(
            account_id=due.account_id, operator=due.operator, reason=due.reason, archives=True
        )
        # Each writing of the plan is another run: a retention may have been prolonged.
        key = f"purge/{due.account_id}/{due.due_at}/{document.revision}"
        ask(ports, asked, key, Trigger.SCHEDULE)


def _generation(ports: Ports, account_id: str) -> int:
    found = ports.documents.get(paths.tenant_path(account_id))
    return Tenant.stored(found.data).generation if found else 0


def refuse_if_active(ports: Ports, account_id: str) -> None:
    """Refuse what may be purged later, or never. See ``ask``."""
    active = [e.entitlement_id for e in _entitlements(ports, account_id) if _is_active(e)]
    if active:
        raise DeniedError(
            "still-active",
            f"{', '.join(active[:5])} of {account_id} is not ended: cancel it first. Nothing was "
            "removed",
        )
    receipts = Query(f"tenants/{account_id}/receipts", limit=1)
    if not ports.documents.get(paths.tenant_path(account_id)) and not ports.documents.scan(
        receipts
    ):
        raise InputError("not-found", f"there is nothing of an account {account_id}")


def _entitlements(ports: Ports, account_id: str) -> list[Entitlement]:
    found = every(ports.documents, f"tenants/{account_id}/entitlements")
    return [Entitlement.stored(document.data) for document in found]


def _is_active(entitlement: Entitlement) -> bool:
    return entitlement.state not in ENTITLEMENT_ENDED


def _check(ports: Ports, run: Run) -> Result:
    refuse_if_active(ports, run.account_id)
    return Result()


def _decide(ports: Ports, run: Run) -> Result:
    """Whether an event of the marketplace removes anything."""
    known = entitlement_of(ports, run)
    if known is None:
        return ignored(ports, run, "no-entitlement")
    _, entitlement = known
    if _is_active(entitlement):
        if event_of(run).event_time < entitlement.event_time:
            return ignored(ports, run, "stale")
        raise ConflictError(  # events overtake each other: its cancellation may be on its way
            "not-cancelled-yet",
            f"{entitlement.entitlement_id} is {entitlement.state}; deliver this again after its "
            "cancellation",
        )
    if any(map(_is_active, _entitlements(ports, run.account_id))):
        return ignored(ports, run, "others-active")
    return Result()


def _look(_ports: Ports, run: Run) -> dict[str, Effect]:
    return {f"texts of {run.account_id}": Effect.REMOVE}


def _look_archives(ports: Ports, run: Run) -> dict[str, Effect]:
    if not _asked(run).archives:
        return {}
    return dict.fromkeys(erasure.archives_of(ports, run.account_id), Effect.REMOVE)


def _act_archives(ports: Ports, run: Run) -> Result:
    if not _asked(run).archives:
        return Result(_Archives())
    meant = run.journal[_Archives.step].effects  # an earlier attempt may have deleted some
    archives = erasure.delete_archives(ports, run.account_id, meant)
    writes = [] if archives.retained else segments.forget(ports, run.account_id)
    return Result(_Archives(**archives.document()), writes)


def _asked(run: Run) -> Purge:
    if run.runbook == DELETED:
        why = "the marketplace deleted it"
        return Purge(account_id=run.account_id, operator="marketplace", reason=why)
    return Purge.stored(run.inputs)


def _succeeded(ports: Ports, run: Run) -> tuple[Sequence[Write], Create]:
    asked, gone = _asked(run), erasure.erased(ports, run)
    archives = _Archives.of(run)
    fields: dict[str, Any] = {
        "attempt": run.attempt,
        "status": "success",
        "run_id": run.run_id,
        "duration_ms": elapsed_ms(run.started_at, ports.clock.now()),
        "asked_by": "marketplace" if run.runbook == DELETED else "operator",
        "documents_deleted": gone.deleted,
        "documents_stripped": gone.stripped,
        "documents_sha256": gone.names_sha256,
        "archives_deleted": archives.deleted,
        "archives_retained": archives.retained,
        "retained_until": archives.retained_until,
    }
    writes: list[Write] = [*_states(ports, run.account_id), *_due(ports, asked, archives)]
    of = ports, "tenant_purged", run.account_id, run.run_id
    if run.runbook == DELETED:
        return writes, receipt(*of, **fields)
    fields |= {"operator": asked.operator, "operator_is": "unverified"}
    proof, text = explained(*of, asked.reason, named="reason_sha256", **fields)
    return [*writes, text], proof


def _states(ports: Ports, account_id: str) -> list[Write]:
    writes: list[Write] = []
    for document in every(ports.documents, f"tenants/{account_id}/entitlements"):
        entitlement = Entitlement.stored(document.data)
        if entitlement.state is EntitlementState.DECOMMISSIONED:
            purged = entitlement.evolve(state=advance(ENTITLEMENT, entitlement.state, "purge"))
            writes.append(Update(document.path, purged.document(), document.revision))
    return writes


def _due(ports: Ports, asked: Purge, archives: _Archives) -> list[Write]:
    """Note when the rest is to go, or that nothing is left."""
    path = f"purges/{asked.account_id}"
    found = ports.documents.get(path)
    if archives.retained_until is None:
        return [Delete(path, found.revision)] if found and asked.archives else []
    due = Due(
        account_id=asked.account_id,
        due_at=archives.retained_until,
        operator=asked.operator,
        reason=asked.reason,
        generation=_generation(ports, asked.account_id),
    )
    return [Update(path, due.document(), found.revision) if found else Create(path, due.document())]


def _refused(ports: Ports, run: Run, failed_step: str) -> Sequence[Create]:
    return explained(
        ports,
        "purge_failed",
        run.account_id,
        run.run_id,
        run.error_detail or "",
        attempt=run.attempt,
        status="failed",
        run_id=run.run_id,
        failed_step=failed_step,
        error_code=run.error_code or "unknown",
        duration_ms=elapsed_ms(run.started_at, ports.clock.now()),
    )


def _go_by_it(ports: Ports, run: Run) -> None:
    if run.state is RunState.COMPLETE:
        boot_governor(ports, run.account_id)


_MANUALS = {
    "title": "Customer Cancels: erasure",
    "purpose": (
        "What a customer wrote is removed: texts beside the ledger, payloads, bodies of webhooks. "
        "Receipts stay; they hold codes, ids and digests."
    ),
    "outputs": (
        "the texts beside the ledger and the names of refused messages: deleted",
        "payload, signal id, error and result of each action: removed from it",
        "body and customer's words of each run: removed from it",
        "each entitlement `purged`; `tenant_purged` with counts and a digest of the names",
        "receipts, seals, archives, the states of actions and runs: kept",
    ),
    "slis": (),
    "receipts": ("tenant_purged", "purge_failed", "event_ignored"),
    "refused_with": "purge_failed",
    "is_one_way": True,
    "door": Door(
        asker="Operator",
        at="Command",
        asks="account and reason",
        wrong=("something is active", "exit 3"),
        well="exit 0, the receipt",
        badly="exit 1",
    ),
}
MANUAL = Manual(
    number=7,
    trigger="`ggen tenant purge ACCOUNT --reason …`, or the marketplace's `entitlement.deleted`",
    inputs=Purge,
    refusals=(
        ("anything of the account is active", "refused, nothing removed (exit 3)"),
        (
            "a bucket's retention protects an archive (`--archives`)",
            "it is kept until `retained_until`; a further run deletes it within the hour",
        ),
    ),
    **_MANUALS,  # type: ignore[arg-type]
)
EVENT_MANUAL = Manual(
    number=7,
    trigger="`POST /v1/webhooks/marketplace`, signed, with `entitlement.deleted`",
    inputs=MarketplaceEvent,
    refusals=(
        ("the entitlement is not cancelled yet", "to be delivered again (503)"),
        (
            "another entitlement of the account is active",
            "acknowledged, `event_ignored` with `others-active`; the last one's event removes all",
        ),
    ),
    **_MANUALS,  # type: ignore[arg-type]
)

_STEPS = (
    Step(
        f"{NAME}.erase",
        "Documents",
        does="delete texts, strip actions and runs, part by part, each with its record",
        undoes="",
        look=_look,
        chunk=erasure.erase_part,
    ),
    Step(
        f"{NAME}.archives",
        "Archives",
        does="delete the archives, if that was asked for and no retention forbids it",
        undoes="",
        look=_look_archives,
        act=_act_archives,
    ),
    Step(
        f"{NAME}.finish",
        "Documents",
        does="commit the entitlements as purged, together with the receipt",
        undoes="",
    ),
)
RUNBOOK = Runbook(
    name=NAME,
    manual=MANUAL,
    steps=(
        Step(
            f"{NAME}.check",
            "Documents",
            does="see that nothing of the account is active",
            undoes="",
            act=_check,
            reads_only=True,
        ),
        *_STEPS,
    ),
    succeeded=_succeeded,
    refused=_refused,
    ended=_go_by_it,
    deadline_s=timedelta(days=1).total_seconds(),
)
EVENT_RUNBOOK = Runbook(
    name=DELETED,
    manual=EVENT_MANUAL,
    steps=(
        Step(
            f"{DELETED}.event",
            "Documents",
            does="see that the entitlement has ended, and no other of the account is active",
            undoes="",
            act=_decide,
            reads_only=True,
        ),
        *_STEPS,
    ),
    succeeded=_succeeded,
    refused=_refused,
    ended=_go_by_it,
    deadline_s=timedelta(days=1).total_seconds(),
)
