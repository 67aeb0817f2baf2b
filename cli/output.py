"""What commands print: for people, or one JSON value with ``--json``."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from governor.errors import GovernorError, InputError, OutageError

STACK, CUSTOMERS, RECEIPTS = "The stack", "Customers and their actions", "Receipts and ledgers"
OPERATIONS, DEVELOPMENT = "Runs, outages and alerts", "Development"
"""Groups of commands, as ``ggen --help`` shows them."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value and nothing else.")]
AccountOption = Annotated[str, typer.Option("--account-id", help="The tenant's account id.")]


def show(value: Any, as_json: bool, text: str = "") -> None:
    """Print ``value`` as JSON, or ``text`` (else the value, indented) for people."""
    if as_json:
        put(json.dumps(value, separators=(",", ":")))
    else:
        put(text or json.dumps(value, indent=2))


def put(text: str) -> None:
    """Print a text with control characters escaped; a reader that left changes no exit code.

    Raises:
        OutageError: standard output does not take it (a full disk).
    """
    try:
        print(printable(text), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutageError("io", f"cannot print: {error.strerror}") from None


def printable(text: str) -> str:
    """A text whose control characters are shown escaped; lines stay lines."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )


def show_error(error: GovernorError) -> None:
    """One line on standard error; with ``--json`` an object on standard output as well."""
    if "--json" in sys.argv:
        with contextlib.suppress(OutageError):
            put(json.dumps({"error": {"code": error.code, "detail": error.detail}}))
    print(f"ggen: {printable(error.detail)}", file=sys.stderr)


_TOLD = (
    "plan_type",
    "event_type",
    "reason",
    "error_code",
    "phase",
    "run_ms",
    "rollback_duration_ms",
    "cause",
    "by_reason",
)
_TOLD_OF = {
    "policy_": ("policy_version", "previous_version", "incompatibilities", "governors_updated"),
    "decommission_": ("governor", "in_flight_actions", "signals_refused"),
    "tenant_purged": ("documents_deleted", "documents_stripped", "retained_until"),
}
"""What receipts of some operations tell besides, by the beginning of the operation's name."""


def summary(fields: Mapping[str, Any]) -> str:
    """A receipt in one line of 80 characters, or two: its id first, for verify-receipt."""
    operation = str(fields["operation"])
    own = [
        name for start, names in _TOLD_OF.items() if operation.startswith(start) for name in names
    ]
    told = " ".join(f"{name}={fields[name]}" for name in (*_TOLD, *own) if name in fields)
    subject = f" {fields['action_id'][:15]}…" if "action_id" in fields else ""
    line = f"{fields['receipt_id']}  {fields['timestamp'][11:23]}  {fields['operation']}"
    more = f"{told}{subject}".strip()
    return f"{line}\n    {more}" if more else line


def action_line(action: Mapping[str, Any]) -> str:
    """An action in one line: as accepted, or how it ended."""
    names = ("error_code", "queue_ms", "run_ms")
    told = " ".join(f"{n}={action[n]}" for n in names if action.get(n) is not None)
    return f"{action['action_id']}  {action['state']}  {told}".rstrip()


class Progress:
    """A bar on standard error, for people; nothing where that is no terminal."""

    def __init__(self, title: str, total: int) -> None:
        self._title, self._total = title, total
        self._bar: Any = None

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty() and self._total:
            from rich.console import Console
            from rich.progress import Progress as Bar

            self._bar = Bar(console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self._title, total=self._total)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def advance_to(self, done: int) -> None:
        """So many are done."""
        if self._bar:
            self._bar.update(self._task, completed=done)


@contextlib.contextmanager
def counting(title: str) -> Iterator[Callable[[int], None]]:
    """A count on standard error, for people, of work whose end is not known beforehand."""
    if not sys.stderr.isatty():
        yield lambda _count: None
        return
    from rich.console import Console

    with Console(stderr=True).status(title) as shown:
        yield lambda count: shown.update(f"{count:,} {title}")


def read_file(path: Path) -> str | None:
    """The text of a small file; None where there is none.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError("unreadable", f"cannot read {path}: {error}") from None
