"""What an operator should know at a glance, read from the stores part by part, as JSON.

Each part is read by itself and bounded in time. A part whose store is away says so.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

from cli.overview.disk import disk
from cli.overview.problems import PAGE
from config.settings import Settings
from governor.actions import Action
from governor.errors import GovernorError
from governor.fsm import ActionState, RunState
from governor.records import SYSTEM_ACCOUNT
from governor.runs import Run
from governor.times import instant, timestamp
from ledger.receipt import SignedReceipt
from ports import Ports
from ports.documents import Query, Where
from tasks.actions import operators as actions
from tasks.ledgers import patrol
from tasks.runs import operators as runs

LATELY = timedelta(hours=1)
"""How far back actions that ended badly count as failing."""

LATE_S = 40.0
"""How old an open run is when it is late: a cancellation's own bound (Runbook 7)."""

_FAILED = (ActionState.FAILED, ActionState.ROLLED_BACK, ActionState.ROLLBACK_FAILED)
_POLICY = ("policy_broadcast", "policy_upgrade_skipped", "policy_validation_failed")


def facts(ports: Ports, settings: Settings) -> dict[str, Any]:
    """Every part by name; ``{"unknown": why}`` where its store does not answer."""
    parts: dict[str, Callable[[], Any]] = {
        "work": lambda: _work(ports),
        "failing": lambda: _failing(ports),
        "runs": lambda: _runs(ports),
        "alerts": lambda: _alerts(ports),
        "ledgers": lambda: _ledgers(ports),
        "policy": lambda: _policy(ports),
        "disk": lambda: disk(settings),
    }
    with ThreadPoolExecutor(len(parts)) as pool:
        asked = {name: pool.submit(_known, part) for name, part in parts.items()}
        return {name: each.result() for name, each in asked.items()}


def _known(part: Callable[[], Any]) -> Any:
    try:
        return part()
    except GovernorError as error:
        return {"unknown": error.detail}
    except OSError as error:
        return {"unknown": f"{error.filename or 'the disk'}: {error.strerror}"}


def _work(ports: Ports) -> dict[str, Any]:
    """What goes on now, as Memory counts it."""
    depth, longest = ports.dispatch.queues(1)
    oldest = longest[0] if longest else None
    return {
        "in_flight": ports.slots.held_count(),
        "waiting": depth,
        "oldest_s": round(oldest.oldest_s, 1) if oldest else 0.0,
        "oldest_account": oldest.account_id if oldest else None,
        "orphans": ports.slots.orphans(),
        "spooled": ports.modes.spooled(),
    }


def _failing(ports: Ports) -> list[dict[str, Any]]:
    """Actions that ended badly lately, and every rollback that fails, by tenant and cause."""
    since = timestamp(ports.clock.now() - LATELY)
    groups: dict[tuple[str, str, str], list[Action]] = {}
    for state in _FAILED:
        for action in actions.listed(ports, None, state=state, limit=PAGE):
            if state is ActionState.ROLLBACK_FAILED or (action.ended_at or "") >= since:
                key = (action.account_id, action.handler, action.error_code or "")
                groups.setdefault(key, []).append(action)
    rows = [_group(*key, found) for key, found in groups.items()]
    return sorted(rows, key=lambda row: (-row["rollbacks_failing"], row["since"]))


def _group(account_id: str, handler: str, code: str, found: Sequence[Action]) -> dict[str, Any]:
    failing = [a for a in found if a.state is ActionState.ROLLBACK_FAILED]
    return {
        "account_id": account_id,
        "handler": handler,
        "error_code": code,
        "actions": len(found),
        "rolled_back": sum(1 for a in found if a.state is ActionState.ROLLED_BACK),
        "rollbacks_failing": len(failing),
        "retry_at": min((a.retry_at for a in failing if a.retry_at), default=None),
        "since": min(a.accepted_at for a in found),
        "last": max(a.accepted_at for a in found),
        "action_id": (failing or found)[0].action_id,
    }


def _runs(ports: Ports) -> dict[str, Any]:
    """How many runs are open, and those that are parked, put off or late."""
    found = runs.listed(ports, None, only_open=True, limit=1000)
    now = ports.clock.now()
    held = [row for run in found if (row := _held(run, now))]
    return {
        "open": len(found),
        "parked": sum(1 for run in found if run.state is RunState.PARKED),
        "held": sorted(held, key=lambda row: (row["state"] != "parked", row["since"]))[:PAGE],
    }


def _held(run: Run, now: datetime) -> dict[str, Any] | None:
    """A run that does not move as it should, and why; a step that waits as it should is none."""
    entries = list(run.journal.items())
    step, entry = next(
        ((n, e) for n, e in reversed(entries) if e.error and e.state != "done"), (None, None)
    )
    waits = any(each.state == "waiting" and not each.error for _, each in entries)
    is_late = now - instant(run.started_at) > timedelta(seconds=LATE_S)
    if run.state is not RunState.PARKED and not entry and (waits or not is_late):
        return None
    return {
        "run_id": run.run_id,
        "runbook": run.runbook,
        "account_id": run.account_id,
        "state": run.state,
        "step": step or run.failed_step,
        "error": (entry.error if entry else None) or run.error_code,
        "since": (entry.failing_since if entry else None) or run.started_at,
        "retry_at": run.retry_at,
    }


def _alerts(ports: Ports) -> dict[str, Any]:
    """What waits to be delivered, and where the newest alerts went."""
    kinds = ports.alerts.addresses()
    names = {digest: f"{kind} {n}" for n, (digest, kind) in enumerate(kinds.items(), 1)}
    unsent = ports.outbox.undelivered(1000)
    return {
        "addresses": list(names.values()),
        "undelivered": len(unsent),
        "fault": unsent[0].fault if unsent else None,
        "delivered": [
            {
                "cause": each.letter.alert.cause,
                "severity": each.letter.alert.severity,
                "subject": each.letter.alert.subject,
                "account_id": each.letter.alert.account_id,
                "to": names.get(each.letter.address, "an address that was removed"),
                "ago_s": round(each.ago_s, 1),
            }
            for each in ports.outbox.deliveries(20)
        ],
    }


def _ledgers(ports: Ports) -> dict[str, Any]:
    """What waits for a seal, when all was verified last, and which ledger did not hold."""
    day_ago = timestamp(ports.clock.now() - timedelta(days=1))
    raised = {
        fields["subject"]: fields["timestamp"]
        for fields in reversed(_newest(ports, "alert_raised", 100))
        if fields["cause"] == "ledger-broken" and fields["timestamp"] >= day_ago
    }
    broken = {a: at for a, at in raised.items() if patrol.held_at(ports, a) < at}
    return {
        "unsealed": ports.unsealed.unsealed_count(),
        "verified_ago_s": patrol.everything_judged_ago_s(ports),
        "broken": [{"account_id": a, "since": at} for a, at in sorted(broken.items())],
    }


def _policy(ports: Ports) -> dict[str, Any] | None:
    """The last version that came into force or was refused, and how its first minutes went."""
    found = [fields for name in _POLICY for fields in _newest(ports, name, 1)]
    if not found:
        return None
    last = max(found, key=lambda fields: str(fields["timestamp"]))
    names = ("operation", "timestamp", "sku_id", "plan_type", "policy_version", "previous_version")
    also = ("governors_updated", "incompatibilities", "error_code")
    told = {name: last.get(name) for name in names} | {n: last[n] for n in also if n in last}
    version = (told["sku_id"], told["plan_type"], told["policy_version"])
    for baked in _newest(ports, "policy_baked", 1):
        if version == (baked["sku_id"], baked["plan_type"], baked["policy_version"]):
            told["verdict"] = baked["status"]
    return told


def _newest(ports: Ports, operation: str, limit: int) -> list[dict[str, Any]]:
    query = Query(
        f"tenants/{SYSTEM_ACCOUNT}/receipts",
        where=[Where("operation", "==", operation)],
        order_by="timestamp",
        descending=True,
        limit=limit,
    )
    return [
        SignedReceipt.stored(document.data).fields() for document in ports.documents.scan(query)
    ]
