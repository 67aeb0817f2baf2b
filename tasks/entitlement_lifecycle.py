"""Runbook 6, Entitlement Lifecycle: a marketplace event becomes a governor, or a refusal.

============================  ==========================================  =======================
step                          does                                        undo
============================  ==========================================  =======================
entitlement_lifecycle.policy  is the event news? policy for SKU and plan  nothing was done
deploy_sku.*                  Runbook 1                                   see there
entitlement_lifecycle.finish  tenant and entitlement stable               it is the last step
============================  ==========================================  =======================

Ends with ``entitlement_active`` or ``entitlement_plan_changed``; refused with
``entitlement_failed``: for good (unknown SKU or plan; the same answer on redelivery) or for now (a
dependency is down; a redelivery is a new attempt).
"""

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from adapters import wiring
from config.settings import load
from governor import records
from governor.errors import ConflictError, DeniedError, InputError
from governor.fsm import RUN, GovernorState, RunState, advance
from governor.records import (
    Entitlement,
    JournalEntry,
    MarketplaceEvent,
    Run,
    Tenant,
    elapsed_ms,
    timestamp,
)
from ports import Ports
from ports.documents import Create, Update, Write
from tasks import deploy_sku, policies
from tasks.celery import app
from tasks.emit import land, receipt
from tasks.journal import start
from tasks.runbook import OPEN, RUNBOOKS_BY_NAME, Result, Runbook, Step
from tasks.step import run_step

NAME = "entitlement_lifecycle"
SUPPORTED = ("entitlement.created", "entitlement.plan_changed")


def begin(ports: Ports, event: MarketplaceEvent, body: bytes) -> Run:
    """Start the run of an event, or find the one it started; the run as it is now.

    A run that was refused for now is attempted again.

    Raises:
        ConflictError: the event's id came before with another body.
        InputError: an event this runbook does not serve.
        OutageError: the run may have been started; repeating is safe.
    """
    if event.event_type not in SUPPORTED:
        raise InputError(
            "unsupported-event",
            f"{event.event_type} is not served by this version; nothing changed",
        )
    run = _new_run(ports, event, body)
    path = records.run_path(run.run_id)
    try:
        land(ports, [Create(path, run.document())])
    except ConflictError:
        return _again(ports, run)
    start(run, RUNBOOK)
    return run


def _new_run(ports: Ports, event: MarketplaceEvent, body: bytes) -> Run:
    now = ports.clock.now()
    return Run(
        run_id=records.run_id(event.event_id),
        runbook=NAME,
        definition_sha256=RUNBOOK.definition_sha256(),
        account_id=event.account_id,
        event_id=event.event_id,
        body_sha256=hashlib.sha256(body).hexdigest(),
        body=body.decode(),
        event=event,
        started_at=timestamp(now),
        deadline_at=timestamp(now + timedelta(seconds=load().run_deadline_s)),
    )


def _again(ports: Ports, asked: Run) -> Run:
    found = ports.documents.get(records.run_path(asked.run_id))
    if found is None:
        raise ConflictError("run-vanished", "the run of this event is being changed; repeat")
    former = Run.model_validate(found.data)
    if former.body_sha256 != asked.body_sha256:
        raise ConflictError("event-id-reused", "this event_id came before with another body")
    if former.state is not RunState.FAILED:
        return former
    again = asked.evolve(state=advance(RUN, former.state, "redeliver"), attempt=former.attempt + 1)
    try:
        land(ports, [Update(found.path, again.document(), found.revision)])
    except ConflictError:
        return former  # another delivery of this event was first to attempt it again
    start(again, RUNBOOK)
    return again


def is_open(run: Run) -> bool:
    """Whether the run has not ended yet."""
    return run.state in OPEN


def _choose_policy(ports: Ports, run: Run) -> Result:
    found = ports.documents.get(records.entitlement_path(run.account_id, run.event.sku_id))
    former = Entitlement.model_validate(found.data) if found else None
    is_change = run.event.event_type == "entitlement.plan_changed"
    if former and former.run_id != run.run_id and run.event.event_time < former.event_time:
        # It tells of a time before what is in force: acknowledged, and nothing changes (D4).
        return Result(ends_with=_receipt_of(ports, former.run_id))
    if is_change and (former is None or former.state is not GovernorState.STABLE):
        raise DeniedError(
            "no-entitlement", "there is no active entitlement whose plan could change"
        )
    policy = policies.in_force(ports, run.event.sku_id, run.event.plan_type)
    return Result({"policy_version": policy.policy_version})


def _receipt_of(ports: Ports, run_id: str) -> str:
    found = ports.documents.get(records.run_path(run_id))
    receipt_id = Run.model_validate(found.data).receipt_id if found else None
    if receipt_id is None:
        raise ConflictError("no-receipt", f"run {run_id} has not ended")
    return receipt_id


def _succeeded(ports: Ports, run: Run) -> tuple[Sequence[Write], Create]:
    """The governor is up: stored states become stable, and the receipt says so."""
    writes: list[Write] = []
    tenant_document = ports.documents.get(records.tenant_path(run.account_id))
    found = ports.documents.get(records.entitlement_path(run.account_id, run.event.sku_id))
    if tenant_document is None or found is None:
        raise ConflictError("vanished", "the tenant's documents vanished under the run")
    tenant = Tenant.model_validate(tenant_document.data)
    if tenant.state is GovernorState.PROVISIONING:
        stable = tenant.evolve(state=GovernorState.STABLE)
        writes.append(Update(tenant_document.path, stable.document(), tenant_document.revision))
    entitlement = Entitlement.model_validate(found.data).evolve(state=GovernorState.STABLE)
    writes.append(Update(found.path, entitlement.document(), found.revision))
    return writes, _active_receipt(ports, run, tenant, entitlement)


def _active_receipt(ports: Ports, run: Run, tenant: Tenant, entitlement: Entitlement) -> Create:
    particular: dict[str, Any] = {
        "region": entitlement.region,
        "fsm_id": tenant.fsm_id,
        "resources": {
            "fsm_id": tenant.fsm_id,
            "pubsub_topic": tenant.topic,
            "firestore_path": "/" + records.tenant_path(run.account_id),
        },
    }
    operation = "entitlement_active"
    if run.event.event_type == "entitlement.plan_changed":
        operation = "entitlement_plan_changed"
        former = run.journal["deploy_sku.documents"].result["previous_entitlement"]
        particular = {"previous_plan_type": former["plan_type"]}
    return receipt(
        ports, operation, run.account_id, run.run_id, attempt=run.attempt,
        sku_id=entitlement.sku_id, plan_type=entitlement.plan_type,
        policy_version=entitlement.policy_version,
        quota={
            "monthly_actions": entitlement.monthly_actions,
            "concurrent_actions": entitlement.concurrent_actions,
        },
        **_of_run(ports, run), **particular,
    )  # fmt: skip


def _open_the_door(ports: Ports, run: Run) -> None:
    """Admit signals, now that the receipt is committed; not a moment before."""
    if run.state is RunState.COMPLETE:
        deploy_sku.boot_governor(ports, run.account_id)


def _refused(ports: Ports, run: Run, failed_step: str) -> Create:
    return receipt(
        ports, "entitlement_failed", run.account_id, run.run_id, attempt=run.attempt,
        status="failed", sku_id=run.event.sku_id, plan_type=run.event.plan_type,
        region=run.event.region, failed_step=failed_step, error_code=run.error_code,
        error_detail=run.error_detail, retryable=run.retryable, **_of_run(ports, run),
    )  # fmt: skip


def _of_run(ports: Ports, run: Run) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "event_id": run.event_id,
        "body_sha256": run.body_sha256,
        "duration_ms": elapsed_ms(run.started_at, ports.clock.now()),
    }


def _nothing(_ports: Ports, _run: Run) -> dict[str, bool]:
    return {}


def _finish(_ports: Ports, _run: Run) -> Result:
    return Result()


def _nothing_to_undo(_ports: Ports, _run: Run, _entry: JournalEntry) -> None:
    """The step has no effect outside the run's own journal."""


RUNBOOK = Runbook(
    name=NAME,
    steps=(
        Step("entitlement_lifecycle.policy", _nothing, _choose_policy, _nothing_to_undo),
        *deploy_sku.STEPS,
        Step("entitlement_lifecycle.finish", _nothing, _finish, _nothing_to_undo),
    ),
    succeeded=_succeeded,
    refused=_refused,
    ended=_open_the_door,
)
RUNBOOKS_BY_NAME[NAME] = RUNBOOK


def _task(step_name: str) -> None:
    @app.task(name=step_name)
    def carry_out(run_id: str, account_id: str) -> None:  # for Flower's search
        run_step(wiring.ports(), RUNBOOK, step_name, run_id)


for _step in RUNBOOK.steps:
    _task(_step.name)
