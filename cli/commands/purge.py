"""``ggen tenant purge``: ask for it, show what goes and what stays, and wait for the end."""

import getpass
import secrets
from typing import Any

from adapters.local.waiting import until
from cli.stores import opened
from governor.errors import GovernorError, OutageError
from governor.fsm import RUN_OPEN, RunState
from governor.runs import Run
from ports import Ports
from tasks.runbooks import erasure, tenant_purge
from tasks.runs.journal import load

_WITHIN_S = 60.0


def purge(
    account_id: str, reason: str, *, archives: bool, dry_run: bool
) -> tuple[dict[str, Any], str]:
    """What a purge removed, or would, as JSON and in words.

    Raises:
        DeniedError: ``still-active``: something of the account is; nothing was removed.
        InputError: there is no such account, or no reason.
        OutageError: it goes on still; says how to see it.
    """
    ports = opened()
    tenant_purge.refuse_if_active(ports, account_id)
    value: dict[str, Any] = {
        "account_id": account_id,
        "looks_at": erasure.to_erase(ports, account_id),
        "archives": list(erasure.archives_of(ports, account_id)) if archives else [],
        "keeps": {n: why for n, why in erasure.KEPT.items() if not (archives and n == "archives")},
    }
    if dry_run:
        return value, "\n".join([*_lines(value), "=> nothing was removed (--dry-run)"])
    asked = tenant_purge.Purge(
        account_id=account_id,
        operator=getpass.getuser()[:256],
        reason=reason[:1024],
        archives=archives,
    )
    began = tenant_purge.ask(ports, asked, f"purge/{account_id}/{secrets.token_hex(8)}")
    ended = _ended(ports, began.run_id)
    if ended.state is not RunState.COMPLETE:
        raise GovernorError(
            ended.error_code or "purge-failed",
            f"{ended.error_detail}. What was removed stays removed: ggen runs show {ended.run_id}",
        )
    value |= {"run_id": ended.run_id, "receipt_id": ended.receipt_id}
    return value, "\n".join([*_lines(value), f"=> purged, receipt {ended.receipt_id}"])


def _ended(ports: Ports, run_id: str) -> Run:
    try:
        until(lambda: load(ports, run_id)[1].state not in RUN_OPEN, _WITHIN_S)
        return load(ports, run_id)[1]
    except TimeoutError:
        raise OutageError(
            "still-purging",
            f"no end within {_WITHIN_S:g} s. Its run {run_id} is stored and goes on once the stack "
            f"runs: ggen up; see: ggen runs show {run_id}",
        ) from None


def _lines(value: dict[str, Any]) -> list[str]:
    looked = ", ".join(f"{count} {kind}" for kind, count in value["looks_at"].items())
    lines = [f"looks for free text in: {looked}"]
    lines += [f"deletes {name}" for name in value["archives"]]
    return [*lines, *(f"keeps   {kept}: {why}" for kept, why in value["keeps"].items())]
