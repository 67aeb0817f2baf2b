"""Content is kept for some days after the end: then payload, result, body and words go.

Only sealed operations are touched: the receipts that prove them are in a signed log by then. Ids,
digests, states and times stay: an id that comes again never acts twice, and the counts still agree.
A mark says how far each collection was dealt with, so that a day's work is the day's documents.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from governor.actions import UNDER_WAY
from governor.errors import ConflictError
from governor.fsm import RUN_OPEN
from governor.times import instant, timestamp
from ports import Ports
from ports.documents import Create, Delete, Document, Query, Update, Write
from tasks.ledgers.stored_log import StoredLog
from tasks.receipts.commit import commit_once
from tasks.retention.strip import aged_action, stripped_run
from tasks.sweep import isolating_errors

_DAY_S = 86_000.0
_AT_ONCE = 200
_TENANTS_AT_ONCE = 50
_RUNS = "system/retention-runs"

Strip = Callable[[Mapping[str, Any]], dict[str, Any]]


def is_due(ports: Ports) -> bool:
    """Whether this process is the first to ask today, where anything is forgotten at all."""
    return bool(ports.times.retention_days) and ports.watches.claim_tick("retention", _DAY_S)


def forget_some(ports: Ports, after: str) -> str:
    """Some tenants past the one at ``after``, then the runs; where to go on, "" at the end."""
    page = ports.documents.scan(
        Query("tenants", after=("", after) if after else None, limit=_TENANTS_AT_ONCE)
    )
    for tenant in page:
        with isolating_errors(tenant.path):
            forget_of(ports, tenant.path.rpartition("/")[2])
    if page:
        return page[-1].path
    _strip(ports, "runs", _RUNS, _cutoff(ports), RUN_OPEN, stripped_run)
    return ""


def forget_of(ports: Ports, account_id: str) -> None:
    """Take the content from the old documents of one account."""
    last = StoredLog.of(ports, account_id).newest_signed()
    if last is None:
        return
    cutoff = min(_cutoff(ports), instant(last.recorded_until))
    place = f"tenants/{account_id}"
    mark = f"{place}/retention/actions"
    _strip(ports, f"{place}/actions", mark, cutoff, UNDER_WAY, aged_action)
    while texts := _older(ports.documents.created(f"{place}/texts", limit=_AT_ONCE), cutoff):
        if not _commit(ports, [Delete(each.path, each.revision) for each in texts]):
            return


def _strip(
    ports: Ports, collection: str, mark: str, cutoff: datetime, open_: tuple[str, ...], strip: Strip
) -> None:
    """Strip page after page, each together with the mark of it; open ones are passed by."""
    while True:
        known = ports.documents.get(mark)
        after = (instant(known.data["at"]), str(known.data["path"])) if known else None
        page = _older(ports.documents.created(collection, after=after, limit=_AT_ONCE), cutoff)
        if not page:
            return
        reached = {"at": timestamp(page[-1].created_at), "path": page[-1].path}
        writes: list[Write] = [
            Update(mark, reached, known.revision) if known else Create(mark, reached)
        ]
        for document in page:
            stripped = strip(document.data)
            if document.data.get("state") not in open_ and stripped != document.data:
                writes.append(Update(document.path, stripped, document.revision))
        if not _commit(ports, writes):
            return


def _commit(ports: Ports, writes: list[Write]) -> bool:
    """Whether it landed; where a document moved meanwhile, the next day tries again."""
    try:
        commit_once(ports, writes)
    except ConflictError:
        return False
    return True


def _older(page: list[Document], cutoff: datetime) -> list[Document]:
    return [document for document in page if document.created_at < cutoff]


def _cutoff(ports: Ports) -> datetime:
    return ports.clock.now() - timedelta(days=ports.times.retention_days)
