"""A large ledger is archived in segments while it grows, so that a cancellation exports the rest.

A segment begins where the one before it ends. Each is created once, verified in its bucket, and
then noted in Documents.
"""

from pydantic import Field

from governor import paths
from governor.errors import ConflictError
from governor.fsm import GovernorState
from governor.records import Record
from ledger.log import Seal
from ports import Ports
from ports.documents import Create, Delete, Query, Write, every
from tasks.archives.keep import keep_archive
from tasks.ledgers.stored_log import BrokenLogError, StoredLog
from tasks.receipts.commit import commit_once

SEGMENT_RECEIPTS = 100_000
"""How far a ledger grows before the next segment is cut."""


class Segment(Record):
    """``tenants/{account_id}/segments/{size}``: receipts ``first`` up to, not with, ``size``."""

    first: int = Field(ge=0)
    size: int = Field(ge=1)
    seal: int = Field(ge=1, description="the last seal that is in it")
    name: str
    address: str
    sha256: str
    size_bytes: int


def up_to(ports: Ports, account_id: str, size: int) -> list[Segment]:
    """The segments of an account's first ``size`` receipts, oldest first."""
    found = (Segment.stored(d.data) for d in every(ports.documents, _folder(account_id)))
    return [segment for segment in found if segment.size <= size]


def newest_before(ports: Ports, account_id: str, last: Seal) -> int:
    """The seal after which the receipts up to ``last`` lie in no segment; 0: in none at all.

    Where a segment is not in the bucket any more, all of them are as good as not there.
    """
    before = up_to(ports, account_id, last.tree_size - 1)
    if not before:
        return 0
    there = set(ports.archives.names(f"{account_id}/segment-"))
    return before[-1].seal if all(each.name in there for each in before) else 0


def forget(ports: Ports, account_id: str) -> list[Write]:
    """The writes after which no segment of an account is known, for whoever deleted them."""
    found = every(ports.documents, _folder(account_id))
    return [Delete(document.path, document.revision) for document in found]


def cut_next(ports: Ports, account_id: str, receipts: int = SEGMENT_RECEIPTS) -> Segment | None:
    """Archive the next ``receipts`` of a ledger as a segment; None while it has fewer.

    It ends with the seal that reaches so many: seals are signed, single receipts' places are not.

    Raises:
        BrokenLogError: the ledger does not hold, so nothing of it was noted as archived.
        OutageError: a store is away; repeating is safe.
    """
    log = StoredLog.of(ports, account_id)
    after, newest = _ends(ports, log)
    first = after.tree_size if after else 0
    if newest is None or newest.tree_size < first + receipts:
        return None
    last = _first_reaching(log, after.number + 1 if after else 1, newest, first + receipts)
    name = f"{account_id}/segment-{first:010}-{last.tree_size:010}"
    kept = keep_archive(ports, account_id, after, last, [f"{name}.tar.gz", f"{name}-{{}}.tar.gz"])
    segment = Segment(
        first=first,
        size=last.tree_size,
        seal=last.number,
        name=kept.name,
        address=ports.archives.address(kept.name),
        sha256=kept.sha256,
        size_bytes=kept.size_bytes,
    )
    try:
        commit_once(ports, [Create(_path(account_id, segment.size), segment.document())])
    except ConflictError:
        pass  # another process has cut the same one
    return segment


def is_due(ports: Ports, account_id: str, receipts: int = SEGMENT_RECEIPTS) -> bool:
    """Whether a ledger has grown by a segment since the last one. Raises as ``cut_next``."""
    if _has_ended(ports, account_id):
        return False  # its cancellation has archived all; a purge may have deleted that
    after, newest = _ends(ports, StoredLog.of(ports, account_id))
    first = after.tree_size if after else 0
    return newest is not None and newest.tree_size >= first + receipts


def _has_ended(ports: Ports, account_id: str) -> bool:
    found = ports.documents.get(paths.tenant_path(account_id))
    return found is not None and found.data.get("state") == GovernorState.DECOMMISSIONED


def _ends(ports: Ports, log: StoredLog) -> tuple[Seal | None, Seal | None]:
    """The last seal that is in a segment, and the newest of all."""
    in_order = Query(_folder(log.account_id), order_by="size", descending=True, limit=1)
    done = ports.documents.scan(in_order)
    return log.seal_at(Segment.stored(done[0].data).seal) if done else None, log.newest_signed()


def _first_reaching(log: StoredLog, low: int, newest: Seal, size: int) -> Seal:
    """The first seal whose tree has ``size`` leaves or more, by bisection."""
    found, high = newest, newest.number
    while low < high:
        middle = (low + high) // 2
        seal = log.seal_at(middle)
        if seal is None:
            raise BrokenLogError(log.account_id, f"seal {middle} is missing")
        if seal.tree_size >= size:
            found, high = seal, middle
        else:
            low = middle + 1
    return found


def _folder(account_id: str) -> str:
    return f"{paths.tenant_path(account_id)}/segments"


def _path(account_id: str, size: int) -> str:
    return f"{_folder(account_id)}/{size:012}"
