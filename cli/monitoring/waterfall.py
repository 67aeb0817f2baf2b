"""``ggen trace``: a trace as a waterfall, or every trace since a moment handed to the collector."""

from collections.abc import Sequence
from typing import Any

from cli import lists
from cli.monitoring.report import moment
from cli.stores import opened
from governor.errors import InputError
from governor.traces import Span
from tasks.ledgers import trace

_NAME, _BAR = 38, 28
"""Columns of a span's name and of its bar; with its times they make a line of 80."""


def show_trace(subject: str, account_id: str | None) -> tuple[list[dict[str, Any]], str]:
    """The spans of an action or a run that has ended, as JSON and drawn.

    Raises:
        InputError: it is not known, has not ended, or an action's account is not named.
        OutageError: Documents do not answer.
    """
    ports = opened()
    if subject.startswith("run-"):
        subject = lists.id_of(ports.documents, "runs", subject, "run")
        spans = trace.trace_of_run(ports, subject)
    elif account_id is None:
        raise InputError("no-account", "an action is its tenant's: name it with --account-id")
    else:
        actions = f"tenants/{account_id}/actions"
        subject = lists.id_of(ports.documents, actions, subject, "action")
        spans = trace.trace_of_action(ports, account_id, subject)
    if not spans:
        raise InputError("no-trace", f"{subject} is not known, or has not ended yet")
    return [_told(span) for span in spans], _drawn(spans)


def export(since: str) -> tuple[dict[str, Any], str]:
    """Hand over what ended since then.

    Raises:
        InputError: no collector is named, or ``since`` is no duration and no time.
        OutageError: Documents or the collector do not answer; some may have been exported.
    """
    ports = opened()
    if not ports.traces.is_on:
        raise InputError("no-collector", "name a collector first: GGEN_OTLP_ENDPOINT")
    count = trace.export_since(ports, moment(since, ports.clock.now()))
    return {"traces": count}, f"{count} traces exported"


def _told(span: Span) -> dict[str, Any]:
    return {
        "trace_id": f"{span.trace_id:032x}",
        "span_id": f"{span.span_id:016x}",
        "parent_id": f"{span.parent_id:016x}" if span.parent_id else None,
        "name": span.name,
        "began_ns": span.began_ns,
        "duration_ms": (span.ended_ns - span.began_ns) / 1e6,
        "attributes": dict(span.attributes),
        "error": span.error,
    }


def _drawn(spans: Sequence[Span]) -> str:
    root = spans[0]
    whole = max(1, root.ended_ns - root.began_ns)
    lines = [f"trace {root.trace_id:032x}"]
    for span in spans:
        at, took = span.began_ns - root.began_ns, span.ended_ns - span.began_ns
        start = min(_BAR - 1, round(_BAR * at / whole))
        length = max(1, round(_BAR * took / whole))
        bar = (" " * start + "█" * length)[:_BAR] if took else " " * start + "·"
        name = ("" if span.parent_id is None else "  ") + span.name
        lines.append(f"{name[:_NAME]:<{_NAME}} {bar:<{_BAR}} {took / 1e6:>9.1f} ms")
        if span.error:
            lines.append(f"      {span.error}")
    return "\n".join(lines)
