"""A ledger read side by side with its log, and judged: nothing that is stored is left out.

The receipts come in order of creation, the leaves in the order of the log, and each leaf finds its
receipt among those that were created by then; what is left over is not sealed. One pass, and memory
for one page.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from governor.records import instant, receipt_path, timestamp
from ledger.audit import (
    Entry,
    Pin,
    check_checkpoint,
    check_created,
    check_unsealed,
    examine,
    place,
    read_seal,
)
from ledger.checkpoint import Checkpoint
from ledger.keys import KeyRing
from ledger.log import Leaf, Log, Seal
from ledger.merkle import Frontier
from ledger.verify import Check, Finding
from ports import Ports
from ports.documents import Document
from tasks import sealed_log
from tasks.sealed_log import BrokenLogError

CHUNK = 250
"""Entries examined at once."""

MAX_FINDINGS = 1000
"""Findings that are kept; more are only counted."""

Chunk = Sequence[Entry]
Examine = Callable[[Iterable[Chunk]], Iterable[list[Finding]]]


@dataclass
class Report:
    """What became of an audit.

    ``left_over`` are ids of receipts no leaf was found for; ``checkpoint`` is the newest note.
    """

    account_id: str
    seals: int = 0
    sealed: int = 0
    unsealed: int = 0
    left_over: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    more_findings: int = 0
    checkpoint: str | None = None
    tree: Checkpoint | None = None

    @property
    def is_valid(self) -> bool:
        """Whether everything that was looked at holds."""
        return not self.findings

    def add(self, found: Iterable[Finding]) -> None:
        """Keep findings, as far as there is room."""
        for finding in found:
            if len(self.findings) < MAX_FINDINGS:
                self.findings.append(finding)
            else:
                self.more_findings += 1


def audit_ledger(
    ports: Ports,
    account_id: str,
    *,
    after: Seal | None = None,
    last: Seal | None = None,
    pins: Sequence[Pin] = (),
    examine_all: Examine | None = None,
    until: datetime | None = None,
    progress: Callable[[int], None] = lambda _done: None,
) -> Report:
    """Judge a ledger from just past ``after`` up to ``last``.

    Args:
        ports: the stores and keys.
        account_id: whose ledger.
        after: a seal that was judged before, with everything up to it; None for all of it.
        last: the seal to stop at; None for the newest that has a checkpoint.
        pins: checkpoints seen before, which the log must extend.
        examine_all: carries out ``examine`` over chunks; None: here, one after the other. With an
            empty answer for each, only the places are judged.
        until: receipts created after this are not asked for; None: every one is.
        progress: told how many leaves were read so far.

    Raises:
        OutageError: a store is away, so nothing can be told.
    """
    report = Report(account_id)
    ring = ports.keys.ring()
    examine_all = examine_all or (lambda chunks: (examine(c, account_id, ring) for c in chunks))
    newest = sealed_log.newest_signed(ports, account_id) if last is None else last
    walk = Walk(ports, ring, report, after, pins)
    for found in examine_all(chunks(walk.entries(newest, progress))):
        report.add(found)
    for document in walk.left_over(to_the_end=last is None):
        if until is None or document.created_at <= until:
            report.unsealed += 1
            if len(report.left_over) < MAX_FINDINGS:
                report.left_over.append(sealed_log.id_of(document))
            report.add(check_unsealed(sealed_log.stored(document), account_id, ring))
    if last is None:
        report.add(report_ends(ports, account_id))
        size = newest.tree_size if newest else 0
        report.add(fault for pin in pins for fault in pin.unmet(size))
    return report


class Walk:
    """One pass over the leaves and the receipts they name."""

    def __init__(
        self, ports: Ports, ring: KeyRing, report: Report, after: Seal | None, pins: Sequence[Pin]
    ) -> None:
        self._ports, self._ring, self._report, self._pins = ports, ring, report, pins
        self._account_id = report.account_id
        self._origin = ring.log_origin(self._account_id)
        tree = after.tree() if after else Frontier()
        self._log = Log(self._account_id, tree, after.recorded_until if after else "")
        report.add(fault for pin in pins for fault in pin.watch(self._log))
        self._first = after.number + 1 if after else 1
        self._floor, known = "", set[str]()
        if after:
            late = timedelta(seconds=ports.documents.late_s)
            self._floor = timestamp(instant(after.recorded_until) - late)
            known = sealed_log.sealed_ids(ports, self._account_id, after, self._floor)
        start = (instant(self._floor), "") if self._floor else None
        self._listing = (
            d
            for d in sealed_log.listed(ports, self._account_id, start)
            if sealed_log.id_of(d) not in known
        )
        self._upcoming = next(self._listing, None)
        self._waiting: dict[str, Document] = {}
        self._is_stopped = False

    def entries(self, last: Seal | None, progress: Callable[[int], None]) -> Iterator[Entry]:
        """Each leaf with the receipt it names; what does not hold goes into the report."""
        for number in range(self._first, (last.number if last else 0) + 1):
            try:
                seal = sealed_log.seal_at(self._ports, self._account_id, number)
            except BrokenLogError as error:
                self._stop(number, error.fault)
                return
            if seal is None:
                return
            yield from self._seal(seal, number)
            if not self._signed(seal):
                return
            self._report.seals, self._report.sealed = number, seal.tree_size
            progress(seal.tree_size)

    def left_over(self, *, to_the_end: bool) -> Iterator[Document]:
        """What no leaf named of all that was created by the end of the log, and after it."""
        yield from self._waiting.values()
        while to_the_end and self._upcoming and not self._is_stopped:
            yield self._upcoming
            self._upcoming = next(self._listing, None)

    def _seal(self, seal: Seal, number: int) -> Iterator[Entry]:
        recorded_at = self._log.recorded_at
        leaves, faults = read_seal(self._log, seal, number, self._pins)
        self._report.add(faults)
        for leaf, text in zip(leaves, seal.leaves, strict=False):
            document = self._receipt_of(leaf)
            if document:
                self._report.add(check_created(leaf, document.created_at, recorded_at))
                yield Entry(text, document.data)
            recorded_at = leaf.recorded_at

    def _signed(self, seal: Seal) -> bool:
        """Judge the checkpoint and its copy; False when what comes after hangs in the air."""
        tree = sealed_log.tree_of(seal, self._origin)
        note = sealed_log.note_of(self._ports, self._account_id, seal)
        copy = sealed_log.mirrored(self._ports, self._account_id, seal.number)
        for text, name in (
            (note, f"checkpoint {seal.number}"),
            (copy, f"the copy of checkpoint {seal.number}"),
        ):
            if text is None:
                self._report.add([Finding(name, Check.CONSISTENCY, "is missing")])
            else:
                self._report.add(
                    check_checkpoint(text, name, seal.recorded_until, tree, self._ring)
                )
        self._report.checkpoint, self._report.tree = note, tree
        if self._log.tree == seal.tree():
            return True
        if seal.tree().root() == tree.root and seal.tree().size == seal.tree_size:
            # The seal itself was spoilt, not the tree that was signed: go on from there.
            self._log = Log(self._account_id, seal.tree(), seal.recorded_until)
            return True
        self._stop(seal.number + 1, "its predecessor states no tree to go on from")
        return False

    def _receipt_of(self, leaf: Leaf) -> Document | None:
        self._advance(leaf.recorded_at)
        if (document := self._waiting.pop(leaf.receipt_id, None)) is not None:
            return document
        document = self._ports.documents.get(receipt_path(self._account_id, leaf.receipt_id))
        if document is None:
            fault = "was sealed, and is no longer stored"
        elif self._floor <= timestamp(document.created_at) <= leaf.recorded_at:
            fault = "is in the log twice, or its collection no longer lists it"
        else:
            return document
        self._report.add([Finding(place(leaf), Check.COMPLETENESS, fault)])
        return document

    def _advance(self, recorded_at: str) -> None:
        """Take in the receipts that were created by then."""
        at = instant(recorded_at)
        while self._upcoming and self._upcoming.created_at <= at:
            self._waiting[sealed_log.id_of(self._upcoming)] = self._upcoming
            self._upcoming = next(self._listing, None)

    def _stop(self, number: int, why: str) -> None:
        self._is_stopped = True
        fault = f"{why}; nothing from here on could be checked"
        self._report.add([Finding(f"seal {number}", Check.CONSISTENCY, fault)])


def report_ends(ports: Ports, account_id: str) -> Iterator[Finding]:
    """Whether anything was signed beyond the end of the store's log."""
    latest = sealed_log.newest(ports, account_id)
    number = latest.number if latest else 0
    if sealed_log.mirrored(ports, account_id, number + 1) is not None and number == _number(
        sealed_log.newest(ports, account_id)
    ):
        yield Finding(
            f"the copy of checkpoint {number + 1}", Check.CONSISTENCY,
            f"was signed, but the store's log ends with seal {number}: the store is an older copy, "
            "or its end was removed",
        )  # fmt: skip
    for path in sealed_log.checkpoints_beyond(ports, account_id, number):
        if int(path.rpartition("/")[2]) > _number(sealed_log.newest(ports, account_id)):
            yield Finding(path, Check.CONSISTENCY, "a checkpoint without its seal")


def _number(seal: Seal | None) -> int:
    return seal.number if seal else 0


def chunks(entries: Iterator[Entry]) -> Iterator[Chunk]:
    """Entries in handfuls, as they come."""
    chunk: list[Entry] = []
    for entry in entries:
        chunk.append(entry)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
