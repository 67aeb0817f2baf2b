"""Runs played by a test: it takes the part of worker and reaper, and of the clock between tries."""

import dataclasses
import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from governor import paths
from governor.fsm import RUN_OPEN, RUN_UNDOING
from governor.quota import Verdict
from governor.runs import JournalEntry, Run
from governor.tenancy import MarketplaceEvent
from governor.times import instant
from ledger.receipt import SignedReceipt
from ports import Ports
from ports.documents import Query
from ports.signals import Topic
from ports.slots import Request
from ports.system import Clock
from tasks.marketplace import begin
from tasks.outcomes import Ending, Outcome
from tasks.runbooks.entitlement_lifecycle import RUNBOOK
from tasks.runs import step
from tasks.runs.definition import Result, Runbook

ACCOUNT = "acme"
GOES_ON = (Ending.DONE, Ending.ALREADY_DONE)
"""After these Celery publishes the next link of a chain."""
Act = Callable[[Ports, Run], Result]
Undo = Callable[[Ports, Run, JournalEntry], None]


class LaterClock:
    """The real clock, moved on by as much as was slept."""

    def __init__(self, inner: Clock) -> None:
        self._inner = inner
        self._slept = timedelta()

    def now(self) -> datetime:
        return self._inner.now() + self._slept

    def machine(self) -> datetime:
        return self._inner.machine()

    def monotonic_s(self) -> float:
        return self._inner.monotonic_s() + self._slept.total_seconds()

    def sleep(self, seconds: float) -> None:
        self._slept += timedelta(seconds=seconds)

    def sleep_until(self, at: datetime) -> None:
        self._slept += max(timedelta(), at - self.now())


def later(ports: Ports) -> Ports:
    """The same ports under a clock that a test can move on."""
    return dataclasses.replace(ports, clock=LaterClock(ports.clock))


def run_of(ports: Ports, run_id: str) -> Run:
    found = ports.documents.get(paths.run_path(run_id))
    assert found
    return Run.model_validate(found.data)


def play(ports: Ports, run_id: str, runbook: Runbook = RUNBOOK) -> Run:
    """What workers do with a run's chain, and with the chain of its undos where it fails."""
    carry_on(ports, runbook, run_id)
    return run_of(ports, run_id)


def carry_on(ports: Ports, runbook: Runbook, run_id: str) -> None:
    """The same, under ports whose writes may fail."""
    for _ in range(2):
        run = run_of(ports, run_id)
        for name, _limit_s in runbook.links(run):
            if link(ports, name, run_id, runbook).ending not in GOES_ON:
                break
        if run.state in RUN_UNDOING or run_of(ports, run_id).state not in RUN_UNDOING:
            return


def link(ports: Ports, name: str, run_id: str, runbook: Runbook = RUNBOOK) -> Outcome:
    """What a worker does with one task of a chain."""
    return step.run_link(ports, {runbook.name: runbook}, name, run_id)


def play_to_the_end(ports: Ports, run_id: str, runbook: Runbook = RUNBOOK) -> Run:
    """What worker and reaper do, however long it takes; the ports must be under a later clock."""
    assert isinstance(ports.clock, LaterClock)
    for _ in range(100):
        run = play(ports, run_id, runbook)
        if run.state not in RUN_OPEN:
            return run
        if run.retry_at:
            ports.clock.sleep_until(instant(run.retry_at))
    raise AssertionError(f"the run is stuck: {run}")


def play_until(ports: Ports, of: MarketplaceEvent, step_name: str) -> Run:
    """A run with everything done before ``step_name``."""
    run = begin(ports, of, b"{}")
    for each in RUNBOOK.steps:
        if each.name == step_name:
            break
        assert link(ports, each.name, run.run_id).is_done
    return run_of(ports, run.run_id)


def subscribe(ports: Ports, of: MarketplaceEvent, body: bytes = b"{}") -> Run:
    return play(ports, begin(ports, of, body).run_id)


def with_step(
    step_name: str, *, act: Act | None = None, undo: Undo | None = None, runbook: Runbook = RUNBOOK
) -> Runbook:
    """The runbook with one step acting, or undoing, differently; its definition stays."""
    steps = tuple(
        dataclasses.replace(s, act=act or s.act, undo=undo or s.undo) if s.name == step_name else s
        for s in runbook.steps
    )
    return dataclasses.replace(runbook, steps=steps)


def failing(step_name: str, error: Exception) -> Runbook:
    """The runbook with one step that fails, always."""

    def act(_ports: Ports, _run: Run) -> Result:
        raise error

    return with_step(step_name, act=act)


def receipts(ports: Ports, account_id: str = ACCOUNT) -> list[dict[str, Any]]:
    found = ports.documents.scan(Query(f"tenants/{account_id}/receipts", order_by="timestamp"))
    return [SignedReceipt.model_validate(d.data).fields() for d in found]


def text_of(ports: Ports, receipt: dict[str, Any]) -> str:
    """The free text beside the ledger that a receipt names, which is what it says it is."""
    found = ports.documents.get(paths.text_path(receipt["account_id"], receipt["receipt_id"]))
    assert found
    kinds = ("error_sha256", "reason_sha256", "findings_sha256", "detail_sha256")
    named = next(receipt[kind] for kind in kinds if kind in receipt)
    text = str(found.data["text"])
    assert hashlib.sha256(text.encode()).hexdigest() == named == found.data["sha256"]
    return text


def operations(ports: Ports, account_id: str = ACCOUNT) -> list[str]:
    return [r["operation"] for r in receipts(ports, account_id)]


def memory_knows(ports: Ports, account_id: str) -> Verdict:
    """What Memory says to a signal nobody permits; it takes no slot for it."""
    asked = Request(account_id, "action-x", "nobody.permits", None, None, "0" * 64, "2026-11", 1000)
    (admission,) = ports.memory.admit([asked])
    return admission.verdict


def has_key(ports: Ports, account_id: str) -> bool:
    """Whether the tenant's key lies where its owner reads it."""
    return (ports.secrets._folder / "tenants" / f"{account_id}.key").exists()  # type: ignore[attr-defined,no-any-return]


def nothing_is_left(ports: Ports, account_id: str = ACCOUNT) -> bool:
    return (
        memory_knows(ports, account_id) is Verdict.UNKNOWN_TENANT
        and not has_key(ports, account_id)
        and ports.documents.get(paths.tenant_path(account_id)) is None
        and not ports.documents.scan(Query(f"tenants/{account_id}/entitlements"))
        and ports.signals.look(account_id, "us-central1") is Topic.ABSENT
        and ports.documents.get(paths.turn_path(f"account/{account_id}")) is None
    )


def everything_is_there(ports: Ports, account_id: str = ACCOUNT) -> bool:
    tenant = ports.documents.get(paths.tenant_path(account_id))
    entitlements = ports.documents.scan(Query(f"tenants/{account_id}/entitlements"))
    return (
        memory_knows(ports, account_id) is Verdict.NOT_PERMITTED
        and has_key(ports, account_id)
        and tenant is not None
        and tenant.data["state"] == "stable"
        and [e.data["state"] for e in entitlements] == ["active"]
        and ports.signals.look(account_id, "us-central1") is Topic.READY
        and ports.documents.get(paths.turn_path(f"account/{account_id}")) is None
    )
