"""Runs for the command line: find, print, resume, cancel and plan them."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from cli import lists
from cli.stores import opened
from config.settings import load
from governor.errors import InputError
from governor.fsm import RUN_UNDOING
from governor.runs import Run
from ingress.bodies import MarketplaceWebhook, parse
from tasks import marketplace
from tasks.runbooks import RUNBOOKS
from tasks.runs import operators
from tasks.runs import plan as planning
from tasks.runs.plan import Plan

_PLANNED = {
    "entitlement_lifecycle": "entitlement.created",
    "deploy_sku": "entitlement.created",
    "customer_cancels": "entitlement.cancelled",
    "entitlement_standing": "entitlement.suspended",
}
"""The runbooks that can be planned, and the event each is planned with unless another is given."""


def listed(
    account_id: str | None, *, only_open: bool, limit: int, after: str | None = None
) -> list[Run]:
    """Runs, newest first, past the run of the id ``after``."""
    ports = opened()
    place = lists.place_of(ports.documents, "runs", after, "run", "started_at")
    return operators.listed(ports, account_id, only_open=only_open, limit=limit, after=place)


def listing(runs: Sequence[Run], limit: int) -> str:
    """Runs for people."""
    rows = [
        (r.run_id, r.started_at[:19], r.state, r.account_id, r.runbook, _notes(r)) for r in runs
    ]
    more = lists.next_page([r.run_id for r in runs], limit)
    return lists.table(("run", "started", "state", "account", "runbook", ""), rows, more=more)


def found(run_id: str) -> Run:
    """One run, by its id or the beginning of it. Raises InputError when there is none."""
    ports = opened()
    return operators.found(ports, lists.id_of(ports.documents, "runs", run_id, "run"))


def resume(run_id: str) -> Run:
    """See ``tasks.runs.operators.resume``."""
    ports = opened()
    whole = lists.id_of(ports.documents, "runs", run_id, "run")
    return operators.resume(ports, RUNBOOKS, whole)


def cancel(run_id: str, operator: str, reason: str) -> Run:
    """See ``tasks.runs.operators.cancel``."""
    ports = opened()
    whole = lists.id_of(ports.documents, "runs", run_id, "run")
    return operators.cancel(ports, RUNBOOKS, whole, operator[:256], reason[:1024])


def shown(run: Run) -> dict[str, Any]:
    """A run as JSON; the webhook's body is not shown."""
    return operators.shown(run)


def line(run: Run) -> str:
    """A run in two lines of 80 characters; a long account has more."""
    head = f"{run.run_id}  {run.state}  {_notes(run)}".rstrip()
    return f"{head}\n    {run.runbook} of {run.account_id}, started {run.started_at[:19]}Z"


def _notes(run: Run) -> str:
    told = {
        "attempt": run.attempt if run.attempt > 1 else None,
        "error_code": run.error_code,
        "retry_at": run.retry_at,
    }
    return " ".join(f"{name}={value}" for name, value in told.items() if value is not None)


def journal(run: Run) -> str:
    """A run, and each step of its journal with its effects, in their order: 80 columns."""
    lines = [line(run), f"    {run.trigger} {run.dedupe_key}, deadline {run.deadline_at}"]
    if run.cancellation:
        by = run.cancellation
        lines.append(f"    cancelled by {by.operator} at {by.requested_at}: {by.reason}")
    if run.error_code:
        lines.append(f"    failed in {run.failed_step}: {run.error_code}: {run.error_detail}")
    for name, entry in run.journal.items():
        lines.append(f"    {entry.state:<7} {name}")
        lines += [f"            {effect} {resource}" for resource, effect in entry.effects.items()]
        if entry.state == "waiting" and entry.wait:
            until = f", until {entry.wait.until}" if entry.wait.until else ""
            lines.append(f"            since {entry.wait.since}: {entry.wait.reason}{until}")
        if entry.members:
            lines.append(f"            {entry.members} of its population")
        if entry.error:
            times = run.undo_attempts if run.state in RUN_UNDOING else entry.attempts
            lines.append(f"            put off {times} times, last: {entry.error}")
    if run.receipt_id:
        lines.append(f"    receipt {run.receipt_id}")
    return "\n".join(part for each in lines for part in _folded(each))


def _folded(text: str) -> list[str]:
    """A line as lines of 80 characters, each as far in as it, and a little further."""
    indent = " " * (len(text) - len(text.lstrip()))
    return textwrap.wrap(text, 80, subsequent_indent=f"{indent}  ", break_on_hyphens=False)


def planned(runbook: str, event: Mapping[str, Any]) -> Plan:
    """What an event would set off.

    Raises:
        InputError: no such runbook, or an event the door would refuse; says which field.
    """
    if runbook.replace("-", "_") not in _PLANNED:
        raise InputError("unknown-runbook", f"runbook is one of {', '.join(_PLANNED)}")
    ports, settings, name = opened(), load(), runbook.replace("-", "_")
    body = json.dumps({"event_type": _PLANNED[name], **event}).encode()
    webhook = parse(MarketplaceWebhook, body)
    now = ports.clock.now()
    told = webhook.event(body, now, now, settings.default_region)
    serves = marketplace.runbook_of(told)
    if name not in (serves.name, "deploy_sku"):
        raise InputError(
            "other-runbook", f"{told.event_type} is served by {serves.name}: plan that one"
        )
    return planning.plan(ports, serves, marketplace.new_run(ports, told, body))


def plan_value(plan: Plan) -> dict[str, Any]:
    """A plan as JSON."""
    refusal = plan.refusal
    return {
        "steps": [
            {"name": s.name, "does": s.does, "undoes": s.undoes, "effects": dict(s.effects)}
            for s in plan.steps
        ],
        "refused_by": {"step": refusal[0], "code": refusal[1].code, "detail": refusal[1].detail}
        if refusal
        else None,
        "ends_with": plan.ends_with,
        "waits_for": plan.waits_for,
    }


def plan_text(plan: Plan) -> str:
    """A plan for people: each step, what it would do to what, and its undo."""
    lines = []
    if plan.waits_for:
        lines.append(f"waits for {plan.waits_for}, which has the account's turn")
    for number, step in enumerate(plan.steps, 1):
        lines.append(f"{number}. {step.name}: {step.does}")
        lines += [f"     {effect:<6} {resource}" for resource, effect in step.effects.items()]
        lines.append(f"     undo   {step.undoes or 'nothing to undo'}")
    if plan.refusal:
        step_name, error = plan.refusal
        lines.append(f"=> refused by {step_name}: {error.detail}")
    elif plan.ends_with:
        lines.append("=> the event would be acknowledged and receipted as ignored")
    else:
        lines.append("=> one commit would end the run with its receipt; nothing was touched")
    return "\n".join(lines)
