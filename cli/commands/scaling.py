"""``ggen scale``: reckon a change of a limit, ask for it, and say what became of it."""

import getpass
import secrets
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from adapters.local.waiting import until
from cli.stores import opened
from governor.errors import DeniedError, GovernorError, InputError, OutageError
from governor.fsm import RUN_OPEN, RunState
from governor.paths import receipt_path
from governor.records import AccountId
from governor.runs import Run
from governor.tenancy import Entitlement
from ledger.receipt import SignedReceipt
from ports import Ports
from ports.documents import Query, Where
from tasks.runbooks import scale_governor
from tasks.runbooks.scale import holds, limits
from tasks.runbooks.scale.changes import NAME, Scaling
from tasks.runs.definition import is_done
from tasks.runs.journal import load

_WITHIN_S = 30.0
_OPERATIONS = (
    "governor_scaled",
    "governor_scale_reverted",
    "governor_scaling_paused",
    "governor_scaling_resumed",
    "quota_exceeded",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says."""

    entitlement_id: str | None
    concurrency: int
    quota_check: bool
    reason: str


def scale(account_id: str, asked: Asked, *, dry_run: bool) -> tuple[dict[str, Any], str]:
    """A change of a limit, or what it would be, as JSON and in words.

    Raises:
        DeniedError: ``quota-exceeded``: plan, month or budget do not allow it; nothing was changed.
        InputError: no such account or entitlement, or no reason where one is needed.
        OutageError: it goes on still; says how to see it.
    """
    _check(account_id)
    ports = opened()
    found = limits.the_entitlement(ports, account_id, asked.entitlement_id)
    if found.concurrent_actions == asked.concurrency:
        told = {"account_id": account_id, "concurrent_actions": asked.concurrency}
        return told, f"{asked.concurrency} actions at once already; nothing was changed"
    if dry_run:
        return _reckoned(ports, found, asked)
    wanted = Scaling(
        account_id=account_id,
        entitlement_id=found.entitlement_id,
        new_concurrency=asked.concurrency,
        quota_check=asked.quota_check,
        operator=getpass.getuser()[:256],
        reason=asked.reason[:1024],
    )
    began = scale_governor.ask(ports, wanted, f"scale/{account_id}/{secrets.token_hex(8)}")
    run = _applied(ports, began.run_id)
    if run.state not in (RunState.COMPLETE, *RUN_OPEN):
        kind = DeniedError if run.state is RunState.REFUSED else GovernorError
        raise kind(
            run.error_code or "scale-failed",
            f"{run.error_detail}. The limit is as it was: ggen runs show {run.run_id}",
        )
    told = _receipt(ports, account_id, _receipt_id(run))
    if told["operation"] == "quota_exceeded":
        raise DeniedError("quota-exceeded", f"{_beyond(told)}; receipt {told['receipt_id']}")
    return told, _said(told, is_open=run.state in RUN_OPEN)


def history(account_id: str) -> tuple[dict[str, Any], str]:
    """The newest changes of an account's limits, the newest first."""
    _check(account_id)
    documents = opened().documents
    found: list[dict[str, Any]] = []
    for operation in _OPERATIONS:
        page = documents.scan(
            Query(
                f"tenants/{account_id}/receipts",
                where=[Where("operation", "==", operation)],
                order_by="timestamp",
                descending=True,
                limit=50,
            )
        )
        found += [SignedReceipt.stored(document.data).fields() for document in page]
    found = sorted(found, key=lambda told: str(told["timestamp"]), reverse=True)[:50]
    lines = [f"{told['timestamp'][:19]}  {_line(told)}" for told in found]
    return {"changes": found}, "\n".join(lines or [f"no limit of {account_id} was changed"])


def hold(
    account_id: str, entitlement_id: str | None, hours: float | None, reason: str
) -> tuple[dict[str, Any], str]:
    """Pause scaling by itself for some hours; None ends a pause. Raises as ``holds.pause``."""
    _check(account_id)
    ports, operator = opened(), getpass.getuser()[:256]
    found = limits.the_entitlement(ports, account_id, entitlement_id)
    if hours is None:
        ended = holds.resume(ports, found, operator)
        said = f"=> it scales by itself again, receipt {ended}" if ended else "it was not paused"
        return {"account_id": account_id, "receipt_id": ended}, said
    receipt_id = holds.pause(ports, found, hours * 3600, operator, reason[:1024])
    return {"account_id": account_id, "receipt_id": receipt_id}, (
        f"=> for {hours:g} h its limit changes by command alone, receipt {receipt_id}"
    )


def _check(account_id: str) -> None:
    try:
        TypeAdapter(AccountId).validate_python(account_id)
    except ValidationError:
        fault = f"{account_id[:40]!r} is no account id; nothing was changed"
        raise InputError("invalid-account", fault) from None


def _reckoned(ports: Ports, found: Entitlement, asked: Asked) -> tuple[dict[str, Any], str]:
    policy = limits.policy_of(ports, found)
    beyond = limits.exceeded(ports, found, policy, asked.concurrency)
    value: dict[str, Any] = {
        "account_id": found.account_id,
        "entitlement_id": found.entitlement_id,
        "concurrency": {"previous": found.concurrent_actions, "new": asked.concurrency},
        "cost_delta_usd": float(limits.cost_of(found, policy, asked.concurrency, ports)),
        "exceeds": asdict(beyond) if beyond else None,
        "warnings": limits.warnings(ports, found, asked.concurrency),
    }
    would = f"{found.concurrent_actions} -> {asked.concurrency} actions at once, "
    would += f"${value['cost_delta_usd']:g} until the month ends"
    lines = [would, *(f"warning: {_WARNINGS[each]}" for each in value["warnings"])]
    if beyond and asked.quota_check:
        lines.append(f"it would be refused: {_beyond(asdict(beyond))}")
    return value, "\n".join([*lines, "=> nothing was changed (--dry-run)"])


_WARNINGS = {"not-binding": "less than four fifths of the limit are in flight: more may not help"}


def _applied(ports: Ports, run_id: str) -> Run:
    def run() -> Run:
        return load(ports, run_id)[1]

    def is_applied() -> bool:
        try:
            now = run()
        except OutageError:
            return False
        return now.state not in RUN_OPEN or is_done(now, f"{NAME}.memory")

    try:
        until(is_applied, _WITHIN_S)
        return run()
    except TimeoutError:
        raise OutageError(
            "still-scaling",
            f"no end within {_WITHIN_S:g} s. Its run {run_id} is stored. It goes on where the "
            "stack comes up again within a quarter of an hour, and else ends unchanged; see: "
            f"ggen runs show {run_id}",
        ) from None


def _receipt_id(run: Run) -> str:
    if run.receipt_id:
        return run.receipt_id
    return str(run.journal[f"{NAME}.apply"].result["receipt_id"])


def _receipt(ports: Ports, account_id: str, receipt_id: str) -> dict[str, Any]:
    found = ports.documents.get(receipt_path(account_id, receipt_id))
    if found is None:
        raise OutageError("receipt-not-seen", f"receipt {receipt_id} is not listed yet", 1)
    return SignedReceipt.stored(found.data).fields()


def _said(told: dict[str, Any], *, is_open: bool) -> str:
    lines = [_line(told), *(f"warning: {_WARNINGS[each]}" for each in told["warnings"])]
    change = told["concurrency"]
    if is_open and change["new"] > change["previous"] and told.get("lag_before") is not None:
        lines.append("in a minute the lag is read again; where it grew, the limit goes back")
    return "\n".join([*lines, f"=> in force, receipt {told['receipt_id']}"])


def _line(told: dict[str, Any]) -> str:
    change = told.get("concurrency") or {}
    moved = f"{change.get('previous', '?')} -> {change.get('new', '?')} actions at once"
    match told["operation"]:
        case "quota_exceeded":
            return f"refused: {moved}: {_beyond(told)}"
        case "governor_scaling_paused":
            return f"paused until {told['until'][:19]} by {told['operator']}"
        case "governor_scaling_resumed":
            return f"resumed by {told['operator']}"
        case "governor_scale_reverted":
            return f"{moved}: {told['lag_after']} signals waited, {told['lag_before']} before"
        case _:
            by = f" by itself ({told['why']})" if told.get("trigger") == "lag" else ""
            return f"{moved}{by}, ${told['cost_delta_usd']:g} until the month ends"


def _beyond(told: dict[str, Any]) -> str:
    unit = told.get("unit", "")
    return f"{told['limit']} is {told['allowed']:g}, asked for {told['requested']:g} {unit}".strip()
