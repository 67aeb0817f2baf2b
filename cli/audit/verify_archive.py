"""Verify archives far from where they were made: with the trusted keys and nothing else."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cli.audit.parallel import examining
from cli.audit.pins import pin_of
from cli.output import Progress
from governor.errors import InputError
from ledger.archive import sha256_of
from ledger.audit import Pin
from ledger.completion import Archive, judge_completion
from ledger.keys import KeyRing, parse_ring
from ledger.verify import Check, Finding
from tasks.archives.judge import OF_THE_ARCHIVE, Judged, judge_archive
from tasks.archives.reading import Ledger
from tasks.ledgers.report import Report

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Against:
    """What archives are held against: the keys that are trusted, and whatever else is given."""

    trust: Path
    extends: Path | None = None
    account_id: str | None = None
    complete: Path | None = None
    begins_at: int = 0


def verify_archive(*paths: Path, against: Against) -> Judged:
    """Judge an archive, or the segments of one ledger, oldest first.

    See ``judge_archive`` for what it raises.

    Raises:
        InputError: also: no file of keys, or nothing to extend.
    """
    trusted, ledger = _trusted(against.trust), None
    each: list[Judged] = []
    for path in paths:
        each.append(_judge(path, trusted, against, ledger, is_last=path == paths[-1]))
        ledger = each[-1].ledger
        if ledger is None:
            break  # nothing can be held against it
    judged = _together(each, paths)
    if against.complete and ledger and judged.report.tree:
        archive = Archive(
            judged.report.account_id,
            judged.report.tree,
            ledger.balance,
            [sha256_of(_pieces(path)) for path in paths],
        )
        text = _read(against.complete)
        judged.report.add(judge_completion(text, against.complete.name, archive, trusted))
    return judged


def verify_or_tell(*paths: Path, against: Against) -> Judged:
    """As ``verify_archive``, but an archive rejected for its content is judged not to hold.

    Raises:
        InputError: no file of keys, or nothing to extend; nothing was judged.
        OutageError: this machine could not read or unpack it; nothing was judged.
    """
    try:
        return verify_archive(*paths, against=against)
    except InputError as error:
        if error.code not in OF_THE_ARCHIVE:
            raise
        report = Report("an unknown account")
        report.add([Finding(paths[-1].name, Check.INTEGRITY, error.detail)])
        return Judged(report)


def _judge(
    path: Path, trusted: KeyRing, against: Against, before: Ledger | None, *, is_last: bool
) -> Judged:
    def pins_for(account_id: str) -> Sequence[Pin]:
        return [pin_of(against.extends, trusted, account_id)] if against.extends else []

    @contextmanager
    def progressing(size: int) -> Iterator[Callable[[int], None]]:
        with Progress(f"verifying {path.name}", size) as progress:
            yield progress.advance_to

    return judge_archive(
        path,
        trusted,
        against.account_id,
        before=before,
        begins_at=against.begins_at,
        is_last=is_last,
        pins_for=pins_for,
        examining=examining,
        progressing=progressing,
    )


def _together(each: Sequence[Judged], paths: Sequence[Path]) -> Judged:
    """One verdict over all segments; where there are several, a finding says of which it is."""
    last = each[-1]
    if len(paths) == 1:
        return last
    report, notes = last.report, list[str]()
    own, report.findings = report.findings, []
    for judged, path in zip(each, paths, strict=False):
        found = own if judged is last else judged.report.findings
        report.add(replace(finding, subject=f"{path.name}: {finding.subject}") for finding in found)
        notes += [f"{path.name}: {note}" for note in judged.notes]
        report.clocks |= judged.report.clocks
        report.clock_off_s = max(report.clock_off_s, judged.report.clock_off_s)
    if report.findings:
        report.extends = []
    return replace(last, notes=notes, first=each[0].first)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError("unreadable", f"cannot read {path}: {error.strerror}") from None


def _trusted(trust: Path) -> KeyRing:
    try:
        return parse_ring(trust.read_bytes())
    except OSError as error:
        raise InputError("no-keys", f"cannot read {trust}: {error.strerror}") from None
    except InputError as error:
        raise InputError("bad-key-file", f"{trust}: {error.detail}; see ggen keys export") from None
