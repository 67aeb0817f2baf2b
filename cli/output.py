"""What commands print: for people, or one JSON value with ``--json``."""

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from governor.errors import GovernorError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value and nothing else.")]
AccountOption = Annotated[str, typer.Option("--account-id", help="The tenant's account id.")]


def show(value: Any, as_json: bool, text: str = "") -> None:
    """Print ``value`` as JSON, or ``text`` (else the value, indented) for people."""
    if as_json:
        print(json.dumps(value, separators=(",", ":"), ensure_ascii=False))
    else:
        print(text or json.dumps(value, indent=2, ensure_ascii=False))


def show_error(error: GovernorError) -> None:
    """One line on standard error; with ``--json`` an object on standard output as well."""
    if "--json" in sys.argv:
        print(json.dumps({"error": {"code": error.code, "detail": error.detail}}))
    print(f"ggen: {error.detail}", file=sys.stderr)


_TOLD = ("plan_type", "error_code", "phase", "run_ms", "rollback_duration_ms", "cause", "by_reason")


def summary(fields: Mapping[str, Any]) -> str:
    """A receipt in one line: its id first, for verify-receipt."""
    told = " ".join(f"{name}={fields[name]}" for name in _TOLD if name in fields)
    subject = f" {fields['action_id'][:15]}…" if "action_id" in fields else ""
    at = fields["timestamp"][11:23]
    return f"{fields['receipt_id']}  {at}  {fields['operation']:<24}{told}{subject}"


def action_line(action: Mapping[str, Any]) -> str:
    """An action in one line: as accepted, or how it ended."""
    names = ("error_code", "queue_ms", "run_ms")
    told = " ".join(f"{n}={action[n]}" for n in names if action.get(n) is not None)
    return f"{action['action_id']}  {action['state']}  {told}".rstrip()
