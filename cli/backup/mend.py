"""What a newer archive has and a restored store lacks: receipts, seals, checkpoints, put back.

An archive has every leaf and every receipt, in order, and the signed tree they lead to. The copies
of checkpoints say where each seal ended; without them, the missing leaves become one seal.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from adapters import wiring
from adapters.local.copies import Row
from config.settings import Settings
from governor.errors import InputError
from governor.paths import checkpoint_path, mirror_name, receipt_path, seal_path
from ledger import archive, tiles
from ledger.audit import check_checkpoint
from ledger.checkpoint import open_checkpoint
from ledger.keys import KeyRing
from ledger.log import MAX_LEAVES, Seal, again, parse_leaf
from ledger.receipt import from_envelope
from ports import Ports
from tasks.archives import unpacked
from tasks.archives.judge import judge_archive
from tasks.ledgers.stored_log import StoredLog, tree_of


def take(settings: Settings, archives: Sequence[Path]) -> int:
    """Put the missing receipts back, archive by archive; how many.

    Raises:
        InputError: an archive does not hold, is not of these keys, or does not go on from the
            store. Of this archive nothing was taken.
    """
    return sum(_take(settings, path) for path in archives)


def _take(settings: Settings, path: Path) -> int:
    ports = wiring.open_ports(settings)
    ring = ports.keys.ring()
    judged = judge_archive(path, ring)
    if judged.report.findings or judged.report.tree is None:
        first = judged.report.findings[0]
        raise InputError("bad-archive", f"{path}: {first.subject}: {first.fault}; it was not taken")
    account_id, size = judged.report.account_id, judged.report.tree.size
    last = StoredLog.of(ports, account_id).newest_signed()
    known = last.tree_size if last else 0
    if known >= size:
        return 0
    if judged.first > known:
        raise InputError(
            "archive-too-late",
            f"{path} begins at receipt {judged.first}, and the store ends at {known}: give the "
            "segments before it, too. It was not taken",
        )
    with tempfile.TemporaryDirectory(prefix="ggen-restore-") as name:
        folder = Path(name)
        unpacked.unpack(path, folder)
        leaves = list(_leaves(folder, size))[known - judged.first :]
        lines = (folder / archive.RECEIPTS).read_bytes().splitlines()[known - judged.first :]
        note = (folder / archive.CHECKPOINT).read_text()
    seals = _seals(ports, ring, account_id, last, leaves, note)
    sealed = seals[-1][0].tree_size - known
    rows = [_receipt_row(account_id, *each) for each in zip(leaves[:sealed], lines, strict=False)]
    for seal, signed in seals:
        at = seal.recorded_until
        rows.append((seal_path(account_id, seal.seal_id), seal.document(), at))
        rows.append((checkpoint_path(account_id, seal.seal_id), {"note": signed}, at))
    ports.documents.close()
    wiring.put_back(settings, rows)
    for seal, signed in seals:
        ports.objects.create(mirror_name(account_id, seal.seal_id), signed.encode())
    return sealed


def _leaves(folder: Path, size: int) -> Iterator[str]:
    listed = folder / archive.LEAVES
    if listed.is_file():
        yield from listed.read_text().splitlines()
        return
    for name in tiles.bundle_names(size):
        for entry in tiles.entries((folder / name).read_bytes()):
            yield entry.decode()


def _receipt_row(account_id: str, leaf_text: str, line: bytes) -> Row:
    """The stored document of a line, created when its leaf says that it was recorded."""
    leaf = parse_leaf(leaf_text)
    path = receipt_path(account_id, leaf.receipt_id)
    if leaf.rejected is not None:
        return path, json.loads(line)["rejected"], leaf.recorded_at
    return path, from_envelope(line).document(), leaf.recorded_at


def _seals(
    ports: Ports,
    ring: KeyRing,
    account_id: str,
    last: Seal | None,
    leaves: Sequence[str],
    note: str,
) -> list[tuple[Seal, str]]:
    """The seals these leaves make, each with the checkpoint that was signed for its tree."""
    log, origin = StoredLog.of(ports, account_id), ring.log_origin(account_id)
    made: list[tuple[Seal, str]] = []
    rest = list(leaves)
    while rest:
        number = last.number + 1 if last else 1
        signed = log.mirrored(number) or note
        checkpoint, _ = open_checkpoint(signed, origin, ring)
        count = checkpoint.size - (last.tree_size if last else 0)
        if count > min(len(rest), MAX_LEAVES):
            break  # the archive ends before this seal, or the checkpoints between were lost
        last = again(account_id, last, rest[:count])
        where = f"checkpoint {number}"
        for fault in check_checkpoint(signed, where, None, tree_of(last, origin), ring):
            raise InputError("other-tree", f"{where}: {fault.fault}; the archive was not taken")
        made.append((last, signed))
        rest = rest[count:]
    if not made:
        raise InputError(
            "no-checkpoints",
            f"the copies of checkpoints of {account_id} that say where its seals end are gone; "
            "the archive was not taken",
        )
    return made
