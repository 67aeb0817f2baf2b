"""Which value each command prints: ``ggen schema --command "runs list"`` prints its schema."""

from typing import Any

from pydantic import TypeAdapter

from cli.shapes import values as v
from governor.actions import Action
from governor.errors import InputError

COMMANDS: dict[str, Any] = {
    "prepare": v.Prepared,
    "up": v.Started,
    "down": v.Stopped,
    "status": v.Status,
    "alive": v.Alive,
    "queue": v.Queues,
    "send-webhook": v.Fields,
    "send-signal": v.Accepted | v.Published | Action,
    "receipts": v.Page,
    "actions list": list[Action],
    "actions show": v.ShownAction,
    "actions retry-rollback": Action,
    "actions resolve": Action,
    "runs list": list[v.ShownRun],
    "runs show": v.ShownRun,
    "runs resume": v.ShownRun,
    "runs cancel": v.ShownRun,
    "plan": v.Plan,
    "trace": list[v.Span] | dict[str, Any],
    "tenant list": list[v.Tenant],
    "tenant purge": v.Purge,
    "scale": v.Fields,
    "policy list": list[v.InForce],
    "policy show": v.Policy,
    "policy status": v.PolicyStatus,
    "policy pending": list[v.Fields],
    "policy diff": list[v.Rule],
    "policy secret": v.Secrets,
    "policy upgrade": v.Upgrade,
    "policy rollback": v.Upgrade,
    "alerts list": list[v.Letter],
    "alerts test": dict[str, str],
    "keys list": list[v.Key],
    "keys rotate": v.Rotated,
    "keys disown": dict[str, str],
    "verify-receipt": v.VerifiedReceipt,
    "verify-ledger": v.Verified,
    "verify-archive": v.Verified,
    "export-receipts": list[v.Fields],
    "slo": v.Slo,
    "backup": v.Copy,
    "restore": v.Restored,
}
"""By the command's words."""


def schema(command: str) -> dict[str, Any]:
    """The JSON Schema of what a command prints with ``--json``.

    Raises:
        InputError: no command has such words, or its shape is given nowhere.
    """
    shape = COMMANDS.get(command.removeprefix("ggen ").strip())
    if shape is None:
        known = ", ".join(COMMANDS)
        raise InputError("unknown-command", f"a command with a schema is one of: {known}")
    found: dict[str, Any] = TypeAdapter(shape).json_schema()
    return found
