"""Taking a ledger away: as JSON for programs, or as an archive for an auditor."""

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from cli.output import Progress
from governor.errors import ConflictError, InputError
from governor.times import instant, timestamp
from ledger.log import Leaf, Seal
from ledger.receipt import SignedReceipt
from ledger.verify import MAX_AHEAD
from ports import Ports
from ports.documents import Document
from tasks.archives.write import Archived, write_archive
from tasks.ledgers import stored_log
from tasks.ledgers.report import Report
from tasks.ledgers.stored_log import BrokenLogError, StoredLog
from tasks.ledgers.walk import Walk


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which receipts are asked for."""

    since: str = ""
    operation: str | None = None
    limit: int | None = None


def receipts(ports: Ports, account_id: str, wanted: Wanted) -> Iterator[dict[str, Any]]:
    """Receipts in the order of the log, then those not sealed yet; under ``proof`` what proves.

    Raises:
        BrokenLogError: at the end, when something on the way did not hold.
    """
    report = Report(account_id)
    first = _first_seal(ports, account_id, wanted.since)
    last = StoredLog.of(ports, account_id).newest()  # before the listing begins
    walk = Walk(ports, ports.keys.ring(), report, first, asks_for_time=False)
    left = wanted.limit
    for item in _all(walk, last):
        if left == 0:
            return
        if _is_wanted(item, wanted):
            left = None if left is None else left - 1
            yield item
    if report.findings:
        fault = report.findings[0]
        raise BrokenLogError(account_id, f"{fault.subject}: {fault.check}: {fault.fault}")


def write_json(items: Iterator[dict[str, Any]], form: str) -> Iterator[str]:
    """The export's text, piece by piece: ``json`` is one array, ``jsonl`` a receipt a line."""
    if form == "jsonl":
        for item in items:
            yield json.dumps(item, ensure_ascii=False, separators=(",", ":")) + "\n"
        return
    first = True
    for item in items:
        yield ("[\n" if first else ",\n") + json.dumps(item, ensure_ascii=False)
        first = False
    yield "[]\n" if first else "\n]\n"


def archive(ports: Ports, account_id: str, output: Path | None) -> Archived:
    """Write the archive to a file, or to standard output when that is no terminal.

    Raises:
        InputError: standard output is a terminal, or nothing is sealed.
        ConflictError: the file is there already; it was left as it is.
    """
    last = StoredLog.of(ports, account_id).newest_signed()
    progress = Progress(f"archiving {account_id}", last.tree_size if last else 0)
    with progress, _target(output) as target:
        return write_archive(ports, account_id, target, progress.advance_to)


def unsealed(ports: Ports, account_id: str) -> int:
    """How many receipts are not in the signed log; of what has no seal, of the next thousand."""
    stored = StoredLog.of(ports, account_id)
    newest = stored.newest()
    signed = stored.newest_signed()
    unsigned = len(newest.leaves) if newest and newest != signed else 0
    return unsigned + len(stored.unsealed(newest, stored_log.PAGE))


def since(text: str) -> str:
    """A moment as the ledger writes it, from RFC 3339 or a date.

    Raises:
        InputError: it is neither.
    """
    try:
        at = instant(text)
    except ValueError:
        raise InputError(
            "bad-time", f"{text[:64]!r} is no time; write 2026-01-25 or 2026-01-25T12:34:56Z"
        ) from None
    return timestamp(at if at.tzinfo else instant(f"{at.isoformat()}+00:00"))


def _first_seal(ports: Ports, account_id: str, since: str) -> Seal | None:
    """The last seal of which nothing can be wanted: a timestamp lies at most 5 s ahead."""
    log = StoredLog.of(ports, account_id)
    if not since:
        return None
    for seal in log.since(instant(since) - MAX_AHEAD):
        return log.seal_at(seal.number - 1)
    return log.newest_signed()


def _all(walk: Walk, last: Seal | None) -> Iterator[dict[str, Any]]:
    for entry in walk.entries(last, lambda _done: None):
        leaf = Leaf.model_validate_json(entry.leaf)
        data = entry.content if isinstance(entry.content, dict) else {}
        yield _item(data, leaf.recorded_at, leaf)
    for document in walk.left_over(to_the_end=True):
        yield _item(document.data, timestamp(document.created_at), None, document)


def _item(
    data: dict[str, Any], recorded_at: str, leaf: Leaf | None, document: Document | None = None
) -> dict[str, Any]:
    proof: dict[str, Any] = {"recorded_at": recorded_at, "index": leaf.index if leaf else None}
    try:
        if leaf and leaf.rejected is not None:
            raise ValueError(leaf.rejected)
        stored = SignedReceipt.model_validate(data)
        fields = stored.fields()
    except (ValueError, InputError, TypeError) as error:
        name = leaf.receipt_id if leaf else stored_log.id_of(document) if document else ""
        return {"receipt_id": name, "rejected": str(error).splitlines()[0], "proof": proof}
    signed = {name: getattr(stored, name) for name in ("payload", "signature", "key_id", "sha256")}
    return {**fields, "proof": {**signed, **proof}}


def _is_wanted(item: dict[str, Any], wanted: Wanted) -> bool:
    if wanted.operation is not None and item.get("operation") != wanted.operation:
        return False
    return str(item.get("timestamp", "9")) >= wanted.since


@contextmanager
def text_target(output: Path | None) -> Iterator[TextIO]:
    """A file to write, whole or not at all, or standard output.

    Raises:
        ConflictError: the file is there already; it was left as it is.
    """
    if output is None:
        yield sys.stdout
        return
    with _file(output) as file:
        text = io.TextIOWrapper(file, encoding="utf-8")
        yield text
        text.detach()


@contextmanager
def _target(output: Path | None) -> Iterator[BinaryIO]:
    if output is None:
        if sys.stdout.isatty():
            raise InputError("no-output", "an archive is no text: name a file with --output")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with _file(output) as file:
        yield file


@contextmanager
def _file(output: Path) -> Iterator[BinaryIO]:
    if output.exists():
        raise ConflictError(
            "file-exists", f"{output} exists already; nothing was written. Name another"
        )
    scratch = output.with_name(f".{output.name}.part")
    try:
        with scratch.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        output.hardlink_to(scratch)
    except FileExistsError:
        raise ConflictError("file-exists", f"{output} exists already; it was kept") from None
    except OSError as error:
        raise InputError("unwritable", f"cannot write {output}: {error.strerror}") from error
    finally:
        scratch.unlink(missing_ok=True)
