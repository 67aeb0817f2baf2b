"""One pass over the leaves and lines of an archive, which makes its tiles once more."""

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from governor.errors import InputError
from ledger import archive, tiles
from ledger.audit import Entry, Pin, place
from ledger.balance import Balance
from ledger.checkpoint import Checkpoint
from ledger.log import Leaf, Log
from ledger.merkle import Frontier
from ledger.verify import Check, Finding
from tasks.ledgers.report import Report

_OPERATION = re.compile(rb'"operation":"([a-z_]{1,64})"')
_VERSION = re.compile(rb'"contract_version":([1-9][0-9]?)[,}]')


@dataclass
class Ledger:
    """A ledger as far as its archives were read, one after the other."""

    account_id: str
    tree: Frontier = field(default_factory=Frontier)
    recorded_at: str = ""
    ids: set[str] = field(default_factory=set)
    balance: Balance = field(default_factory=Balance)


class Reading:
    """One pass over the leaves and lines of an archive, which makes its tiles once more."""

    def __init__(
        self,
        folder: Path,
        checkpoint: Checkpoint,
        report: Report,
        pins: Sequence[Pin],
        ledger: Ledger,
        base: Frontier,
    ) -> None:
        self._pins, self._ledger = pins, ledger
        self._folder, self._checkpoint, self._report = folder, checkpoint, report
        self._is_segment = bool(base.size)
        self._tiles = tiles.Tiles()
        self._made: set[str] = set()
        self.contracts: set[tuple[str, int]] = set()
        """Operation and version of every receipt that was read."""
        self.log = Log(report.account_id, base, ledger.recorded_at)
        report.add(fault for pin in pins for fault in pin.watch(self.log))

    def entries(self, progress: Callable[[int], None]) -> Iterator[Entry]:
        """Each leaf with its line; what does not hold goes into the report."""
        listed = _listed if self._is_segment else _tiled
        with (self._folder / archive.RECEIPTS).open("rb") as lines:
            for text in listed(self._folder, self._checkpoint.size, self._report):
                leaf = self._next(text)
                if leaf is None:
                    return
                if not self._is_segment:
                    self._compare(self._tiles.append(text))
                line = lines.readline(archive.MAX_LINE_BYTES)
                if not line.endswith(b"\n"):
                    where = f"line {self.log.tree.size} of {archive.RECEIPTS}"
                    self._report.add([Finding(where, Check.COMPLETENESS, "has no end")])
                self.contracts |= _contract_of(line)
                self._report.add(self._ledger.balance.take(line, partial(place, leaf)))
                yield Entry(text.decode(), line.removesuffix(b"\n"))
                progress(self.log.tree.size)
            if lines.read(1):
                fault = f"has more lines than the {self.log.tree.size} leaves of the log"
                self._report.add([Finding(archive.RECEIPTS, Check.COMPLETENESS, fault)])

    def finish(self, names: Iterable[str]) -> None:
        """Compare the partial tiles, and find what belongs to no tree of this size."""
        self._compare(self._tiles.finish())
        if self.log.tree.size == self._checkpoint.size:
            known = {archive.LEAVES} if self._is_segment else self._made
            of_the_log = (n for n in names if n == archive.LEAVES or n.startswith("tile/"))
            surplus = sorted(name for name in of_the_log if name not in known)
            fault = "belongs to no tree of this size"
            self._report.add(Finding(name, Check.INCLUSION, fault) for name in surplus)

    def _next(self, text: bytes) -> Leaf | None:
        try:
            leaf = self.log.append(text.decode())
        except (InputError, UnicodeError) as error:
            where = f"leaf {self.log.tree.size}"
            fault = f"{error}; nothing from here on could be checked"
            self._report.add([Finding(where, Check.ORDERING, fault)])
            return None
        if leaf.receipt_id in self._ledger.ids:
            self._report.add([Finding(place(leaf), Check.INCLUSION, "is in the log twice")])
        self._ledger.ids.add(leaf.receipt_id)
        self._report.add(fault for pin in self._pins for fault in pin.watch(self.log))
        return leaf

    def _compare(self, made: Iterable[tiles.File]) -> None:
        for name, content in made:
            self._made.add(name)
            path = self._folder / name
            if not path.is_file():
                self._report.add([Finding(name, Check.COMPLETENESS, "is missing")])
            elif path.read_bytes() != content:
                self._report.add([Finding(name, Check.INCLUSION, "is not that of the leaves")])


def _contract_of(line: bytes) -> set[tuple[str, int]]:
    """The operation and version of a receipt's line, where it has any."""
    try:
        payload = base64.b64decode(line.split(b'"', 4)[3])
    except (ValueError, IndexError):
        return set()
    operation, version = _OPERATION.search(payload), _VERSION.search(payload)
    number = int(version[1]) if version else 1
    return {(operation[1].decode(), number)} if operation else set()


def _listed(folder: Path, _size: int, report: Report) -> Iterator[bytes]:
    """The leaves of a segment, a line each."""
    path = folder / archive.LEAVES
    if not path.is_file():
        report.add([Finding(archive.LEAVES, Check.COMPLETENESS, "is missing")])
        return
    with path.open("rb") as lines:
        while line := lines.readline(tiles.MAX_ENTRY_BYTES):
            if not line.endswith(b"\n"):
                report.add([Finding(archive.LEAVES, Check.INCLUSION, "has a line without an end")])
                return
            yield line.removesuffix(b"\n")


def _tiled(folder: Path, size: int, report: Report) -> Iterator[bytes]:
    """The leaves of a log from its beginning, bundle by bundle."""
    for name in tiles.bundle_names(size):
        try:
            yield from tiles.entries((folder / name).read_bytes())
        except FileNotFoundError:
            report.add([Finding(name, Check.COMPLETENESS, "is missing")])
            return
        except ValueError as error:
            report.add([Finding(name, Check.INCLUSION, str(error))])
            return
