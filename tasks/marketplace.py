"""A marketplace event becomes the run of the runbook that serves it."""

from governor.runs import Run, Trigger
from governor.tenancy import MarketplaceEvent
from ports import Ports
from tasks.runbooks import (
    customer_cancels,
    entitlement_lifecycle,
    entitlement_standing,
    tenant_purge,
)
from tasks.runs import intake
from tasks.runs.definition import Runbook


def runbook_of(event: MarketplaceEvent) -> Runbook:
    """The runbook that serves an event."""
    if event.event_type in entitlement_standing.EVENTS:
        return entitlement_standing.RUNBOOK
    if event.event_type == "entitlement.cancelled":
        return customer_cancels.RUNBOOK
    if event.event_type == "entitlement.deleted":
        return tenant_purge.EVENT_RUNBOOK
    return entitlement_lifecycle.RUNBOOK


def new_run(ports: Ports, event: MarketplaceEvent, body: bytes) -> Run:
    """The run an event starts, not stored yet. See ``tasks.runs.intake.new_run``."""
    is_erasure = event.event_type == "entitlement.deleted"
    told = event.evolve(cancellation_reason=None) if is_erasure else event
    run = intake.new_run(
        ports,
        runbook_of(event),
        told.document(),
        account_id=event.account_id,
        trigger=Trigger.WEBHOOK,
        dedupe_key=event.event_id,
        body=body,
    )
    return run.evolve(body="") if is_erasure else run  # the erasure keeps nothing of what it erases


def begin(ports: Ports, event: MarketplaceEvent, body: bytes) -> Run:
    """Start the run of an event, or find the one it started. See ``tasks.runs.intake.begin``."""
    return intake.begin(ports, runbook_of(event), new_run(ports, event, body))
