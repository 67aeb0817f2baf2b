"""An archive of a ledger, judged where nothing but the archive and trusted keys is at hand.

Unpacked where it can do no harm. Nothing of it is judged before the signature of its checkpoint.
"""

import base64
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from governor.errors import InputError, OutageError
from ledger import archive, contracts, tiles
from ledger.audit import Entry, Pin, check_checkpoint, place
from ledger.checkpoint import Checkpoint, open_checkpoint, parse
from ledger.keys import KeyRing, TrustedKey, parse_ring
from ledger.log import Log
from ledger.merkle import Frontier
from ledger.verify import Check, Finding
from tasks.ledgers.audit import Examine, chunks, in_this_process
from tasks.ledgers.report import Report

_MANY = 2000
_OPERATION = re.compile(rb'"operation":"([a-z_]{1,64})"')
_VERSION = re.compile(rb'"contract_version":([1-9][0-9]?)[,}]')
_LINES_OF_A_NOTE = 5
OF_THE_ARCHIVE = ("bad-archive", "bad-note", "foreign-checkpoint", "bad-key-file-inside")
"""Errors that say something of the archive, not of who judges it."""

Progressing = Callable[[int], AbstractContextManager[Callable[[int], None]]]
"""Shows how many of so many receipts were read."""


def _silently(_size: int) -> AbstractContextManager[Callable[[int], None]]:
    return nullcontext(lambda _done: None)


@dataclass
class Judged:
    """What became of an archive. ``notes`` are no faults, but worth knowing."""

    report: Report
    notes: list[str] = field(default_factory=list)


def judge_archive(
    path: Path,
    trusted: KeyRing,
    account_id: str | None = None,
    *,
    pins_for: Callable[[str], Sequence[Pin]] = lambda _account_id: (),
    examining: Callable[[], AbstractContextManager[Examine]] = lambda: nullcontext(in_this_process),
    progressing: Progressing = _silently,
) -> Judged:
    """Judge all of an archive.

    Args:
        path: the archive.
        trusted: the keys that are trusted, whatever keys the archive brings.
        account_id: whose ledger it must be; None: any account's.
        pins_for: checkpoints of an account that were seen before, which the log must extend.
        examining: carries out ``examine`` over the chunks of a large archive.
        progressing: shows how far it is.

    Raises:
        InputError: no archive of a ledger, not one of this account, or not signed by a trusted
            key; nothing else was judged.
        OutageError: this machine could not read or unpack it; nothing was judged.
    """
    with tempfile.TemporaryDirectory(prefix="ggen-verify-") as name, ExitStack() as opened:
        folder = Path(name)
        digests = _unpack(path, folder)
        ring = _narrowed(trusted, folder)
        note, checkpoint = _signed(folder, ring, account_id)
        report = Report(checkpoint.origin.removeprefix(f"{ring.origin}/"), tree=checkpoint)
        report.add(_files(folder, digests))
        if archive.RECEIPTS not in digests:
            report.add([Finding(archive.RECEIPTS, Check.COMPLETENESS, "is missing")])
            return Judged(report)
        examine_all = (
            opened.enter_context(examining()) if checkpoint.size > _MANY else in_this_process
        )
        progress = opened.enter_context(progressing(checkpoint.size))
        pins = pins_for(report.account_id)
        reading = _Reading(folder, checkpoint, report, pins)
        entries = chunks(reading.entries(progress))
        for found in examine_all(entries, report.account_id, ring):
            report.add(found)
        reading.finish(digests)
        report.add(_schemas(folder, digests, reading.contracts))
        report.sealed = reading.log.tree.size
        report.add(fault for pin in pins for fault in pin.unmet(report.sealed))
        report.extends = [kept for pin in pins for kept in pin.told(report.findings)]
        tree = Checkpoint(checkpoint.origin, reading.log.tree.size, reading.log.tree.root())
        until = reading.log.recorded_at
        report.add(check_checkpoint(note, archive.CHECKPOINT, until, tree, ring))
        return Judged(report, list(_notes(folder, digests, trusted)))


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
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise InputError("bad-archive", "one name in it is a file and a folder") from None
    except OSError as error:
        raise OutageError(
            "cannot-verify",
            f"cannot verify here: {path.name} cannot be read, or unpacked below "
            f"{folder.parent}: {error.strerror}. Nothing was judged; give it room (TMPDIR)",
        ) from None
    return digests


def _kept(pieces: Iterator[bytes], write: Callable[[bytes], object]) -> Iterator[bytes]:
    for piece in pieces:
        write(piece)
        yield piece


def _narrowed(trusted: KeyRing, folder: Path) -> KeyRing:
    """The trusted keys the archive names too, each within the times that both give it.

    Who verifies without this program has these times alone.
    """
    try:
        own = parse_ring((folder / archive.KEYS).read_bytes())
    except (OSError, InputError) as error:
        why = error.detail if isinstance(error, InputError) else "is missing"
        raise InputError("bad-key-file-inside", f"{archive.KEYS}: {why}") from None
    if own.origin != trusted.origin:
        raise InputError(
            "bad-key-file-inside", f"{archive.KEYS} is of {own.origin}, not of {trusted.origin}"
        )
    both = [(key, named) for key in trusted for named in [own.find(key.key_id)] if named]
    return KeyRing(origin=trusted.origin, keys=tuple(_both(*pair) for pair in both))


def _both(key: TrustedKey, named: TrustedKey) -> TrustedKey:
    ends = [each.valid_until for each in (key, named) if each.valid_until]
    leaks = [each.leaked_at for each in (key, named) if each.leaked_at]
    return key.evolve(
        valid_from=max(key.valid_from, named.valid_from),
        valid_until=min(ends, default=None),
        leaked_at=min(leaks, default=None),
    )


def _signed(folder: Path, ring: KeyRing, account_id: str | None) -> tuple[str, Checkpoint]:
    """The checkpoint, whose signature holds, and whose account is the one that was asked for."""
    try:
        return _opened(folder, ring, account_id)
    except InputError as error:
        raise InputError(error.code, f"{archive.CHECKPOINT}: {error.detail}") from None


def _opened(folder: Path, ring: KeyRing, account_id: str | None) -> tuple[str, Checkpoint]:
    try:
        note = (folder / archive.CHECKPOINT).read_bytes().decode()
    except (OSError, ValueError):
        raise InputError("bad-archive", "there is no checkpoint in it") from None
    claimed = parse(note.partition("\n\n")[0] + "\n").origin
    wanted = f"{ring.origin}/{account_id}" if account_id else claimed
    if not claimed.startswith(f"{ring.origin}/") or "/" in claimed.removeprefix(f"{ring.origin}/"):
        raise InputError("bad-note", f"the checkpoint is of {claimed[:256]!r}, not {ring.origin}")
    checkpoint, _ = open_checkpoint(note, claimed, ring)
    if claimed != wanted:
        raise InputError("foreign-checkpoint", f"the archive is of {claimed}, not of {wanted}")
    if note.count("\n") != _LINES_OF_A_NOTE:
        raise InputError("bad-note", "the checkpoint has not five lines")
    return note, checkpoint


class _Reading:
    """One pass over the leaves and lines of an archive, which makes its tiles once more."""

    def __init__(
        self, folder: Path, checkpoint: Checkpoint, report: Report, pins: Sequence[Pin]
    ) -> None:
        self._pins = pins
        self._folder, self._checkpoint, self._report = folder, checkpoint, report
        self._tiles = tiles.Tiles()
        self._made: set[str] = set()
        self._ids: set[str] = set()
        self.contracts: set[tuple[str, int]] = set()
        """Operation and version of every receipt that was read."""
        self.log = Log(report.account_id, Frontier())

    def entries(self, progress: Callable[[int], None]) -> Iterator[Entry]:
        """Each leaf with its line; what does not hold goes into the report."""
        with (self._folder / archive.RECEIPTS).open("rb") as lines:
            for text in _leaves(self._folder, self._checkpoint.size, self._report):
                if not self._is_next(text):
                    return
                self._compare(self._tiles.append(text))
                line = lines.readline(archive.MAX_LINE_BYTES)
                if not line.endswith(b"\n"):
                    where = f"line {self.log.tree.size} of {archive.RECEIPTS}"
                    self._report.add([Finding(where, Check.COMPLETENESS, "has no end")])
                self.contracts |= _contract_of(line)
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
            leaf = self.log.append(text.decode())
        except (InputError, UnicodeError) as error:
            where = f"leaf {self.log.tree.size}"
            fault = f"{error}; nothing from here on could be checked"
            self._report.add([Finding(where, Check.ORDERING, fault)])
            return False
        if leaf.receipt_id in self._ids:
            self._report.add([Finding(place(leaf), Check.INCLUSION, "is in the log twice")])
        self._ids.add(leaf.receipt_id)
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


def _contract_of(line: bytes) -> set[tuple[str, int]]:
    """The operation and version of a receipt's line, where it has any."""
    try:
        payload = base64.b64decode(line.split(b'"', 4)[3])
    except (ValueError, IndexError):
        return set()
    operation, version = _OPERATION.search(payload), _VERSION.search(payload)
    number = int(version[1]) if version else 1
    return {(operation[1].decode(), number)} if operation else set()


def _schemas(
    folder: Path, digests: dict[str, str], used: set[tuple[str, int]]
) -> Iterator[Finding]:
    """Whether an auditor without this program finds the contracts, and no stricter ones."""
    for operation, number in sorted(used):
        names = {f"schema/{operation}.v{number}.json"}
        names |= {f"schema/{operation}.json"} if number == 1 else set()
        if not names & digests.keys():
            yield Finding(min(names), Check.COMPLETENESS, "is missing")
    for name in digests:
        if not name.startswith("schema/"):
            continue
        operation, _, version = name[len("schema/") : -len(".json")].partition(".v")
        model = contracts.VERSIONS.get(operation, {}).get(int(version or 1))
        try:
            found = _meaning(json.loads((folder / name).read_bytes()))
        except (ValueError, RecursionError):
            found = None
        if model and found != _meaning(model.model_json_schema()):
            yield Finding(name, Check.COMPLETENESS, "is not the contract of these receipts")


def _meaning(schema: Any) -> Any:
    """A JSON Schema without its words, which differ between releases."""
    if isinstance(schema, dict):
        named = {k: _meaning(v) for k, v in schema.items() if k not in ("title", "description")}
        if isinstance(schema.get("properties"), dict):  # where a name is a member's, no word
            named["properties"] = {k: _meaning(v) for k, v in schema["properties"].items()}
        return named
    return [_meaning(each) for each in schema] if isinstance(schema, list) else schema


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
