"""``ggen`` for auditors: the commands that verify, export and keep keys, and their options."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.output import RECEIPTS, AccountOption, Json, put, show

_EXPORTS = {
    "prometheus": "prometheus/rules.yml",
    "openslo": "slo/objectives.yml",
    "grafana": "grafana/dashboard.json",
}
_MANY = 20
"""Findings shown to a person; --json has all that were kept."""

Output = Annotated[Path | None, typer.Option("--output", help="Write to this file.")]

Extends = Annotated[
    Path | None,
    typer.Option(
        help="A checkpoint or archive from before, which it must extend.",
        exists=True,
        dir_okay=False,
    ),
]


Strict = Annotated[
    bool, typer.Option("--strict", help="Exit 7 where a receipt's own clock was off.")
]


def register(app: typer.Typer) -> None:
    """Add these commands to ``ggen``."""
    app.command("slo", rich_help_panel=RECEIPTS)(slo)
    app.command("trace", rich_help_panel=RECEIPTS)(trace)
    app.command("verify-receipt", rich_help_panel=RECEIPTS)(verify_receipt)
    app.command("verify-ledger", rich_help_panel=RECEIPTS)(verify_ledger)
    app.command("export-receipts", rich_help_panel=RECEIPTS)(export_receipts)
    app.command("verify-archive", rich_help_panel=RECEIPTS)(verify_archive)
    keys = typer.Typer(help="The ledger's signing keys.", no_args_is_help=True)
    keys.command("list")(list_keys)
    keys.command("rotate")(rotate_keys)
    keys.command("disown")(disown_key)
    keys.command("export")(export_keys)
    app.add_typer(keys, name="keys", rich_help_panel=RECEIPTS)


def verify_receipt(
    receipt_id: Annotated[
        str,
        typer.Option("--receipt-id", help="The receipt's UUID, or a beginning that no other has."),
    ],
    account_id: AccountOption,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Check one receipt: immutability, ordering, integrity, completeness, and its inclusion."""
    from cli import lists
    from cli.audit import verify_ledger

    ports = verify_ledger.open_ledger()
    receipt_id = lists.id_of(
        ports.documents, f"tenants/{account_id}/receipts", receipt_id, "receipt"
    )
    verdict = verify_ledger.verify_one(ports, account_id, receipt_id)
    code = verify_ledger.code_of(verdict)
    words = {verify_ledger.VALID: "valid", verify_ledger.BROKEN: "broken"}.get(
        code, "valid, not sealed yet"
    )
    clock = [finding for finding in verdict.findings if finding.off_s]
    if clock and code != verify_ledger.BROKEN:
        words += f", clock off by {clock[0].off_s:.0f} s"
        code = verify_ledger.CLOCK_OFF if strict else code
    value = {
        "receipt_id": receipt_id,
        "account_id": account_id,
        "verdict": words,
        "index": verdict.leaf.index if verdict.leaf else None,
        "checks": {f.check: {"holds": f.holds, "fault": f.fault} for f in verdict.findings},
    }
    show(value, as_json, "\n".join([*verify_ledger.told(verdict), f"=> {words}"]))
    raise typer.Exit(code)


def verify_ledger(
    account_id: AccountOption,
    extends: Extends = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Check everything of an account: each receipt, its place, every tree ever signed.

    The ledger must also extend the checkpoint that this machine saw last.
    """
    from cli.audit import verify_ledger
    from config.settings import load

    verified = verify_ledger.verify_all(verify_ledger.open_ledger(), load(), account_id, extends)
    report = verified.report
    lines = _findings(report.findings, report.more_findings)
    lines.append(f"{report.sealed} receipts in {report.seals} seals, {report.unsealed} not sealed")
    lines += [f"extends {kept}" for kept in report.extends]
    if report.tree:
        lines.append(f"root {report.tree.root.hex()} of {report.tree.origin}")
    lines.append(f"=> {verify_ledger.verdict_of(verified)}")
    show(verify_ledger.summary_of(verified), as_json, "\n".join(lines))
    is_off = strict and report.clock_off and verified.code != verify_ledger.BROKEN
    raise typer.Exit(verify_ledger.CLOCK_OFF if is_off else verified.code)


def export_receipts(
    account_id: AccountOption,
    format: Annotated[Literal["json", "jsonl", "archive"], typer.Option(help="Shape.")] = "json",
    since: Annotated[
        str | None, typer.Option(help="Only from this time on (RFC 3339, or a date).")
    ] = None,
    operation: Annotated[str | None, typer.Option(help="Only this operation.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    output: Output = None,
    as_json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
) -> None:
    """Write an account's receipts in the order of its log, each with its proof.

    An archive holds everything that is sealed, and what it takes to verify it far from here.
    """
    from cli.audit import export, verify_ledger
    from governor.errors import InputError

    ports = verify_ledger.open_ledger()
    if format == "archive":
        if since or operation or limit:
            raise InputError(
                "not-for-archives",
                "an archive is whole: --since, --operation and --limit are for json and jsonl",
            )
        verify_ledger.ask_for_a_seal(ports, account_id)
        made = export.archive(ports, account_id, output)
        typer.echo(
            f"{made.receipts} receipts, {made.size_bytes} bytes, SHA-256 {made.sha256}", err=True
        )
        _tell_unsealed(export.unsealed(ports, account_id))
        return
    wanted = export.Wanted(export.since(since) if since else "", operation, limit)
    form = "json" if as_json else format
    with export.text_target(output) as target:
        for piece in export.write_json(export.receipts(ports, account_id, wanted), form):
            target.write(piece)


def verify_archive(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="An archive of a ledger, or its segments, oldest first.",
            exists=True,
            dir_okay=False,
        ),
    ],
    trust: Annotated[Path, typer.Option("--trust", help="Keys you trust: ggen keys export.")],
    account_id: Annotated[
        str | None, typer.Option("--account-id", help="Whose ledger it has to be.")
    ] = None,
    complete: Annotated[
        Path | None,
        typer.Option(help="The ….complete.json beside it.", exists=True, dir_okay=False),
    ] = None,
    begins_at: Annotated[
        int, typer.Option("--from", min=0, help="Where a segment begins: 0 is a whole ledger.")
    ] = 0,
    extends: Extends = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Check an archive without any store: every file, receipt, place, signature and count."""
    from cli.audit import verify_archive as command
    from cli.audit import verify_ledger

    against = command.Against(trust, extends, account_id, complete, begins_at)
    judged = command.verify_or_tell(*files, against=against)
    report, words = judged.report, judged.report.words()
    value = {
        "account_id": report.account_id,
        "verdict": words,
        "first": judged.first,
        "sealed": report.sealed,
        "clock_off": report.clock_off,
        "clock_off_s": report.clock_off_s,
        "root": report.tree.root.hex() if report.tree else None,
        "notes": judged.notes,
        "extends": report.extends,
        "findings": [
            {"subject": f.subject, "check": f.check, "fault": f.fault} for f in report.findings
        ],
        "more_findings": report.more_findings,
    }
    lines = _findings(report.findings, report.more_findings)
    lines += [f"note   {note}" for note in judged.notes]
    since = f"{judged.first} to " if judged.first else ""
    lines.append(f"{since}{report.sealed} receipts of {report.account_id}")
    lines += [f"extends {kept}" for kept in report.extends]
    show(value, as_json, "\n".join([*lines, f"=> {words}"]))
    code = verify_ledger.VALID if report.is_valid else verify_ledger.BROKEN
    raise typer.Exit(verify_ledger.CLOCK_OFF if strict and report.clock_off and not code else code)


def list_keys(as_json: Json = False) -> None:
    """Every signing key with its fingerprint, and the time it was in use."""
    from cli.commands import keys

    listed = keys.listed()
    head = f"{'key':<32}  in use"
    text = "\n".join(
        f"{key['key_id']}  {key['valid_from']} to {key['valid_until'] or 'now'}"
        f"{'  LEAKED at ' + key['leaked_at'] if key['leaked_at'] else ''}\n"
        f"    fingerprint {key['fingerprint']}"
        for key in listed
    )
    show(listed, as_json, f"{head}\n{text}")


def rotate_keys(
    leaked_at: Annotated[
        str | None, typer.Option(help="The old key is no longer believed from this time on.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Sign with a new key from now on; no restart is needed, and old receipts stay valid."""
    from cli.commands import keys

    value = keys.rotate(leaked_at)
    show(value, as_json, f"{value['key_id']} is in use; {value['previous_key_id']} is retired")


def disown_key(
    key: Annotated[str, typer.Argument(help="Key id or fingerprint of a key no longer in use.")],
    leaked_at: Annotated[str, typer.Option(help="It is not believed from this time on.")],
    as_json: Json = False,
) -> None:
    """Say that an old key had leaked: it was found out after the rotation."""
    from cli.commands import keys

    value = keys.disown(key, leaked_at)
    show(value, as_json, f"{value['key_id']} is not believed from {value['leaked_at']} on")


def export_keys(output: Output = None) -> None:
    """Write the public keys, for auditors: what ``verify-archive --trust`` takes."""
    from cli.audit import export
    from cli.commands import keys

    with export.text_target(output) as target:
        target.write(keys.exported())


def _findings(findings: list, more: int) -> list[str]:  # type: ignore[type-arg]
    lines = [f"BROKEN {f.check:<13} {f.subject}: {f.fault}" for f in findings[:_MANY]]
    hidden = len(findings) - len(lines) + more
    return [*lines, f"BROKEN and {hidden} more (--json has more of them)"] if hidden else lines


def _tell_unsealed(count: int) -> None:
    """An archive that leaves something out does not end like one that is whole."""
    if count:
        words = f"at least {count} receipts are not sealed yet, and not in it"
        typer.echo(words, err=True)
        sys.exit(6)


def slo(
    since: Annotated[str, typer.Option(help="30d, 12h, 5m, or a time; else 30 days.")] = "",
    export: Annotated[
        Literal["prometheus", "openslo", "grafana"] | None,
        typer.Option(help="Print alert rules, OpenSLO documents, or a dashboard instead."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show how far each objective was met, by the receipts alone."""
    if export:
        from cli.commands.references import monitoring

        put(monitoring()[_EXPORTS[export]].rstrip())
        return
    from cli.monitoring.report import slo as measured

    told, text = measured(since)
    show(told, as_json, text)


def trace(
    subject: Annotated[str, typer.Argument(help="An action's or a run's id.")] = "",
    account_id: Annotated[str | None, typer.Option(help="Of an action.")] = None,
    since: Annotated[
        str, typer.Option(help="Export all that ended since: 1d, 12h, 5m, or a time.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Draw how an action or a run went, from the record; --since exports to the collector."""
    from cli.monitoring import waterfall
    from governor.errors import InputError

    if bool(subject) == bool(since):
        raise InputError("what", "name an action or a run, or --since, and not both")
    told, text = waterfall.export(since) if since else waterfall.show_trace(subject, account_id)
    show(told, as_json, text)
