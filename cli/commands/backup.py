"""``ggen backup`` and ``ggen restore``."""

from pathlib import Path
from typing import Annotated

import typer

from cli.output import STACK, Json, show

KeysFile = Annotated[Path | None, typer.Option("--keys", help="Keys and secrets, apart.")]
Passphrase = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="Its content encrypts, or opens, the keys' file."),
]


def register(app: typer.Typer) -> None:
    """Add the commands to ``ggen``."""
    app.command(rich_help_panel=STACK)(backup)
    app.command(rich_help_panel=STACK)(restore)


def backup(
    folder: Annotated[Path, typer.Argument(help="Where the copy's own folder is made.")],
    keys_file: KeysFile = None,
    passphrase_file: Passphrase = None,
    as_json: Json = False,
) -> None:
    """Copy the embedded stores while the stack runs: one consistent moment, verifiable."""
    from cli.backup import make

    value, text = make.backup(folder, keys_file, passphrase_file)
    show(value, as_json, text)


def restore(
    copy: Annotated[Path, typer.Argument(help="A folder that ggen backup made.", exists=True)],
    keys_file: KeysFile = None,
    passphrase_file: Passphrase = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Set aside the store that is here, with all it has.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Put a copy back, verify every ledger, and name missing receipts; the stack must be down."""
    from cli.backup import restore as putting

    opened_by = putting.Keys(keys_file, passphrase_file)
    value, text, code = putting.restore(copy, opened_by, replace=replace)
    show(value, as_json, text)
    raise typer.Exit(code)
