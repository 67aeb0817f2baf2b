"""The receipt that ends an entitlement, as it lies beside the archive it speaks of, judged.

``decommission_complete`` names the archive, and so cannot be in it: ``….complete.json`` has its
envelope, its leaf, the proofs that lead from the archived tree and from that leaf to a signed
checkpoint (RFC 9162, 2.1.3.2 and 2.1.4.2), and the public keys: one may be newer than the archive.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from governor.errors import InputError
from governor.records import Record
from ledger import canonical
from ledger.audit import Entry, examine
from ledger.balance import Balance
from ledger.checkpoint import Checkpoint, open_checkpoint
from ledger.keys import KeyRing, parse_ring, within
from ledger.log import Hash, Leaf, parse_leaf
from ledger.merkle import leaf_hash, verify_consistency, verify_inclusion
from ledger.verify import Check, Finding

OPERATION = "decommission_complete"


class Completion(Record):
    """The content of ``….complete.json``."""

    receipt: Mapping[str, Any]
    leaf: str
    inclusion_proof: Sequence[Hash]
    archived_size: int
    consistency_proof: Sequence[Hash]
    checkpoint: str
    keys: Mapping[str, Any]

    def text(self) -> bytes:
        """The file's content."""
        return (json.dumps(self.document(), indent=1, sort_keys=True) + "\n").encode()


@dataclass(frozen=True, slots=True)
class Archive:
    """What it is held against: the tree of an archive, the counts in it, the files' SHA-256."""

    account_id: str
    tree: Checkpoint
    balance: Balance
    digests: Sequence[str]


def judge_completion(text: bytes, where: str, archive: Archive, ring: KeyRing) -> Iterator[Finding]:
    """What does not hold of a ``….complete.json``, given the archive beside it. Nothing is skipped.

    Where segments were archived before, ``archive.digests`` has either all files, oldest first, or
    that of the last alone.
    """
    try:
        told = Completion.model_validate(canonical.loads(text))
        ring = within(ring, parse_ring(canonical.dumps(told.keys)))
        leaf = parse_leaf(told.leaf)
        line = canonical.dumps(told.receipt)
        reached, _ = open_checkpoint(told.checkpoint, archive.tree.origin, ring)
    except (ValidationError, InputError) as error:
        why = error.detail if isinstance(error, InputError) else "it has not the form of one"
        yield Finding(where, Check.INTEGRITY, f"is no proof of a receipt: {why}")
        return
    yield from examine([Entry(told.leaf, line)], archive.account_id, ring)
    yield from _places(told, leaf, where, archive.tree, reached)
    yield from archive.balance.take(line, lambda: where)
    fields = _fields(told)
    if fields.get("operation") != OPERATION:
        yield Finding(where, Check.INTEGRITY, f"is no {OPERATION}")
        return
    segments = [each.get("archive_sha256") for each in fields.get("segments", [])]
    digests = [*segments, fields.get("archive_sha256")]
    for name, stated, found in (
        ("checkpoint_size", fields.get("checkpoint_size"), archive.tree.size),
        ("checkpoint_root", fields.get("checkpoint_root"), archive.tree.root.hex()),
        ("archive_sha256", digests[-len(archive.digests) :], list(archive.digests)),
    ):
        if stated != found:
            yield Finding(where, Check.CONSISTENCY, f"its {name} is not that of the archive")


def _places(
    told: Completion, leaf: Leaf, where: str, archived: Checkpoint, reached: Checkpoint
) -> Iterator[Finding]:
    path = [bytes.fromhex(node) for node in told.inclusion_proof]
    node = leaf_hash(told.leaf.encode())
    if leaf.index < archived.size:
        yield Finding(where, Check.ORDERING, "is in the log before the archive's end")
    if not verify_inclusion(leaf.index, reached.size, node, path, reached.root):
        yield Finding(where, Check.INCLUSION, "is not in the tree of its checkpoint")
    proof = [bytes.fromhex(node) for node in told.consistency_proof]
    goes_on = told.archived_size == archived.size and verify_consistency(
        archived.size, reached.size, archived.root, reached.root, proof
    )
    if not goes_on:
        yield Finding(where, Check.CONSISTENCY, "its checkpoint does not go on from the archive")


def _fields(told: Completion) -> Mapping[str, Any]:
    """The receipt's fields; those of something else are none."""
    try:
        fields = canonical.loads(base64.b64decode(told.receipt["payload"]))
    except (InputError, ValueError, LookupError, TypeError):
        return {}
    return fields if isinstance(fields, dict) else {}
