"""Documents on SQLite: one file, many processes and threads, durable at every commit.

WAL with ``synchronous=FULL``. SQLite's own busy handler is unfair (8 writers: up to 1.8 s at the
tail), so writers first queue at ``FairLock``. One connection per process and thread.
"""

import json
import os
import secrets
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from adapters.local.fair_lock import FairLock
from adapters.local.group_commit import GroupCommit
from adapters.rules import check_field, check_path, checked, encoded, order_of
from governor.errors import ConflictError, InputError, OutageError
from governor.records import NO_TIME
from ports.documents import Create, Delete, Document, Landed, Query, Update, Where, Write

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    path TEXT PRIMARY KEY, collection TEXT NOT NULL, grp TEXT NOT NULL, data TEXT NOT NULL,
    revision INTEGER NOT NULL, created_us INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_collection ON documents (collection, path);
DROP INDEX IF EXISTS by_creation;
DROP INDEX IF EXISTS receipts_by_creation;
CREATE INDEX IF NOT EXISTS by_collection_and_creation ON documents (collection, created_us, path);
CREATE INDEX IF NOT EXISTS by_time
    ON documents (collection, json_extract(data, '$.timestamp'), path) WHERE grp = 'receipts';
CREATE INDEX IF NOT EXISTS seals_by_id
    ON documents (collection, json_extract(data, '$.seal_id'), path) WHERE grp = 'seals';
CREATE INDEX IF NOT EXISTS seals_by_time
    ON documents (collection, json_extract(data, '$.recorded_until'), path) WHERE grp = 'seals';
CREATE INDEX IF NOT EXISTS open_actions ON documents (json_extract(data, '$.state'), path)
    WHERE grp = 'actions';
DROP INDEX IF EXISTS actions_by_month;
CREATE INDEX IF NOT EXISTS actions_by_use
    ON documents (collection, json_extract(data, '$.month'), json_extract(data, '$.entitlement_id'))
    WHERE grp = 'actions';
CREATE INDEX IF NOT EXISTS open_runs ON documents (json_extract(data, '$.state'), path)
    WHERE grp = 'runs';
"""
_SCHEMA_VERSION = 4
PAGE_BYTES = 8192
"""Of a page of 4096 bytes a row may fill 1002; any larger takes a whole page more, as most of ours
would: half of the file was empty (measured; sqlite.org/fileformat2.html, "cell payload")."""

_STATUS = {
    "BUSY": "DEADLINE_EXCEEDED",
    "LOCKED": "DEADLINE_EXCEEDED",
    "FULL": "RESOURCE_EXHAUSTED",
    "NOMEM": "RESOURCE_EXHAUSTED",
    "CORRUPT": "DATA_LOSS",
    "NOTADB": "DATA_LOSS",
    "READONLY": "PERMISSION_DENIED",
    "PERM": "PERMISSION_DENIED",
    "AUTH": "PERMISSION_DENIED",
}
_NO_TIME_US = 253_370_764_800_000_000
"""Text sorts after every number in SQLite, so a row that was spoilt lies beyond this too."""

# Store-assigned, increasing in each collection: the write lock is held when it is computed. One
# collection's times, whatever they are, move no other's.
_NEXT_CREATION = f"""SELECT max(?, ifnull((SELECT created_us FROM documents
    WHERE collection = ? AND created_us < {_NO_TIME_US}
    ORDER BY created_us DESC LIMIT 1), 0) + 1)"""
_AS_WRITTEN = ("receipts", "seals", "checkpoints")
"""Collections whose rows must be, byte for byte, what was written."""

_Texts = list[tuple[Write, str]]
_SELECT = "SELECT path, data, revision, created_us FROM documents"


_INHERITED: list[sqlite3.Connection] = []


class _Held:
    """A thread's connection: closed when the thread ends, never by a forked child."""

    def __init__(self, owner: "SqliteDocuments", connection: sqlite3.Connection) -> None:
        self.owner = owner
        self.pid = os.getpid()
        self.connection = connection
        self.closed = False

    def close(self) -> None:
        if self.pid != os.getpid():
            _INHERITED.append(self.connection)  # SQLite forbids to close it here
            return
        self.closed = True
        with suppress(sqlite3.Error):
            self.connection.close()

    def __del__(self) -> None:
        self.close()


_HELD: "weakref.WeakSet[_Held]" = weakref.WeakSet()
"""Every connection of this process, and those it inherited."""


class SqliteDocuments:
    """See ``ports.documents.Documents`` for what it promises.

    Args:
        path: the file.
        timeout_s: how long a call waits for others.
        now: gives a new document its time of creation. It may take a second.
    """

    def __init__(
        self,
        path: Path,
        *,
        timeout_s: float = 1.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._now = now
        self._lock = FairLock(path.with_name(path.name + ".queue"))
        self._local = threading.local()
        self._together: GroupCommit[list[_Texts], list[Landed]] = GroupCommit(self._commit_all)

    def get(self, path: str) -> Document | None:
        check_path(path)
        rows = self._read(f"{_SELECT} WHERE path = ?", [path])
        return rows[0] if rows else None

    def commit(self, writes: Sequence[Write]) -> list[str]:
        (landed,) = self.commit_each([writes])
        if isinstance(landed, Exception):
            raise landed
        return landed

    def commit_each(self, commits: Sequence[Sequence[Write]]) -> list[Landed]:
        landed: list[Landed] = []
        texts: list[_Texts] = []
        for writes in commits:
            try:
                texts.append(list(zip(writes, checked(writes), strict=True)))
                landed.append([])
            except InputError as error:
                landed.append(error)
        if not texts:
            return landed
        # Another thread's transaction may be under way, which is bounded as its own is.
        answers = iter(self._together.commit(texts, 2 * self._timeout_s))
        return [each if isinstance(each, InputError) else next(answers) for each in landed]

    def scan(self, query: Query) -> list[Document]:
        name = query.collection.rsplit("/", 1)[-1]
        check_path(query.collection)
        # The group's name is a literal of the query, so that SQLite may use the partial indexes.
        clauses, values = [f"grp = '{name}'"], []
        if not query.group:
            clauses.append("collection = ?")
            values.append(query.collection)
        for condition in query.where:
            clause, bound = _condition(condition)
            clauses.append(clause)
            values.extend(bound)
        order_by = order_of(query.where, query.order_by)
        key = _column(order_by) if order_by else "''"
        if query.after:
            clauses.append(f"({key}, path) {'<' if query.descending else '>'} (?, ?)")
            values.extend(query.after)
        turn = "DESC" if query.descending else "ASC"
        order = f"{key} {turn}, path {turn}" if order_by else f"path {turn}"
        sql = f"{_SELECT} WHERE {' AND '.join(clauses)} ORDER BY {order} LIMIT ?"
        return self._read(sql, [*values, query.at_most])

    def count(self, collection: str, where: Sequence[Where]) -> int:
        check_path(collection)
        clauses = [f"grp = '{collection.rsplit('/', 1)[-1]}'", "collection = ?"]
        values: list[Any] = [collection]
        for condition in where:
            clause, bound = _condition(condition)
            clauses.append(clause)
            values.extend(bound)
        sql = f"SELECT count(*) FROM documents WHERE {' AND '.join(clauses)}"  # bound
        try:
            (counted,) = self._connection().execute(sql, values).fetchone()
        except sqlite3.Error as error:
            raise _outage(error) from error
        return int(counted)

    def created(
        self, collection: str, *, after: tuple[datetime, str] | None = None, limit: int = 100
    ) -> list[Document]:
        check_path(collection)
        limit = max(1, min(limit, 1000))
        in_time = f"{_SELECT} WHERE collection = ? AND created_us < {_NO_TIME_US}"
        found: list[Document] = []
        if after is None or after[0] < NO_TIME:
            values: list[Any] = [collection]
            if after:
                in_time += " AND (created_us, path) > (?, ?)"
                values += [_microseconds(after[0]), after[1]]
            found = self._read(f"{in_time} ORDER BY created_us, path LIMIT ?", [*values, limit])
        if len(found) < limit:  # last, by path, those whose rows say no time
            past = after[1] if after and after[0] >= NO_TIME else ""
            spoilt = f"{_SELECT} WHERE collection = ? AND created_us >= {_NO_TIME_US}"
            # The index by path would be read from end to end for it: "+" keeps that one out.
            found += self._read(
                f"{spoilt} AND +path > ? ORDER BY +path LIMIT ?",
                [collection, past, limit - len(found)],
            )
        return found

    @property
    def late_s(self) -> float:
        return 0.0

    def close(self) -> None:
        for held in list(_HELD):
            if held.owner is self:
                held.close()
        self._local = threading.local()

    def _commit_all(self, waiting: Sequence[list[_Texts]]) -> Sequence[list[Landed]]:
        """The commits of some threads, which may have several each."""
        try:
            connection = self._connection()
            now_us = _microseconds(self._now())
            with self._lock.held(self._timeout_s):
                commits = [one for each in waiting for one in each]
                landed = iter(_commit(connection, commits, now_us))
        except sqlite3.Error as error:
            raise _outage(error) from error
        return [[next(landed) for _ in each] for each in waiting]

    def _read(self, sql: str, values: Sequence[Any]) -> list[Document]:
        try:
            rows = self._connection().execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise _outage(error) from error
        return [
            Document(path, _parsed(path, data), str(revision), _instant(created_us))
            for path, data, revision, created_us in rows
        ]

    def _connection(self) -> sqlite3.Connection:
        held: _Held | None = getattr(self._local, "held", None)
        if held and held.pid == os.getpid():
            return held.connection
        if any(other.pid != os.getpid() and not other.closed for other in list(_HELD)):
            # SQLite's locks do not survive a fork: what this process commits could be lost.
            raise RuntimeError("this process was forked while a SQLite connection was open")
        connection = sqlite3.connect(
            self._path, timeout=self._timeout_s, isolation_level=None, check_same_thread=False
        )
        try:
            self._set_up(connection)
        except BaseException:
            connection.close()
            raise
        self._local.held = _Held(self, connection)
        _HELD.add(self._local.held)
        return connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA synchronous=FULL")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version < _SCHEMA_VERSION:
            # Two that turn WAL on at once would lock each other out.
            with self._lock.held(self._timeout_s):
                connection.execute(f"PRAGMA page_size={PAGE_BYTES}")  # of a new store
                connection.execute("PRAGMA journal_mode=WAL")
                connection.executescript(f"{_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION};")


def _commit(connection: sqlite3.Connection, commits: Sequence[_Texts], now_us: int) -> list[Landed]:
    """One transaction; a commit whose preconditions do not hold leaves the others as they are."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if len(commits) == 1:
            landed: list[Landed] = [[_apply(connection, *each, now_us) for each in commits[0]]]
        else:
            landed = [_apart(connection, texts, now_us) for texts in commits]
        connection.execute("COMMIT")
    except BaseException as error:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        if isinstance(error, ConflictError):  # of the only one
            return [error]
        raise
    return landed


def _apart(connection: sqlite3.Connection, texts: _Texts, now_us: int) -> Landed:
    connection.execute("SAVEPOINT one")
    try:
        revisions = [_apply(connection, write, text, now_us) for write, text in texts]
    except ConflictError as error:
        connection.execute("ROLLBACK TO one")
        connection.execute("RELEASE one")
        return error
    connection.execute("RELEASE one")
    return revisions


def _apply(connection: sqlite3.Connection, write: Write, text: str, now_us: int) -> str:
    fresh = secrets.randbits(62)  # never one this path had before, deleted or not
    match write:
        case Create(path, _, by_s):
            collection = path.rpartition("/")[0]
            (created_us,) = connection.execute(_NEXT_CREATION, [now_us, collection]).fetchone()
            done = connection.execute(
                "INSERT OR IGNORE INTO documents VALUES (?, ?, ?, ?, ?, ?)",
                [path, collection, collection.rpartition("/")[2], text, fresh, created_us],
            )
            if done.rowcount and by_s is not None and time.monotonic() > by_s:
                raise ConflictError("too-late", f"{path}: too late; nothing was written")
        case Update(path, _, revision):
            done = connection.execute(
                "UPDATE documents SET data = ?, revision = ? WHERE path = ? AND revision = ?",
                [text, fresh, path, _number(revision)],
            )
        case Delete(path, revision):
            done = connection.execute(
                "DELETE FROM documents WHERE path = ? AND revision = ?", [path, _number(revision)]
            )
    if done.rowcount != 1:
        code = "already-exists" if isinstance(write, Create) else "stale-revision"
        raise ConflictError(code, f"{write.path}: {code.replace('-', ' ')}; nothing was written")
    return "" if isinstance(write, Delete) else str(fresh)


def _parsed(path: str, text: str) -> dict[str, Any]:
    """A row's document; of a corrupted row, its text under an empty name.

    Receipts, seals and checkpoints must equal, byte for byte, the text that was written. Of a name
    that one row contains twice, ``json`` reads one value and a query reads the other.
    """
    try:
        data = json.loads(text)
        if not isinstance(data, dict):
            return {"": str(text)}
        if path.rsplit("/", 2)[-2] in _AS_WRITTEN and encoded(data) != text:
            return {"": str(text)}
    except (ValueError, TypeError, RecursionError):
        return {"": str(text)}
    return data


def _condition(condition: Where) -> tuple[str, list[Any]]:
    column = _column(condition.field)
    if condition.op == "in":
        values = list(condition.value) if not isinstance(condition.value, (str, int)) else []
        return f"{column} IN ({', '.join('?' * len(values))})", values
    return f"{column} {condition.op.replace('==', '=')} ?", [condition.value]


def _column(field: str) -> str:
    return f"json_extract(data, '$.{check_field(field)}')"


def _number(revision: str) -> int:
    return int(revision) if revision.isdecimal() else -1


def _instant(created_us: object) -> datetime:
    try:
        return min(NO_TIME, _EPOCH + timedelta(microseconds=int(str(created_us).partition(".")[0])))
    except (ValueError, OverflowError):
        return NO_TIME


def _microseconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)


def _outage(error: sqlite3.Error) -> OutageError:
    name = str(getattr(error, "sqlite_errorname", "")).split("_", 2)[1:2]
    status = _STATUS.get("".join(name), "UNAVAILABLE")
    return OutageError("documents-unavailable", f"SQLite: {error}", 2, status)
