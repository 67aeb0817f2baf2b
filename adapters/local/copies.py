"""A consistent copy of a SQLite store that is in use, and its way back."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from adapters.local.sqlite import PAGE_BYTES
from governor.errors import OutageError


def snapshot(source: Path, target: Path) -> None:
    """Copy a store as it is at one moment; its writers go on meanwhile. Durable on return.

    Source: SQLite's online backup API, all pages in one step (sqlite.org/backup.html).

    Raises:
        OutageError: it cannot be read or written, or the copy does not pass SQLite's own check.
            ``target`` is no copy then.
    """
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as store,
            closing(sqlite3.connect(target)) as copy,
        ):
            store.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
            copy.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # a store of an earlier release
            copy.execute("VACUUM")
            check(copy)
        with target.open("rb") as file:
            os.fsync(file.fileno())
    except sqlite3.Error as error:
        raise OutageError("not-copied", f"{source} was not copied to {target}: {error}") from error


def check(store: sqlite3.Connection) -> None:
    """Raise ``sqlite3.DatabaseError`` where SQLite's quick check finds fault."""
    (verdict,) = store.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)


def make_ready(store: Path) -> None:
    """Have a copied store work as one that was made here: writers never wait for readers.

    Raises:
        OutageError: it cannot be written.
    """
    try:
        with closing(sqlite3.connect(store)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.Error as error:
        raise OutageError("not-restored", f"{store}: {error}; run it again") from error
