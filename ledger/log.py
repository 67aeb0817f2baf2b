"""The log of one account: leaves in their order, sealed in batches into one Merkle tree.

A leaf binds a receipt to its place: account, index, when it was recorded, and the SHA-256 of its
envelope. A seal is the next batch of leaves and the tree they lead to. The sealer that creates
seal n+1 first decides the order.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from governor.errors import InputError
from governor.records import NO_TIME, Record, Timestamp
from governor.times import instant, timestamp
from ledger import canonical
from ledger.keys import KeyRing
from ledger.merkle import Frontier, Subtree, leaf_hash
from ledger.receipt import SignedReceipt, envelope
from ledger.verify import MAX_AHEAD, Recorded, unfit

Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

MAX_LEAVES = 1000
"""Most leaves of one seal: about 350 KB, well below what a document may hold."""

_MAX_BYTES = 600_000


class Leaf(Record):
    """One entry of the log. ``rejected`` says why what was stored there is no receipt."""

    v: Literal[1] = 1
    account_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,127}$")]
    index: int = Field(ge=0)
    recorded_at: Timestamp
    receipt_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._~-]{0,255}$")]
    envelope_sha256: Hash
    rejected: str | None = None

    def text(self) -> str:
        """The leaf's bytes in the tree: canonical JSON.

        Put together by hand, for it is done for every leaf that is read; the fields' patterns
        leave nothing that would have to be escaped.
        """
        why = "" if self.rejected is None else f'"rejected":{canonical.plain(self.rejected)},'
        return (
            f'{{"account_id":"{self.account_id}","envelope_sha256":"{self.envelope_sha256}",'
            f'"index":{self.index},"receipt_id":"{self.receipt_id}",'
            f'"recorded_at":"{self.recorded_at}",{why}"v":1}}'
        )


@dataclass(frozen=True, slots=True)
class Stored:
    """A document of a ledger's collection of receipts, whatever is in it."""

    receipt_id: str
    data: Mapping[str, Any]
    created_at: datetime


class Seal(Record):
    """``tenants/{account_id}/seals/{seal_id}``: the leaves of one batch, and the tree with them."""

    account_id: str
    seal_id: Annotated[str, StringConstraints(pattern=r"^[0-9]{12}$")]
    tree_size: int = Field(ge=1, strict=True)
    root: Hash
    frontier: tuple[Hash, ...]
    recorded_until: Timestamp
    leaves: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_a_tree(self) -> Self:
        # Another number of subtrees could lead to the same root, and be no tree of RFC 6962.
        if len(self.frontier) != self.tree_size.bit_count() or self.first_index < 0:
            raise ValueError("the frontier is not that of a tree of this size")
        return self

    @property
    def number(self) -> int:
        """Seals are numbered from 1 without a gap."""
        return int(self.seal_id)

    @property
    def first_index(self) -> int:
        """The index of its first leaf."""
        return self.tree_size - len(self.leaves)

    def tree(self) -> Frontier:
        """The tree up to and with this seal."""
        return Frontier(self.tree_size, tuple(map(bytes.fromhex, self.frontier)))


def seal_id(number: int) -> str:
    """A seal's name, whose order is that of the numbers."""
    return f"{number:012d}"


def rejected_line(data: Mapping[str, Any]) -> bytes:
    """The one text of a document that is no receipt."""
    return json.dumps({"rejected": data}, separators=(",", ":"), sort_keys=True).encode()


def next_seal(
    account_id: str, before: Seal | None, batch: Sequence[Stored], ring: KeyRing, now: datetime
) -> Seal:
    """The seal that appends ``batch``, or as much of it as one holds, after ``before``.

    ``now`` is the sealer's clock: a time of creation that lies ahead of it is not believed.

    Every receipt is hashed again and its signature checked. One that does not hold becomes a leaf
    that is marked ``rejected``.
    """
    tree = before.tree() if before else Frontier()
    recorded_at = before.recorded_until if before else ""
    leaves, size_bytes = [], 0
    for stored in batch:
        recorded_at = recorded(stored.created_at, recorded_at, now)
        leaf = Leaf(
            account_id=account_id,
            index=tree.size,
            recorded_at=recorded_at,
            receipt_id=stored.receipt_id,
            **_content(stored, account_id, recorded_at, ring),
        )
        leaves.append(leaf.text())
        tree = tree.append(leaf_hash(leaves[-1].encode()))
        size_bytes += len(leaves[-1])
        if size_bytes > _MAX_BYTES:
            break  # the rest is for the next one
    return _seal(account_id, before.number + 1 if before else 1, tree, recorded_at, leaves)


def recorded(created_at: datetime, previous: str, now: datetime) -> str:
    """When a receipt counts as recorded (D13): not before its predecessor, not ahead of time.

    It is when the store says it was created, unless that lies more than the skew ahead of the
    sealer's clock: one document's time moves no other's.
    """
    floor = max(now, instant(previous)) if previous else now
    believed = created_at if created_at <= floor + MAX_AHEAD else floor
    return max(previous, timestamp(believed))


def again(account_id: str, before: Seal | None, leaves: Iterable[str]) -> Seal:
    """The seal that these very leaves make after ``before``, hashed again.

    Raises:
        InputError: they do not follow on it; says which one and why.
    """
    log = Log(account_id, before.tree() if before else Frontier(), _until(before))
    texts = tuple(leaves)
    for text in texts:
        log.append(text)
    number = before.number + 1 if before else 1
    return _seal(account_id, number, log.tree, log.recorded_at, texts)


def stated(log: "Log", seal: Seal) -> Seal:
    """What a seal has to state whose leaves have just been read into the log."""
    return _seal(log.account_id, seal.number, log.tree, log.recorded_at, seal.leaves)


class Log:
    """A log as it is read again, leaf by leaf, each checked against what came before it."""

    def __init__(self, account_id: str, tree: Frontier, recorded_at: str = "") -> None:
        self.account_id = account_id
        self.tree = tree
        self.recorded_at = recorded_at

    def append(self, text: str) -> Leaf:
        """Take the next leaf into the tree.

        Raises:
            InputError: it is no leaf of this log at this place; the tree is as it was.
        """
        leaf = parse_leaf(text)
        at = f"leaf {self.tree.size}"
        if leaf.account_id != self.account_id:
            raise InputError("bad-leaf", f"{at} is of account {leaf.account_id[:64]!r}")
        if leaf.index != self.tree.size:
            raise InputError("bad-leaf", f"{at} says that it is leaf {leaf.index}")
        if leaf.recorded_at < self.recorded_at:
            raise InputError(
                "bad-leaf",
                f"{at} was recorded at {leaf.recorded_at}, before the one before it at "
                f"{self.recorded_at}",
            )
        self.tree = self.tree.append(leaf_hash(text.encode()))
        self.recorded_at = leaf.recorded_at
        return leaf


def parse_leaf(text: str) -> Leaf:
    """A leaf from its bytes.

    Raises:
        InputError: it is none, or there is another way to write it.
    """
    try:
        leaf = Leaf.model_validate_json(text)
    except ValueError:
        raise InputError("bad-leaf", f"{text[:80]!r} is no leaf of a log") from None
    if leaf.text() != text:
        raise InputError("bad-leaf", f"{text[:80]!r} is not the canonical form of its leaf")
    return leaf


def inclusion(before: Seal | None, seal: Seal, index: int) -> list[bytes]:
    """The proof that a leaf of ``seal`` is in the tree of that seal (RFC 9162, 2.1.3.1)."""
    hashes = [leaf_hash(text.encode()) for text in seal.leaves]
    return Subtree(before.tree() if before else Frontier(), hashes).inclusion_proof(index)


def _content(stored: Stored, account_id: str, recorded_at: str, ring: KeyRing) -> dict[str, Any]:
    try:
        receipt = SignedReceipt.model_validate(stored.data)
        fault = unfit(Recorded(receipt, stored.receipt_id, instant(recorded_at)), account_id, ring)
    except ValidationError:
        fault = "not the fields of a receipt"
    if stored.created_at >= NO_TIME:
        fault = "it is stored with no time of creation"
    if not fault:
        return {"envelope_sha256": hashlib.sha256(envelope(receipt)).hexdigest()}
    digest = hashlib.sha256(rejected_line(stored.data)).hexdigest()
    why = fault[:96].encode("ascii", "replace").decode()
    return {"envelope_sha256": digest, "rejected": why}


def _seal(
    account_id: str, number: int, tree: Frontier, recorded_until: str, leaves: Sequence[str]
) -> Seal:
    return Seal(
        account_id=account_id,
        seal_id=seal_id(number),
        tree_size=tree.size,
        root=tree.root().hex(),
        frontier=tuple(node.hex() for node in tree.nodes),
        recorded_until=recorded_until,
        leaves=tuple(leaves),
    )


def _until(before: Seal | None) -> str:
    return before.recorded_until if before else ""
