"""Runbook 1, Deploy New SKU: the provisioning chain of a new entitlement (D3).

====================  ========================================  =================================
step                  does                                      undo (only what this run created)
====================  ========================================  =================================
deploy_sku.documents  tenant (the FSM) and entitlement          delete, or put the former one back
deploy_sku.signals    topic and push subscription               delete both
deploy_sku.governor   tenant key; governor booted into Memory   boot again from Documents
====================  ========================================  =================================

Refused when a topic exists with another configuration, or a store does not answer; every step is
idempotent, for effects are looked at before they are brought about.
"""

from typing import Any

from governor import records
from governor.errors import ConflictError, PolicyError
from governor.fsm import GovernorState
from governor.policy import Policy
from governor.records import Entitlement, JournalEntry, Run, Tenant, timestamp
from ports import Ports
from ports.documents import Create, Delete, Document, Update, Write
from ports.memory import Terms
from tasks import policies
from tasks.emit import alert, land
from tasks.runbook import Result, Step

_LIVE = (GovernorState.STABLE, GovernorState.DEGRADED)


def boot_governor(ports: Ports, account_id: str) -> bool:
    """Tell Memory what Documents know of an account's governor; whether it may admit now.

    Documents are read again afterwards, so that of two boots the later knowledge stays.
    """
    before = _known(ports, account_id)
    while True:
        admits = _boot(ports, account_id, *before)
        after = _known(ports, account_id)
        if after == before:
            return admits
        before = after


Known = tuple[Document | None, list[Document]]


def _known(ports: Ports, account_id: str) -> Known:
    tenant = ports.documents.get(records.tenant_path(account_id))
    return tenant, ports.documents.scan(f"tenants/{account_id}/entitlements", limit=1000)


def _boot(
    ports: Ports, account_id: str, tenant: Document | None, entitlements: list[Document]
) -> bool:
    if tenant is None:
        ports.memory.forget(account_id)
        return False
    state = Tenant.model_validate(tenant.data).state
    all_terms = [Entitlement.model_validate(d.data) for d in entitlements]
    live = [e for e in all_terms if e.state in _LIVE]
    admits = state in _LIVE and bool(live)
    # What is still being provisioned is known to Memory already, but admits nothing.
    known_as = GovernorState.STABLE if admits else state
    chosen = live if admits else all_terms
    terms = [t for e in chosen if (t := _usable_terms(ports, e)) is not None]
    ports.memory.boot(account_id, known_as, terms)
    return admits


def _usable_terms(ports: Ports, entitlement: Entitlement) -> Terms | None:
    """An entitlement's terms; None, and an alarm, when its policy cannot be used here.

    One that cannot be used keeps nobody else's door shut, not even of the same account.
    """
    try:
        return _terms(ports, entitlement)
    except PolicyError as error:
        subject = f"{entitlement.sku_id} {entitlement.policy_version}"
        raised, told = alert(
            ports, "critical", "policy_unusable", entitlement.account_id, subject, error.detail
        )
        try:
            land(ports, [raised])
        except ConflictError:
            return None  # told before
        ports.alerts.send(told)
        return None


def policy_of(ports: Ports, run: Run) -> Policy:
    """The policy the run's first step chose."""
    facts = run.journal["entitlement_lifecycle.policy"].result
    return policies.load(ports, run.event.sku_id, run.event.plan_type, facts["policy_version"])


def _terms(ports: Ports, entitlement: Entitlement) -> Terms:
    policy = policies.load(
        ports, entitlement.sku_id, entitlement.plan_type, entitlement.policy_version
    )
    return Terms(
        sku_id=entitlement.sku_id,
        plan_type=entitlement.plan_type,
        policy_version=entitlement.policy_version,
        concurrent_actions=entitlement.concurrent_actions,
        monthly_actions=entitlement.monthly_actions,
        signal_types=sorted(policy.route()),
    )


# -- documents


def _look_documents(ports: Ports, run: Run) -> dict[str, bool]:
    tenant, entitlement = _stored(ports, run)
    return {
        "tenant": _made_by(tenant, run, "created_by"),
        "entitlement": _made_by(entitlement, run, "run_id"),
    }


def _act_documents(ports: Ports, run: Run) -> Result:
    tenant, entitlement = _stored(ports, run)
    facts: dict[str, Any] = {
        "previous_tenant": tenant.data if tenant else None,
        "previous_entitlement": entitlement.data if entitlement else None,
    }
    writes: list[Write] = [
        _put(entitlement, records.entitlement_path(run.account_id, run.event.sku_id),
             _entitlement(ports, run, entitlement)),
    ]  # fmt: skip
    renewed = _tenant(ports, run, tenant)
    if renewed is not None:
        writes.append(_put(tenant, records.tenant_path(run.account_id), renewed))
    return Result(facts, writes)


def _undo_documents(ports: Ports, run: Run, entry: JournalEntry) -> None:
    if entry.state == "done":  # its writes were part of the commit that made it so
        tenant, entitlement = _stored(ports, run)
        writes = []
        if entitlement and entitlement.data["run_id"] == run.run_id:
            writes.append(_restore(entitlement, entry.result["previous_entitlement"]))
        if tenant and tenant.data["created_by"] == run.run_id:
            writes.append(_restore(tenant, entry.result["previous_tenant"]))
        land(ports, writes)
    boot_governor(ports, run.account_id)


def _tenant(ports: Ports, run: Run, found: Document | None) -> Tenant | None:
    """The tenant to write; None when the one that is there stays as it is."""
    former = Tenant.model_validate(found.data) if found else None
    if former and former.state is GovernorState.DRAINING:
        raise ConflictError("draining", "the former governor of this account is still draining")
    if former and former.state is not GovernorState.DECOMMISSIONED:
        return None
    generation = former.generation + 1 if former else 1
    return Tenant(
        account_id=run.account_id,
        generation=generation,
        fsm_id=records.fsm_id(run.account_id, generation),
        topic=records.topic_name(run.account_id),
        state=GovernorState.PROVISIONING,
        region=run.event.region,
        created_at=timestamp(ports.clock.now()),
        created_by=run.run_id,
    )


def _entitlement(ports: Ports, run: Run, found: Document | None) -> Entitlement:
    policy = policy_of(ports, run)
    is_live = found is not None and found.data["state"] in _LIVE
    return Entitlement(
        account_id=run.account_id,
        sku_id=run.event.sku_id,
        plan_type=run.event.plan_type,
        policy_version=policy.policy_version,
        region=run.event.region,
        state=GovernorState.STABLE if is_live else GovernorState.PROVISIONING,
        operating_state=policy.initial_state,
        concurrent_actions=policy.quota.concurrent_actions,
        monthly_actions=policy.quota.monthly_actions,
        event_time=run.event.event_time,
        run_id=run.run_id,
    )


def _stored(ports: Ports, run: Run) -> tuple[Document | None, Document | None]:
    return (
        ports.documents.get(records.tenant_path(run.account_id)),
        ports.documents.get(records.entitlement_path(run.account_id, run.event.sku_id)),
    )


def _made_by(found: Document | None, run: Run, field: str) -> bool:
    return found is None or found.data.get(field) == run.run_id


def _put(found: Document | None, path: str, record: Tenant | Entitlement) -> Write:
    if found is None:
        return Create(path, record.document())
    return Update(path, record.document(), found.revision)


def _restore(found: Document, previous: dict[str, Any] | None) -> Write:
    if previous is None:
        return Delete(found.path, found.revision)
    return Update(found.path, previous, found.revision)


# -- signals


def _look_signals(ports: Ports, run: Run) -> dict[str, bool]:
    return {"topic": not ports.signals.exists(run.account_id)}


def _act_signals(ports: Ports, run: Run) -> Result:
    ports.signals.create(run.account_id)
    return Result({"topic": records.topic_name(run.account_id)})


def _undo_signals(ports: Ports, run: Run, entry: JournalEntry) -> None:
    if entry.created.get("topic"):
        ports.signals.delete(run.account_id)


# -- governor


def _look_governor(_ports: Ports, _run: Run) -> dict[str, bool]:
    return {}


def _act_governor(ports: Ports, run: Run) -> Result:
    ports.secrets.publish_tenant_key(run.account_id)
    boot_governor(ports, run.account_id)
    return Result()


def _undo_governor(ports: Ports, run: Run, _entry: JournalEntry) -> None:
    # Shut the door of a governor this run made. Another's stays open: nothing of this run was
    # live in it, and undoing the documents boots whatever was there before.
    tenant = ports.documents.get(records.tenant_path(run.account_id))
    if tenant and tenant.data["created_by"] == run.run_id:
        ports.memory.forget(run.account_id)


STEPS = (
    Step("deploy_sku.documents", _look_documents, _act_documents, _undo_documents),
    Step("deploy_sku.signals", _look_signals, _act_signals, _undo_signals),
    Step("deploy_sku.governor", _look_governor, _act_governor, _undo_governor),
)
