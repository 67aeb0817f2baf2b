"""Runbook 7 from the last action on: the ledger is archived, resources removed, the end proved."""

from governor import paths
from governor.errors import ConflictError
from governor.fsm import ENTITLEMENT, GOVERNOR, advance
from governor.runs import Effect, Run, StepResult
from governor.times import elapsed_ms, instant, timestamp
from ledger.log import Seal
from ports import Ports
from ports.documents import Create, Update, Write
from tasks.archives import keep, segments
from tasks.ledgers.stored_log import StoredLog
from tasks.receipts.commit import receipt
from tasks.runbooks.cancel import leftovers
from tasks.runbooks.cancel.draining import (
    Draining,
    Ended,
    Started,
    is_last,
    look_drain,
    refuse_unless_ours,
    stored_entitlement,
    tenant_of,
)
from tasks.runbooks.events import event_of, of_run
from tasks.runs.definition import Result


class Sealed(StepResult):
    """Up to where the ledger is archived."""

    step = "customer_cancels.seal"

    seal_number: int
    after: int = 0


class Archived(StepResult):
    """The archive."""

    step = "customer_cancels.archive"

    name: str
    address: str
    size_bytes: int
    sha256: str


class Removed(StepResult):
    """Messages that came onto the topic after the last look at it; None: not known."""

    step = "customer_cancels.resources"

    undelivered_unknown: int | None


class Completed(StepResult):
    """The receipt of it all."""

    step = "customer_cancels.complete"

    receipt_id: str


# -- archive


def look_archive(ports: Ports, run: Run) -> dict[str, Effect]:
    """The archive's place."""
    entry = run.journal.get(Started.step)
    date = Started.of(run).date if entry and entry.result else timestamp(ports.clock.now())[:10]
    return {ports.archives.address(f"{run.account_id}/{date}.tar.gz"): Effect.CREATE}


def look_seal(_ports: Ports, run: Run) -> dict[str, Effect]:
    """The log that is sealed to its end."""
    return {f"log of {run.account_id}": Effect.CHANGE}


def look_proof(ports: Ports, run: Run) -> dict[str, Effect]:
    """The proof beside the archive."""
    (archive,) = look_archive(ports, run)
    return {f"{archive.removesuffix('.tar.gz')}.complete.json": Effect.CREATE}


def act_seal(ports: Ports, run: Run) -> Result:
    """Seal everything that was receipted, and see which of it is archived already."""
    last = keep.seal_all(ports, run.account_id)
    after = segments.newest_before(ports, run.account_id, last)
    return Result(Sealed(seal_number=last.number, after=after))


def act_archive(ports: Ports, run: Run) -> Result:
    """Have the ledger's archive in its bucket, read back and verified."""
    log, last = StoredLog.of(ports, run.account_id), _last_seal(ports, run)
    name = f"{run.account_id}/{Started.of(run).date}"
    names = [f"{name}.tar.gz", f"{name}-{{}}.tar.gz"]
    after = log.seal_at(Sealed.of(run).after)
    kept = keep.keep_archive(ports, run.account_id, after, last, names)
    return Result(
        Archived(
            name=kept.name,
            address=ports.archives.address(kept.name),
            size_bytes=kept.size_bytes,
            sha256=kept.sha256,
        )
    )


# -- resources


def look_resources(ports: Ports, run: Run) -> dict[str, Effect]:
    """The resources removed with the last entitlement."""
    meant = Effect.REMOVE if is_last(ports, run) else Effect.KEEP
    topic, key = paths.topic_name(run.account_id), f"signal key of {run.account_id}"
    return {topic: meant, key: meant}


def act_resources(ports: Ports, run: Run) -> Result:
    """Remove subscription and topic, withdraw the key; state what came onto the topic meanwhile.

    Raises:
        ConflictError: the governor is not the one that drained; nothing was removed.
    """
    if not Draining.of(run).is_last:
        return Result(Removed(undelivered_unknown=0))
    refuse_unless_ours(ports, run)
    unknown = leftovers.left_behind(ports, run)
    ports.signals.delete(run.account_id)
    refuse_unless_ours(ports, run)
    ports.secrets.withdraw_tenant_key(run.account_id)
    return Result(Removed(undelivered_unknown=unknown))


# -- complete


def look_complete(ports: Ports, run: Run) -> dict[str, Effect]:
    """The states that end."""
    return look_drain(ports, run)


def act_complete(ports: Ports, run: Run) -> Result:
    """Commit the stored states as decommissioned, together with the receipt."""
    if Draining.of(run).is_last:
        refuse_unless_ours(ports, run)
        ports.signals.delete(run.account_id)  # a repair may have brought it back
    found, former = stored_entitlement(ports, run)
    draining, ended = Draining.of(run), Ended.of(run)
    gone = former.evolve(
        state=advance(ENTITLEMENT, former.state, "drained"),
        cancels_at=None,
        is_counted=True,
        accepted_before=ended.accepted,
    )
    writes: list[Write] = [Update(found.path, gone.document(), found.revision)]
    if draining.is_last:
        tenant_document, tenant = tenant_of(ports, run)
        over = tenant.evolve(state=advance(GOVERNOR, tenant.state, "drained"))
        writes.append(Update(tenant_document.path, over.document(), tenant_document.revision))
    accepted = ended.accepted - former.accepted_before if former.is_counted else None
    proof = _complete_receipt(ports, run, draining, ended, accepted)
    return Result(Completed(receipt_id=proof.data["receipt_id"]), [*writes, proof])


def _complete_receipt(
    ports: Ports, run: Run, draining: Draining, ended: Ended, accepted: int | None
) -> Create:
    event, archived, seal = event_of(run), Archived.of(run), _last_seal(ports, run)
    return receipt(
        ports,
        "decommission_complete",
        run.account_id,
        run.run_id,
        attempt=run.attempt,
        status="complete",
        sku_id=draining.sku_id,
        entitlement_id=event.entitlement_id,
        effective_at=event.effective_at,
        governor="decommissioned" if draining.is_last else "kept",
        fsm_id=draining.fsm_id,
        in_flight_actions=len(Started.of(run).actions),
        actions_completed=ended.completed,
        actions_failed=ended.failed,
        actions_timed_out=ended.timed_out,
        actions_accepted=accepted,
        signals_refused=leftovers.refused(ports, run),
        undelivered_unknown=Removed.of(run).undelivered_unknown,
        drain_ms=_drain_ms(run),
        archive_ms=run.journal[Archived.step].took_ms,
        receipts_archived=seal.tree_size,
        archive_gcs_path=archived.address,
        archive_size_bytes=archived.size_bytes,
        archive_sha256=archived.sha256,
        checkpoint_size=seal.tree_size,
        checkpoint_root=seal.root,
        segments=_segments(ports, run),
        **of_run(ports, run),
    )


def _drain_ms(run: Run) -> int | None:
    """From the receipt of the start until what was in flight had ended, rollbacks too."""
    began, ended = run.journal[Started.step].done_at, run.journal[Ended.step].done_at
    return elapsed_ms(began, instant(ended)) if began and ended else None


def act_proof(ports: Ports, run: Run) -> Result:
    """Have the receipt, with its proof, lie beside the archive; that ends the run."""
    receipt_id, last = Completed.of(run).receipt_id, _last_seal(ports, run)
    keep.seal_all(ports, run.account_id)
    keep.publish_proof(ports, run.account_id, receipt_id, last, Archived.of(run).name)
    return Result(ends_with=receipt_id)


def _segments(ports: Ports, run: Run) -> list[dict[str, object]]:
    after = StoredLog.of(ports, run.account_id).seal_at(Sealed.of(run).after)
    size = after.tree_size if after else 0
    return [
        {
            "archive_gcs_path": segment.address,
            "archive_sha256": segment.sha256,
            "archive_size_bytes": segment.size_bytes,
            "first": segment.first,
            "size": segment.size,
        }
        for segment in segments.up_to(ports, run.account_id, size)
    ]


def _last_seal(ports: Ports, run: Run) -> Seal:
    last = StoredLog.of(ports, run.account_id).seal_at(Sealed.of(run).seal_number)
    if last is None:
        raise ConflictError("vanished", "the seal up to which it is archived is not there")
    return last
