"""Content is kept for some days after the end: then payload, result, body and words go.

Of an action, only a sealed one is touched: its receipts are in a signed log by then. Ids, digests,
states and times stay: an id that comes again never acts twice, and the counts still agree.
A mark says how far each collection was dealt with, so that a day's work is the day's documents.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from governor.actions import UNDER_WAY
from governor.errors import ConflictError
from governor.fsm import RUN_OPEN, RunState
from governor.records import SYSTEM_ACCOUNT
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
_RUNS, _REACHED = "system/retention-runs", "system/retention"
_A_DAY_AT_MOST = timedelta(days=2)
_KEPT_RUNS = (*RUN_OPEN, RunState.FAILED)
"""Of a run that failed another attempt may still be asked for, which needs what it was told."""

_NEVER = instant("1970-01-01T00:00:00.000000Z")

Strip = Callable[[Mapping[str, Any]], dict[str, Any]]


def is_due(ports: Ports) -> bool:
    """Whether this process is the first to ask today, and something may be forgotten at all.

    The first day only notes how far it may go, and each day goes at most two days further: a clock
    that is years ahead for a while deletes two days' content too early, and not all of it.
    """
    if not ports.times.retention_days or not ports.watches.claim_tick("retention", _DAY_S):
        return False
    known = ports.documents.get(_REACHED)
    wanted = ports.clock.now() - timedelta(days=ports.times.retention_days)
    if known is None:
        _commit(ports, [Create(_REACHED, {"cutoff": timestamp(wanted)})])
        return False
    cutoff = min(wanted, instant(str(known.data["cutoff"])) + _A_DAY_AT_MOST)
    return _commit(ports, [Update(_REACHED, {"cutoff": timestamp(cutoff)}, known.revision)])


def forget_some(ports: Ports, after: str) -> str:
    """Some tenants past the one at ``after``, then the runs; where to go on, "" at the end."""
    if not after:
        with isolating_errors(SYSTEM_ACCOUNT):
            forget_of(ports, SYSTEM_ACCOUNT)
    page = ports.documents.scan(
        Query("tenants", after=("", after) if after else None, limit=_TENANTS_AT_ONCE)
    )
    for tenant in page:
        with isolating_errors(tenant.path):
            forget_of(ports, tenant.path.rpartition("/")[2])
    if page:
        return page[-1].path
    _strip(ports, "runs", _RUNS, _cutoff(ports), _KEPT_RUNS, stripped_run)
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
    """How far this day goes, as ``is_due`` has noted it."""
    known = ports.documents.get(_REACHED)
    return instant(str(known.data["cutoff"])) if known else _NEVER
