"""One pass over a ledger: each leaf of its log with the receipt it names."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import count

from governor.errors import InputError
from governor.paths import receipt_path
from governor.times import instant, timestamp
from ledger.audit import Entry, Pin, check_checkpoint, check_created, place, read_seal
from ledger.keys import KeyRing
from ledger.log import Leaf, Log, Seal, parse_leaf
from ledger.merkle import Frontier
from ledger.verify import Check, Finding
from ports import Ports
from ports.documents import Document
from tasks.ledgers import stored_log
from tasks.ledgers.report import Report
from tasks.ledgers.stored_log import BrokenLogError, StoredLog

_LINES_OF_A_NOTE = 5


class Walk:
    """One pass over the leaves and the receipts they name.

    Without ``asks_for_time`` checkpoints of retired keys are taken as they are: who reads on to
    archive or export leaves that judgement to who verifies.
    """

    def __init__(
        self,
        ports: Ports,
        ring: KeyRing,
        report: Report,
        after: Seal | None = None,
        pins: Sequence[Pin] = (),
        *,
        until: datetime | None = None,
        asks_for_time: bool = True,
    ) -> None:
        self._until, self._asks_for_time = until, asks_for_time
        self._ports, self._ring, self._report, self._pins = ports, ring, report, pins
        self._account_id = report.account_id
        self._stored = StoredLog.of(ports, self._account_id)
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
            floor, known = self._stored.reached(after)
            start = floor, ""
        self._known, self._cursor = known, start
        self._listing = self._stored.listed(start)
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
                seal = self._stored.seal_or_none(number)
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
            note = self._stored.note_of(seal)
        except BrokenLogError as error:
            self._fault(f"checkpoint {seal.number}", error.fault)
            return True
        # After the checkpoint, since it is made before it.
        copy = self._stored.mirrored(seal.number)
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
        later = self._stored.seals_beyond(number)
        if later and not self._stored.is_seal(number):
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
            self._listing = self._stored.listed(self._cursor)
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
