"""Runbook 6, changes of standing: an entitlement is suspended, renewed, or to be cancelled.

Nothing is provisioned and nothing deleted: one commit changes the stored state together with its
receipt, and then admission goes by it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from governor.errors import ConflictError
from governor.fsm import (
    ENTITLEMENT,
    ENTITLEMENT_BOUGHT,
    EntitlementState,
    RunState,
    advance,
)
from governor.runs import Run
from governor.slo import contract
from governor.tenancy import Entitlement, MarketplaceEvent
from ports import Ports
from ports.documents import Create, Update, Write
from tasks.governors.boot import boot_governor
from tasks.manual import Manual
from tasks.receipts.commit import explained, receipt
from tasks.runbooks import deploy_sku
from tasks.runbooks.events import (
    entitlement_of,
    event_of,
    ignored,
    is_stale,
    noted,
    of_run,
    reflected_at,
    was_cancelled_before,
)
from tasks.runs.definition import Result, Runbook, Step

NAME = "entitlement_standing"


@dataclass(frozen=True, slots=True)
class _Told:
    operation: str
    status: str


EVENTS: Mapping[str, _Told] = {
    "entitlement.renewed": _Told("entitlement_renewed", "success"),
    "entitlement.suspended": _Told("entitlement_suspended", "suspended"),
    "entitlement.reinstated": _Told("entitlement_reinstated", "success"),
    "entitlement.cancellation_scheduled": _Told("entitlement_cancellation_scheduled", "scheduled"),
    "entitlement.cancellation_reverted": _Told("entitlement_cancellation_reverted", "reverted"),
}
"""The events this runbook serves, and the receipt of each."""


def _decide(ports: Ports, run: Run) -> Result:
    known = entitlement_of(ports, run)
    if known is None:
        if was_cancelled_before(ports, run):
            return ignored(ports, run, "stale")
        raise ConflictError(  # events overtake each other: its subscription may be on its way
            "no-entitlement-yet",
            "there is no such entitlement; deliver this again after its subscription",
        )
    found, former = known
    if is_stale(run, former):
        return ignored(ports, run, "stale")
    if former.state not in ENTITLEMENT_BOUGHT:
        return ignored(ports, run, "ended", [noted(run, found, former)])
    after = _after(former, event_of(run))
    is_same = (after.state, after.cancels_at) == (former.state, former.cancels_at)
    if is_same and event_of(run).event_type != "entitlement.renewed":
        return ignored(ports, run, "no-change", [noted(run, found, former)])
    return Result()


def _after(former: Entitlement, event: MarketplaceEvent) -> Entitlement:
    """The entitlement as the event leaves it."""
    is_suspended = former.state is EntitlementState.SUSPENDED
    moves: list[str] = []
    cancels_at = former.cancels_at
    match event.event_type:
        case "entitlement.suspended" if not is_suspended:
            moves = ["suspend"]
        case "entitlement.reinstated" if is_suspended:
            moves = ["reinstate_until_cancelled" if cancels_at else "reinstate"]
        case "entitlement.cancellation_scheduled":
            cancels_at = event.effective_at
            if former.state is EntitlementState.ACTIVE:
                moves = ["schedule_cancellation"]
        case "entitlement.cancellation_reverted" | "entitlement.renewed":
            cancels_at = None
            if former.state is EntitlementState.PENDING_CANCELLATION:
                moves = ["revert_cancellation"]
    return former.evolve(
        state=advance(ENTITLEMENT, former.state, *moves),
        cancels_at=cancels_at,
        event_time=reflected_at(event, former),
    )


def _succeeded(ports: Ports, run: Run) -> tuple[Sequence[Write], Create]:
    known = entitlement_of(ports, run)
    if known is None:
        raise ConflictError("vanished", "the entitlement's document vanished under the run")
    found, former = known
    event = event_of(run)
    after = _after(former, event).evolve(run_id=run.run_id)
    told = EVENTS[event.event_type]
    proof = receipt(
        ports,
        told.operation,
        run.account_id,
        run.run_id,
        attempt=run.attempt,
        status=told.status,
        entitlement_id=after.entitlement_id,
        sku_id=after.sku_id,
        plan_type=after.plan_type,
        state=after.state.value,
        effective_at=event.effective_at,
        **of_run(ports, run),
    )
    return [Update(found.path, after.document(), found.revision)], proof


def _go_by_it(ports: Ports, run: Run) -> None:
    if run.state is RunState.COMPLETE:
        boot_governor(ports, run.account_id)


def _refused(ports: Ports, run: Run, failed_step: str) -> Sequence[Create]:
    event = event_of(run)
    return explained(
        ports,
        "entitlement_failed",
        run.account_id,
        run.run_id,
        run.error_detail or "",
        attempt=run.attempt,
        status="failed",
        entitlement_id=event.entitlement_id,
        sku_id=event.sku_id,
        plan_type=event.plan_type,
        region=event.region,
        failed_step=failed_step,
        error_code=run.error_code,
        retryable=run.retryable,
        **of_run(ports, run),
    )


MANUAL = Manual(
    number=6,
    title="Entitlement Lifecycle: changes of standing",
    purpose=(
        "An entitlement is suspended, reinstated, renewed, or its cancellation is scheduled or "
        "reverted. Nothing is provisioned, and nothing is deleted."
    ),
    trigger=(
        "`POST /v1/webhooks/marketplace`, signed, with `entitlement.suspended`, `.reinstated`, "
        "`.renewed`, `.cancellation_scheduled` or `.cancellation_reverted`"
    ),
    inputs=MarketplaceEvent,
    outputs=(
        "the entitlement's stored state, and the receipt of the change, in one commit",
        "suspended: its signals get 403 `entitlement-suspended`; pushed ones stay on the topic",
        "cancellation scheduled: it works on until `entitlement.cancelled` arrives",
    ),
    refusals=(
        ("an event before its subscription", "`entitlement_failed`, to be delivered again (503)"),
        (
            "an event older than the newest one in force",
            "acknowledged, `event_ignored` with `stale`",
        ),
        ("the entitlement is in that state already", "acknowledged, `event_ignored`"),
        ("the entitlement has ended", "acknowledged, `event_ignored` with `ended`"),
        (
            "a dependency down until the run's deadline",
            "nothing changed, `entitlement_failed`, to be delivered again (503)",
        ),
    ),
    slis=contract.ENTITLEMENT_STANDING,
    receipts=(
        *(told.operation for told in EVENTS.values()),
        "event_ignored",
        "entitlement_failed",
    ),
    door=deploy_sku.DOOR,
    refused_with="entitlement_failed",
)

RUNBOOK = Runbook(
    name=NAME,
    manual=MANUAL,
    steps=(
        Step(
            f"{NAME}.event",
            "Documents",
            does="see that the event is news, and changes something",
            undoes="",
            act=_decide,
            reads_only=True,
        ),
        Step(
            f"{NAME}.finish",
            "Documents",
            does="commit the entitlement's state together with the receipt",
            undoes="",
        ),
    ),
    succeeded=_succeeded,
    refused=_refused,
    ended=_go_by_it,
)
