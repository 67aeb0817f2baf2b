"""An archive of a ledger, judged where nothing but the archive and trusted keys is at hand.

Unpacked where it can do no harm. Nothing of it is judged before the signature of its checkpoint.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from governor.errors import InputError
from ledger import archive
from ledger.audit import Pin, check_checkpoint
from ledger.balance import Balance
from ledger.checkpoint import Checkpoint, open_checkpoint, parse
from ledger.keys import KeyRing, parse_ring, within
from ledger.merkle import Frontier
from ledger.verify import Check, Finding
from tasks.archives import unpacked
from tasks.archives.reading import Ledger, Reading
from tasks.ledgers.audit import Examine, chunks, in_this_process
from tasks.ledgers.report import Report

_MANY = 2000
_LINES_OF_A_NOTE = 5
OF_THE_ARCHIVE = ("bad-archive", "bad-note", "foreign-checkpoint", "bad-key-file-inside")
"""Errors that say something of the archive, not of who judges it."""

Progressing = Callable[[int], AbstractContextManager[Callable[[int], None]]]
"""Shows how many of so many receipts were read."""


def _silently(_size: int) -> AbstractContextManager[Callable[[int], None]]:
    return nullcontext(lambda _done: None)


@dataclass
class Judged:
    """What became of an archive. ``notes`` are no faults, but worth knowing.

    ``first`` is the index of its first receipt: 0, or where a segment begins. ``ledger`` is how far
    the ledger was read with it, for the segment that goes on from there.
    """

    report: Report
    notes: list[str] = field(default_factory=list)
    first: int = 0
    ledger: Ledger | None = None


def judge_archive(
    path: Path,
    trusted: KeyRing,
    account_id: str | None = None,
    *,
    before: Ledger | None = None,
    begins_at: int | None = None,
    is_last: bool = True,
    pins_for: Callable[[str], Sequence[Pin]] = lambda _account_id: (),
    examining: Callable[[], AbstractContextManager[Examine]] = lambda: nullcontext(in_this_process),
    progressing: Progressing = _silently,
) -> Judged:
    """Judge all of an archive.

    Args:
        path: the archive.
        trusted: the keys that are trusted, whatever keys the archive brings.
        account_id: whose ledger it must be; None: any account's.
        before: the ledger up to where this segment must go on; None: it is judged alone.
        begins_at: the first receipt it must have, where nothing is before it; None: any.
        is_last: whether no further segment of the ledger is given.
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
        digests = unpacked.unpack(path, folder)
        ring = _narrowed(trusted, folder)
        note, checkpoint = _signed(folder, ring, before.account_id if before else account_id)
        report = Report(checkpoint.origin.removeprefix(f"{ring.origin}/"), tree=checkpoint)
        report.add(unpacked.check_files(folder, digests))
        if archive.RECEIPTS not in digests:
            report.add([Finding(archive.RECEIPTS, Check.COMPLETENESS, "is missing")])
            return Judged(report)
        base = _base(folder, digests)
        ledger = before or Ledger(report.account_id, base, balance=Balance(is_whole=not base.size))
        report.add(_goes_on(ledger, base))
        if before is None and begins_at is not None and base.size != begins_at:
            fault = f"it begins at receipt {base.size}, not at {begins_at}: see --from"
            report.add([Finding(archive.BASE, Check.COMPLETENESS, fault)])
        examine_all = (
            opened.enter_context(examining())
            if checkpoint.size - base.size > _MANY
            else in_this_process
        )
        progress = opened.enter_context(progressing(checkpoint.size))
        pins = pins_for(report.account_id)
        if before is None and any(pin.size < base.size for pin in pins):
            raise InputError(
                "begins-later",
                f"{path.name} begins at receipt {base.size}, later than what it is to extend: give "
                "the segments before it, too. Nothing was judged",
            )
        reading = Reading(folder, checkpoint, report, pins, ledger, base)
        entries = chunks(reading.entries(progress))
        for found in examine_all(entries, report.account_id, ring):
            report.add(found)
        reading.finish(digests)
        report.add(unpacked.check_schemas(folder, digests, reading.contracts))
        report.sealed = reading.log.tree.size
        if base.size and report.sealed == base.size:
            report.add([Finding(archive.LEAVES, Check.COMPLETENESS, "has no leaf")])
        if is_last:
            report.add(fault for pin in pins for fault in pin.unmet(report.sealed))
            report.extends = [kept for pin in pins for kept in pin.told(report.findings)]
        tree = Checkpoint(checkpoint.origin, reading.log.tree.size, reading.log.tree.root())
        until = reading.log.recorded_at
        report.add(check_checkpoint(note, archive.CHECKPOINT, until, tree, ring))
        ledger.tree, ledger.recorded_at = reading.log.tree, until
        return Judged(report, list(unpacked.notes(folder, digests, trusted)), base.size, ledger)


def _base(folder: Path, digests: Mapping[str, str]) -> Frontier:
    """The tree a segment goes on from; an empty one where the archive begins the ledger."""
    if archive.BASE not in digests:
        return Frontier()
    return archive.base_of((folder / archive.BASE).read_bytes())


def _goes_on(ledger: Ledger, base: Frontier) -> Iterator[Finding]:
    if ledger.tree != base:
        fault = (
            f"begins at receipt {base.size}, or after other ones, but the archives before it end "
            f"at {ledger.tree.size}"
        )
        yield Finding(archive.BASE, Check.CONSISTENCY, fault)


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
    return within(trusted, own)


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
