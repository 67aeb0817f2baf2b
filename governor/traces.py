"""Traces built from the record: an action or a run, from its beginning to its receipt, as spans.

A process that was killed closes no span. The record has what it did all the same: times of claims,
of the journal, and of receipts. Ids are derived, so that one trace built twice is the same trace.
Names after OpenTelemetry's conventions for traces; no span holds a payload or a text of a tenant.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from governor.actions import DEADLINE_EXCEEDED, QUEUE_TIMEOUT, WORKER_LOST, Action
from governor.runs import JournalEntry, Run
from governor.times import instant

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ERRORS = {DEADLINE_EXCEEDED: "deadline", QUEUE_TIMEOUT: "deadline", WORKER_LOST: "process-died"}
"""Error codes of the system's own, in the words of ``error.type``."""

Receipt = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of work. Times are nanoseconds since 1970; ids are as OpenTelemetry counts them."""

    trace_id: int
    span_id: int
    parent_id: int | None
    name: str
    began_ns: int
    ended_ns: int
    attributes: Mapping[str, str | int] = field(default_factory=dict)
    error: str = ""
    """``error.type``; empty where it went well."""


def of_action(action: Action, receipts: Sequence[Receipt]) -> list[Span]:
    """An action's trace, its root first, from the signal's acceptance to its last receipt.

    Args:
        action: as it is stored, after its end.
        receipts: the fields of its receipts, in the order of their times.
    """
    accepted = instant(action.accepted_at)
    began = accepted + timedelta(milliseconds=action.queue_ms or 0)
    ended = began + timedelta(milliseconds=action.run_ms or 0)
    last = max([ended, *(instant(r["timestamp"]) for r in receipts)])
    code = next((str(r["error_code"]) for r in receipts if r.get("error_code")), "")
    told = ("action_id", "account_id", "entitlement_id", "sku_id", "policy_version", "state")
    attributes = {f"ggen.{name}": getattr(action, name) for name in told}
    name = f"signal {action.signal_type}"
    root = _root(action.action_id, name, accepted, last, code, attributes)
    spans = [root, _child(root, "queued", accepted, began)]
    if action.claim:  # else it was never started
        spans.append(_child(root, f"execute {action.handler}", began, ended, code))
    return [*spans, *_undone(root, receipts), *_receipted(root, receipts)]


def of_run(run: Run, receipt: Receipt) -> list[Span]:
    """A run's trace, its root first, from what began it to the receipt that ended it."""
    began, ended = instant(run.started_at), instant(receipt["timestamp"])
    told = ("run_id", "account_id", "runbook", "attempt", "state")
    attributes = {f"ggen.{name}": getattr(run, name) for name in told}
    name, code = f"{run.trigger} {run.runbook}", run.error_code or ""
    root = _root(run.run_id, name, began, ended, code, attributes)
    steps = [s for name, entry in run.journal.items() for s in _step(root, run, name, entry)]
    return [root, *sorted(steps, key=lambda span: span.began_ns), *_receipted(root, [receipt])]


def _step(root: Span, run: Run, name: str, entry: JournalEntry) -> Iterator[Span]:
    began = instant(entry.began_at) if entry.began_at else None
    if entry.wait and entry.wait.since:
        waited = instant(entry.wait.since)
        yield _child(root, f"{name} waits", waited, began or waited)
    if began:
        failed = (run.error_code or "") if name == run.failed_step else ""
        ended = instant(entry.done_at) if entry.done_at else began
        yield _child(root, name, began, ended, failed)
    if entry.undone_at:
        undone = instant(entry.undone_at)
        claimed = instant(entry.undo_claim.claimed_at) if entry.undo_claim else undone
        yield _child(root, f"{name}.undo", claimed, undone)


def _undone(root: Span, receipts: Sequence[Receipt]) -> Iterator[Span]:
    for receipt in receipts:
        if receipt["operation"] in ("action_rolled_back", "rollback_failed"):
            ended = instant(receipt["timestamp"])
            began = ended - timedelta(milliseconds=receipt["duration_ms"])
            number = receipt.get("rollback_attempt", "")
            name = f"rollback {number}".rstrip()
            yield _child(root, name, began, ended, str(receipt.get("error_code", "")))


def _receipted(root: Span, receipts: Sequence[Receipt]) -> Iterator[Span]:
    for receipt in receipts:
        at = instant(receipt["timestamp"])
        span = _child(root, f"receipt {receipt['operation']} {receipt['receipt_id']}", at, at)
        told = {"ggen.receipt_id": receipt["receipt_id"], "ggen.status": receipt["status"]}
        yield replace(span, name=f"receipt {receipt['operation']}", attributes=told)


def _root(
    subject: str,
    name: str,
    began: datetime,
    ended: datetime,
    code: str,
    attributes: Mapping[str, str | int],
) -> Span:
    digest = hashlib.sha256(subject.encode()).digest()
    trace_id, span_id = (int.from_bytes(part) or 1 for part in (digest[:16], digest[16:24]))
    times = _times(began, ended)
    return Span(trace_id, span_id, None, name, *times, attributes, _error(code))


def _child(root: Span, name: str, began: datetime, ended: datetime, code: str = "") -> Span:
    digest = hashlib.sha256(f"{root.trace_id:032x} {name}".encode()).digest()
    span_id = int.from_bytes(digest[:8]) or 1
    times = _times(began, max(began, ended))
    return Span(root.trace_id, span_id, root.span_id, name, *times, error=_error(code))


def _error(code: str) -> str:
    return _ERRORS.get(code, code)


def _times(began: datetime, ended: datetime) -> tuple[int, int]:
    began_us, ended_us = ((each - _EPOCH) // timedelta(microseconds=1) for each in (began, ended))
    return began_us * 1000, ended_us * 1000
