"""A whole log, judged: every receipt, its place, and every tree that was ever signed.

Pure: the caller passes what the store or the archive returned. A ``Finding`` says what does not
hold, and where; nothing is skipped silently.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from governor.errors import InputError
from governor.records import NO_TIME
from governor.times import instant, timestamp
from ledger.checkpoint import Checkpoint, open_checkpoint
from ledger.keys import KeyRing, untimely
from ledger.log import Leaf, Log, Seal, Stored, rejected_line, seal_id, stated
from ledger.receipt import SignedReceipt, envelope, from_envelope
from ledger.verify import MAX_AHEAD, Check, Finding, Recorded, verify

_FIELDS = len(SignedReceipt.model_fields)


@dataclass(frozen=True, slots=True)
class Entry:
    """A leaf and what it names: a stored document, or a line of an archive."""

    leaf: str
    content: Mapping[str, Any] | bytes


def examine(entries: Sequence[Entry], account_id: str, ring: KeyRing) -> list[Finding]:
    """What does not hold of these entries by themselves. Independent of all others."""
    return [fault for entry in entries for fault in _examine(entry, account_id, ring)]


def line_of(entry: Entry) -> bytes:
    """The line of an archive for a leaf: exactly what the leaf names by its hash.

    Raises:
        InputError: the stored content does not match the leaf's hash.
    """
    leaf = Leaf.model_validate_json(entry.leaf)
    line, _, fault = _content(leaf, entry.content)
    if hashlib.sha256(line).hexdigest() != leaf.envelope_sha256:
        raise InputError("ledger-broken", f"{place(leaf)}: {fault or 'not what was sealed'}")
    return line


def place(leaf: Leaf) -> str:
    """Where a finding about a leaf points."""
    return f"receipt {leaf.receipt_id} (leaf {leaf.index})"


def check_created(leaf: Leaf, created_at: datetime, previous: str) -> Iterator[Finding]:
    """Whether the store still says of a receipt what it said when it was sealed."""
    expected = max(instant(previous), created_at) if previous else created_at
    ahead = created_at - instant(leaf.recorded_at)
    if created_at >= NO_TIME:
        if leaf.rejected is None:
            yield Finding(place(leaf), Check.ORDERING, "is stored with no time of creation")
    elif ahead > MAX_AHEAD:  # the sealer did not believe it
        words = f"was created {ahead} after it was recorded, by the store's clock"
        yield Finding(place(leaf), Check.CLOCK, words, ahead.total_seconds())
    elif instant(leaf.recorded_at) != expected:
        yield Finding(
            place(leaf),
            Check.ORDERING,
            f"stored as created at {timestamp(created_at)}, but recorded at {leaf.recorded_at}",
        )


def check_unsealed(stored: Stored, account_id: str, ring: KeyRing) -> list[Finding]:
    """What does not hold of a receipt that is not in the log yet."""
    where = f"receipt {stored.receipt_id} (not sealed)"
    try:
        receipt = SignedReceipt.model_validate(stored.data)
    except ValidationError:
        return [Finding(where, Check.IMMUTABILITY, "not the fields of a receipt")]
    recorded = Recorded(receipt, stored.receipt_id, stored.created_at)
    found = verify(recorded, account_id=account_id, ring=ring)
    return [replace(each, subject=where) for each in found if each.fault]


def read_seal(
    log: Log, seal: Seal, number: int, pins: Sequence["Pin"] = ()
) -> tuple[list[Leaf], list[Finding]]:
    """Take a seal's leaves into the log; those that follow on it, and what does not hold."""
    name = f"seal {number}"
    if (seal.seal_id, seal.account_id) != (seal_id(number), log.account_id):
        fault = f"says that it is seal {seal.seal_id[:12]} of {seal.account_id[:64]!r}"
        return [], [Finding(name, Check.INTEGRITY, fault)]
    leaves: list[Leaf] = []
    faults: list[Finding] = []
    try:
        for text in seal.leaves:
            leaves.append(log.append(text))
            faults += [fault for pin in pins for fault in pin.watch(log)]
    except InputError as error:
        return leaves, [*faults, Finding(name, Check.ORDERING, error.detail)]
    expected = stated(log, seal)
    for field in Seal.model_fields:
        if getattr(expected, field) != getattr(seal, field):
            faults.append(Finding(name, Check.INCLUSION, f"its {field} is not that of its leaves"))
    return leaves, faults


def check_checkpoint(
    note: str, where: str, recorded_until: str | None, tree: Checkpoint, ring: KeyRing
) -> Iterator[Finding]:
    """Whether a signed note states this very tree, by a key that was in use.

    Without ``recorded_until`` any trusted key will do: the time of keys is then not asked.
    """
    try:
        found, key = open_checkpoint(note, tree.origin, ring)
    except InputError as error:
        yield Finding(where, Check.CONSISTENCY, error.detail)
        return
    if found != tree:
        yield Finding(
            where,
            Check.CONSISTENCY,
            f"signed for {found.size} leaves with root {found.root.hex()[:16]}…, but the log has "
            f"{tree.size} with root {tree.root.hex()[:16]}…",
        )
    elif recorded_until and (late := untimely(key, instant(recorded_until), made_later=True)):
        yield Finding(where, Check.CONSISTENCY, late)


class Pin:
    """A checkpoint seen before, which the log must still extend."""

    def __init__(self, pinned: Checkpoint, where: str) -> None:
        self._pinned = pinned
        self._where = where

    @property
    def size(self) -> int:
        """How many leaves it was signed for."""
        return self._pinned.size

    def told(self, found: Sequence[Finding]) -> Iterator[str]:
        """What was held against it, if nothing that was found contradicts it."""
        if not any(finding.subject == self._where for finding in found):
            yield f"{self._where} over {self._pinned.size} receipts"

    def watch(self, log: Log) -> Iterator[Finding]:
        """Compare when the log, as it is read, is as long as the pinned one."""
        if log.tree.size == self._pinned.size and log.tree.root() != self._pinned.root:
            fault = f"its first {log.tree.size} leaves are not those this checkpoint was signed for"
            yield Finding(self._where, Check.CONSISTENCY, fault)

    def unmet(self, size: int) -> Iterator[Finding]:
        """A finding if the log ended before it was as long as the checkpoint."""
        if size < self._pinned.size:
            fault = (
                f"signed for {self._pinned.size} leaves, but the log has only {size}: its end is "
                "missing, or the store is an older copy"
            )
            yield Finding(self._where, Check.CONSISTENCY, fault)


def _examine(entry: Entry, account_id: str, ring: KeyRing) -> Iterator[Finding]:
    leaf = Leaf.model_validate_json(entry.leaf)  # its form was judged when it was read
    where = place(leaf)
    line, stored, fault = _content(leaf, entry.content)
    if stored and not isinstance(entry.content, bytes) and len(entry.content) != _FIELDS:
        yield Finding(where, Check.IMMUTABILITY, "is stored with fields that no receipt has")
    if hashlib.sha256(line).hexdigest() != leaf.envelope_sha256:
        yield Finding(
            where, Check.IMMUTABILITY, "what is stored is not what was sealed (its SHA-256 differs)"
        )
    if leaf.rejected is not None:
        fault = f"was no receipt when it was sealed: {leaf.rejected[:512]}"
    if fault or stored is None:
        yield Finding(where, Check.IMMUTABILITY, fault)
        return
    recorded = Recorded(stored, leaf.receipt_id, instant(leaf.recorded_at))
    for finding in verify(recorded, account_id=account_id, ring=ring):
        if finding.fault:
            yield replace(finding, subject=where)


def _content(
    leaf: Leaf, content: Mapping[str, Any] | bytes
) -> tuple[bytes, SignedReceipt | None, str]:
    """The line that was hashed, the receipt in it, and why there is none."""
    try:
        if isinstance(content, bytes):
            return content, None if leaf.rejected else from_envelope(content), ""
        if leaf.rejected is not None:
            return rejected_line(content), None, ""
        stored = SignedReceipt.model_validate(content)
        return envelope(stored), stored, ""
    except ValidationError:
        return b"", None, "not the fields of a receipt"
    except InputError as error:
        return content if isinstance(content, bytes) else b"", None, error.detail
    except ValueError:
        return b"", None, "its text has no UTF-8 form"
