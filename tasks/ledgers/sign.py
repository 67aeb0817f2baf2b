"""A seal gets its checkpoint: read back, recomputed, mirrored, signed.

Nothing is signed that was not read back, and never two trees of one number: the copies of the
checkpoints in Objects are numbered like the seals and can only be created, so what a restored
database would have signed once more is already there.
"""

import logging

from governor import paths, times
from governor.errors import ConflictError, GovernorError, InputError
from governor.records import NO_TIME, SYSTEM_ACCOUNT
from governor.times import timestamp
from ledger.audit import check_checkpoint, check_created
from ledger.checkpoint import sign
from ledger.log import Leaf, Seal, again, next_seal, parse_leaf
from ports import Ports
from ports.documents import Create, Document
from tasks.ledgers.stored_log import BrokenLogError, StoredLog, stored, tree_of
from tasks.receipts.commit import alert, commit_and_send, commit_once

_LOG = logging.getLogger("ggen.ledger")


def sign_newest(ports: Ports, account_id: str, seal: Seal, *, is_ours: bool = False) -> None:
    """See to it that the newest seal has its checkpoint, and that it is that of its tree.

    Args:
        ports: the stores and keys.
        account_id: whose ledger.
        seal: the newest seal.
        is_ours: whether this very process built it, from receipts it verified.

    Raises:
        BrokenLogError: the seal is not what its receipts make, or not the tree that was signed.
        OutageError: a store is away; the next sealer goes on from the stored state.
    """
    log = StoredLog.of(ports, account_id)
    before = log.seal_at(seal.number - 1)
    if before:
        check_signed(ports, account_id, before)
    _recompute(ports, account_id, before, seal)
    if log.note_of(seal) is None:
        if not is_ours:
            _recompute_from_receipts(ports, account_id, before, seal)
        note = _mirror(ports, account_id, seal)
        try:
            path = paths.checkpoint_path(account_id, seal.seal_id)
            commit_once(ports, [Create(path, {"note": note})])
        except ConflictError:
            pass  # another sealer's, which is checked like any
    check_signed(ports, account_id, seal)


def check_signed(ports: Ports, account_id: str, seal: Seal) -> None:
    """Check that a seal has a checkpoint, and that it states the seal's own tree.

    Raises:
        BrokenLogError: it has none, or not that one.
    """
    note = StoredLog.of(ports, account_id).note_of(seal)
    if note is None:
        raise BrokenLogError(account_id, f"seal {seal.number} has no checkpoint")
    _check_note(ports, account_id, seal, note, f"checkpoint {seal.number}")


def refuse_an_older_copy(ports: Ports, account_id: str, last: Seal | None) -> None:
    """Refuse to go on where a checkpoint was signed that the store knows nothing of.

    Raises:
        BrokenLogError: the store was restored from a backup, or its end was removed.
    """
    log = StoredLog.of(ports, account_id)
    number = last.number + 1 if last else 1
    if log.mirrored(number) is None:
        return
    latest = log.newest()
    if latest is not None and latest.number >= number:
        return  # another sealer has just been here
    raise BrokenLogError(
        account_id,
        f"the store ends with seal {number - 1}, but checkpoint {number} was signed: it is an "
        "older copy, or its end was removed. Nothing is sealed on top of it; restore the newer one",
    )


def raise_alarm(ports: Ports, account_id: str, error: Exception) -> None:
    """Tell, once a day, of a ledger that cannot be trusted; on the platform's own ledger."""
    is_ours = not isinstance(error, GovernorError)
    _LOG.critical("the ledger of %s: %s", account_id, error, exc_info=error if is_ours else None)
    today = int(ports.clock.now().strftime("%Y%m%d"))
    proof, told = alert(
        ports,
        "critical",
        "ledger-broken",
        SYSTEM_ACCOUNT,
        account_id,
        str(error) or type(error).__name__,
        attempt=today,
    )
    commit_and_send(ports, told, *proof)


def _recompute(ports: Ports, account_id: str, before: Seal | None, seal: Seal) -> None:
    """Read a seal back, and hash its leaves a second time from what the store gave."""
    try:
        expected = again(account_id, before, seal.leaves)
    except InputError as error:
        raise BrokenLogError(account_id, f"seal {seal.number}: {error.detail}") from error
    if expected != seal or StoredLog.of(ports, account_id).seal_at(seal.number) != seal:
        raise BrokenLogError(account_id, f"seal {seal.number} was read back with another tree")


def _recompute_from_receipts(
    ports: Ports, account_id: str, before: Seal | None, seal: Seal
) -> None:
    """Rebuild another sealer's seal from the receipts it names, before anything signs it."""
    leaves = [parse_leaf(text) for text in seal.leaves]
    ids = [leaf.receipt_id for leaf in leaves]
    found = [ports.documents.get(paths.receipt_path(account_id, each)) for each in ids]
    present = [document for document in found if document is not None]
    if len(present) < len(ids) or len(set(ids)) < len(ids):
        raise BrokenLogError(account_id, f"seal {seal.number} names receipts that are not there")
    if StoredLog.of(ports, account_id).known_ids(before, present).intersection(ids):
        raise BrokenLogError(account_id, f"seal {seal.number} names receipts that are sealed")
    ring, now = ports.keys.ring(), ports.clock.now()
    rebuilt = next_seal(account_id, before, list(map(stored, present)), ring, now)
    in_order = _in_order(ports, account_id, before, present) and _in_time(before, leaves, present)
    if not in_order or [_plain(parse_leaf(t)) for t in rebuilt.leaves] != list(map(_plain, leaves)):
        raise BrokenLogError(account_id, f"seal {seal.number} is not that of its receipts")


def _in_order(ports: Ports, account_id: str, before: Seal | None, batch: list[Document]) -> bool:
    """Whether a batch, but for what was overlooked before it, is what had its turn, in order."""
    floor = times.instant(before.recorded_until) if before else None
    due = [document for document in batch if floor is None or document.created_at >= floor]
    if ports.documents.late_s:
        order = [(document.created_at, document.path) for document in due]
        return order == sorted(order)
    expected = StoredLog.of(ports, account_id).unsealed(before, len(due))
    return [document.path for document in due] == [document.path for document in expected]


def _in_time(before: Seal | None, leaves: list[Leaf], batch: list[Document]) -> bool:
    """Whether another sealer's leaves say of each receipt when it can have been recorded."""
    previous = before.recorded_until if before else ""
    for leaf, document in zip(leaves, batch, strict=True):
        if any(not f.holds for f in check_created(leaf, document.created_at, previous)):
            return False
        previous = leaf.recorded_at
    return True


def _mirror(ports: Ports, account_id: str, seal: Seal) -> str:
    """Sign, and keep the note where a restored database cannot take it back; the one that counts.

    A sealer that kept a note before us has signed this number: its tree must be this very one.
    """
    log = StoredLog.of(ports, account_id)
    kept = log.mirrored(seal.number)
    if kept is None:
        note = sign(tree_of(seal, ports.keys.ring().log_origin(account_id)), ports.keys.signer())
        try:
            ports.objects.create(paths.mirror_name(account_id, seal.seal_id), note.encode())
        except ConflictError:
            kept = log.mirrored(seal.number) or ""
        else:
            return note
    _check_note(ports, account_id, seal, kept, f"the copy of checkpoint {seal.number}")
    return kept


def _check_note(ports: Ports, account_id: str, seal: Seal, note: str, where: str) -> None:
    ring = ports.keys.ring()
    tree = tree_of(seal, ring.log_origin(account_id))
    if (seal.tree().size, seal.tree().root()) != (tree.size, tree.root):
        raise BrokenLogError(account_id, f"seal {seal.number} states another root than its tree")
    for fault in check_checkpoint(note, where, None, tree, ring):
        raise BrokenLogError(account_id, f"{where}: {fault.fault}")


def _plain(leaf: Leaf) -> Leaf:
    """A leaf without its time, which is each sealer's, and the words of its rejection."""
    rejected = None if leaf.rejected is None else ""
    return leaf.evolve(rejected=rejected, recorded_at=timestamp(NO_TIME))
