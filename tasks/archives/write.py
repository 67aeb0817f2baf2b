"""Archiving a ledger: one pass over its log into files, then one deterministic ``tar.gz``.

Memory use does not grow with the ledger: receipts go to disk, and from there into the archive.
Nothing is signed here. A ledger that does not hold is not archived.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from governor.errors import InputError, OutageError
from ledger import archive
from ledger.audit import Entry, line_of
from ledger.log import Seal
from ledger.tiles import Tiles
from ports import Ports
from tasks.ledgers.audit import report_ends
from tasks.ledgers.report import Report
from tasks.ledgers.stored_log import BrokenLogError, StoredLog
from tasks.ledgers.walk import Walk


@dataclass(frozen=True, slots=True)
class Archived:
    """What went into an archive."""

    receipts: int
    size_bytes: int
    sha256: str


def write_archive(
    ports: Ports,
    account_id: str,
    target: BinaryIO,
    progress: Callable[[int], None] = lambda _done: None,
    *,
    last: Seal | None = None,
    after: Seal | None = None,
) -> Archived:
    """Write the archive of everything that is sealed and signed, or of a part of it.

    Args:
        ports: the stores and keys.
        account_id: whose ledger.
        target: where it is written; need not be seekable.
        progress: called with the number of receipts read so far.
        last: the last seal that goes into it; the same seals give the same bytes.
        after: the seal before its first; what it makes is a segment. None: it begins the ledger.

    Raises:
        InputError: the account has no ledger, or nothing of it is sealed.
        BrokenLogError: the stored log differs from the sealed one; says where. Nothing was written.
        OutageError: a store is away. Nothing was written.
    """
    last = last or StoredLog.of(ports, account_id).newest_signed()
    if last is None:
        raise InputError(
            "nothing-sealed",
            f"nothing of the ledger of {account_id} is sealed yet; is the "
            "account id right, and does the stack run?",
        )
    try:
        with tempfile.TemporaryDirectory(prefix="ggen-archive-") as folder:
            files = _Files(Path(folder))
            _read(ports, Report(account_id), files, progress, after, last)
            files.add_all(archive.fixed_files(ports.keys.ring()).items())
            files.add(archive.MANIFEST, archive.manifest(files.digests))
            counted = _Counted(target)
            archive.write(cast(BinaryIO, counted), files.members())
    except OSError as error:
        raise OutageError(
            "archive-unwritten", f"the archive could not be written: {error.strerror or error}"
        ) from error
    receipts = last.tree_size - (after.tree_size if after else 0)
    return Archived(receipts, counted.size_bytes, counted.digest.hexdigest())


def _read(
    ports: Ports,
    report: Report,
    files: "_Files",
    progress: Callable[[int], None],
    after: Seal | None,
    last: Seal,
) -> None:
    """One pass over the log: its receipts, its leaves, its checkpoint."""
    account_id = report.account_id
    walk = Walk(ports, ports.keys.ring(), report, after, asks_for_time=False)
    with ExitStack() as opened:
        receipts = opened.enter_context(files.open(archive.RECEIPTS))
        leaves: _Tiled | _Listed = _Tiled(files)
        if after:
            files.add(archive.BASE, archive.Base.of(after.tree()).text())
            leaves = _Listed(opened.enter_context(files.open(archive.LEAVES)))
        for entry in walk.entries(last, progress):
            receipts.write(_line(account_id, entry) + b"\n")
            leaves.append(entry.leaf.encode())
        leaves.finish()
    _refuse_if_broken(ports, account_id, report)
    files.add(archive.CHECKPOINT, (report.checkpoint or "").encode())


def _line(account_id: str, entry: Entry) -> bytes:
    try:
        return line_of(entry)
    except InputError as error:
        raise BrokenLogError(account_id, f"{error.detail}. No archive was made") from error


def _refuse_if_broken(ports: Ports, account_id: str, report: Report) -> None:
    report.add(report_ends(ports, account_id, report.last))
    if report.findings:
        first = report.findings[0]
        raise BrokenLogError(
            account_id,
            f"{first.subject}: {first.check}: {first.fault}. No archive was made; "
            "ggen verify-ledger lists every finding",
        )


class _Files:
    """The files of an archive on disk, with their digests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.digests: dict[str, str] = {}

    def add(self, name: str, content: bytes) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.digests[name] = hashlib.sha256(content).hexdigest()

    def add_all(self, files: Iterable[tuple[str, bytes]]) -> None:
        for name, content in files:
            self.add(name, content)

    def open(self, name: str) -> "_Digested":
        return _Digested((self._folder / name).open("wb"), name, self.digests)

    def members(self) -> Iterator[tuple[str, int, IO[bytes]]]:
        for name in sorted(self.digests):
            path = self._folder / name
            with path.open("rb") as source:
                yield name, path.stat().st_size, source


class _Tiled:
    """The leaves of a log from its beginning, as tiles."""

    def __init__(self, files: _Files) -> None:
        self._files, self._tiles = files, Tiles()

    def append(self, leaf: bytes) -> None:
        self._files.add_all(self._tiles.append(leaf))

    def finish(self) -> None:
        self._files.add_all(self._tiles.finish())


class _Listed:
    """The leaves of a segment, a line each."""

    def __init__(self, file: "_Digested") -> None:
        self._file = file

    def append(self, leaf: bytes) -> None:
        self._file.write(leaf + b"\n")

    def finish(self) -> None:
        pass


class _Digested:
    """A large file that is hashed while it is written."""

    def __init__(self, file: IO[bytes], name: str, digests: dict[str, str]) -> None:
        self._file, self._name, self._digests = file, name, digests
        self._digest = hashlib.sha256()

    def __enter__(self) -> "_Digested":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._digests[self._name] = self._digest.hexdigest()

    def write(self, piece: bytes) -> None:
        self._file.write(piece)
        self._digest.update(piece)


class _Counted:
    """The target, counted and hashed; all that gzip asks of a file."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self.size_bytes = 0
        self.digest = hashlib.sha256()

    def write(self, piece: bytes) -> int:
        self._target.write(piece)
        self.size_bytes += len(piece)
        self.digest.update(piece)
        return len(piece)

    def flush(self) -> None:
        self._target.flush()
