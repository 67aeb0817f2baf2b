"""The steps of Runbook 7: what each reads, brings about, and leaves for the steps after it.

Each finds what it removes gone already, and goes on. What concerns topic, key and governor happens
only with an account's last entitlement.
"""

from governor import paths
from governor.actions import Action
from governor.errors import ConflictError, DeniedError, OutageError
from governor.fsm import (
    ENTITLEMENT,
    ENTITLEMENT_ENDED,
    GOVERNOR,
    ActionState,
    advance,
)
from governor.runs import Effect, Run, StepResult, Wait
from governor.tenancy import Entitlement, Tenant, Tombstone
from governor.times import timestamp
from ports import Ports
from ports.documents import Create, Document, Update, Write, every
from tasks.actions import drain
from tasks.governors.boot import boot_governor
from tasks.ledgers import keep
from tasks.ledgers.stored_log import StoredLog
from tasks.receipts.commit import explained, receipt
from tasks.runbooks import leftovers
from tasks.runbooks.events import entitlement_of, event_of, ignored, is_stale, of_run
from tasks.runs.definition import Result

ROLLBACK_PENDING = "ROLLBACK_PENDING"


class Draining(StepResult):
    """What drains."""

    step = "customer_cancels.drain"

    is_last: bool
    fsm_id: str
    sku_id: str


class Started(StepResult):
    """What was in flight when the door was shut, and the day of the archive."""

    step = "customer_cancels.start"

    actions: list[str]
    date: str


class Ended(StepResult):
    """How what was in flight has ended."""

    step = "customer_cancels.rollbacks"

    completed: int = 0
    failed: int = 0
    timed_out: int = 0
    accepted: int


class Sealed(StepResult):
    """Up to where the ledger is archived."""

    step = "customer_cancels.seal"

    seal_number: int


class Archived(StepResult):
    """The archive."""

    step = "customer_cancels.archive"

    name: str
    address: str
    size_bytes: int
    sha256: str


class Completed(StepResult):
    """The receipt of it all."""

    step = "customer_cancels.complete"

    receipt_id: str


# -- event


def decide(ports: Ports, run: Run) -> Result:
    """See that the event is news, and that there is something to cancel."""
    known = entitlement_of(ports, run)
    if known is None:
        return _note_the_unknown(ports, run)
    _, former = known
    if is_stale(run, former):
        return ignored(ports, run, "stale")
    if former.state in ENTITLEMENT_ENDED:
        return ignored(ports, run, "ended")
    if former.sku_id != event_of(run).sku_id:
        detail = f"this entitlement is one of {former.sku_id}; nothing was cancelled"
        raise DeniedError("entitlement-of-another-sku", detail)
    return Result()


def _note_the_unknown(ports: Ports, run: Run) -> Result:
    """Nothing is there to cancel; an older event of it, on its way still, will find that noted."""
    event = event_of(run)
    path = paths.tombstone_path(run.account_id, event.entitlement_id)
    stone = Tombstone(
        entitlement_id=event.entitlement_id, event_time=event.event_time, run_id=run.run_id
    )
    found = ports.documents.get(path)
    if found and is_stale(run, Tombstone.stored(found.data)):
        return ignored(ports, run, "stale")
    write: Write = Create(path, stone.document())
    if found:
        write = Update(path, stone.document(), found.revision)
    return ignored(ports, run, "no-entitlement", [write])


# -- drain


def look_drain(ports: Ports, run: Run) -> dict[str, Effect]:
    """The states that change."""
    effects = {event_of(run).entitlement_path: Effect.CHANGE}
    if is_last(ports, run):
        effects[paths.tenant_path(run.account_id)] = Effect.CHANGE
    return effects


def act_drain(ports: Ports, run: Run) -> Result:
    """Have the entitlement drain, and with the last one its governor."""
    found, former = _entitlement(ports, run)
    tenant_document, tenant = _tenant(ports, run)
    draining = former.evolve(
        state=advance(ENTITLEMENT, former.state, "cancel"),
        event_time=event_of(run).event_time,
        run_id=run.run_id,
    )
    writes: list[Write] = [Update(found.path, draining.document(), found.revision)]
    last = is_last(ports, run)
    if last:
        shut = tenant.evolve(state=advance(GOVERNOR, tenant.state, "cancel"))
        writes.append(Update(tenant_document.path, shut.document(), tenant_document.revision))
    return Result(Draining(is_last=last, fsm_id=tenant.fsm_id, sku_id=former.sku_id), writes)


def is_last(ports: Ports, run: Run) -> bool:
    """Whether the account has no other entitlement that has not ended."""
    entry = run.journal.get(Draining.step)
    if entry and entry.state == "done" and entry.result:
        return Draining.of(run).is_last
    mine = event_of(run).entitlement_path
    others = every(ports.documents, f"tenants/{run.account_id}/entitlements")
    return all(
        other.path == mine or Entitlement.stored(other.data).state in ENTITLEMENT_ENDED
        for other in others
    )


# -- start


def look_governor(ports: Ports, run: Run) -> dict[str, Effect]:
    """The governor that admits less."""
    return {f"governor of {run.account_id}": Effect.CHANGE}


def act_start(ports: Ports, run: Run) -> Result:
    """Shut the door, wait for what had just come through it, and state the actions in flight."""
    boot_governor(ports, run.account_id)
    event = event_of(run)
    if drain.is_landing(ports, run.account_id, event.entitlement_id):
        raise OutageError("signals-landing", "signals admitted just before are being stored", 1)
    in_flight = drain.under_way(ports, run.account_id, event.entitlement_id)
    fields = {
        "attempt": run.attempt,
        "status": "in_progress",
        "sku_id": Draining.of(run).sku_id,
        "entitlement_id": event.entitlement_id,
        "effective_at": event.effective_at,
        "in_flight_actions": len(in_flight),
        **of_run(ports, run),
    }
    of = ports, "decommission_start", run.account_id, run.run_id
    writes = [receipt(*of, **fields)]
    if event.cancellation_reason:
        writes = explained(*of, event.cancellation_reason, named="reason_sha256", **fields)
    date = timestamp(ports.clock.now())[:10]
    return Result(Started(actions=[a.action_id for a in in_flight], date=date), writes)


# -- actions and their rollbacks


def ready_actions(ports: Ports, run: Run) -> Wait | None:
    """Wait while anything of the entitlement is under way."""
    return Wait(reason="actions are under way") if _under_way(ports, run) else None


def look_actions(ports: Ports, run: Run) -> dict[str, Effect]:
    """The actions under way, ended by their own deadline or by the drain's."""
    return {f"actions of {event_of(run).entitlement_id}": Effect.CHANGE}


def act_actions(ports: Ports, run: Run) -> Result:
    """End explicitly what has not ended in time."""
    drain.cut_short(ports, _under_way(ports, run))
    return Result()


def ready_rollbacks(ports: Ports, run: Run) -> Wait | None:
    """Wait for every rollback; the operator hears of one that failed."""
    left = _under_way(ports, run)
    if any(a.state is ActionState.ROLLBACK_FAILED or a.rollback_attempts for a in left):
        return Wait(reason="a rollback keeps failing", alarm=ROLLBACK_PENDING)
    return Wait(reason="rollbacks are under way") if left else None


def act_rollbacks(ports: Ports, run: Run) -> Result:
    """Count how what was in flight has ended."""
    ended = [drain.outcome(ports, run.account_id, each) for each in Started.of(run).actions]
    counts = {outcome: ended.count(outcome) for outcome in ("completed", "failed", "timed_out")}
    entitlement_id = event_of(run).entitlement_id
    return Result(Ended(**counts, accepted=drain.accepted(ports, run.account_id, entitlement_id)))


def _under_way(ports: Ports, run: Run) -> list[Action]:
    return drain.under_way(ports, run.account_id, event_of(run).entitlement_id)


# -- archive


def look_archive(ports: Ports, run: Run) -> dict[str, Effect]:
    """The archive's place."""
    entry = run.journal.get(Started.step)
    date = Started.of(run).date if entry and entry.result else timestamp(ports.clock.now())[:10]
    return {ports.archives.address(f"{run.account_id}/{date}.tar.gz"): Effect.CREATE}


def act_seal(ports: Ports, run: Run) -> Result:
    """Seal everything that was receipted."""
    return Result(Sealed(seal_number=keep.seal_all(ports, run.account_id).number))


def act_archive(ports: Ports, run: Run) -> Result:
    """Have the ledger's archive in its bucket, read back and verified."""
    last = StoredLog.of(ports, run.account_id).seal_at(Sealed.of(run).seal_number)
    if last is None:
        raise ConflictError("vanished", "the seal up to which it is archived is not there")
    kept = keep.keep_archive(ports, run.account_id, last, Started.of(run).date)
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
    """Remove subscription, topic and key, and what Memory knows of the governor."""
    if Draining.of(run).is_last:
        ports.signals.delete(run.account_id)
        ports.secrets.withdraw_tenant_key(run.account_id)
        ports.governors.forget(run.account_id)
    return Result()


# -- complete


def look_complete(ports: Ports, run: Run) -> dict[str, Effect]:
    """The states that end."""
    return look_drain(ports, run)


def act_complete(ports: Ports, run: Run) -> Result:
    """Commit the stored states as decommissioned, together with the receipt."""
    found, former = _entitlement(ports, run)
    draining, ended = Draining.of(run), Ended.of(run)
    gone = former.evolve(
        state=advance(ENTITLEMENT, former.state, "drained"),
        cancels_at=None,
        is_counted=True,
        accepted_before=ended.accepted,
    )
    writes: list[Write] = [Update(found.path, gone.document(), found.revision)]
    if draining.is_last:
        tenant_document, tenant = _tenant(ports, run)
        over = tenant.evolve(state=advance(GOVERNOR, tenant.state, "drained"))
        writes.append(Update(tenant_document.path, over.document(), tenant_document.revision))
    accepted = ended.accepted - former.accepted_before if former.is_counted else None
    proof = _complete_receipt(ports, run, draining, ended, accepted)
    return Result(Completed(receipt_id=proof.data["receipt_id"]), [*writes, proof])


def _complete_receipt(
    ports: Ports, run: Run, draining: Draining, ended: Ended, accepted: int | None
) -> Create:
    event, archived = event_of(run), Archived.of(run)
    seal = StoredLog.of(ports, run.account_id).seal_at(Sealed.of(run).seal_number)
    if seal is None:
        raise ConflictError("vanished", "the seal up to which it was archived is not there")
    refused = leftovers.summary(ports, run)
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
        signals_refused=refused.count,
        undelivered_unknown=refused.undelivered_unknown,
        receipts_archived=seal.tree_size,
        archive_gcs_path=archived.address,
        archive_size_bytes=archived.size_bytes,
        archive_sha256=archived.sha256,
        checkpoint_size=seal.tree_size,
        checkpoint_root=seal.root,
        **of_run(ports, run),
    )


def act_proof(ports: Ports, run: Run) -> Result:
    """Have the receipt, with its proof, lie beside the archive; that ends the run."""
    log = StoredLog.of(ports, run.account_id)
    receipt_id, last = Completed.of(run).receipt_id, log.seal_at(Sealed.of(run).seal_number)
    if last is None:
        raise ConflictError("vanished", "the seal up to which it was archived is not there")
    keep.seal_all(ports, run.account_id)
    keep.publish_proof(ports, run.account_id, receipt_id, last, Archived.of(run).name)
    return Result(ends_with=receipt_id)


def _entitlement(ports: Ports, run: Run) -> tuple[Document, Entitlement]:
    known = entitlement_of(ports, run)
    if known is None:
        raise ConflictError("vanished", "the entitlement's document vanished under the run")
    return known


def _tenant(ports: Ports, run: Run) -> tuple[Document, Tenant]:
    found = ports.documents.get(paths.tenant_path(run.account_id))
    if found is None:
        raise ConflictError("vanished", "the tenant's document vanished under the run")
    return found, Tenant.stored(found.data)
