"""Present problems, worst first: whom each hurts, why, since when, what heals, what to do."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_FULL_SOON_DAYS = 7.0
_LITTLE_BYTES = 2**30
_LONG_WAIT_S = 5.0
PAGE = 200
"""Most actions of a state, and most runs, that are looked at."""

_OF_TROUBLES = {"rollbacks-failing", "runs-parked", "actions-waiting"}
"""Troubles that are the same as a problem below."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong; ``page`` is the part of docs/incidents.md that is about it."""

    what: str
    hurts: str
    why: str
    since: str
    heals: str
    lost: str
    do: str
    page: str


def problems(answer: Mapping[str, Any], facts: Mapping[str, Any]) -> list[Problem]:
    """Everything that is wrong, by what ``/readyz`` answers and what the stores hold."""
    found = [*_health(answer), *_ledgers(facts.get("ledgers")), *_runs(facts.get("runs"))]
    found += [*_failing(facts.get("failing")), *_queue(facts.get("work"))]
    found += [*_alerts(facts.get("alerts")), *_disk(facts.get("disk"))]
    return [*found, *_troubles(answer), *_unread(facts)]


def _health(answer: Mapping[str, Any]) -> Iterator[Problem]:
    missing = dict(answer["missing"])
    if answer.get("mode") in ("degraded", "refusing"):
        why = missing.pop("mode", None) or missing.pop("lease", "")
        yield Problem(
            what=f"the system refuses new work: {answer.get('error_code') or answer['mode']}",
            hurts="everybody",
            why=why,
            since=answer.get("since") or "unknown",
            heals="by itself, once the store answers; it is probed each 2 s",
            lost=f"nothing accepted: {answer.get('spooled', 0)} commits wait in the spool, "
            f"{answer.get('refused', 0)} signals were refused",
            do="bring the store back; touch nothing in the spool",
            page="Incident 4",
        )
    elif answer.get("degraded_tenants"):
        yield Problem(
            what="a drill refuses some tenants",
            hurts=f"{answer['degraded_tenants']} tenants",
            why=f"the drill {answer.get('drill') or answer.get('error_code')}",
            since=answer.get("since") or "unknown",
            heals="by itself, once the drill ends",
            lost="nothing accepted",
            do="wait; ggen logs says who began it",
            page="Incident 4",
        )
    blocking = {t["name"] for t in answer.get("troubles", ())}
    for name, why in missing.items():
        if name not in blocking:
            yield Problem(
                what=f"{name} is missing",
                hurts="everybody",
                why=why,
                since="unknown",
                heals="a program that ended is started again by itself",
                lost="nothing accepted",
                do="ggen up" if name in ("stack", "ingress") else f"ggen logs --program {name}",
                page="docs/troubleshooting.md",
            )


def _ledgers(ledgers: Any) -> Iterator[Problem]:
    for broken in _rows(ledgers, "broken"):
        account = broken["account_id"]
        yield Problem(
            what=f"the ledger of {account} does not hold",
            hurts=f"{account} and its auditors",
            why="its alert ledger-broken names the receipt or the seal",
            since=broken["since"],
            heals="not by itself; nothing is signed over it",
            lost="unknown until it is verified",
            do=f"ggen verify-ledger --account-id {account}",
            page="A ledger is broken",
        )


def _runs(runs: Any) -> Iterator[Problem]:
    for run in _rows(runs, "held"):
        is_parked = run["state"] == "parked"
        yield Problem(
            what=f"{run['runbook']} of {run['account_id']} "
            + ("is parked: its undo keeps failing" if is_parked else "does not end"),
            hurts=run["account_id"],
            why=f"{run['step'] or 'not started'}: {run['error'] or 'no error is known'}",
            since=run["since"],
            heals=f"tried again at {run['retry_at']}" if run["retry_at"] else "tried again soon",
            lost="nothing: what it made is in its journal",
            do=f"ggen runs show {run['run_id']}",
            page="Incident 7" if run["runbook"] == "customer_cancels" else "Incident 1",
        )


def _failing(failing: Any) -> Iterator[Problem]:
    for group in failing if isinstance(failing, list) else ():
        account, undone = group["account_id"], group["rolled_back"]
        pending = group["rollbacks_failing"]
        again = f"; tried again at {group['retry_at']}" if group["retry_at"] else ""
        undo = f"{undone} of {group['actions']} are undone"
        yield Problem(
            what=f"{group['handler']} fails for {account}: {_number(group['actions'])} actions",
            hurts=account,
            why=group["error_code"] or "unknown",
            since=group["since"],
            heals=f"{undo}; {pending} rollbacks fail{again}" if pending else undo,
            lost="nothing: each has its receipt",
            do=f"ggen actions show {group['action_id']} --account-id {account}",
            page="Incident 5",
        )


def _number(count: int) -> str:
    """A count of a page that is full is not the whole."""
    return f"at least {count}" if count >= PAGE else str(count)


def _queue(work: Any) -> Iterator[Problem]:
    if not isinstance(work, dict) or work.get("oldest_s", 0) < _LONG_WAIT_S:
        return
    yield Problem(
        what=f"{work['waiting']} actions wait for a worker",
        hurts=f"{work['oldest_account']} above all",
        why=f"the oldest has waited for {work['oldest_s']} s; {work['in_flight']} hold a slot",
        since=f"{work['oldest_s']} s ago",
        heals="past its queue_timeout an action fails, with a receipt",
        lost="nothing: each is receipted",
        do="ggen queue",
        page="Incident 3",
    )


def _alerts(alerts: Any) -> Iterator[Problem]:
    if isinstance(alerts, dict) and alerts.get("undelivered"):
        yield Problem(
            what=f"{alerts['undelivered']} alerts were not delivered",
            hurts="the operator",
            why=alerts["fault"] or "unknown",
            since="unknown",
            heals="tried again, from 5 s to 10 min apart",
            lost="nothing: alerts are in the ledger and in the log, too",
            do="ggen alerts list; ggen alerts test",
            page="docs/safe-mode.md",
        )


def _disk(disk: Any) -> Iterator[Problem]:
    if not isinstance(disk, dict) or "unknown" in disk:
        return
    days = disk["full_in_days"]
    if disk["free_bytes"] < _LITTLE_BYTES or (days is not None and days < _FULL_SOON_DAYS):
        when = f"full in {days} days at the pace so far" if days is not None else "nearly full"
        yield Problem(
            what=f"the disk is {when}",
            hurts="everybody, once it is full: the store takes no commit then",
            why=f"{disk['free_bytes'] >> 20} MiB are free",
            since="unknown",
            heals="not by itself; a full disk is an outage, which heals once there is room",
            lost="nothing accepted",
            do="make room, or set retention: docs/retention.md",
            page="docs/troubleshooting.md",
        )


def _troubles(answer: Mapping[str, Any]) -> Iterator[Problem]:
    for trouble in answer.get("troubles", ()):
        if trouble["name"] not in _OF_TROUBLES:
            yield Problem(
                what=trouble["name"],
                hurts="everybody" if trouble["name"] in answer["missing"] else "the operator",
                why=trouble["detail"],
                since=f"{trouble['since_s']} s ago",
                heals="shown until it is gone",
                lost="nothing accepted",
                do="as it says; ggen logs has the cause",
                page="docs/troubleshooting.md",
            )


def _unread(facts: Mapping[str, Any]) -> Iterator[Problem]:
    unread = {n: f["unknown"] for n, f in facts.items() if isinstance(f, dict) and "unknown" in f}
    if unread:
        yield Problem(
            what=f"not known now: {', '.join(unread)}",
            hurts="the operator",
            why=next(iter(unread.values())),
            since="now",
            heals="read again with the next look",
            lost="nothing: only this view lacks it",
            do="bring the store back that it names",
            page="Incident 4",
        )


def _rows(part: Any, name: str) -> list[dict[str, Any]]:
    return part.get(name, []) if isinstance(part, dict) else []
