"""The sealed log of an account as its stores hold it: seals, checkpoints, receipts, side by side.

Nothing here writes. It reads the log as stored; ``ledger.audit`` judges whether it holds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from pydantic import ValidationError

from governor.errors import GovernorError, InputError
from governor.paths import checkpoint_path, mirror_name, receipt_path, seal_path
from governor.records import NO_TIME
from governor.times import instant, timestamp
from ledger.checkpoint import Checkpoint
from ledger.log import Leaf, Seal, Stored, parse_leaf, seal_id
from ledger.verify import MAX_AHEAD
from ports import Ports
from ports.documents import Document, Documents, Query, Where
from ports.objects import Objects

PAGE = 1000
_LONG_AGO = instant("2000-01-01T00:00:00.000000Z")
Cursor = tuple[datetime, str]


class BrokenLogError(GovernorError):
    """The stored log differs from the sealed one: nothing more is signed on top of it."""

    def __init__(self, account_id: str, fault: str) -> None:
        super().__init__("ledger-broken", f"the ledger of {account_id}: {fault}")
        self.args = (account_id, fault)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a receipt in the sealed log."""

    leaf: Leaf
    seal: Seal
    before: Seal | None


@dataclass(frozen=True, slots=True)
class StoredLog:
    """The log of one account; reads alone."""

    documents: Documents
    objects: Objects
    account_id: str

    @classmethod
    def of(cls, ports: Ports, account_id: str) -> "StoredLog":
        """The log of an account, on these stores."""
        return cls(ports.documents, ports.objects, account_id)

    def newest(self) -> Seal | None:
        """The last seal of a ledger; None when nothing was sealed yet."""
        found = self.documents.scan(
            Query(f"tenants/{self.account_id}/seals", order_by="seal_id", descending=True, limit=1)
        )
        return _seal(self.account_id, found[0]) if found else None

    def newest_signed(self) -> Seal | None:
        """The last seal that has its checkpoint: the one after it may be in the making."""
        last = self.newest()
        if last and self.note_of(last) is None:
            return self.seal_at(last.number - 1)
        return last

    def seal_at(self, number: int) -> Seal | None:
        """The seal of a number; None for 0, before the first.

        Raises:
            BrokenLogError: it is not there, though a later one is.
        """
        seal = self.seal_or_none(number) if number else None
        if number and seal is None:
            raise BrokenLogError(self.account_id, f"seal {number} is missing")
        return seal

    def seal_or_none(self, number: int) -> Seal | None:
        """The seal of a number; None while there is none."""
        found = self.documents.get(seal_path(self.account_id, seal_id(number)))
        return None if found is None else _seal(self.account_id, found)

    def is_seal(self, number: int) -> bool:
        """Whether there is a document for this seal, whatever is in it."""
        return self.documents.get(seal_path(self.account_id, seal_id(number))) is not None

    def note_of(self, seal: Seal) -> str | None:
        """The signed checkpoint of a seal; None while there is none."""
        found = self.documents.get(checkpoint_path(self.account_id, seal.seal_id))
        if found is None:
            return None
        note = found.data.get("note")
        if found.data != {"note": note} or not isinstance(note, str):
            raise BrokenLogError(
                self.account_id, f"checkpoint {seal.number} is stored with other fields"
            )
        return note

    def mirrored(self, number: int) -> str | None:
        """The copy of a checkpoint that a restored database cannot take back."""
        content = self.objects.get(mirror_name(self.account_id, seal_id(number)))
        return None if content is None else content.decode(errors="replace")

    def place_of(self, receipt: Document) -> Place | None:
        """Where a stored receipt is in the log; None while it is not sealed."""
        # Where the sealer did not believe the store's time of creation, it recorded it earlier.
        for at in (receipt.created_at, _LONG_AGO):
            for seal, leaf in self.find_leaf(id_of(receipt), at):
                return Place(leaf, seal, self.seal_at(seal.number - 1))
        return None

    def find_leaf(self, receipt_id: str, at: datetime) -> Iterator[tuple[Seal, Leaf]]:
        """The leaves of a receipt that was created at ``at`` or later, with their seals."""
        for seal in self.since(at):
            for offset, text in enumerate(seal.leaves):
                if receipt_id in text and (leaf := leaf_of(seal, text)).receipt_id == receipt_id:
                    if leaf.index != seal.first_index + offset:
                        raise BrokenLogError(
                            self.account_id, f"seal {seal.number}: its leaves are not in order"
                        )
                    yield seal, leaf

    def since(self, at: datetime) -> Iterator[Seal]:
        """The seals that may hold what was created at ``at`` or later, in order."""
        collection, after = f"tenants/{self.account_id}/seals", None
        where = [Where("recorded_until", ">=", timestamp(at))]
        while found := self.documents.scan(
            Query(collection, where=where, order_by="recorded_until", after=after, limit=8)
        ):
            for document in found:
                yield _seal(self.account_id, document)
            after = (found[-1].data["recorded_until"], found[-1].path)

    def listed(self, after: Cursor | None) -> Iterator[Document]:
        """The receipts of a ledger in order of creation, page by page."""
        collection = f"tenants/{self.account_id}/receipts"
        while page := self.documents.created(collection, after=after, limit=PAGE):
            yield from page
            upcoming = (page[-1].created_at, page[-1].path)
            if after is not None and upcoming <= after:
                raise BrokenLogError(
                    self.account_id, f"its receipts cannot be listed past {page[-1].path}"
                )
            if len(page) < PAGE:
                return  # what came meanwhile is left to the next round, and not read one by one
            after = upcoming

    def unsealed(self, last: Seal | None, limit: int) -> list[Document]:
        """Receipts that are not in the log up to ``last``, in order of creation.

        The cost grows with the number of new receipts. Where the store may list a document late, it
        grows also with the receipts younger than that delay.
        """
        if last is None:
            return list(islice(self.listed(None), limit))
        floor, known = self.reached(last)
        fresh = (d for d in self.listed((floor, "")) if id_of(d) not in known)
        found: list[Document] = []
        while len(found) < limit and (batch := list(islice(fresh, limit))):
            sealed_before = self.known_ids(last, batch)
            found += [document for document in batch if id_of(document) not in sealed_before]
        return found[:limit]

    def reached(self, last: Seal) -> tuple[datetime, set[str]]:
        """How far a log has come in the order of creation, and the ids sealed about there.

        Not when it was recorded: while a clock was set ahead, receipts were recorded before the
        store's time of their creation.
        """
        late = timedelta(seconds=self.documents.late_s)
        leaf = leaf_of(last, last.leaves[-1])
        found = self.documents.get(receipt_path(self.account_id, leaf.receipt_id))
        at = instant(last.recorded_until)
        if found is not None and found.created_at < NO_TIME:
            at = max(at, found.created_at)
        since = timestamp(instant(last.recorded_until) - late)
        return at - late, self.sealed_ids(last, since)

    def known_ids(self, last: Seal | None, batch: Sequence[Document]) -> set[str]:
        """Ids up to ``last`` among which these receipts would be if they had been sealed before.

        They say themselves when they were made, so that a changed time of creation hides none.
        """
        if not batch:
            return set()
        oldest = min(map(_made_at, batch))
        return self.sealed_ids(last, timestamp(oldest - MAX_AHEAD))

    def sealed_ids(self, last: Seal | None, floor: str) -> set[str]:
        """The ids of all receipts up to ``last`` that were recorded at ``floor`` or later."""
        found: set[str] = set()
        while last:
            for text in reversed(last.leaves):
                leaf = leaf_of(last, text)
                if leaf.recorded_at < floor:
                    return found
                found.add(leaf.receipt_id)
            last = self.seal_at(last.number - 1)
        return found

    def seals_beyond(self, number: int) -> list[str]:
        """Paths of seals after a number, the first few."""
        return self._beyond(
            f"tenants/{self.account_id}/seals", seal_path(self.account_id, seal_id(number))
        )

    def checkpoints_beyond(self, number: int) -> list[str]:
        """Paths of checkpoints after a number, the first few."""
        path = checkpoint_path(self.account_id, seal_id(number))
        return self._beyond(f"tenants/{self.account_id}/checkpoints", path)

    def strays(self) -> list[str]:
        """Paths of documents that lie before the first seal or checkpoint."""
        return [
            document.path
            for path in (
                seal_path(self.account_id, seal_id(1)),
                checkpoint_path(self.account_id, seal_id(1)),
            )
            for document in self.documents.scan(Query(path.rpartition("/")[0], limit=1))
            if document.path < path
        ]

    def _beyond(self, collection: str, path: str) -> list[str]:
        return [d.path for d in self.documents.scan(Query(collection, after=("", path), limit=10))]


def tree_of(seal: Seal, origin: str) -> Checkpoint:
    """The tree that a seal states."""
    return Checkpoint(origin, seal.tree_size, bytes.fromhex(seal.root))


def leaf_of(seal: Seal, text: str) -> Leaf:
    """A leaf, parsed from its text in a seal.

    Raises:
        BrokenLogError: it is none.
    """
    try:
        return parse_leaf(text)
    except InputError as error:
        raise BrokenLogError(seal.account_id, f"seal {seal.number}: {error.detail}") from error


def _made_at(document: Document) -> datetime:
    """When a document says that it was made, or was created, whichever is earlier."""
    try:
        made_at = instant(document.data["timestamp"])
        return max(min(made_at, document.created_at), _LONG_AGO)
    except (KeyError, ValueError, TypeError, OverflowError):
        return document.created_at  # it is no receipt, and will be rejected


def stored(document: Document) -> Stored:
    """A document of the collection of receipts, for the log."""
    return Stored(id_of(document), document.data, document.created_at)


def id_of(document: Document) -> str:
    """A receipt's id, as its path has it."""
    return document.path.rpartition("/")[2]


def _seal(account_id: str, document: Document) -> Seal:
    """A seal as stored; its number is its path's, whatever it says of itself."""
    number = document.path.rpartition("/")[2].lstrip("0")
    try:
        seal = Seal.model_validate(document.data)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise BrokenLogError(account_id, f"seal {number} is spoilt: {fault}") from None
    if not document.path.endswith(f"/{seal.seal_id}"):
        raise BrokenLogError(account_id, f"seal {number} says that it is seal {seal.number}")
    if seal.document() != document.data:
        raise BrokenLogError(account_id, f"seal {number} is stored with fields that no seal has")
    return seal
