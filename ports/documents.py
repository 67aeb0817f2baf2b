"""Documents: where truth lies. Four methods are all that SQLite and Firestore need to share."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from governor.errors import ConflictError, InputError

Json = Mapping[str, Any]
MAX_DOCUMENT_BYTES = 1_000_000
"""Largest document; Firestore's own limit is 1 MiB."""

MAX_WRITES = 500
"""Most writes in one commit."""


@dataclass(frozen=True, slots=True)
class Document:
    """One stored document.

    ``revision`` changes with every write of this document. ``created_at`` is assigned by the store
    and never decreases in commit order, whatever the workers' clocks say.
    """

    path: str
    data: dict[str, Any]
    revision: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Create:
    """Write a document that must not exist yet, where given only before a moment.

    ``by_s``: this process's monotonic seconds, after which it conflicts (``too-late``). A process
    that stood still meanwhile writes nothing then. An earlier try may have landed before.
    """

    path: str
    data: Json
    by_s: float | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """Replace a document that must still have ``revision``."""

    path: str
    data: Json
    revision: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a document that must still have ``revision``."""

    path: str
    revision: str


Write = Create | Update | Delete
Landed = list[str] | ConflictError | InputError
"""What became of one of several commits: its revisions, or what ``commit`` would have raised."""


@dataclass(frozen=True, slots=True)
class Where:
    """A condition on a top-level field; text compares by code point, absent ones never match."""

    field: str
    op: Literal["==", "in", "<=", ">="]
    value: str | int | Sequence[str]


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for in a collection, or in a collection group.

    Args:
        collection: a collection's path; with ``group`` the last name of all collections with that
            name, wherever they lie.
        group: whether ``collection`` names a group.
        where: conditions, all of which hold.
        order_by: a top-level text field, which every document asked for has; ties order by path.
            None: the field of a range (``<=``, ``>=``), else the path. A range goes with no other
            order than that of its own field.
        descending: turn the whole order round.
        after: ``(value of order_by or "", path)`` of the last document of the page before.
        limit: 1 to 1000.
    """

    collection: str
    group: bool = False
    where: Sequence[Where] = ()
    order_by: str | None = None
    descending: bool = False
    after: tuple[str, str] | None = None
    limit: int = 100

    @property
    def at_most(self) -> int:
        """The limit, within its bounds."""
        return max(1, min(self.limit, 1000))


def every(
    documents: "Documents", collection: str, *where: Where, group: bool = False
) -> Iterator[Document]:
    """Every document of a collection, or group, that fulfils ``where``, page by page, by path."""
    after = None
    while page := documents.scan(
        Query(collection, group=group, where=where, after=after, limit=500)
    ):
        yield from page
        after = ("", page[-1].path)


def one_by_one(
    commit: Callable[[Sequence[Write]], list[str]], commits: Sequence[Sequence[Write]]
) -> list[Landed]:
    """``Documents.commit_each`` for a store that has no transaction for several commits."""
    landed: list[Landed] = []
    for writes in commits:
        try:
            landed.append(commit(writes))
        except (ConflictError, InputError) as error:
            landed.append(error)
    return landed


class Documents(Protocol):
    """A store of small JSON documents at paths ``collection/id[/collection/id…]``.

    Reads see every commit acknowledged before they began. Safe for many processes and
    threads at once. Every call is bounded in time; nothing is retried here.
    """

    def get(self, path: str) -> Document | None:
        """The document, or None.

        Raises:
            OutageError: the store did not answer in time.
        """
        ...

    def commit(self, writes: Sequence[Write]) -> list[str]:
        """All writes, or none; durable on return. The new revision of each, empty for a Delete.

        Raises:
            ConflictError: a precondition did not hold; nothing was written.
            InputError: a path or document out of bounds; nothing was written.
            OutageError: unknown: the commit MAY HAVE LANDED. Re-read and compare.
        """
        ...

    def commit_each(self, commits: Sequence[Sequence[Write]]) -> list[Landed]:
        """Several commits that have nothing to do with each other, in order, at the price of one.

        Each holds whole or not at all, whatever becomes of the others. On a store that has no
        transaction for them they come one after the other, and cost as many.

        Raises:
            OutageError: unknown: any of them MAY HAVE LANDED. Re-read and compare.
        """
        ...

    def scan(self, query: Query) -> list[Document]:
        """Up to ``query.limit`` documents, in the order of the query.

        Raises:
            OutageError: the store did not answer in time.
        """
        ...

    def count(self, collection: str, where: Sequence[Where]) -> int:
        """How many documents of a collection fulfil equalities, however many they are.

        Raises:
            OutageError: the store did not answer in time.
        """
        ...

    def created(
        self, collection: str, *, after: tuple[datetime, str] | None = None, limit: int = 100
    ) -> list[Document]:
        """Up to ``limit`` documents of a collection in order of creation: by time, then by path.

        Fewer than that are the last ones there are by now.

        Args:
            collection: a collection's path.
            after: ``(created_at, path)`` of the last document one has.
            limit: 1 to 1000.

        A document committed after this call never comes before those it gave, except by up to
        ``late_s`` of creation time. A caller that must not miss it asks again from that much
        earlier.

        Raises:
            OutageError: the store did not answer in time.
        """
        ...

    @property
    def late_s(self) -> float:
        """How far before what ``created`` gave a later document may come; 0 if never."""
        ...

    def close(self) -> None:
        """Let go of every connection of this process."""
        ...
