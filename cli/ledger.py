"""The commands that read the ledger itself: verify and export. They never sign."""

import json
from collections.abc import Iterator
from typing import Any

from adapters.wiring import open_ports
from config.settings import load
from governor.errors import InputError
from governor.records import receipt_path, timestamp
from ledger.receipt import SignedReceipt
from ledger.verify import Finding, Recorded, verify
from ports import Ports
from ports.documents import Document, Where

VALID_NOT_SEALED, BROKEN = 6, 1
_PAGE = 500


def open_ledger() -> Ports:
    """The ports the settings name."""
    return open_ports(load())


def verify_one(ports: Ports, account_id: str, receipt_id: str) -> list[Finding]:
    """The four checks of one receipt.

    Raises:
        InputError: there is no such receipt in this account's ledger.
    """
    found = ports.documents.get(receipt_path(account_id, receipt_id))
    if found is None:
        raise InputError(
            "no-such-receipt", f"the ledger of {account_id} has no receipt {receipt_id}"
        )
    return verify(_recorded(found), account_id=account_id, ring=ports.keys.ring())


def exit_code(findings: list[Finding]) -> int:
    """0 is for sealed receipts alone, and sealing is not part of this version (D22)."""
    return VALID_NOT_SEALED if all(f.holds for f in findings) else BROKEN


def export(
    ports: Ports, account_id: str, operation: str | None = None, limit: int | None = None
) -> Iterator[dict[str, Any]]:
    """Receipts oldest first: their own fields, and under ``proof`` what verifies them."""
    after, left = None, limit
    where = [Where("operation", "==", operation)] if operation else []
    while left is None or left > 0:
        page = ports.documents.scan(
            f"tenants/{account_id}/receipts", where=where, order_by="timestamp", after=after,
            limit=_PAGE if left is None else min(_PAGE, left),
        )  # fmt: skip
        if not page:
            return
        for document in page:
            yield _exported(document)
        after = (page[-1].data["timestamp"], page[-1].path)
        left = None if left is None else left - len(page)


def write_export(items: Iterator[dict[str, Any]], form: str) -> Iterator[str]:
    """The export's text, piece by piece: ``json`` is one array, ``jsonl`` a receipt a line."""
    if form == "jsonl":
        for item in items:
            yield json.dumps(item, ensure_ascii=False, separators=(",", ":"))
        return
    first = True
    for item in items:
        yield ("[\n" if first else ",\n") + json.dumps(item, ensure_ascii=False)
        first = False
    yield "[]" if first else "\n]"


def _recorded(found: Document) -> Recorded:
    stored = SignedReceipt.model_validate(found.data)
    return Recorded(stored, found.path.rpartition("/")[2], found.created_at)


def _exported(found: Document) -> dict[str, Any]:
    stored = SignedReceipt.model_validate(found.data)
    proof = {
        "payload": stored.payload,
        "signature": stored.signature,
        "key_id": stored.key_id,
        "sha256": stored.sha256,
        "recorded_at": timestamp(found.created_at),
    }
    return {**stored.fields(), "proof": proof}
