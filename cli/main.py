"""``ggen``: every command, its options, and nothing else; the work is in the modules beside it."""

import io
import json
import os
import sys
from typing import Annotated, Any, Literal

import typer

from cli.commands import actions, alerts, backup, drill, inventory, ledger, policies, programs, runs
from cli.output import (
    CUSTOMERS,
    DEVELOPMENT,
    RECEIPTS,
    STACK,
    AccountOption,
    Json,
    action_line,
    show,
    show_error,
    summary,
)
from governor.errors import GovernorError, OutageError


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"ggen governor {version('ggen-governor')}")
        raise typer.Exit


NOT_COMPLETE = 8
"""Exit code of ``send-signal --wait`` for an action that failed or was rolled back."""

app = typer.Typer(
    name="ggen",
    help="Operations that run themselves, with a signed receipt for each.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 2 your input, 3 denied, 4 conflict, 5 outage, 1 a fault of ours; "
    "send-signal --wait: 8 the action did not complete; "
    "verification: 0 valid and sealed, 6 valid but not sealed yet, 1 broken, 5 cannot verify here, "
    "--strict: 7 a clock was off.",
)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Its version.")
    ] = False,
) -> None:
    """Operations that run themselves, with a signed receipt for each."""


ledger.register(app)
backup.register(app)
runs.register(app)
actions.register(app)
programs.register(app)
drill.register(app)
alerts.register(app)
inventory.register(app)
policies.register(app)


@app.command(rich_help_panel=STACK)
def up(
    detach: Annotated[bool, typer.Option(help="Return once everything is ready.")] = False,
    as_json: Json = False,
) -> None:
    """Start the whole stack; Ctrl-C stops it."""
    from cli.commands import stack as command

    command.up(detach, as_json)


@app.command(rich_help_panel=STACK)
def down(as_json: Json = False) -> None:
    """Stop the stack of this state directory."""
    from cli.stack import supervisor
    from config.settings import load

    stopped = supervisor.stop(load())
    show({"stopped": stopped}, as_json, "stopped" if stopped else "nothing was running")


@app.command(rich_help_panel=STACK)
def demo(as_json: Json = False) -> None:
    """Play the whole story on a stack of its own, and verify every receipt."""
    from cli.demo import play as command

    raise typer.Exit(command.demo(as_json))


@app.command(rich_help_panel=STACK)
def status(
    watch: Annotated[bool, typer.Option(help="Stay, and show what changes.")] = False,
    as_json: Json = False,
) -> None:
    """Show what runs, what it does, each problem, and what to do about it."""
    from cli.overview import status as command

    raise typer.Exit(command.status(as_json, watch))


@app.command("send-webhook", rich_help_panel=CUSTOMERS)
def send_webhook(
    account_id: AccountOption,
    sku_id: Annotated[str, typer.Option(help="Product SKU.")] = "demo-sku",
    entitlement_id: Annotated[str | None, typer.Option(help="Else the SKU.")] = None,
    plan_type: Annotated[
        str, typer.Option(help="Pricing plan: starter, professional, enterprise, …")
    ] = "starter",
    event_type: Annotated[
        str, typer.Option(help="entitlement.created, .plan_changed, .suspended, .cancelled, …")
    ] = "entitlement.created",
    event_id: Annotated[str | None, typer.Option(help="Else a new one.")] = None,
    event_time: Annotated[str | None, typer.Option(help="RFC 3339; else the arrival.")] = None,
    effective_at: Annotated[
        str | None, typer.Option(help="RFC 3339: when it takes effect; else the event's time.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why, of a cancellation.")] = None,
    region: Annotated[str | None, typer.Option(help="Else the setting's.")] = None,
    standard: Annotated[bool, typer.Option(help="Sign with Standard Webhooks headers.")] = False,
    as_json: Json = False,
) -> None:
    """Deliver a signed marketplace event and show its receipt."""
    from cli.stores import connected
    from ingress.client import checked, new_id

    event = {
        "event_type": event_type,
        "event_id": event_id or new_id("event"),
        "event_time": event_time,
        "effective_at": effective_at,
        "cancellation_reason": reason,
        "account_id": account_id,
        "sku_id": sku_id,
        "entitlement_id": entitlement_id,
        "plan_type": plan_type,
        "region": region,
    }
    with connected() as client:
        answer = client.post_webhook({k: v for k, v in event.items() if v}, standard=standard)
    try:
        fields = checked(answer).json()
    except GovernorError as error:
        if as_json and answer.status_code in (422, 503):
            print(answer.text)  # with the receipt of the refusal
            raise typer.Exit(error.exit_code) from None
        raise
    show(fields, as_json, summary(fields) if answer.status_code == 200 else "")


@app.command("send-signal", rich_help_panel=CUSTOMERS)
def send_signal(
    account_id: AccountOption,
    type: Annotated[str, typer.Option(help="Signal type.")] = "demo.succeed",
    payload: Annotated[str, typer.Option(help="A JSON object.")] = "{}",
    signal_id: Annotated[str | None, typer.Option(help="Else a new one.")] = None,
    entitlement_id: Annotated[
        str | None, typer.Option(help="If several entitlements map it.")
    ] = None,
    sku_id: Annotated[str | None, typer.Option(help="The same, by the product.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait for the action's end.")] = False,
    via: Annotated[Literal["http", "topic"], typer.Option(help="How it is delivered.")] = "http",
    as_json: Json = False,
) -> None:
    """Send a signal as the tenant would."""
    from cli.stores import connected
    from governor.errors import InputError
    from ingress.client import checked, new_id

    try:
        parsed = json.loads(payload)
    except ValueError as error:
        raise InputError("bad-payload", f"--payload is not JSON: {error}") from None
    if wait and via == "topic":
        raise InputError("cannot-wait", "a topic returns no answer: use --wait with --via http")
    signal: dict[str, Any] = {
        "signal_id": signal_id or new_id("signal"),
        "type": type,
        "payload": parsed,
    }
    named = {"entitlement_id": entitlement_id, "sku_id": sku_id}
    signal |= {name: value for name, value in named.items() if value}
    with connected() as client:
        if via == "topic":
            show({"message_id": client.publish_signal(account_id, signal)}, as_json)
            return
        answer = checked(client.post_signal(account_id, signal))
        shown = client.wait_action(answer.headers["Location"]) if wait else answer.json()
    show(shown, as_json, action_line(shown))
    if wait and shown["state"] != "complete":
        why = f"{shown.get('error_code')}: {shown.get('error_detail') or ''}"
        print(f"ggen: {shown['action_id']} ended {shown['state']}: {why}", file=sys.stderr)
        raise typer.Exit(NOT_COMPLETE)


@app.command(rich_help_panel=RECEIPTS)
def receipts(
    account_id: AccountOption,
    operation: Annotated[str | None, typer.Option(help="Only this operation.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    after: Annotated[str | None, typer.Option(help="The cursor of the page before.")] = None,
    as_json: Json = False,
) -> None:
    """List receipts, newest first."""
    from cli.stores import connected
    from governor.errors import InputError

    with connected() as client:
        query = {"operation": operation, "limit": limit, "cursor": after}
        page = client.read(f"/v1/tenants/{account_id}/receipts", **query)
        if not page["items"] and not client.knows(account_id):
            raise InputError(
                "unknown-account", f"there is no account {account_id}: ggen tenant list"
            )
    none = f"no receipts of {account_id}" + (f" with operation {operation}" if operation else "")
    head = f"{'receipt':<36}  {'time':<12}  operation"
    lines = [head, *map(summary, page["items"])] if page["items"] else [none]
    if page["next_cursor"]:
        lines.append(f"more: --after {page['next_cursor']}")
    show(page, as_json, "\n".join(lines))


@app.command(rich_help_panel=RECEIPTS)
def schema(
    operation: Annotated[str | None, typer.Argument(help="One operation; else all.")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Else the newest.")] = None,
    command: Annotated[
        str | None, typer.Option(help="Of what a command prints with --json: 'runs list', …")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the JSON Schemas of receipts, or of what a command prints with --json."""
    from governor.errors import InputError
    from ledger import contracts

    if command:
        from cli.shapes import commands as shapes

        show(shapes.schema(command), as_json)
        return
    schemas = contracts.schemas()
    if operation and operation not in schemas:
        raise InputError("unknown-operation", f"operation is one of {', '.join(schemas)}")
    if not operation:
        show(schemas, as_json)
        return
    versions = schemas[operation]
    if version and version not in versions:
        known = ", ".join(map(str, versions))
        raise InputError("unknown-version", f"{operation} has the versions {known}")
    show(versions[version or max(versions)], as_json)


@app.command(rich_help_panel=DEVELOPMENT)
def bench(
    only: Annotated[list[str] | None, typer.Option(help="Only these measurements.")] = None,
    as_json: Json = False,
) -> None:
    """Measure this machine against the bars, on a stack of its own."""
    from bench import measure
    from cli.stack import supervisor

    with supervisor.terminating():
        result = measure.run(only or [])
    show(result, as_json, measure.table(result))


def main() -> None:
    """Run a command; an error of ours is one line and the exit code of its family."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    os.umask(0o077)
    _show_flags_as_flags()
    try:
        _become_the_owner()
        app()
    except GovernorError as error:
        show_error(error)
        sys.exit(error.exit_code)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)  # the reader of our output has closed it
        failed = OutageError("io", f"{error.filename or 'input or output'}: {error.strerror}")
        show_error(failed)
        sys.exit(failed.exit_code)


def _show_flags_as_flags() -> None:
    """A flag takes no value, so that ``--help`` shows no type beside it."""
    from typer.core import TyperOption

    shown = TyperOption.display_type_rich

    def display(self: TyperOption, ctx: typer.Context) -> str | None:
        return None if self.is_flag else shown(self, ctx)

    TyperOption.display_type_rich = display  # type: ignore[method-assign,assignment]


def _become_the_owner() -> None:
    """As root, act as the state directory's owner: root's own files would lock its stack out."""
    from config.settings import load

    if os.geteuid() != 0 or "--help" in sys.argv:
        return
    state = load().state_dir
    if state.exists() and (owner := state.stat()).st_uid != 0:
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)


if __name__ == "__main__":
    main()
