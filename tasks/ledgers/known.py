"""Which ledgers there are: those of tenants, and those of accounts that have no tenant."""

from collections.abc import Iterator

from governor.fsm import RUN_ENDED_BADLY
from governor.records import SYSTEM_ACCOUNT
from ledger.log import seal_id
from ports import Ports
from ports.documents import Query, Where
from tasks.ledgers.stored_log import StoredLog


def ledgers(ports: Ports) -> Iterator[str]:
    """Every account with a ledger, the platform's first."""
    path: str | None = f"tenants/{SYSTEM_ACCOUNT}"
    while path:
        yield ledger_at(ports, path)
        path = next_ledger(ports, path)


def ledger_at(ports: Ports, path: str) -> str:
    """The account whose ledger is meant by a document ``next_ledger`` came upon."""
    if not path.startswith("runs/"):
        return path.split("/")[1]
    found = ports.documents.get(path)
    return str(found.data["account_id"]) if found else SYSTEM_ACCOUNT


def next_ledger(ports: Ports, path: str) -> str | None:
    """The ledger after the one at ``path``, by a document that tells of it.

    First those of tenants, then sealed ones that have no tenant, then those of accounts of which
    there is nothing but a subscription that was refused.
    """
    scan = ports.documents.scan
    if path.startswith("tenants/") and "/seals/" not in path:
        after = None if path == f"tenants/{SYSTEM_ACCOUNT}" else ("", path)
        for document in scan(Query("tenants", after=after, limit=1)):
            return document.path
        path = "tenants/-/seals/"
    first = [Where("seal_id", "==", seal_id(1))]
    while "/seals/" in path:
        after = None if path == "tenants/-/seals/" else ("", path)
        found = scan(Query("seals", group=True, where=first, after=after, limit=1))
        path = found[0].path if found else "runs/"
        if found and not _is_elsewhere(ports, ledger_at(ports, path), is_sealed=True):
            return path
    ended = [Where("state", "in", RUN_ENDED_BADLY)]
    while runs := scan(Query("runs", where=ended, after=("", path), limit=1)):
        path = runs[0].path
        if not _is_elsewhere(ports, ledger_at(ports, path), is_sealed=False):
            return path
    return None


def _is_elsewhere(ports: Ports, account_id: str, *, is_sealed: bool) -> bool:
    """Whether a pass comes upon this ledger in an earlier part of its way."""
    return (
        account_id == SYSTEM_ACCOUNT
        or ports.documents.get(f"tenants/{account_id}") is not None
        or (not is_sealed and StoredLog.of(ports, account_id).is_seal(1))
    )
