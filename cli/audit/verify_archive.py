"""Verify an archive far from where it was made: with the trusted keys and nothing else."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cli.audit.parallel import examining
from cli.audit.pins import pin_of
from cli.output import Progress
from governor.errors import InputError
from ledger.audit import Pin
from ledger.keys import KeyRing, parse_ring
from ledger.verify import Check, Finding
from tasks.ledgers.judge_archive import OF_THE_ARCHIVE, Judged, judge_archive
from tasks.ledgers.report import Report


def verify_archive(
    path: Path, trust: Path, extends: Path | None = None, account_id: str | None = None
) -> Judged:
    """Judge an archive against the keys of a file. See ``judge_archive`` for what it raises.

    Raises:
        InputError: also: no file of keys, or nothing to extend.
    """
    trusted = _trusted(trust)

    def pins_for(account_id: str) -> Sequence[Pin]:
        return [pin_of(extends, trusted, account_id)] if extends else []

    @contextmanager
    def progressing(size: int) -> Iterator[Callable[[int], None]]:
        with Progress(f"verifying {path.name}", size) as progress:
            yield progress.advance_to

    return judge_archive(
        path,
        trusted,
        account_id,
        pins_for=pins_for,
        examining=examining,
        progressing=progressing,
    )


def verify_or_tell(
    path: Path, trust: Path, extends: Path | None = None, account_id: str | None = None
) -> Judged:
    """As ``verify_archive``, but an archive rejected for its content is judged not to hold.

    Raises:
        InputError: no file of keys, or nothing to extend; nothing was judged.
        OutageError: this machine could not read or unpack it; nothing was judged.
    """
    try:
        return verify_archive(path, trust, extends, account_id)
    except InputError as error:
        if error.code not in OF_THE_ARCHIVE:
            raise
        report = Report("an unknown account")
        report.add([Finding(path.name, Check.INTEGRITY, error.detail)])
        return Judged(report)


def _trusted(trust: Path) -> KeyRing:
    try:
        return parse_ring(trust.read_bytes())
    except OSError as error:
        raise InputError("no-keys", f"cannot read {trust}: {error.strerror}") from None
    except InputError as error:
        raise InputError("bad-key-file", f"{trust}: {error.detail}; see ggen keys export") from None
