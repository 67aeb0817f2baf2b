"""``ggen verify-archive``: an archive from anywhere, judged against keys from elsewhere."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from cli.output import Progress
from cli.parallel import examining
from cli.pins import pin_of
from governor.errors import InputError
from ledger import archive, tiles
from ledger.audit import Entry, Pin, check_checkpoint
from ledger.checkpoint import Checkpoint, parse
from ledger.keys import KeyRing, parse_ring
from ledger.log import Log
from ledger.merkle import Frontier
from ledger.verify import Check, Finding
from tasks.audit import Report, chunks, here

_MANY = 2000
_OF_THE_ARCHIVE = ("bad-archive", "bad-note")


@dataclass
class Judged:
    """What became of an archive. ``notes`` are no faults, but worth knowing."""

    report: Report
    notes: list[str] = field(default_factory=list)


def verify_archive(path: Path, trust: Path, extends: Path | None = None) -> Judged:
    """Unpack an archive where it can do no harm, and judge all of it.

    Raises:
        InputError: no archive of a ledger, or no file of keys; nothing was judged.
    """
    try:
        ring = parse_ring(trust.read_bytes())
    except OSError as error:
        raise InputError("no-keys", f"cannot read {trust}: {error.strerror}") from None
    except InputError as error:
        raise InputError("bad-key-file", f"{trust}: {error.detail}; see ggen keys export") from None
    with tempfile.TemporaryDirectory(prefix="ggen-verify-") as name, ExitStack() as opened:
        folder = Path(name)
        digests = _unpack(path, folder)
        checkpoint = _checkpoint(folder)
        account_id = checkpoint.origin.removeprefix(f"{ring.origin}/")
        report = Report(account_id, tree=checkpoint)
        report.add(_files(folder, digests))
        if archive.RECEIPTS not in digests:
            return Judged(report)
        examine_all = opened.enter_context(examining()) if checkpoint.size > _MANY else here
        progress = opened.enter_context(Progress(f"verifying {path.name}", checkpoint.size))
        pins = [pin_of(extends, ring, account_id)] if extends else []
        reading = _Reading(folder, checkpoint, report, pins)
        entries = chunks(reading.entries(progress.advance_to))
        for found in examine_all(entries, account_id, ring):
            report.add(found)
        reading.finish(digests)
        report.sealed = reading.log.tree.size
        report.add(fault for pin in pins for fault in pin.unmet(report.sealed))
        report.extends = [kept for pin in pins for kept in pin.told(report.findings)]
        report.add(_signature(folder, reading.log, ring))
        return Judged(report, list(_notes(folder, digests, ring)))


def _signature(folder: Path, log: Log, ring: KeyRing) -> Iterator[Finding]:
    note = (folder / archive.CHECKPOINT).read_text()
    tree = Checkpoint(ring.log_origin(log.account_id), log.tree.size, log.tree.root())
    yield from check_checkpoint(note, archive.CHECKPOINT, log.recorded_at, tree, ring)


def verify_or_tell(path: Path, trust: Path, extends: Path | None = None) -> Judged:
    """The same; an archive that cannot be read, or was refused, is one that does not hold.

    Raises:
        InputError: no file of keys, or nothing to extend; nothing was judged.
    """
    try:
        return verify_archive(path, trust, extends)
    except InputError as error:
        if error.code not in _OF_THE_ARCHIVE:
            raise
        report = Report("an unknown account")
        report.add([Finding(path.name, Check.INTEGRITY, error.detail)])
        return Judged(report)


def _unpack(path: Path, folder: Path) -> dict[str, str]:
    """Write the files of an archive below ``folder``; the SHA-256 of each."""
    digests = {}
    try:
        with path.open("rb") as source:
            for name, pieces in archive.read(source, path.stat().st_size):
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as file:
                    digests[name] = archive.sha256_of(_kept(pieces, file.write))
    except OSError as error:
        raise InputError("bad-archive", f"cannot unpack {path}: {error.strerror}") from None
    return digests


def _kept(pieces: Iterator[bytes], write: Callable[[bytes], object]) -> Iterator[bytes]:
    for piece in pieces:
        write(piece)
        yield piece


def _checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint as it stands; whether it is signed comes later."""
    try:
        text = (folder / archive.CHECKPOINT).read_text()
    except (OSError, ValueError):
        raise InputError("bad-archive", "there is no checkpoint in it") from None
    return parse(text.partition("\n\n")[0] + "\n")


class _Reading:
    """One pass over the leaves and lines of an archive, which makes its tiles anew."""

    def __init__(
        self, folder: Path, checkpoint: Checkpoint, report: Report, pins: Sequence[Pin]
    ) -> None:
        self._pins = pins
        self._folder, self._checkpoint, self._report = folder, checkpoint, report
        self._tiles = tiles.Tiles()
        self._made: set[str] = set()
        self.log = Log(report.account_id, Frontier())

    def entries(self, progress: Callable[[int], None]) -> Iterator[Entry]:
        """Each leaf with its line; what does not hold goes into the report."""
        with (self._folder / archive.RECEIPTS).open("rb") as lines:
            for text in _leaves(self._folder, self._checkpoint.size, self._report):
                if not self._is_next(text):
                    return
                self._compare(self._tiles.append(text))
                line = lines.readline(archive.MAX_LINE_BYTES)
                yield Entry(text.decode(), line.removesuffix(b"\n"))
                progress(self.log.tree.size)
            if lines.read(1):
                fault = f"has more lines than the {self.log.tree.size} leaves of the log"
                self._report.add([Finding(archive.RECEIPTS, Check.COMPLETENESS, fault)])

    def finish(self, names: Iterable[str]) -> None:
        """Compare the partial tiles, and find what belongs to no tree of this size."""
        self._compare(self._tiles.finish())
        if self.log.tree.size == self._checkpoint.size:
            surplus = sorted(n for n in names if n.startswith("tile/") and n not in self._made)
            fault = "belongs to no tree of this size"
            self._report.add(Finding(name, Check.INCLUSION, fault) for name in surplus)

    def _is_next(self, text: bytes) -> bool:
        try:
            self.log.append(text.decode())
        except (InputError, UnicodeError) as error:
            where = f"leaf {self.log.tree.size}"
            fault = f"{error}; nothing from here on could be checked"
            self._report.add([Finding(where, Check.ORDERING, fault)])
            return False
        self._report.add(fault for pin in self._pins for fault in pin.watch(self.log))
        return True

    def _compare(self, made: Iterable[tiles.File]) -> None:
        for name, content in made:
            self._made.add(name)
            path = self._folder / name
            if not path.is_file():
                self._report.add([Finding(name, Check.COMPLETENESS, "is missing")])
            elif path.read_bytes() != content:
                self._report.add([Finding(name, Check.INCLUSION, "is not that of the leaves")])


def _files(folder: Path, digests: dict[str, str]) -> Iterator[Finding]:
    if archive.MANIFEST not in digests:
        yield Finding(archive.MANIFEST, Check.COMPLETENESS, "is missing")
        return
    expected = archive.manifest({n: d for n, d in digests.items() if n != archive.MANIFEST})
    with (folder / archive.MANIFEST).open("rb") as file:
        text = file.read(2 * len(expected))  # of a longer one the rest says nothing new
    for name, fault in archive.check_manifest(text, digests) if text != expected else ():
        yield Finding(name, Check.IMMUTABILITY, fault)


def _leaves(folder: Path, size: int, report: Report) -> Iterator[bytes]:
    for name in tiles.bundle_names(size):
        try:
            yield from tiles.entries((folder / name).read_bytes())
        except FileNotFoundError:
            report.add([Finding(name, Check.COMPLETENESS, "is missing")])
            return
        except ValueError as error:
            report.add([Finding(name, Check.INCLUSION, str(error))])
            return


def _notes(folder: Path, digests: dict[str, str], ring: KeyRing) -> Iterator[str]:
    """What no signature covers and differs from what this version would have packed."""
    for name, content in archive.fixed_files(ring).items():
        if name not in digests:
            yield f"{name} is not in it"
        elif (folder / name).read_bytes() != content:
            yield f"{name} differs from this version's, and no signature covers it"
