"""Runbook 6, Entitlement Lifecycle: a marketplace event becomes a governor, or a refusal.

It verifies, chooses the policy for SKU and plan, and has Runbook 1 provision (D3). The run is the
claim of its event: redelivered, the same event finds the same run and gets the same receipt.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

from governor import paths
from governor.errors import ConflictError, DeniedError, GovernorError
from governor.fsm import (
    ENTITLEMENT,
    ENTITLEMENT_BOUGHT,
    EntitlementState,
    GovernorState,
    RunState,
    advance,
)
from governor.runs import Run
from governor.slo import contract
from governor.tenancy import Entitlement, MarketplaceEvent, Tenant
from ports import Ports
from ports.documents import Create, Update, Write
from tasks.governors import policies
from tasks.governors.boot import boot_governor
from tasks.manual import Manual
from tasks.receipts.commit import explained, receipt
from tasks.runbooks import deploy_sku, upgrade_policy
from tasks.runbooks.events import (
    entitlement_of,
    event_of,
    ignored,
    is_stale,
    noted,
    of_run,
    was_cancelled_before,
)
from tasks.runs.definition import Result, Runbook, Step

NAME = "entitlement_lifecycle"


def _choose_policy(ports: Ports, run: Run) -> Result:
    event = event_of(run)
    known = entitlement_of(ports, run)
    former = known[1] if known else None
    if is_stale(run, former) if former else was_cancelled_before(ports, run):
        return ignored(ports, run, "stale")
    if event.event_type == "entitlement.plan_changed":
        _refuse_unless_bought(former)
    elif known and known[1].state is EntitlementState.SUSPENDED:
        return ignored(ports, run, "no-change", [noted(run, *known)])  # only it can be reinstated
    if former and former.state in ENTITLEMENT_BOUGHT and former.sku_id != event.sku_id:
        raise DeniedError(
            "entitlement-of-another-sku",
            f"this entitlement is one of {former.sku_id}",
        )
    policy = policies.in_force(ports, event.sku_id, event.plan_type)
    return Result(deploy_sku.ChosenPolicy(policy_version=policy.policy_version))


def _refuse_unless_bought(former: Entitlement | None) -> None:
    if former is None:  # events overtake each other: its subscription may be on its way
        raise ConflictError(
            "no-entitlement-yet",
            "there is no entitlement whose plan could change; deliver this again after its "
            "subscription",
        )
    if former.state not in ENTITLEMENT_BOUGHT:
        raise DeniedError(
            "no-entitlement", f"the entitlement is {former.state}; its plan cannot change"
        )


def _succeeded(ports: Ports, run: Run) -> tuple[Sequence[Write], Create]:
    """The governor is up: stored states become stable, and the receipt says so."""
    writes: list[Write] = []
    tenant_document = ports.documents.get(paths.tenant_path(run.account_id))
    found = ports.documents.get(event_of(run).entitlement_path)
    if tenant_document is None or found is None:
        raise ConflictError("vanished", "the tenant's documents vanished under the run")
    tenant = Tenant.stored(tenant_document.data)
    if tenant.state is GovernorState.PROVISIONING:
        stable = tenant.evolve(state=GovernorState.STABLE)
        writes.append(Update(tenant_document.path, stable.document(), tenant_document.revision))
    entitlement = Entitlement.stored(found.data)
    if entitlement.state is EntitlementState.PROVISIONING:
        entitlement = entitlement.evolve(state=advance(ENTITLEMENT, entitlement.state, "activate"))
    writes.append(Update(found.path, entitlement.document(), found.revision))
    return writes, _active_receipt(ports, run, tenant, entitlement)


def _active_receipt(ports: Ports, run: Run, tenant: Tenant, entitlement: Entitlement) -> Create:
    particular: dict[str, Any] = {
        "region": entitlement.region,
        "fsm_id": tenant.fsm_id,
        "resources": {
            "fsm_id": tenant.fsm_id,
            "pubsub_topic": tenant.topic,
            "firestore_path": "/" + paths.tenant_path(run.account_id),
        },
    }
    operation = "entitlement_active"
    if event_of(run).event_type == "entitlement.plan_changed":
        operation = "entitlement_plan_changed"
        former = deploy_sku.Provisioned.of(run).previous_entitlement or {}
        particular = {"previous_plan_type": former["plan_type"]}
    return receipt(
        ports,
        operation,
        run.account_id,
        run.run_id,
        attempt=run.attempt,
        entitlement_id=entitlement.entitlement_id,
        sku_id=entitlement.sku_id,
        plan_type=entitlement.plan_type,
        policy_version=entitlement.policy_version,
        policy_ms=run.journal[deploy_sku.ChosenPolicy.step].took_ms,
        quota={
            "monthly_actions": entitlement.monthly_actions,
            "concurrent_actions": entitlement.concurrent_actions,
        },
        **of_run(ports, run),
        **particular,
    )


def _open_the_door(ports: Ports, run: Run) -> None:
    """Admit signals, now that the receipt is committed; not a moment before."""
    if run.state is RunState.COMPLETE:
        boot_governor(ports, run.account_id)
    if known := entitlement_of(ports, run):  # a version may have flipped meanwhile
        held = known[1]
        with contextlib.suppress(GovernorError):  # an hourly look moves whom this does not
            upgrade_policy.catch_up(
                ports, held.sku_id, held.plan_type, held.policy_version, run.maker
            )


def _refused(ports: Ports, run: Run, failed_step: str) -> Sequence[Create]:
    return explained(
        ports,
        "entitlement_failed",
        run.account_id,
        run.run_id,
        run.error_detail or "",
        attempt=run.attempt,
        status="failed",
        entitlement_id=event_of(run).entitlement_id,
        sku_id=event_of(run).sku_id,
        plan_type=event_of(run).plan_type,
        region=event_of(run).region,
        failed_step=failed_step,
        error_code=run.error_code,
        retryable=run.retryable,
        **of_run(ports, run),
    )


MANUAL = Manual(
    number=6,
    title="Entitlement Lifecycle",
    purpose=(
        "A marketplace event becomes a governor, a change of its terms, or a refusal with nothing "
        "left of it. Its middle steps are Runbook 1."
    ),
    trigger=(
        "`POST /v1/webhooks/marketplace`, signed, with `entitlement.created` or "
        "`entitlement.plan_changed`"
    ),
    inputs=MarketplaceEvent,
    outputs=(
        "a governor that admits signals under the policy of SKU and plan",
        "`entitlement_active` or `entitlement_plan_changed`, committed with the stored states",
    ),
    refusals=(
        ("no policy for SKU and plan", "`entitlement_failed`, permanently (422)"),
        ("a plan change of a cancelled entitlement", "`entitlement_failed`, permanently (422)"),
        (
            "a plan change before its subscription",
            "`entitlement_failed`, to be delivered again (503)",
        ),
        ("an event older than the newest one in force", "acknowledged with `event_ignored` (200)"),
        (
            "a dependency down until the run's deadline",
            "all is undone, `entitlement_failed`, to be delivered again (503)",
        ),
        (
            "an operator cancels the run",
            "all is undone, `entitlement_failed` and `run_cancelled` (422)",
        ),
        ("a fault of ours", "all is undone, `entitlement_failed` (503), a critical alert"),
        ("it fails for now after the door had answered 202", "the same, and a critical alert"),
    ),
    slis=contract.ENTITLEMENT_LIFECYCLE,
    receipts=(
        "entitlement_active",
        "entitlement_plan_changed",
        "entitlement_failed",
        "event_ignored",
        "run_cancelled",
        "compensation_failed",
        "alert_raised",
    ),
    door=deploy_sku.DOOR,
    refused_with="entitlement_failed",
)

RUNBOOK = Runbook(
    name=NAME,
    manual=MANUAL,
    steps=(
        Step(
            "entitlement_lifecycle.policy",
            "Objects",
            does="see that the event is news, load the policy of SKU and plan",
            undoes="",
            act=_choose_policy,
            reads_only=True,
        ),
        *deploy_sku.STEPS,
        Step(
            "entitlement_lifecycle.finish",
            "Documents",
            does="commit tenant and entitlement as stable, together with the receipt",
            undoes="",
        ),
    ),
    succeeded=_succeeded,
    refused=_refused,
    ended=_open_the_door,
)
