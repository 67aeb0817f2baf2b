"""Runbook 7 up to the last action: the door is shut, everything under way ends and is counted."""

from governor import paths
from governor.actions import Action
from governor.errors import ConflictError, DeniedError, OutageError
from governor.fsm import (
    ENTITLEMENT,
    ENTITLEMENT_ENDED,
    GOVERNOR,
    ActionState,
    GovernorState,
    advance,
)
from governor.runs import Effect, Run, StepResult, Wait
from governor.tenancy import Entitlement, Tenant, Tombstone
from governor.times import timestamp
from ports import Ports
from ports.documents import Create, Document, Update, Write, every
from tasks.actions import drain
from tasks.governors.boot import boot_governor
from tasks.receipts.commit import explained, receipt
from tasks.runbooks.events import (
    entitlement_of,
    event_of,
    ignored,
    is_stale,
    noted,
    of_run,
    reflected_at,
)
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


# -- event


def decide(ports: Ports, run: Run) -> Result:
    """See that the event is news, and that there is something to cancel."""
    known = entitlement_of(ports, run)
    if known is None:
        return _note_the_unknown(ports, run)
    found, former = known
    if is_stale(run, former):
        return ignored(ports, run, "stale")
    if former.state in ENTITLEMENT_ENDED:
        return ignored(ports, run, "ended", [noted(run, found, former)])
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
    found, former = stored_entitlement(ports, run)
    tenant_document, tenant = tenant_of(ports, run)
    draining = former.evolve(
        state=advance(ENTITLEMENT, former.state, "cancel"),
        event_time=reflected_at(event_of(run), former),
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
    if any(a.state is ActionState.ROLLBACK_FAILED or a.is_alerted for a in left):
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


def stored_entitlement(ports: Ports, run: Run) -> tuple[Document, Entitlement]:
    """The entitlement a run ends. Raises ConflictError if it vanished."""
    known = entitlement_of(ports, run)
    if known is None:
        raise ConflictError("vanished", "the entitlement's document vanished under the run")
    return known


def tenant_of(ports: Ports, run: Run) -> tuple[Document, Tenant]:
    """The account's tenant. Raises ConflictError if it vanished."""
    found = ports.documents.get(paths.tenant_path(run.account_id))
    if found is None:
        raise ConflictError("vanished", "the tenant's document vanished under the run")
    return found, Tenant.stored(found.data)


def refuse_unless_ours(ports: Ports, run: Run) -> None:
    """Refuse to touch what may be another's: of a process that stood still the run may be over.

    Raises:
        ConflictError: ``taken-over``: the governor is not the one that drained.
    """
    _, tenant = tenant_of(ports, run)
    if (tenant.state, tenant.fsm_id) != (GovernorState.DRAINING, Draining.of(run).fsm_id):
        raise ConflictError("taken-over", f"the governor is {tenant.fsm_id}, {tenant.state}")
