"""Verify every ledger without being asked: new receipts every hour, everything every day.

Each pass is also the reconcile: it reads all receipts and all leaves, without any window, and has
sealed what it finds left over. One slice of one ledger at a time, so that it is never in the way.
"""

from collections.abc import Iterable, Iterator, Sequence

from governor.errors import ConflictError, InputError
from governor.records import SYSTEM_ACCOUNT
from governor.times import timestamp
from ledger.audit import Pin
from ledger.checkpoint import open_checkpoint
from ledger.keys import KeyRing
from ledger.log import Seal
from ledger.verify import Finding
from ports import Ports
from ports.documents import Create, Document, Update
from tasks.ledgers.audit import Chunk, audit_ledger, in_this_process
from tasks.ledgers.report import Report, clock_words
from tasks.ledgers.seal import seal_or_report
from tasks.ledgers.sign import raise_alarm
from tasks.ledgers.states import missing_of, page_after
from tasks.ledgers.stored_log import BrokenLogError, StoredLog
from tasks.receipts.commit import alert, commit_and_send, commit_once
from tasks.sweep import for_a_while

EVERY_HOUR_S, EVERY_DAY_S = 3_600, 86_400
_EVERYTHING = "everything-judged"
_SEALS_AT_ONCE = 8
"""Seals of one slice: at most 8,000 receipts, seconds of one core."""

_LEAVES_AT_ONCE = 2_000
_STATES_AT_ONCE = 250
_STATES_S = 10.0
"""Actions of one slice that are compared with their receipts, and for how long."""


def is_due(ports: Ports) -> str:
    """The scope of the pass that is due now, for the first process to ask; empty when none is."""
    if not ports.watches.claim_tick("audit", EVERY_HOUR_S):
        return ""
    # A pass over everything that did not come to its end is begun again.
    was_judged = ports.watches.alive([_EVERYTHING])[_EVERYTHING]
    return "new" if was_judged else "everything"


def note_everything_judged(ports: Ports) -> None:
    """Note that a pass over everything came to its end."""
    ports.watches.beat_alive(_EVERYTHING, EVERY_DAY_S)


def everything_judged_ago_s(ports: Ports) -> float | None:
    """How long ago a pass over everything ended; None: not within the last day."""
    seen = ports.watches.seen([_EVERYTHING])[_EVERYTHING]
    return seen.ago_s if seen else None


def judge(ports: Ports, account_id: str, scope: str, number: int) -> int | None:
    """Judge one slice, tell what does not hold, and have sealed what was left over.

    The seal to go on from, or None when the ledger was judged to its end.

    Raises:
        BrokenLogError: it cannot be read on from here.
        OutageError: a store is away; the next pass starts over.
    """
    mark = ports.documents.get(_mark_path(account_id))
    known, pins = _known(ports, account_id, mark)
    last = _last_of_slice(ports, account_id, number)
    judged = audit_ledger(
        ports,
        account_id,
        after=StoredLog.of(ports, account_id).seal_at(number),
        last=last,
        pins=pins,
        examine_all=_only_places
        if scope == "new" and last and last.number <= known
        else in_this_process,
    )
    if judged.clock_off:
        words = clock_words(judged.clock_off, judged.clock_off_s).removeprefix(", ")
        _tell_of_clocks(ports, account_id, words)
    _report_all(ports, account_id, judged.findings, judged.more_findings)
    if judged.left_over:
        seal_or_report(ports, account_id, tuple(judged.left_over))
    if last is not None:
        return last.number
    if not judged.findings:
        _remember(ports, account_id, mark, judged)
    return None


def held_at(ports: Ports, account_id: str) -> str:
    """When a pass came to the end of a ledger last and found no fault; "" where none did."""
    mark = ports.documents.get(_mark_path(account_id))
    return str(mark.data.get("held_at", "")) if mark else ""


def judge_states(ports: Ports, account_id: str, after: str) -> str:
    """Compare some actions and runs with their receipts, and tell which lack theirs.

    The path to go on from, or "" when all were looked at.
    """
    looked, found = "", list[Finding]()
    page = page_after(ports, account_id, after, _STATES_AT_ONCE)
    for document in for_a_while(ports, page, _STATES_S):
        found += missing_of(ports, account_id, [document])
        looked = document.path
    _report_all(ports, account_id, found)
    return looked


def _report_all(ports: Ports, account_id: str, found: Sequence[Finding], more: int = 0) -> None:
    if found:
        first, more = found[0], len(found) + more - 1
        fault = f"{first.subject}: {first.check}: {first.fault}; and {more} more findings"
        raise_alarm(ports, account_id, BrokenLogError(account_id, fault))


def _tell_of_clocks(ports: Ports, account_id: str, words: str) -> None:
    """Alert once for ever of a ledger some of whose receipts were made by a clock that was off."""
    writes, told = alert(
        ports,
        "warning",
        "receipts-clock-off",
        SYSTEM_ACCOUNT,
        account_id,
        f"the ledger of {account_id} is valid, {words}: a machine's clock was set, or a receipt "
        f"was dated back. See: ggen verify-ledger --account-id {account_id} --strict",
    )
    commit_and_send(ports, told, *writes)


def _last_of_slice(ports: Ports, account_id: str, number: int) -> Seal | None:
    """Where to stop; None to go to the end."""
    log = StoredLog.of(ports, account_id)
    newest = log.newest_signed()
    if newest is None or newest.number <= number + _SEALS_AT_ONCE:
        return None
    leaves = 0
    for upcoming in range(number + 1, number + _SEALS_AT_ONCE):
        seal = log.seal_at(upcoming)
        leaves += len(seal.leaves) if seal else 0
        if leaves >= _LEAVES_AT_ONCE:
            return seal
    return log.seal_at(number + _SEALS_AT_ONCE)


def _known(ports: Ports, account_id: str, mark: Document | None) -> tuple[int, list[Pin]]:
    """The seal that was judged last, and its checkpoint, which the log must still extend."""
    if mark is None:
        return 0, []
    ring = ports.keys.ring()
    try:
        note = str(mark.data.get("note"))
        checkpoint, _ = open_checkpoint(note, ring.log_origin(account_id), ring)
    except InputError as error:
        raise BrokenLogError(account_id, f"{mark.path}: {error.detail}") from error
    seal = mark.data.get("seal")
    pin = Pin(checkpoint, f"the checkpoint verified last ({mark.path})")
    return seal if isinstance(seal, int) else 0, [pin]


def _remember(ports: Ports, account_id: str, mark: Document | None, judged: Report) -> None:
    if judged.checkpoint is None:
        return
    at = timestamp(ports.clock.now())
    data = {"seal": judged.seals, "note": judged.checkpoint, "held_at": at}
    path = _mark_path(account_id)
    try:
        commit_once(ports, [Update(path, data, mark.revision) if mark else Create(path, data)])
    except ConflictError:
        pass  # another pass has come just as far


def _only_places(
    chunks: Iterable[Chunk], _account_id: str, _ring: KeyRing
) -> Iterator[list[Finding]]:
    """Read everything, and judge no content: an earlier pass did."""
    for _ in chunks:
        yield []


def _mark_path(account_id: str) -> str:
    return f"audits/{account_id}"
