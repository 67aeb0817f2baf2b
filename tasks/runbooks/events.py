"""What the runbooks of marketplace events share: the event, what it is about, whether it is news.

An event that changes nothing ends its run with ``event_ignored``, and is acknowledged.
"""

from collections.abc import Sequence
from typing import Any, Literal

from governor import paths
from governor.runs import Run
from governor.tenancy import Entitlement, MarketplaceEvent, Tombstone
from governor.times import elapsed_ms
from ports import Ports
from ports.documents import Document, Update, Write
from tasks.receipts.commit import receipt
from tasks.runs.definition import Result

Ignored = Literal["stale", "no-entitlement", "no-change", "ended", "others-active"]


def event_of(run: Run) -> MarketplaceEvent:
    """The event that a run is about."""
    return MarketplaceEvent.stored(run.inputs)


def entitlement_of(ports: Ports, run: Run) -> tuple[Document, Entitlement] | None:
    """The entitlement that a run's event names, as it is stored."""
    found = ports.documents.get(event_of(run).entitlement_path)
    return (found, Entitlement.stored(found.data)) if found else None


def is_stale(run: Run, former: Entitlement | Tombstone) -> bool:
    """Whether an event is older than what its entitlement reflects already (D4).

    One that names no time of its own is as new as its arrival, by whatever clock the others went.
    """
    event = event_of(run)
    if former.run_id == run.run_id or event.is_timed_by_arrival:
        return False
    return event.event_time < former.event_time


def reflected_at(event: MarketplaceEvent, former: Entitlement | None) -> str:
    """The time of the newest event that an entitlement reflects, with this one."""
    return max(event.event_time, former.event_time if former else "")


def was_cancelled_before(ports: Ports, run: Run) -> bool:
    """Whether an entitlement that is not known was cancelled by a later event, which came first."""
    event = event_of(run)
    found = ports.documents.get(paths.tombstone_path(event.account_id, event.entitlement_id))
    return found is not None and is_stale(run, Tombstone.stored(found.data))


def ignored(ports: Ports, run: Run, reason: Ignored, writes: Sequence[Write] = ()) -> Result:
    """End a run whose event changes nothing, with the receipt that says so."""
    event = event_of(run)
    proof = receipt(
        ports,
        "event_ignored",
        run.account_id,
        run.run_id,
        attempt=run.attempt,
        status="ignored",
        entitlement_id=event.entitlement_id,
        sku_id=event.sku_id,
        event_type=event.event_type,
        event_time=event.event_time,
        reason=reason,
        **of_run(ports, run),
    )
    return Result(writes=[*writes, proof], ends_with=proof.data["receipt_id"])


def noted(run: Run, found: Document, former: Entitlement) -> Update:
    """The write by which an entitlement reflects an event that changes nothing else of it."""
    seen = former.evolve(event_time=reflected_at(event_of(run), former), run_id=run.run_id)
    return Update(found.path, seen.document(), found.revision)


def of_run(ports: Ports, run: Run) -> dict[str, Any]:
    """What a receipt says of the run it ends."""
    return {
        "run_id": run.run_id,
        "event_id": run.dedupe_key,
        "body_sha256": run.body_sha256,
        "duration_ms": elapsed_ms(run.started_at, ports.clock.now()),
    }
