"""Sealing: receipts that are committed get their order, and a signature over all of it.

Any number of processes may seal at once: the first to create the next seal decides it. One round:

    (1) sign     the newest seal has its checkpoint; where its sealer died, it is signed now
    (2) look     at the receipts that are not in the log yet, in order of creation
    (3) seal     rehash and append them, create the next seal; another sealer was first: look again
    (4) sign     read it back, recompute it, keep a copy of its checkpoint elsewhere, sign it

A commit leaves a mark in Memory, and so does a verification that asks for a seal; a sweep takes
the marks, and a reconcile finds what has none.
"""

import logging

from governor import paths, times
from governor.errors import ConflictError, OutageError
from ledger.checkpoint import open_checkpoint
from ledger.log import MAX_LEAVES, Leaf, Seal, next_seal, parse_leaf
from ports import Ports
from ports.alerts import Alert
from ports.documents import Create, Document
from tasks.ledgers import measure, stored_log, trace
from tasks.ledgers.sign import raise_alarm, refuse_an_older_copy, sign_newest
from tasks.ledgers.stored_log import StoredLog
from tasks.receipts.commit import alert, commit_and_send, commit_once, receipt

_LOG = logging.getLogger("ggen.ledger")
_MAX_ROUNDS = 16
"""Seals made, or lost to others, in one call; the next call goes on with the rest."""

_WORTH_A_ROUND = 64
"""After fewer receipts than this a sealer does not look again at once: a ledger that keeps growing
would otherwise be sealed a few receipts at a time, each round for the price of sixty."""

_AT_ONCE = 8
"""Ledgers one sweep takes."""

_HOLD_S = 10
"""How long a sweep may take before another one goes after the same ledgers."""


def sweep(ports: Ports) -> bool:
    """Seal the ledgers that grew, those that wait longest first; whether there may be more."""
    taken = ports.unsealed.take_unsealed(_AT_ONCE, _HOLD_S)
    for account_id, token in taken:
        try:
            is_done = seal_or_report(ports, account_id)
        except OutageError as error:  # it is taken again when the hold ends
            _LOG.warning("the ledger of %s is not sealed: %s", account_id, error)
            continue
        if is_done:
            ports.unsealed.sealed(account_id, token)
        else:
            ports.unsealed.mark_unsealed(account_id)
    return len(taken) == _AT_ONCE


def seal_or_report(ports: Ports, account_id: str, late: tuple[str, ...] = ()) -> bool:
    """Seal a ledger; one that is broken raises an alert instead, and is left as it is."""
    try:
        return seal_ledger(ports, account_id, late)
    except OutageError:
        raise
    except Exception as error:  # whatever is wrong with one ledger, the others are sealed
        raise_alarm(ports, account_id, error)
        return True


def seal_ledger(ports: Ports, account_id: str, late: tuple[str, ...] = ()) -> bool:
    """Seal the receipts that are not sealed yet; False when there is more to do.

    Args:
        ports: the stores, the keys and the clock.
        account_id: whose ledger.
        late: ids of receipts that a reconcile found missing from the log, though receipts that
            were created after them are in it.

    Raises:
        BrokenLogError: the stored log was tampered with, or is an older copy. Nothing was signed.
        OutageError: a store is away; what was done stays, and the next sealer goes on.
    """
    for _ in range(_MAX_ROUNDS):
        last = StoredLog.of(ports, account_id).newest()
        if last:
            sign_newest(ports, account_id, last)
        refuse_an_older_copy(ports, account_id, last)
        batch = _overlooked(ports, account_id, last, late)
        taken = {document.path for document in batch}
        due = StoredLog.of(ports, account_id).unsealed(last, MAX_LEAVES - len(batch))
        batch += [document for document in due if document.path not in taken]
        if not batch:
            return True
        if last and _tell_of_a_new_key(ports, account_id, last):
            continue  # its receipt belongs into this very seal
        built = _create(ports, account_id, last, batch)
        if built:
            measure.count(ports, batch)
            trace.note(ports, batch)
            sign_newest(ports, account_id, built, is_ours=True)
            if len(batch) < _WORTH_A_ROUND:
                return True  # what came meanwhile left a mark of its own, for the next sweep
    return False


def _create(ports: Ports, account_id: str, last: Seal | None, batch: list[Document]) -> Seal | None:
    """Create the next seal; None when another sealer was first."""
    stored = list(map(stored_log.stored, batch))
    built = next_seal(account_id, last, stored, ports.keys.ring(), ports.clock.now())
    write = Create(paths.seal_path(account_id, built.seal_id), built.document())
    rejected = [leaf for text in built.leaves if (leaf := parse_leaf(text)).rejected is not None]
    if rejected:
        proofs, told = _poison(ports, account_id, built, rejected)
        return built if commit_and_send(ports, told, write, *proofs) else None
    try:
        commit_once(ports, [write])
    except ConflictError:
        return None
    return built


def _overlooked(
    ports: Ports, account_id: str, last: Seal | None, late: tuple[str, ...]
) -> list[Document]:
    """Of the receipts a reconcile named, those that are still there and not in the log."""
    found = [ports.documents.get(paths.receipt_path(account_id, each)) for each in late]
    missed = [
        document
        for document in found
        if document and last and times.timestamp(document.created_at) < last.recorded_until
    ]
    known = StoredLog.of(ports, account_id).known_ids(last, missed)
    return [d for d in missed if stored_log.id_of(d) not in known][: MAX_LEAVES // 2]


def _tell_of_a_new_key(ports: Ports, account_id: str, last: Seal) -> bool:
    """Receipt that another key signs from here on; False when that is nothing new."""
    ring, signer = ports.keys.ring(), ports.keys.signer()
    note = StoredLog.of(ports, account_id).note_of(last) or ""
    _, before = open_checkpoint(note, ring.log_origin(account_id), ring)
    if before.key_id == signer.key_id:
        return False
    proof = receipt(
        ports,
        "key_rotated",
        account_id,
        signer.key_id,
        previous_key_id=before.key_id,
        key_id=signer.key_id,
    )
    try:
        commit_once(ports, [proof])
    except ConflictError:
        return False  # receipted before
    return True


def _poison(
    ports: Ports, account_id: str, seal: Seal, rejected: list[Leaf]
) -> tuple[list[Create], Alert]:
    named = "; ".join(f"{leaf.receipt_id}: {leaf.rejected}" for leaf in rejected[:5])
    return alert(
        ports,
        "critical",
        "poison-receipt",
        account_id,
        f"seal {seal.number}",
        f"{len(rejected)} stored documents are no receipts of this ledger, and were sealed as "
        f"rejected: {named}",
    )
