"""The commands of policies: ``ggen policy``, ``ggen sync``, ``ggen publish-policy``."""

from pathlib import Path
from typing import Annotated

import typer

from cli.output import CUSTOMERS, Json, show

File = Annotated[Path, typer.Argument(help="A policy document (JSON).", exists=True)]
Sku = Annotated[str, typer.Argument(help="The product's SKU.")]
Plan = Annotated[str, typer.Argument(help="The pricing plan.")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``ggen``."""
    policies = typer.Typer(help="Policies: what a plan may do.", no_args_is_help=True)
    policies.command("list")(list_policies)
    policies.command("show")(show_policy)
    policies.command("diff")(diff)
    policies.command("status")(status)
    policies.command("pending")(pending)
    policies.command("publish")(publish)
    policies.command("upgrade")(upgrade)
    policies.command("rollback")(rollback)
    policies.command("sign")(sign)
    policies.command("secret")(secret)
    app.add_typer(policies, name="policy", rich_help_panel=CUSTOMERS)
    app.command("publish-policy", rich_help_panel=CUSTOMERS)(publish)
    app.command("sync", rich_help_panel=CUSTOMERS)(sync)


def publish(file: File, as_json: Json = False) -> None:
    """Register a version of a policy; the first one of a plan comes into force at once."""
    from cli.policies import change

    value, text = change.publish(file)
    show(value, as_json, text)


def upgrade(
    file: File,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only compare.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also where it is incompatible.")] = False,
    reason: Annotated[
        str,
        typer.Option(help="Why, in ten characters or more; kept beside the ledger."),
    ] = "",
    report: Annotated[str, typer.Option(help="The digest that --dry-run showed.")] = "",
    canary: Annotated[
        str, typer.Option(help="Accounts that try it first, with commas between; then all.")
    ] = "",
    percent: Annotated[
        int | None, typer.Option(min=1, max=99, help="How many accounts try it first; then all.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Bring a version of a policy into force in every governor of its plan."""
    from cli.policies import change
    from governor.errors import InputError

    if dry_run:
        value, text = change.compared(file)
    else:
        if force and not (reason and report):
            raise InputError(
                "no-report", "--force needs --reason and the --report that --dry-run shows"
            )
        wave = {"canary": list(filter(None, canary.split(","))), "percent": percent}
        value, text = change.upgrade(file, change.Forced(reason, report) if force else None, wave)
    show(value, as_json, text)


def rollback(
    sku_id: Sku,
    plan_type: Plan,
    to: Annotated[str | None, typer.Option(help="Else the version in force before.")] = None,
    as_json: Json = False,
) -> None:
    """Bring the content of an earlier version into force again, as a new version."""
    from cli.policies import change

    value, text = change.rollback(sku_id, plan_type, to)
    show(value, as_json, text)


def sign(
    file: File,
    key: Annotated[Path, typer.Option(help="An Ed25519 private key (PEM).", exists=True)],
    name: Annotated[str, typer.Option(help="The key's name, as in GGEN_POLICY_KEYS.")],
    as_json: Json = False,
) -> None:
    """Sign a policy, into FILE.sig beside it."""
    from cli.policies import change

    value, text = change.sign(file, key, name)
    show(value, as_json, text)


def secret(
    sku_id: Sku,
    plan_type: Plan,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Make a new one; the one before is used beside it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the secrets that a plan's actions by HTTP are signed with, newest first."""
    from adapters.local.secret_files import SecretFiles
    from config.settings import load
    from governor.errors import InputError

    for name in (sku_id, plan_type):
        if not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise InputError("bad-name", f"{name!r} is no SKU and no plan")
    files = SecretFiles(load().secrets_dir)
    if rotate:
        files.rotate_action_secret(sku_id, plan_type)
    found = list(files.action_secrets(sku_id, plan_type))
    show({"secrets": found}, as_json, "\n".join(found))


def sync(
    folder: Annotated[Path, typer.Argument(help="Its *.json are policies.", exists=True)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only compare.")] = False,
    as_json: Json = False,
) -> None:
    """Bring each policy of a folder into force, as often as you like; for a CI job."""
    from cli.policies import change

    rows, text, code = change.sync(folder, dry_run=dry_run)
    show(rows, as_json, text)
    raise typer.Exit(code)


def show_policy(
    sku_id: Sku,
    plan_type: Plan,
    version: Annotated[str | None, typer.Option(help="Else the one in force.")] = None,
    as_json: Json = False,
) -> None:
    """Show a version of a policy, and its digests."""
    from cli.policies import report

    value, text = report.shown(sku_id, plan_type, version)
    show(value, as_json, text)


def diff(
    sku_id: Sku,
    plan_type: Plan,
    old: Annotated[str, typer.Argument(help="A registered version.")],
    new: Annotated[str, typer.Argument(help="Another one.")],
    as_json: Json = False,
) -> None:
    """Compare two versions, rule by rule."""
    from cli.policies import report

    value, text = report.diff(sku_id, plan_type, old, new)
    show(value, as_json, text)


def status(
    sku_id: Sku,
    plan_type: Plan,
    keep_watching: Annotated[
        bool, typer.Option("--watch", help="Show it whenever it changes, until Ctrl-C.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show which version is in force, how many governors are on which, and who has heard of it."""
    from cli.overview.watch import changes
    from cli.policies import report

    if keep_watching:
        changes(lambda: report.status(sku_id, plan_type), as_json)
    else:
        value, text = report.status(sku_id, plan_type)
        show(value, as_json, text)


def pending(as_json: Json = False) -> None:
    """List the versions that were skipped as incompatible, for a person to look at."""
    from cli.policies import report

    value, text = report.pending()
    show(value, as_json, text)


def list_policies(as_json: Json = False) -> None:
    """List the policy in force for each SKU and plan, and whether it can be used here."""
    from cli import lists
    from cli.stores import opened
    from ports.documents import every
    from tasks.governors import policies

    ports, rows = opened(), []
    versions = {d.path: d.data.get("policy_version") for d in every(ports.documents, "policies")}
    for sku_id, plan_type, error in policies.unusable(ports):
        rows.append(
            {
                "sku_id": sku_id,
                "plan_type": plan_type,
                "policy_version": versions.get(policies.pointer_path(sku_id, plan_type)),
                "fault": error.detail if error else None,
            }
        )
    shown = [
        (row["sku_id"], row["plan_type"], row["policy_version"], row["fault"] or "") for row in rows
    ]
    text = lists.table(("sku", "plan", "in force", "unusable because"), shown)
    show(rows, as_json, text if rows else "no policies yet: ggen policy publish FILE")
