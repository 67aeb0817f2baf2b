"""SQLite reads what is asked for, however large the ledger is: each statement's own plan says so."""

import sqlite3
from pathlib import Path

from adapters.local.sqlite import SqliteDocuments
from ports.documents import Create

RECEIPTS = "tenants/acme/receipts"


def _plans(documents: SqliteDocuments, statements: list[str]) -> list[str]:
    connection = documents._connection()
    return [
        "; ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}"))
        for statement in statements
        if statement.startswith("SELECT")
    ]


def test_what_was_created_since_is_read_from_where_one_is_and_to_the_end_of_time(
    tmp_path: Path,
) -> None:
    """Once the second half, rows that say no time, was looked for in the whole ledger each time."""
    documents = SqliteDocuments(tmp_path / "documents.db")
    documents.commit([Create(f"{RECEIPTS}/{n}", {"n": n}) for n in range(5)])
    first, *_ = documents.created(RECEIPTS)
    statements: list[str] = []
    connection: sqlite3.Connection = documents._connection()
    connection.set_trace_callback(statements.append)

    documents.created(RECEIPTS, after=(first.created_at, first.path))
    connection.set_trace_callback(None)

    plans = _plans(documents, statements)
    assert len(plans) == 2
    assert all("by_collection_and_creation (collection=? AND " in plan for plan in plans), plans
    documents.close()
