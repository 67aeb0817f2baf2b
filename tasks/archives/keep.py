"""An archive kept in its bucket, and the proof of the receipt that speaks of it.

The archive of the same seals is the same bytes in every process, so that a repeated attempt finds
what an earlier one has created. It is read back and verified, with the keys alone, before anything
may be deleted on its account.
"""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from governor import paths
from governor.errors import ConflictError, InputError, OutageError
from ledger import merkle
from ledger.completion import Completion
from ledger.log import Seal
from ledger.receipt import SignedReceipt, envelope
from ports import Ports
from tasks.archives.judge import judge_archive
from tasks.archives.write import write_archive
from tasks.ledgers.seal import seal_ledger
from tasks.ledgers.stored_log import BrokenLogError, StoredLog

_SEALED_WITHIN_S = 20.0


@dataclass(frozen=True, slots=True)
class Kept:
    """An archive that lies in its bucket and was verified there."""

    name: str
    size_bytes: int
    sha256: str


def seal_all(ports: Ports, account_id: str) -> Seal:
    """Seal a ledger to its end; its last seal, which has its checkpoint.

    Raises:
        BrokenLogError: the log was tampered with; nothing was signed.
        OutageError: it is not sealed to its end yet; what was sealed stays.
    """
    began_s = ports.clock.monotonic_s()
    while not seal_ledger(ports, account_id):
        if ports.clock.monotonic_s() - began_s > _SEALED_WITHIN_S:
            raise OutageError("still-sealing", f"the ledger of {account_id} is being sealed", 1)
    last = StoredLog.of(ports, account_id).newest_signed()
    if last is None:
        raise OutageError("nothing-sealed", f"nothing of the ledger of {account_id} is sealed", 1)
    return last


def keep_archive(
    ports: Ports, account_id: str, after: Seal | None, last: Seal, names: Sequence[str]
) -> Kept:
    """Have the archive of everything between two seals in its bucket, verified (D16).

    Args:
        ports: the stores and keys.
        account_id: whose ledger.
        after: the seal before its first; None: it begins the ledger.
        last: the last seal that goes into it.
        names: what it is called; a later name where something else has the earlier ones. ``{}``
            stands for the first twelve digits of its digest.

    Raises:
        BrokenLogError: the ledger does not hold, or what lies in the bucket is not what was made.
        OutageError: a store is away; it may have been created, and repeating is safe.
    """
    with tempfile.TemporaryDirectory(prefix="ggen-keep-") as folder:
        path = Path(folder) / "archive.tar.gz"
        with path.open("wb") as file:
            made = write_archive(ports, account_id, file, last=last, after=after)
        content = path.read_bytes()
        for name in (each.format(made.sha256[:12]) for each in names):
            try:
                ports.archives.create(name, content)
                is_ours = True
            except ConflictError:  # perhaps an earlier attempt's, whose keys have changed since
                is_ours = False
            kept = ports.archives.get(name)
            if kept is None:
                raise OutageError("archive-vanished", f"{name} is not where it was created", 5)
            path.write_bytes(kept)
            if not (fault := _fault(ports, account_id, path, after, last)):
                return Kept(name, len(kept), hashlib.sha256(kept).hexdigest())
            if is_ours:
                raise BrokenLogError(account_id, f"its archive {name} does not hold: {fault}")
    raise BrokenLogError(account_id, f"other archives have the names {', '.join(names)}")


def _fault(ports: Ports, account_id: str, path: Path, after: Seal | None, last: Seal) -> str:
    """Why a file is not the archive of these seals; empty if it is."""
    try:
        judged = judge_archive(path, ports.keys.ring(), account_id)
    except InputError as error:
        return error.detail
    for finding in judged.report.findings:
        return f"{finding.subject}: {finding.fault}"
    found = judged.first, judged.report.sealed
    wanted = after.tree_size if after else 0, last.tree_size
    return "" if found == wanted else f"it has the receipts {found}, not {wanted}"


def publish_proof(ports: Ports, account_id: str, receipt_id: str, archived: Seal, name: str) -> str:
    """Have a receipt lie beside its archive, with what proves it to a stranger; the object's name.

    Raises:
        OutageError: it is not sealed yet, or a store is away; repeating is safe.
    """
    content = proof_of(ports, account_id, receipt_id, archived)
    beside = f"{name.removesuffix('.tar.gz')}.complete.json"
    if (there := ports.archives.get(beside)) is not None:
        if json.loads(there)["receipt"] != json.loads(content)["receipt"]:
            raise ConflictError("object-exists", f"{beside} is of another receipt; it was kept")
        return beside  # an earlier attempt's: perhaps under an earlier checkpoint, as good as this
    ports.archives.create(beside, content)
    return beside


def proof_of(ports: Ports, account_id: str, receipt_id: str, archived: Seal) -> bytes:
    """A receipt's envelope, its leaf, and the proofs that lead from it to a signed checkpoint.

    The tree of that checkpoint holds the leaf, and extends the archived one.
    """
    log = StoredLog.of(ports, account_id)
    found = ports.documents.get(paths.receipt_path(account_id, receipt_id))
    place = log.place_of(found) if found else None
    if found is None or place is None or (note := log.note_of(place.seal)) is None:
        raise OutageError("not-sealed", f"receipt {receipt_id} is not sealed yet", 1)
    leaves: list[bytes] = []
    for number in range(archived.number + 1, place.seal.number + 1):
        seal = log.seal_at(number)
        leaves += [merkle.leaf_hash(text.encode()) for text in seal.leaves] if seal else []
    tree = merkle.Subtree(archived.tree(), leaves)
    index = place.leaf.index
    return Completion(
        receipt=json.loads(envelope(SignedReceipt.stored(found.data))),
        leaf=place.seal.leaves[index - place.seal.first_index],
        inclusion_proof=[node.hex() for node in tree.inclusion_proof(index)],
        archived_size=archived.tree_size,
        consistency_proof=[node.hex() for node in tree.consistency_proof(archived.tree_size)],
        checkpoint=note,
        keys=ports.keys.ring().model_dump(mode="json", exclude_none=True),
    ).text()
