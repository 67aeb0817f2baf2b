"""A consistent copy of a SQLite store that is in use, and rows put back with their own times."""

import os
import secrets
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from adapters.local.sqlite import PAGE_BYTES
from adapters.rules import check_path, encoded
from governor.errors import OutageError
from governor.times import microseconds

Row = tuple[str, dict[str, Any], str]
"""A path, its document, and its time of creation as RFC 3339."""


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


def put_back(store: Path, rows: Iterable[Row]) -> int:
    """Create documents that a store lacks, with the times they had, all or none; how many.

    Nothing else may have the store open.

    Raises:
        OutageError: the store does not take them; nothing was written.
    """
    written = 0
    try:
        with closing(sqlite3.connect(store)) as connection, connection:
            for path, data, created_at in rows:
                check_path(path)
                collection = path.rpartition("/")[0]
                fresh, created_us = secrets.randbits(62), microseconds(created_at)
                group = collection.rpartition("/")[2]
                done = connection.execute(
                    "INSERT INTO documents (path, collection, grp, data, revision, created_us) "
                    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    [path, collection, group, encoded(data), fresh, created_us],
                )
                written += done.rowcount
    except sqlite3.Error as error:
        raise OutageError("not-restored", f"{store}: {error}; nothing was written") from error
    return written
