"""Erasing what a customer wrote: free text goes, what proves an operation stays.

Deleted: the texts beside the ledger, the names of messages that were refused. Stripped: of each
action its payload, its signal's id and digest, its error and result; of each run its body and the
customer's words. Kept: receipts and seals, which hold codes, ids and digests (D30), and the states
of tenant, entitlements and actions, by which an auditor counts.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta

from governor import paths
from governor.errors import RetainedError
from governor.fsm import RUN_OPEN
from governor.records import Record, Timestamp
from governor.runs import Run
from governor.times import timestamp
from ports import Ports
from ports.documents import Create, Delete, Document, Query, Update, Where, Write
from tasks.retention.strip import stripped_action, stripped_run
from tasks.runs.definition import Chunk

_AT_ONCE = 200
_STAGES = ("texts", "refused", "actions", "runs")
_RETAINED_FOR_A_DAY = timedelta(days=1)
KEPT: Mapping[str, str] = {
    "receipts, seals, checkpoints": "they prove what was done; they hold codes, ids and digests",
    "archives": "they are copies of receipts; delete them with --archives",
    "tenant, entitlements": "a resubscription goes on from them",
    "actions, runs": "their states and times, by which the ledger's counts are checked",
}
"""What a purge leaves, and why."""


class Erased(Record):
    """``tenants/{account_id}/purges/{run_id}``: what a purge has removed so far.

    ``names_sha256``: for each name in turn, SHA-256 of the hexadecimal digest before it, a space,
    and the name; the first has 64 zeros before it.
    """

    deleted: int = 0
    stripped: int = 0
    names_sha256: str = "0" * 64


def erased(ports: Ports, run: Run) -> Erased:
    """What a run has removed."""
    found = ports.documents.get(_record_path(run))
    return Erased.stored(found.data) if found else Erased()


def erase_part(ports: Ports, run: Run, cursor: str) -> Chunk:
    """The next part: removed together with the record of it."""
    stage, _, after = (cursor or f"{_STAGES[0]}|").partition("|")
    page = ports.documents.scan(_query(run, stage, after))
    writes = [write for document in page if (write := _removal(run, stage, document))]
    if writes:
        writes.append(_recorded(ports, run, writes))
    if page:
        return Chunk(f"{stage}|{page[-1].path}", len(page), writes)
    following = _STAGES[_STAGES.index(stage) + 1 :]
    return Chunk(f"{following[0]}|" if following else None, 0, writes)


def to_erase(ports: Ports, account_id: str) -> dict[str, int]:
    """How many documents of each kind would be looked at."""
    counts = {
        stage: ports.documents.count(f"tenants/{account_id}/{stage}", []) for stage in _STAGES[:-1]
    }
    mine = [Where("account_id", "==", account_id)]
    return {**counts, "runs": ports.documents.count("runs", mine)}


def _query(run: Run, stage: str, after: str) -> Query:
    place = ("", after) if after else None
    if stage == "runs":
        mine = [Where("account_id", "==", run.account_id)]
        return Query("runs", where=mine, after=place, limit=_AT_ONCE)
    return Query(f"tenants/{run.account_id}/{stage}", after=place, limit=_AT_ONCE)


def _removal(run: Run, stage: str, document: Document) -> Write | None:
    if stage in ("texts", "refused"):
        return Delete(document.path, document.revision)
    strip = stripped_run if stage == "runs" else stripped_action
    if stage == "runs" and (
        document.path == paths.run_path(run.run_id) or document.data.get("state") in RUN_OPEN
    ):
        return None
    stripped = strip(document.data)
    if stripped == document.data:
        return None
    return Update(document.path, stripped, document.revision)


def _recorded(ports: Ports, run: Run, writes: list[Write]) -> Write:
    path = _record_path(run)
    found = ports.documents.get(path)
    before = Erased.stored(found.data) if found else Erased()
    digest = before.names_sha256
    for write in writes:
        digest = hashlib.sha256(f"{digest} {write.path}".encode()).hexdigest()
    deleted = sum(isinstance(write, Delete) for write in writes)
    after = Erased(
        deleted=before.deleted + deleted,
        stripped=before.stripped + len(writes) - deleted,
        names_sha256=digest,
    )
    if found:
        return Update(path, after.document(), found.revision)
    return Create(path, after.document())


def _record_path(run: Run) -> str:
    return f"tenants/{run.account_id}/purges/{run.run_id}"


# -- archives


class Archives(Record):
    """What became of an account's archives."""

    deleted: int = 0
    retained: int = 0
    retained_until: Timestamp | None = None


def archives_of(ports: Ports, account_id: str) -> Iterator[str]:
    """The names of an account's archives, and of what lies beside them."""
    for name in ports.archives.names(f"{account_id}/"):
        if name.count("/") == 1 and name.endswith((".tar.gz", ".complete.json")):
            yield name


def delete_archives(ports: Ports, account_id: str, meant: Iterable[str]) -> Archives:
    """Delete an account's archives, but for those that their bucket's retention protects.

    Args:
        ports: the stores.
        account_id: whose they are.
        meant: the names to be deleted, by every attempt so far.

    Raises:
        OutageError: the bucket does not answer; repeating is safe.
    """
    until = list[str]()
    before = {*archives_of(ports, account_id)}
    for name in sorted(before):
        try:
            ports.archives.delete(name)
        except RetainedError as error:
            tomorrow = timestamp(ports.clock.now() + _RETAINED_FOR_A_DAY)
            until.append(error.until or tomorrow)  # where no date is named, it is tried again
    left = set(archives_of(ports, account_id))
    return Archives(
        deleted=len((before | set(meant)) - left),
        retained=len(left),
        retained_until=max(until, default=None),
    )
