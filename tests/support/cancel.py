"""Cancellations played by a test: it takes the part of workers, reaper and clock."""

import dataclasses
from typing import Any

from governor import paths
from governor.actions import Action
from governor.fsm import RUN_OPEN
from governor.runs import Run
from governor.tenancy import Entitlement, MarketplaceEvent, Tenant
from governor.times import instant
from ledger.receipt import SignedReceipt
from ports import Ports
from ports.documents import Where, every
from tasks.actions.admit import Signal, submit
from tasks.actions.execute import execute
from tasks.marketplace import begin, runbook_of
from tasks.runbooks import RUNBOOKS
from tasks.runs import reap, waits
from tasks.runs.step import run_link
from tests.engine.conftest import event
from tests.support.faults import Watched, Writes, watched
from tests.support.runs import ACCOUNT, GOES_ON, LaterClock, run_of

DAY = "2026-11-24"
WRITES = 46
"""How many writes a cancellation makes that has an action and a message to count."""


def told(event_type: str, second: int = 0, **changes: str) -> MarketplaceEvent:
    """An event of the day after the subscription."""
    return event(
        event_type=f"entitlement.{event_type}",
        event_id=changes.pop("event_id", f"{event_type}-{second}"),
        event_time=f"{DAY}T12:00:{second:02}.000000Z",
        **changes,
    )


def play(ports: Ports, of: MarketplaceEvent) -> Run:
    """Begin the run of an event, and what workers do with its chain."""
    return carry_on(ports, begin(ports, of, b"{}").run_id)


def carry_on(ports: Ports, run_id: str) -> Run:
    """What workers do with a run's chain until it rests or ends."""
    for _ in range(2):
        run = run_of(ports, run_id)
        for name, _limit_s in RUNBOOKS[run.runbook].links(run):
            if run_link(ports, RUNBOOKS, name, run_id).ending not in GOES_ON:
                break
        if run_of(ports, run_id).state is run.state:
            break
    return run_of(ports, run_id)


def to_the_end(ports: Ports, run_id: str) -> Run:
    """What workers and the reaper do, however long it takes; under a clock that can be moved."""
    assert isinstance(ports.clock, LaterClock)
    for _ in range(200):
        run = carry_on(ports, run_id)
        if run.state not in RUN_OPEN:
            return run
        if run.retry_at:
            ports.clock.sleep_until(instant(run.retry_at))
        else:
            ports.clock.sleep(0.5)
    raise AssertionError(f"the run is stuck: {run}")


def up_to(ports: Ports, of: MarketplaceEvent, step: str) -> Run:
    """The run of an event, with everything done before a step."""
    run = begin(ports, of, b"{}")
    for each in runbook_of(of).steps:
        if each.name.endswith(f".{step}"):
            break
        assert run_link(ports, RUNBOOKS, each.name, run.run_id).is_done, each.name
    return run_of(ports, run.run_id)


def up_to_step(ports: Ports, run_id: str, name: str) -> bool:
    """Carry out a run's steps before the one named."""
    for step in RUNBOOKS[run_of(ports, run_id).runbook].steps:
        if step.name == name:
            return True
        assert run_link(ports, RUNBOOKS, step.name, run_id).is_done, step.name
    return False


def is_waited_for(ports: Ports, run_id: str) -> bool:
    """Whether the reaper would leave a waiting run alone."""
    run = run_of(ports, run_id)
    step = waits.waiting_step(RUNBOOKS[run.runbook], run)
    return step is not None and not waits.is_over(ports, step, run)


def look(ports: Ports) -> None:
    """One look of the reaper at all runs; what it sends goes nowhere."""
    reap.look(ports, RUNBOOKS)


def act(ports: Ports, signal_id: str, kind: str = "demo.succeed", **payload: Any) -> str:
    """A signal accepted, and carried out by a worker; its action."""
    action_id = accept(ports, signal_id, kind, **payload)
    execute(ports, ACCOUNT, action_id)
    return action_id


def accept(ports: Ports, signal_id: str, kind: str = "demo.succeed", **payload: Any) -> str:
    return submit(ports, Signal(ACCOUNT, signal_id, kind, None, payload))


def action(ports: Ports, action_id: str) -> Action:
    found = ports.documents.get(paths.action_path(ACCOUNT, action_id))
    assert found
    return Action.stored(found.data)


def entitlement(ports: Ports, entitlement_id: str = "demo-sku") -> Entitlement:
    found = ports.documents.get(paths.entitlement_path(ACCOUNT, entitlement_id))
    assert found
    return Entitlement.stored(found.data)


def tenant(ports: Ports) -> Tenant:
    found = ports.documents.get(paths.tenant_path(ACCOUNT))
    assert found
    return Tenant.stored(found.data)


def of_kind(ports: Ports, operation: str, account_id: str = ACCOUNT) -> list[dict[str, Any]]:
    """All receipts of one operation, oldest first."""
    found = every(
        ports.documents, f"tenants/{account_id}/receipts", Where("operation", "==", operation)
    )
    told = [SignedReceipt.stored(each.data).fields() for each in found]
    return sorted(told, key=lambda fields: str(fields["timestamp"]))


def observed(ports: Ports, writes: Writes) -> Ports:
    """Ports of which every write of a cancellation is watched."""
    return dataclasses.replace(
        watched(ports, writes),
        signals=Watched(ports.signals, writes, "delete", "drop", "stop_pushing"),  # type: ignore[arg-type]
        archives=Watched(ports.archives, writes, "create"),  # type: ignore[arg-type]
    )
