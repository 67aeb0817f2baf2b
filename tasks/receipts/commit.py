"""How truth is written: receipts made, and whole commits landed exactly once."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tenacity

from governor.errors import ConflictError, OutageError
from governor.paths import receipt_path, text_path
from governor.times import instant, timestamp
from ledger import contracts
from ledger.receipt import receipt_id
from ledger.verify import MAX_BEHIND
from ports import Ports
from ports.alerts import Alert, Severity
from ports.documents import Create, Delete, Landed, Update, Write, one_by_one

T = TypeVar("T")
_LOG = logging.getLogger("ggen.ledger")

LANDING_PATIENCE_S = 2.0
"""How long a commit is repeated while the store does not answer; below the hard limit's margin."""

MAX_TEXT_CHARS = 1024
"""Bound of a free text beside the ledger."""

_MANY = 8
"""A commit that adds to more ledgers than this is about many: none of them waits for its seal."""

STALE_AFTER = MAX_BEHIND / 2
"""How old a receipt may be when it is committed; verification refuses one twice as old."""


def receipt(
    ports: Ports,
    operation: str,
    account_id: str,
    subject: str,
    /,
    *,
    attempt: int = 1,
    status: str = "success",
    duration_ms: int = 0,
    **fields: Any,
) -> Create:
    """The write that creates a signed receipt, to be committed with the state it speaks of.

    The same operation, subject and attempt always have the same id, so that of two tellings of
    one operation only the first is kept.

    Raises:
        InputError: the fields do not fulfil the operation's contract.
    """
    version = contracts.newest(operation)
    contract = contracts.validate(
        {
            **({"contract_version": version} if version > 1 else {}),
            "receipt_id": receipt_id(account_id, operation, subject, attempt),
            "timestamp": timestamp(ports.clock.now()),
            "operation": operation,
            "account_id": account_id,
            "status": status,
            "duration_ms": duration_ms,
            **fields,
        }
    )
    signed = ports.keys.signer().sign(contract)
    return Create(receipt_path(account_id, contract.receipt_id), signed.document())


def explained(
    ports: Ports,
    operation: str,
    account_id: str,
    subject: str,
    text: str,
    /,
    *,
    named: str = "error_sha256",
    **fields: Any,
) -> list[Create]:
    """A receipt that names a free text by its SHA-256, and the text's own document (D30).

    The receipt comes first. Without the text, the receipt still proves.
    """
    text = text[:MAX_TEXT_CHARS].encode(errors="backslashreplace").decode()
    digest = hashlib.sha256(text.encode()).hexdigest()
    proof = receipt(ports, operation, account_id, subject, **{**fields, named: digest})
    path = text_path(account_id, proof.data["receipt_id"])
    return [proof, Create(path, {"text": text, "sha256": digest})]


def alert(
    ports: Ports,
    severity: Severity,
    cause: str,
    account_id: str,
    subject: str,
    detail: str,
    /,
    *,
    attempt: int = 1,
    cause_receipt: Create | None = None,
    drill: bool | None = None,
) -> tuple[list[Create], Alert]:
    """An alert's writes, its receipt first, and the alert, to be sent once they are committed."""
    writes = explained(
        ports,
        "alert_raised",
        account_id,
        f"{cause}/{subject}",
        detail,
        named="detail_sha256",
        attempt=attempt,
        status="raised",
        severity=severity,
        cause=cause,
        subject=subject,
        cause_receipt_id=cause_receipt.data["receipt_id"] if cause_receipt else None,
        drill=drill,
    )
    told = Alert(writes[0].data["receipt_id"], severity, cause, account_id, subject, detail)
    return writes, told


def commit_once(
    ports: Ports,
    writes: Sequence[Write],
    *,
    asks_for_seal: bool = True,
    patience_s: float = LANDING_PATIENCE_S,
) -> list[str]:
    """Commit, and when the reply was lost find out whether it landed; land it once or not at all.

    Args:
        ports: the store, and Memory, where the ledgers that grew are marked.
        writes: one commit.
        asks_for_seal: false where the caller marks the ledger itself, with what it tells anyway.
        patience_s: how long it is repeated while the store does not answer; a call may outlast it.

    Returns:
        The revision of each write, as ``Documents.commit`` does.

    Raises:
        ConflictError: another process wrote first; nothing of this commit is stored.
        OutageError: still no answer after ``patience_s``; it MAY HAVE LANDED. Or the receipt was
            signed too long ago, and nothing was written.
    """
    refuse_if_stale(ports, writes)
    revisions = _patiently(lambda: _commit(ports, writes), patience_s)
    if asks_for_seal:
        ask_for_a_seal(ports, writes)
    return revisions


def commit_each_once(
    ports: Ports, commits: Sequence[Sequence[Write]], *, patience_s: float
) -> list[Landed]:
    """``commit_once`` for several commits at the price of one; no ledger is marked.

    Returns:
        For each its revisions, or what ``commit_once`` would have raised; nothing of it is stored.

    Raises:
        OutageError: still no answer after ``patience_s``; any of them MAY HAVE LANDED.
    """
    for writes in commits:
        refuse_if_stale(ports, writes)
    if len(commits) == 1:
        return _patiently(lambda: one_by_one(lambda one: _commit(ports, one), commits), patience_s)
    return _patiently(lambda: _commit_each(ports, commits), patience_s)


def _patiently(commit: Callable[[], T], patience_s: float) -> T:
    try:
        return commit()  # a twentieth of a millisecond less where it is well
    except OutageError:
        waiting = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(OutageError),
            stop=tenacity.stop_after_delay(patience_s),
            wait=tenacity.wait_exponential_jitter(multiplier=0.02, max=0.5, jitter=0.05),
            reraise=True,
        )
        return waiting(commit)


def _commit(ports: Ports, writes: Sequence[Write]) -> list[str]:
    try:
        return ports.documents.commit(writes)
    except ConflictError as error:
        settled = _settled(ports, writes, error)
        if isinstance(settled, list):
            return settled
        raise


def _commit_each(ports: Ports, commits: Sequence[Sequence[Write]]) -> list[Landed]:
    return [
        _settled(ports, writes, landed) if isinstance(landed, ConflictError) else landed
        for writes, landed in zip(commits, ports.documents.commit_each(commits), strict=True)
    ]


def _settled(ports: Ports, writes: Sequence[Write], error: ConflictError) -> Landed:
    """Whether an earlier try of a refused commit has landed."""
    landed = _committed(ports, writes)
    if landed is not None:
        return landed
    _tell_of_a_conflict(ports, writes)
    return error


def refuse_if_stale(ports: Ports, writes: Sequence[Write]) -> None:
    """A process that stood still since it signed must not commit: its receipt would say then.

    Raises:
        OutageError: it did; nothing was written.
    """
    for write in writes:
        if isinstance(write, Create) and account_of(write):
            age = ports.clock.now() - instant(write.data["timestamp"])
            if age > STALE_AFTER:
                raise OutageError(
                    "receipt-stale",
                    f"a receipt was signed {age.total_seconds():.0f} s ago by this clock: the "
                    "process was paused, or the clock was set. Nothing was written",
                )


def commit_and_send(ports: Ports, told: Alert, *writes: Write) -> bool:
    """Commit an alert's receipt, and what goes with it, and only then send it.

    False when this alert was raised before: each is raised only once, for ever. Nothing was written
    or sent.

    Raises:
        OutageError: as ``commit_once`` does; nothing was sent.
    """
    try:
        commit_once(ports, writes)
    except ConflictError:
        return False
    ports.alerts.send(told)
    return True


def _tell_of_a_conflict(ports: Ports, writes: Sequence[Write]) -> None:
    """Receipt and alarm that one operation has two different receipts; the first one is kept.

    Where the state moved as well, another process was merely faster, and all is in order.
    """
    told_twice = [
        (write, kept)
        for write in writes
        if isinstance(write, Create) and account_of(write)
        for kept in [ports.documents.get(write.path)]
        if kept is not None and kept.data != write.data
    ]
    states = [write for write in writes if not account_of(write) and not is_text(write)]
    if not told_twice or not states or not all(_still_holds(ports, write) for write in states):
        return
    for write, kept in told_twice:
        account_id, name = account_of(write), write.path.rpartition("/")[2]
        proof = receipt(
            ports,
            "receipt_conflict",
            account_id,
            name,
            status="conflict",
            subject=name,
            kept_sha256=kept.data["sha256"],
            refused_sha256=write.data["sha256"],
        )
        raised, told = alert(
            ports,
            "critical",
            "receipt-conflict",
            account_id,
            name,
            f"receipt {name} exists with other content; it was kept",
            cause_receipt=proof,
        )
        commit_and_send(ports, told, proof, *raised)


def _still_holds(ports: Ports, write: Write) -> bool:
    """Whether a write's own precondition is fulfilled now."""
    found = ports.documents.get(write.path)
    if isinstance(write, Create):
        return found is None
    return found is not None and found.revision == write.revision


def account_of(write: Write) -> str:
    """The account whose ledger a write adds to; empty when it is no receipt."""
    segments = write.path.split("/")
    return segments[1] if segments[2:3] == ["receipts"] else ""


def is_text(write: Write) -> bool:
    """Whether a write is the free text beside a receipt, and no state of its own."""
    return write.path.split("/")[2:3] == ["texts"]


def ask_for_a_seal(ports: Ports, writes: Sequence[Write]) -> None:
    """Mark the ledgers that grew; where Memory is away, the reconcile finds them."""
    grown = sorted({account_of(write) for write in writes} - {""})
    if not grown:
        return
    try:
        ports.unsealed.mark_unsealed(*grown, is_one_of_many=len(grown) > _MANY)
    except OutageError as error:
        names = ", ".join(grown[:_MANY])
        _LOG.warning("sealed by the hourly pass, not at once: the ledger of %s: %s", names, error)


def _committed(ports: Ports, writes: Sequence[Write]) -> list[str] | None:
    """The revisions of these writes, if the store holds what they leave behind: our own commit."""
    revisions = []
    for write in writes:
        found = ports.documents.get(write.path)
        match write:
            case Create(_, data) | Update(_, data, _):
                if found is None or found.data != data:
                    return None
                revisions.append(found.revision)
            case Delete(_, revision):
                if found is not None and found.revision == revision:
                    return None
                revisions.append("")
    return revisions
