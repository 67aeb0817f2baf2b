"""Ledgers to look at and to spoil."""

import dataclasses
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adapters.rules import encoded
from governor.paths import receipt_path
from governor.times import timestamp
from ledger.checkpoint import Checkpoint, open_checkpoint
from ledger.log import parse_leaf
from ledger.merkle import Frontier, leaf_hash
from ports import Ports
from ports.documents import Create
from tasks.ledgers.audit import audit_ledger
from tasks.ledgers.report import Report
from tasks.ledgers.seal import seal_ledger
from tasks.ledgers.stored_log import StoredLog
from tasks.receipts.commit import commit_once, receipt
from tests.support.faults import WatchedDocuments, WatchedObjects, Writes

ACCOUNT = "acme"


def told(ports: Ports, subject: str, account_id: str = ACCOUNT) -> Create:
    """A receipt of an action, not yet committed."""
    return receipt(
        ports,
        "action_complete",
        account_id,
        subject,
        action_id=f"action-{subject}",
        entitlement_id="demo-sku",
        sku_id="demo-sku",
        signal_type="demo.succeed",
        handler="demo.succeed",
        policy_version="1.0.0",
        queue_ms=1,
        run_ms=2,
    )


def emit(ports: Ports, *subjects: str, account_id: str = ACCOUNT) -> list[str]:
    """Commit a receipt for each subject; their ids."""
    made = [told(ports, subject, account_id) for subject in subjects]
    for one in made:
        commit_once(ports, [one])
    return [str(one.data["receipt_id"]) for one in made]


def build(ports: Ports, batches: int = 3, each: int = 5, account_id: str = ACCOUNT) -> list[str]:
    """A sealed ledger: ``batches`` seals of ``each`` receipts; their ids in order."""
    ids = []
    for batch in range(batches):
        ids += emit(ports, *(f"{batch}-{n}" for n in range(each)), account_id=account_id)
        assert seal_ledger(ports, account_id)
    return ids


def watched(ports: Ports, writes: Writes) -> Ports:
    """The same ports, with every write of the two stores counted."""
    return dataclasses.replace(
        ports,
        documents=WatchedDocuments(ports.documents, writes),  # type: ignore[arg-type]
        objects=WatchedObjects(ports.objects, writes),  # type: ignore[arg-type]
    )


def audit(ports: Ports, account_id: str = ACCOUNT, **more: Any) -> Report:
    return audit_ledger(ports, account_id, **more)


def faults(ports: Ports, account_id: str = ACCOUNT, **more: Any) -> str:
    """Everything that does not hold, as one text."""
    report = audit(ports, account_id, **more)
    return "\n".join(f"{f.subject}: {f.check}: {f.fault}" for f in report.findings)


def sealed_ids(ports: Ports, account_id: str = ACCOUNT) -> list[str]:
    """The receipts of the log, in its order."""
    stored = StoredLog.of(ports, account_id)
    last = stored.newest()
    found = []
    for number in range(1, (last.number if last else 0) + 1):
        seal = stored.seal_at(number)
        assert seal
        found += [parse_leaf(text).receipt_id for text in seal.leaves]
    return found


def signed(ports: Ports, account_id: str = ACCOUNT) -> list[Checkpoint]:
    """Every checkpoint that was ever signed, by the copies outside of the database."""
    ring = ports.keys.ring()
    notes = [ports.objects.get(name) for name in ports.objects.names(f"checkpoints/{account_id}/")]
    return [
        open_checkpoint(note.decode(), ring.log_origin(account_id), ring)[0]
        for note in notes
        if note is not None
    ]


def contradicted(ports: Ports, account_id: str = ACCOUNT) -> list[Checkpoint]:
    """The signed checkpoints that the log as it is now does not extend."""
    stored = StoredLog.of(ports, account_id)
    last = stored.newest()
    trees, tree = {}, Frontier()
    for number in range(1, (last.number if last else 0) + 1):
        seal = stored.seal_at(number)
        assert seal
        for text in seal.leaves:
            tree = tree.append(leaf_hash(text.encode()))
        trees[tree.size] = tree.root()
    return [each for each in signed(ports, account_id) if trees.get(each.size) != each.root]


def spoil(
    database: Path, path: str, change: Callable[[dict[str, Any]], Any], column: str = "data"
) -> None:
    """Write into a document past every port, as somebody does who holds the database."""
    connection = sqlite3.connect(database)
    with connection:
        if column == "data":
            (text,) = connection.execute(
                "SELECT data FROM documents WHERE path = ?", [path]
            ).fetchone()
            data = json.loads(text)
            data = change(data) or data
            connection.execute(
                "UPDATE documents SET data = ? WHERE path = ?", [encoded(data), path]
            )
        else:
            connection.execute(
                f"UPDATE documents SET {column} = ? WHERE path = ?", [change({}), path]
            )
    connection.close()


def run_sql(database: Path, sql: str, *values: Any) -> None:
    connection = sqlite3.connect(database)
    with connection:
        connection.execute(sql, values)
    connection.close()


def copy_document(database: Path, source: str, target: str) -> None:
    """Put a second copy of a document at another path."""
    collection = target.rpartition("/")[0]
    run_sql(
        database,
        "INSERT OR REPLACE INTO documents SELECT ?, ?, ?, data, revision + 1, created_us"
        " FROM documents WHERE path = ?",
        target,
        collection,
        collection.rpartition("/")[2],
        source,
    )


__all__ = ["receipt_path", "timestamp"]
