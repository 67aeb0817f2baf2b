"""``ggen tenant list``, ``policy list``, ``logs``; and what this version refuses by name."""

import time
from typing import Annotated, Any

import typer

from cli.lists import After
from cli.output import CUSTOMERS, STACK, Json, put, show


def register(app: typer.Typer) -> None:
    """Add the commands to ``ggen``."""
    tenants = typer.Typer(help="Tenants: accounts with a governor.", no_args_is_help=True)
    tenants.command("list")(list_tenants)
    tenants.command("purge")(purge_tenant)
    app.add_typer(tenants, name="tenant", rich_help_panel=CUSTOMERS)
    app.command(rich_help_panel=CUSTOMERS)(scale)
    app.command(rich_help_panel=STACK)(logs)


def list_tenants(
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    after: After = None,
    as_json: Json = False,
) -> None:
    """List the accounts with a governor, by name, and what each has bought."""
    from cli import lists
    from governor.tenancy import Entitlement, Tenant
    from ports.documents import Query, every

    ports, rows = _ports(), []
    place = ("", f"tenants/{after}") if after else None
    for document in ports.documents.scan(Query("tenants", after=place, limit=limit)):
        tenant = Tenant.stored(document.data)
        bought = [
            Entitlement.stored(each.data)
            for each in every(ports.documents, f"{document.path}/entitlements")
        ]
        rows.append(
            {
                "account_id": tenant.account_id,
                "state": tenant.state,
                "entitlements": [_bought(e) for e in bought],
            }
        )
    more = lists.next_page([str(row["account_id"]) for row in rows], limit)
    shown = [(r["account_id"], r["state"], ", ".join(r["entitlements"])) for r in rows]
    text = lists.table(("account", "state", "bought"), shown, more=more)
    show(rows, as_json, text if rows else "no tenants yet: ggen send-webhook --account-id acme")


def _bought(entitlement: Any) -> str:
    name = "" if entitlement.entitlement_id == entitlement.sku_id else entitlement.entitlement_id
    terms = f"{entitlement.sku_id}/{entitlement.plan_type} {entitlement.policy_version}"
    told = f"{name} ({terms})" if name else terms
    if entitlement.state != "active":
        told += f" {entitlement.state}"
    return f"{told} until {entitlement.cancels_at}" if entitlement.cancels_at else told


def purge_tenant(
    account_id: Annotated[str, typer.Argument(help="Whose texts are removed.")],
    reason: Annotated[str, typer.Option(help="Why; kept beside the ledger.")],
    archives: Annotated[
        bool, typer.Option("--archives", help="Delete the archives, too, as retention allows.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: Json = False,
) -> None:
    """Remove what a customer wrote, once all its entitlements have ended. Receipts stay."""
    from cli.commands import purge

    value, text = purge.purge(account_id, reason, archives=archives, dry_run=dry_run)
    show(value, as_json, text)


def scale(
    account_id: Annotated[str, typer.Argument(help="The tenant's account id.")],
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="How many actions at once.")
    ] = None,
    entitlement: Annotated[
        str | None, typer.Option(help="Which entitlement, where there are several.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only reckon.")] = False,
    no_quota_check: Annotated[
        bool, typer.Option("--no-quota-check", help="Beyond plan, month or budget, too.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why; kept beside the ledger.")] = "",
    history: Annotated[bool, typer.Option("--history", help="Show its changes so far.")] = False,
    pause: Annotated[
        bool, typer.Option("--pause", help="Have it change by command alone for a while.")
    ] = False,
    hours: Annotated[float, typer.Option(help="For how long it is paused.")] = 24,
    resume: Annotated[bool, typer.Option("--resume", help="End the pause.")] = False,
    as_json: Json = False,
) -> None:
    """Change how many actions of a tenant run at once (Runbook 3), pause that, or show changes."""
    from cli.commands import scaling
    from governor.errors import InputError

    if (pause or resume) and (dry_run or history or concurrency is not None or pause == resume):
        raise InputError("ambiguous", "--pause and --resume are given alone; nothing was changed")
    if history:
        value, text = scaling.history(account_id)
    elif pause or resume:
        value, text = scaling.hold(account_id, entitlement, hours if pause else None, reason)
    elif concurrency is None:
        raise InputError(
            "no-concurrency",
            "say how many at once: --concurrency N; or --history, --pause, --resume",
        )
    else:
        asked = scaling.Asked(entitlement, concurrency, not no_quota_check, reason)
        value, text = scaling.scale(account_id, asked, dry_run=dry_run)
    show(value, as_json, text)


def logs(
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many.")] = 50,
    program: Annotated[
        str | None, typer.Option(help="Only of this one: ingress, actions, runbooks, …")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay, and show more.")] = False,
) -> None:
    """Show the end of the stack's log."""
    from cli.stack.logs import Logs
    from cli.stack.programs import commands
    from config.settings import load
    from governor.errors import InputError, OutageError

    settings = load()
    names = [*commands(settings), "supervisord", "up"]
    if program is not None and program not in names:
        raise InputError("unknown-program", f"program is one of {', '.join(names)}")
    found = Logs(settings, program)
    if not found.exist():
        raise OutageError(
            "no-log", f"there is no log in {settings.log_dir}: no stack was started here: ggen up"
        )
    nothing = f"{program} has logged nothing" if program else "nothing was logged"
    put("\n".join(found.last(lines)) or nothing)
    while follow:
        if new := found.new():
            put("\n".join(new))
        time.sleep(0.3)


def _ports() -> Any:
    from cli.stores import opened

    return opened()
