"""A ledger read side by side with its log, and judged: nothing that is stored is left out.

The receipts come in order of creation, the leaves in the order of the log, and each leaf finds its
receipt among those that were created by then; what is left over is not sealed. One pass, and memory
for one page.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count

from governor.errors import InputError
from governor.records import instant, mirror_name, receipt_path, timestamp
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
from ledger.log import Leaf, Log, Seal, parse_leaf, seal_id
from ledger.merkle import Frontier
from ledger.verify import Check, Finding
from ports import Ports
from ports.documents import Document
from tasks.ledgers import stored_log
from tasks.ledgers.stored_log import BrokenLogError

CHUNK = 250
"""Entries examined at once."""

_LINES_OF_A_NOTE = 5

MAX_FINDINGS = 1000
"""Findings that are kept; more are only counted."""

Chunk = Sequence[Entry]
Examine = Callable[[Iterable[Chunk], str, KeyRing], Iterable[list[Finding]]]


@dataclass
class Report:
    """What became of an audit.

    ``sealed`` leaves are signed, ``last`` is the seal that was read last, ``left_over`` are ids of
    receipts no leaf was found for, ``checkpoint`` is the newest note. ``clocks`` are the receipts
    made by a clock that was off, and by how many seconds; that breaks nothing (D13).
    """

    account_id: str
    seals: int = 0
    sealed: int = 0
    unsealed: int = 0
    read: int = 0
    last: int = 0
    left_over: list[str] = field(default_factory=list)
    extends: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    more_findings: int = 0
    clocks: dict[str, float] = field(default_factory=dict)
    checkpoint: str | None = None
    tree: Checkpoint | None = None

    @property
    def is_valid(self) -> bool:
        """Whether everything that was looked at holds."""
        return not self.findings

    @property
    def clock_off(self) -> int:
        """How many receipts a clock that was off has made."""
        return len(self.clocks)

    @property
    def clock_off_s(self) -> float:
        """By how much the worst was off."""
        return max(self.clocks.values(), default=0.0)

    def words(self) -> str:
        """The verdict in a line."""
        if not self.is_valid:
            return "broken"
        return f"valid{clock_words(self.clock_off, self.clock_off_s)}"

    def add(self, found: Iterable[Finding]) -> None:
        """Keep findings, as far as there is room."""
        for finding in found:
            if finding.check is Check.CLOCK:
                known = self.clocks.get(finding.subject, 0.0)
                self.clocks[finding.subject] = max(known, finding.off_s)
            elif len(self.findings) < MAX_FINDINGS:
                self.findings.append(finding)
            else:
                self.more_findings += 1


def clock_words(count: int, off_s: float) -> str:
    """What a verdict says of clocks that were off; nothing where none was."""
    return f", clock off by up to {off_s:.0f} s in {count} receipts" if count else ""


def here(chunks: Iterable[Chunk], account_id: str, ring: KeyRing) -> Iterator[list[Finding]]:
    """Examine in this process, one chunk after the other."""
    return (examine(chunk, account_id, ring) for chunk in chunks)


def audit_ledger(
    ports: Ports,
    account_id: str,
    *,
    after: Seal | None = None,
    last: Seal | None = None,
    pins: Sequence[Pin] = (),
    examine_all: Examine = here,
    until: datetime | None = None,
    progress: Callable[[int], None] = lambda _done: None,
) -> Report:
    """Judge a ledger from just past ``after`` up to ``last``.

    Args:
        ports: the stores and keys.
        account_id: whose ledger.
        after: a seal that was judged before, with everything up to it; None for all of it.
        last: the seal to stop at; None to go to the end.
        pins: checkpoints seen before, which the log must extend.
        examine_all: carries out ``examine`` over chunks. With an empty answer for each, only the
            places are judged.
        until: receipts created after this are not asked for; None: every one is.
        progress: told how many leaves were read so far.

    Raises:
        OutageError: a store is away, so nothing can be told.
    """
    while True:
        report, ring = Report(account_id), ports.keys.ring()
        walk = Walk(ports, ring, report, after, pins, until=until)
        entries = chunks(walk.entries(last, progress))
        for found in examine_all(entries, account_id, ring):
            report.add(found)
        for document in walk.left_over(to_the_end=last is None):
            if until is None or document.created_at <= until:
                report.unsealed += 1
                if len(report.left_over) < MAX_FINDINGS:
                    report.left_over.append(stored_log.id_of(document))
                report.add(check_unsealed(stored_log.stored(document), account_id, ring))
        if last is None:
            report.add(report_ends(ports, account_id, report.last))
            report.add(fault for pin in pins for fault in pin.unmet(report.read))
            report.extends = [kept for pin in pins for kept in pin.told(report.findings)]
        if not report.findings or ports.keys.ring() == ring:
            return report
        # The keys were changed on the way: what they signed since is no finding.


class Walk:
    """One pass over the leaves and the receipts they name.

    Without ``asks_for_time`` checkpoints of retired keys are taken as they are: who reads on to
    archive or export leaves that judgement to who verifies.
    """

    def __init__(
        self, ports: Ports, ring: KeyRing, report: Report, after: Seal | None = None,
        pins: Sequence[Pin] = (), *, until: datetime | None = None, asks_for_time: bool = True,
    ) -> None:  # fmt: skip
        self._until, self._asks_for_time = until, asks_for_time
        self._ports, self._ring, self._report, self._pins = ports, ring, report, pins
        self._account_id = report.account_id
        self._origin = ring.log_origin(self._account_id)
        tree = after.tree() if after else Frontier()
        self._log = Log(self._account_id, tree, after.recorded_until if after else "")
        report.add(fault for pin in pins for fault in pin.watch(self._log))
        self._first = after.number + 1 if after else 1
        report.read, report.last = tree.size, self._first - 1
        self._floor, known = "", set[str]()
        start = None
        if after:
            late = timedelta(seconds=ports.documents.late_s)
            self._floor = timestamp(instant(after.recorded_until) - late)
            floor, known = stored_log.reached(ports, self._account_id, after)
            start = floor, ""
        self._known, self._cursor = known, start
        self._listing = stored_log.listed(ports, self._account_id, start)
        self._ahead: set[str] = set()
        """Leaves whose receipts the store says were created later: they are listed later too."""
        self._upcoming = self._next()
        self._waiting: dict[str, Document] = {}
        self._is_stopped = False

    def entries(self, last: Seal | None, progress: Callable[[int], None]) -> Iterator[Entry]:
        """Each leaf with the receipt it names; what does not hold goes into the report."""
        unsigned: Seal | None = None
        for number in count(self._first):
            if last and number > last.number:
                break
            try:
                seal = stored_log.seal_or_none(self._ports, self._account_id, number)
            except BrokenLogError as error:
                self._stop(number, error.fault)
                return
            if seal is None:
                self._gap(number)
                break
            if unsigned and not self._signed(unsigned):
                fault = "is missing, though its log goes on"
                self._fault(f"checkpoint {unsigned.number}", fault)
            yield from self._seal(seal, number)
            unsigned = None if self._signed(seal) else seal
            if not self._goes_on_from(seal):
                return
            progress(seal.tree_size)
        if unsigned and not self._signed(unsigned):
            self._report.unsealed += sum(map(self._asks_for, unsigned.leaves))

    def left_over(self, *, to_the_end: bool) -> Iterator[Document]:
        """What no leaf named of all that was created by the end of the log, and after it."""
        yield from self._waiting.values()
        while to_the_end and self._upcoming and not self._is_stopped:
            if stored_log.id_of(self._upcoming) not in self._ahead:
                yield self._upcoming
            self._upcoming = self._next()

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
        """Judge the checkpoint of a seal and its copy; False while it has no checkpoint."""
        tree = stored_log.tree_of(seal, self._origin)
        copy_name = f"the copy of checkpoint {seal.number}"
        until = seal.recorded_until if self._asks_for_time else None
        try:
            note = stored_log.note_of(self._ports, self._account_id, seal)
        except BrokenLogError as error:
            self._fault(f"checkpoint {seal.number}", error.fault)
            return True
        # After the checkpoint, since it is made before it.
        copy = stored_log.mirrored(self._ports, self._account_id, seal.number)
        if copy is not None:
            self._report.add(check_checkpoint(copy, copy_name, until, tree, self._ring))
        if note is None:
            return False
        name = f"checkpoint {seal.number}"
        self._report.add(check_checkpoint(note, name, until, tree, self._ring))
        if copy is None:
            self._fault(copy_name, "is missing")
        elif copy != note or note.count("\n") != _LINES_OF_A_NOTE:
            self._fault(name, "differs from its copy, or bears lines that are not ours")
        self._report.checkpoint, self._report.tree = note, tree
        self._report.seals, self._report.sealed = seal.number, seal.tree_size
        return True

    def _goes_on_from(self, seal: Seal) -> bool:
        """Whether the log can be read on, even where this seal was spoilt."""
        self._report.read, self._report.last = seal.tree_size, seal.number
        if self._log.tree == seal.tree():
            return True
        if seal.tree().root().hex() == seal.root:
            # The seal itself was spoilt, not the tree that was signed: go on from there.
            self._log = Log(self._account_id, seal.tree(), seal.recorded_until)
            return True
        self._stop(seal.number + 1, "its predecessor states no tree to go on from")
        return False

    def _gap(self, number: int) -> None:
        """Whether there are seals beyond the one that is not there."""
        later = stored_log.seals_beyond(self._ports, self._account_id, number)
        if later and not stored_log.is_seal(self._ports, self._account_id, number):
            self._stop(number, f"is missing, though there is {later[0]}")

    def _receipt_of(self, leaf: Leaf) -> Document | None:
        if leaf.receipt_id not in self._waiting:  # at the end of the list, asking costs a query
            self._advance(leaf.recorded_at)
        if (document := self._waiting.pop(leaf.receipt_id, None)) is not None:
            return document
        document = self._ports.documents.get(receipt_path(self._account_id, leaf.receipt_id))
        if document is None:
            fault = "was sealed, and is no longer stored"
        elif self._floor <= timestamp(document.created_at) <= leaf.recorded_at:
            fault = "is in the log twice, or its collection no longer lists it"
        elif leaf.receipt_id in self._ahead:
            fault = "is in the log twice"
        else:
            if timestamp(document.created_at) > leaf.recorded_at:  # it is listed later
                self._ahead.add(leaf.receipt_id)
            return document
        self._report.add([Finding(place(leaf), Check.COMPLETENESS, fault)])
        return document

    def _advance(self, recorded_at: str) -> None:
        """Take in the receipts that were created by then."""
        at = instant(recorded_at)
        self._upcoming = self._upcoming or self._next()
        while self._upcoming and self._upcoming.created_at <= at:
            if (identity := stored_log.id_of(self._upcoming)) not in self._ahead:
                self._waiting[identity] = self._upcoming
            self._upcoming = self._next()

    def _next(self) -> Document | None:
        """The next receipt in order of creation; at the end, what was created since then."""
        for _ in range(2):
            for document in self._listing:
                self._cursor = document.created_at, document.path
                identity = stored_log.id_of(document)
                if identity not in self._known and identity not in self._ahead:
                    return document
            self._listing = stored_log.listed(self._ports, self._account_id, self._cursor)
        return None

    def _asks_for(self, text: str) -> bool:
        """Whether a leaf that is not signed yet is of a receipt that was asked for."""
        try:
            leaf = parse_leaf(text)
        except InputError:
            return True
        return self._until is None or instant(leaf.recorded_at) <= self._until

    def _stop(self, number: int, why: str) -> None:
        self._is_stopped = True
        self._fault(f"seal {number}", f"{why}; nothing from here on could be checked")

    def _fault(self, where: str, fault: str) -> None:
        self._report.add([Finding(where, Check.CONSISTENCY, fault)])


def report_ends(ports: Ports, account_id: str, last: int) -> Iterator[Finding]:
    """Whether anything was signed beyond the seal that was read last."""
    copies = [name.rpartition("/")[2] for name in ports.objects.names(mirror_name(account_id, ""))]
    strays = [name for name in copies if not _is_number(name)]
    for name in strays[:1]:
        yield Finding(f"the object {name!r} among the copies", Check.CONSISTENCY, "is no copy")
    for name in [each for each in copies if _is_number(each) and each > seal_id(last)][:1]:
        if not stored_log.is_seal(ports, account_id, int(name)):  # else the log has grown since
            yield Finding(
                f"the copy of checkpoint {int(name)}", Check.CONSISTENCY,
                f"was signed, but the store's log ends with seal {last}: the store is an older "
                "copy, or its end was removed",
            )  # fmt: skip
    for path in stored_log.strays(ports, account_id):
        yield Finding(path, Check.CONSISTENCY, "is no seal or checkpoint of this log")
    for path in stored_log.checkpoints_beyond(ports, account_id, last)[:1]:
        name = path.rpartition("/")[2]
        if not _is_number(name) or not stored_log.is_seal(ports, account_id, int(name)):
            yield Finding(path, Check.CONSISTENCY, "a checkpoint without its seal")


def _is_number(name: str) -> bool:
    return len(name) == len(seal_id(0)) and name.isdecimal()


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
