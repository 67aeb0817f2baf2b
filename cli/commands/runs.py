"""The commands of runs: ``ggen runs``, ``ggen plan``, ``ggen docs``."""

import getpass
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.lists import After
from cli.output import CUSTOMERS, DEVELOPMENT, OPERATIONS, AccountOption, Json, show

RunId = Annotated[str, typer.Argument(help="A run's id, or a beginning that no other has.")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``ggen``."""
    app.command("plan", rich_help_panel=CUSTOMERS)(plan)
    app.command("docs", rich_help_panel=DEVELOPMENT)(docs)
    run_reports = typer.Typer(help="Runs of runbooks.", no_args_is_help=True)
    run_reports.command("list")(list_runs)
    run_reports.command("show")(show_run)
    run_reports.command("resume")(resume)
    run_reports.command("cancel")(cancel)
    app.add_typer(run_reports, name="runs", rich_help_panel=OPERATIONS)


def list_runs(
    account_id: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    open: Annotated[bool, typer.Option("--open", help="Only those that have not ended.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    after: After = None,
    as_json: Json = False,
) -> None:
    """List runs, newest first."""
    from cli.commands import run_reports

    listed = run_reports.listed(account_id, only_open=open, limit=limit, after=after)
    text = run_reports.listing(listed, limit) if listed else "no runs"
    show([run_reports.shown(run) for run in listed], as_json, text)


def show_run(run_id: RunId, as_json: Json = False) -> None:
    """Show a run and its journal: what was meant, what was done, what was undone."""
    from cli.commands import run_reports

    run = run_reports.found(run_id)
    show(run_reports.shown(run), as_json, run_reports.journal(run))


def resume(run_id: RunId, as_json: Json = False) -> None:
    """Take a run up now: a parked or put-off run goes on, a failed run starts over."""
    from cli.commands import run_reports

    run = run_reports.resume(run_id)
    show(run_reports.shown(run), as_json, f"{run_id} is {run.state}; a worker takes it up now")


def cancel(
    run_id: RunId,
    reason: Annotated[str, typer.Option(help="Why; it stands in the receipt.")],
    operator: Annotated[str | None, typer.Option(help="Who; else your login.")] = None,
    as_json: Json = False,
) -> None:
    """Have a run undone at its next step; it is receipted as run_cancelled."""
    from cli.commands import run_reports

    run = run_reports.cancel(run_id, operator or getpass.getuser(), reason)
    text = f"{run_id} will be undone at its next step. See: ggen runs show {run_id}"
    show(run_reports.shown(run), as_json, text)


def plan(
    runbook: Annotated[
        str, typer.Argument(help="entitlement_lifecycle, deploy_sku, customer_cancels, …")
    ],
    account_id: AccountOption,
    sku_id: Annotated[str, typer.Option(help="Product SKU.")] = "demo-sku",
    entitlement_id: Annotated[str | None, typer.Option(help="Else the SKU.")] = None,
    plan_type: Annotated[str, typer.Option(help="Pricing plan.")] = "starter",
    event_type: Annotated[
        str | None, typer.Option(help="Else the runbook's own: entitlement.created, .cancelled, …")
    ] = None,
    region: Annotated[str | None, typer.Option(help="Else the setting's.")] = None,
    event_time: Annotated[str | None, typer.Option(help="RFC 3339; else now.")] = None,
    as_json: Json = False,
) -> None:
    """Say what would happen, in which order, and how each step is undone; touch nothing."""
    from cli.commands import run_reports

    event: dict[str, Any] = {
        "event_type": event_type,
        "account_id": account_id,
        "sku_id": sku_id,
        "entitlement_id": entitlement_id,
        "plan_type": plan_type,
        "region": region,
        "event_time": event_time,
    }
    planned = run_reports.planned(runbook, {k: v for k, v in event.items() if v is not None})
    show(run_reports.plan_value(planned), as_json, run_reports.plan_text(planned))
    if planned.refusal:
        raise typer.Exit(planned.refusal[1].exit_code)


def docs(
    folder: Annotated[Path, typer.Option("--output", help="Where the pages are written.")] = Path(
        "docs/runbooks"
    ),
    check: Annotated[bool, typer.Option(help="Write nothing; fail if a page is stale.")] = False,
    as_json: Json = False,
) -> None:
    """Render the manuals of all runbooks from their declarations."""
    from cli.commands import docs

    written = docs.render(folder, check=check)
    text = f"written to {folder}: {', '.join(written)}" if written else f"{folder} is current"
    show({"written": written}, as_json, text)
