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


def summary(fields: Mapping[str, Any]) -> str:
    """A receipt in one line."""
    names = ("action_id", "plan_type", "error_code", "phase", "run_ms", "rollback_duration_ms")
    more = " ".join(f"{n}={fields[n]}" for n in names if n in fields)
    return f"{fields['timestamp']}  {fields['operation']:<22} {fields['status']:<11} {more}"
