"""Runbook 1, Deploy New SKU: the provisioning chain of a new entitlement (D3).

The steps and their undos are in ``STEPS``; Runbook 6 carries them out. Every step looks at its
resources before it acts, so that it can be repeated. It undoes only what its own run made.
"""

from decimal import Decimal
from typing import Any

from governor import paths
from governor.errors import ConflictError
from governor.fsm import (
    ENTITLEMENT,
    ENTITLEMENT_BOUGHT,
    EntitlementState,
    GovernorState,
    advance,
)
from governor.policy import Policy
from governor.records import SemVer
from governor.runs import Effect, JournalEntry, Run, StepResult
from governor.slo import contract
from governor.tenancy import Entitlement, MarketplaceEvent, Tenant
from governor.times import timestamp
from ports import Ports
from ports.documents import Create, Delete, Document, Update, Write
from ports.signals import Topic
from tasks.governors import policies
from tasks.governors.boot import boot_governor
from tasks.manual import Door, Manual
from tasks.receipts.commit import commit_once
from tasks.runbooks.events import event_of, reflected_at
from tasks.runs.definition import Result, Step

BOOT_FAILED = "governor_boot_failed"


class ChosenPolicy(StepResult):
    """What Runbook 6 has chosen before Runbook 1 provisions."""

    step = "entitlement_lifecycle.policy"

    policy_version: SemVer


class Provisioned(StepResult):
    """What was in the place of the documents before."""

    step = "deploy_sku.documents"

    previous_tenant: dict[str, Any] | None
    previous_entitlement: dict[str, Any] | None


def policy_of(ports: Ports, run: Run) -> Policy:
    """The policy the run's first step chose."""
    event, chosen = event_of(run), ChosenPolicy.of(run)
    return policies.load(ports, event.sku_id, event.plan_type, chosen.policy_version)


# -- documents


def _look_documents(ports: Ports, run: Run) -> dict[str, Effect]:
    tenant, entitlement = _stored(ports, run)
    is_made = _needs_new(tenant)
    return {
        paths.tenant_path(run.account_id): _effect(tenant) if is_made else Effect.KEEP,
        event_of(run).entitlement_path: _effect(entitlement),
    }


def _act_documents(ports: Ports, run: Run) -> Result:
    tenant, entitlement = _stored(ports, run)
    facts = Provisioned(
        previous_tenant=tenant.data if tenant else None,
        previous_entitlement=entitlement.data if entitlement else None,
    )
    writes: list[Write] = [
        _put(
            entitlement,
            event_of(run).entitlement_path,
            _entitlement(ports, run, entitlement),
        ),
    ]
    if _needs_new(tenant):
        path = paths.tenant_path(run.account_id)
        writes.append(_put(tenant, path, _tenant(ports, run, tenant)))
    return Result(facts, writes)


def _undo_documents(ports: Ports, run: Run, entry: JournalEntry) -> None:
    if entry.state == "done":  # its writes were part of the commit that made it so
        tenant, entitlement = _stored(ports, run)
        before, writes = Provisioned.stored(entry.result), []
        if entitlement and entitlement.data["made_by"] == run.maker:
            writes.append(_restore(entitlement, before.previous_entitlement))
        if tenant and tenant.data["created_by"] == run.maker:
            writes.append(_restore(tenant, before.previous_tenant))
        commit_once(ports, writes)
    boot_governor(ports, run.account_id)


def _needs_new(tenant: Document | None) -> bool:
    """Whether a governor has to be made.

    Raises:
        ConflictError: the former one is still draining; there cannot be two.
    """
    state = Tenant.stored(tenant.data).state if tenant else GovernorState.DECOMMISSIONED
    if state is GovernorState.DRAINING:
        raise ConflictError("draining", "the former governor of this account is still draining")
    return state is GovernorState.DECOMMISSIONED


def _tenant(ports: Ports, run: Run, former: Document | None) -> Tenant:
    generation = former.data["generation"] + 1 if former else 1
    return Tenant(
        account_id=run.account_id,
        generation=generation,
        fsm_id=paths.fsm_id(run.account_id, generation),
        topic=paths.topic_name(run.account_id),
        state=GovernorState.PROVISIONING,
        region=event_of(run).region,
        created_at=timestamp(ports.clock.now()),
        created_by=run.maker,
    )


def _entitlement(ports: Ports, run: Run, found: Document | None) -> Entitlement:
    """What the event says; a live one keeps its region, and its operating state where it can.

    On the same plan it keeps a limit that was scaled. What was spent in the month stays spent.
    """
    policy = policy_of(ports, run)
    former = Entitlement.stored(found.data) if found else None
    live = former if former and former.state in ENTITLEMENT_BOUGHT else None
    keeps_state = live is not None and live.operating_state in policy.states
    is_same = live is not None and (live.sku_id, live.plan_type) == (
        event_of(run).sku_id,
        event_of(run).plan_type,
    )
    scaled = live if live and is_same and live.limited_by else None
    limit = policy.quota.concurrent_actions
    if scaled:
        limit = min(scaled.concurrent_actions, policy.quota.max_concurrent_actions)
    state = EntitlementState.PROVISIONING
    if former and not live and former.state is not state:
        state = advance(ENTITLEMENT, former.state, "resubscribe")
    return Entitlement(
        account_id=run.account_id,
        entitlement_id=event_of(run).entitlement_id,
        sku_id=event_of(run).sku_id,
        plan_type=event_of(run).plan_type,
        policy_version=policy.policy_version,
        region=live.region if live else event_of(run).region,
        state=live.state if live else state,
        operating_state=live.operating_state if live and keeps_state else policy.initial_state,
        concurrent_actions=limit,
        limited_by=scaled.limited_by if scaled else "",
        scaling_month=former.scaling_month if former else "",
        scaling_usd=former.scaling_usd if former else Decimal(0),
        monthly_actions=policy.quota.monthly_actions,
        event_time=reflected_at(event_of(run), former),
        run_id=run.run_id,
        made_by=run.maker,
        cancels_at=live.cancels_at if live else None,
        is_counted=former.is_counted if former else True,
        accepted_before=former.accepted_before if former else 0,
    )


def _stored(ports: Ports, run: Run) -> tuple[Document | None, Document | None]:
    return (
        ports.documents.get(paths.tenant_path(run.account_id)),
        ports.documents.get(event_of(run).entitlement_path),
    )


def _effect(found: Document | None) -> Effect:
    return Effect.CREATE if found is None else Effect.CHANGE


def _put(found: Document | None, path: str, record: Tenant | Entitlement) -> Write:
    if found is None:
        return Create(path, record.document())
    return Update(path, record.document(), found.revision)


def _restore(found: Document, previous: dict[str, Any] | None) -> Write:
    if previous is None:
        return Delete(found.path, found.revision)
    return Update(found.path, previous, found.revision)


# -- signals


def _look_signals(ports: Ports, run: Run) -> dict[str, Effect]:
    topic = ports.signals.look(run.account_id, event_of(run).region)
    if topic is Topic.FOREIGN:
        ports.signals.create(run.account_id, event_of(run).region)  # refuses, and says why
    meant = {Topic.ABSENT: Effect.CREATE, Topic.READY: Effect.KEEP}.get(topic, Effect.CHANGE)
    if meant is Effect.CREATE and not _is_maker(ports, run):
        meant = Effect.CHANGE  # a governor in service lost it: made good, and never undone
    return {paths.topic_name(run.account_id): meant}


def _act_signals(ports: Ports, run: Run) -> Result:
    ports.signals.create(run.account_id, event_of(run).region)
    return Result()


def _undo_signals(ports: Ports, run: Run, entry: JournalEntry) -> None:
    if entry.made(paths.topic_name(run.account_id)) and _is_maker(ports, run):
        ports.signals.delete(run.account_id)


def _is_maker(ports: Ports, run: Run) -> bool:
    """Whether the account's governor, if there is one, is of this very attempt."""
    found = ports.documents.get(paths.tenant_path(run.account_id))
    tenant = Tenant.stored(found.data) if found else None
    if tenant is None or tenant.state is GovernorState.DECOMMISSIONED:
        return True
    return tenant.created_by == run.maker


# -- governor


def _look_governor(ports: Ports, run: Run) -> dict[str, Effect]:
    effect = Effect.CREATE if _is_maker(ports, run) else Effect.CHANGE
    return {f"governor of {run.account_id}": effect}


def _act_governor(ports: Ports, run: Run) -> Result:
    tenant, _ = _stored(ports, run)
    generation = Tenant.stored(tenant.data).generation if tenant else 1
    ports.secrets.publish_tenant_key(run.account_id, generation)
    boot_governor(ports, run.account_id)
    return Result()


def _undo_governor(ports: Ports, run: Run, _entry: JournalEntry) -> None:
    # Shut the door of a governor this run made. Another's stays open: nothing of this run was
    # live in it, and undoing the documents boots whatever was there before.
    tenant = ports.documents.get(paths.tenant_path(run.account_id))
    if tenant and tenant.data["created_by"] == run.maker:
        ports.governors.forget(run.account_id, ports.governors.begin_boot())
        ports.secrets.withdraw_tenant_key(run.account_id)


STEPS = (
    Step(
        "deploy_sku.documents",
        "Documents",
        does="create tenant (the governor's FSM) and entitlement, both provisioning",
        undoes="delete both, or put the former ones back",
        look=_look_documents,
        act=_act_documents,
        undo=_undo_documents,
    ),
    Step(
        "deploy_sku.signals",
        "Signals",
        does="create topic and push subscription, or repair them",
        undoes="delete subscription and topic, if this run created them",
        look=_look_signals,
        act=_act_signals,
        undo=_undo_signals,
    ),
    Step(
        "deploy_sku.governor",
        "Memory",
        does="publish the tenant's key, boot the governor: entitlement, limits, permissions",
        undoes="forget the governor and withdraw its key, or boot the former one",
        look=_look_governor,
        act=_act_governor,
        undo=_undo_governor,
        alarm=BOOT_FAILED,
    ),
)

DOOR = Door(
    asker="Marketplace",
    at="Ingress",
    asks="signed event",
    wrong=("signature invalid", "400"),
    well="200 with the receipt (202 after 5 s)",
    badly="422: permanent, 503: deliver again",
)

MANUAL = Manual(
    number=1,
    title="Deploy New SKU",
    purpose="The provisioning chain that Runbook 6 runs for a new or changed entitlement.",
    trigger="Runbook 6 has accepted a marketplace event and chosen its policy",
    inputs=MarketplaceEvent,
    outputs=(
        "`tenants/{account_id}` with the governor's FSM, and its entitlement below it",
        "topic `tenants.{account_id}.signals` and its push subscription",
        "the tenant's signal key, and the governor booted in Memory",
        "`entitlement_active`",
    ),
    refusals=(
        (
            "a topic of that name exists and cannot be repaired",
            "`entitlement_failed`, to be delivered again (503)",
        ),
        (
            "a store does not answer until the run's deadline",
            "all is undone, `entitlement_failed`, to be delivered again (503)",
        ),
        ("the governor cannot be booted", f"the same, and a critical alert `{BOOT_FAILED}`"),
        (
            "an undo fails five times",
            "the run is parked with `compensation_failed` and a critical alert, and undone later",
        ),
    ),
    slis=contract.DEPLOY_SKU,
    receipts=("entitlement_active", "entitlement_failed", "compensation_failed", "alert_raised"),
    door=DOOR,
    refused_with="entitlement_failed",
)
