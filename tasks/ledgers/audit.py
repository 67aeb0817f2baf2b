"""A ledger read side by side with its log, and judged: nothing that is stored is left out.

The receipts come in order of creation, the leaves in the order of the log. Each leaf finds its
receipt among those that were created by then; receipts left over are not sealed. One pass, and
memory for one page.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial

from governor.paths import mirror_name
from ledger.audit import (
    Entry,
    Pin,
    check_unsealed,
    examine,
    place,
)
from ledger.balance import Balance
from ledger.keys import KeyRing
from ledger.log import Leaf, Seal, seal_id
from ledger.verify import Check, Finding
from ports import Ports
from tasks.ledgers import stored_log
from tasks.ledgers.report import MAX_FINDINGS, Report
from tasks.ledgers.stored_log import StoredLog
from tasks.ledgers.walk import Walk

CHUNK = 250
"""Entries examined at once."""

Chunk = Sequence[Entry]
Examine = Callable[[Iterable[Chunk], str, KeyRing], Iterable[list[Finding]]]


def in_this_process(
    chunks: Iterable[Chunk], account_id: str, ring: KeyRing
) -> Iterator[list[Finding]]:
    """Examine in this process, one chunk after the other."""
    return (examine(chunk, account_id, ring) for chunk in chunks)


def audit_ledger(
    ports: Ports,
    account_id: str,
    *,
    after: Seal | None = None,
    last: Seal | None = None,
    pins: Sequence[Pin] = (),
    examine_all: Examine = in_this_process,
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
        progress: called with the number of leaves read so far.

    Raises:
        OutageError: a store is away, so the ledger cannot be judged.
    """
    while True:
        report, ring = Report(account_id), ports.keys.ring()
        walk = Walk(ports, ring, report, after, pins, until=until)
        balance = Balance(is_whole=after is None)
        entries = chunks(counted(walk.entries(last, progress), balance, report))
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


def report_ends(ports: Ports, account_id: str, last: int) -> Iterator[Finding]:
    """Whether anything was signed beyond the seal that was read last."""
    stored = StoredLog.of(ports, account_id)
    copies = [name.rpartition("/")[2] for name in ports.objects.names(mirror_name(account_id, ""))]
    strays = [name for name in copies if not _is_number(name)]
    for name in strays[:1]:
        yield Finding(f"the object {name!r} among the copies", Check.CONSISTENCY, "is no copy")
    for name in [each for each in copies if _is_number(each) and each > seal_id(last)][:1]:
        if not stored.is_seal(int(name)):  # else the log has grown since
            yield Finding(
                f"the copy of checkpoint {int(name)}",
                Check.CONSISTENCY,
                f"was signed, but the store's log ends with seal {last}: the store is an older "
                "copy, or its end was removed",
            )
    for path in stored.strays():
        yield Finding(path, Check.CONSISTENCY, "is no seal or checkpoint of this log")
    for path in stored.checkpoints_beyond(last)[:1]:
        name = path.rpartition("/")[2]
        if not _is_number(name) or not stored.is_seal(int(name)):
            yield Finding(path, Check.CONSISTENCY, "a checkpoint without its seal")


def _is_number(name: str) -> bool:
    return len(name) == len(seal_id(0)) and name.isdecimal()


def counted(entries: Iterator[Entry], balance: Balance, report: Report) -> Iterator[Entry]:
    """The same entries, as they come; what their counts do not hold goes into the report."""
    for entry in entries:
        report.add(balance.take(entry.content, partial(_place, entry)))
        yield entry


def _place(entry: Entry) -> str:
    return place(Leaf.model_validate_json(entry.leaf))


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
