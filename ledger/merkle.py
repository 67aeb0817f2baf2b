"""The Merkle tree of RFC 6962 section 2.1 (RFC 9162 section 2.1): roots and proofs.

A leaf is hashed with a 0x00 before it, two nodes with a 0x01 before them. ``Frontier`` is the tree
while it grows: it keeps one hash per binary digit of its size, so that appending costs the same
whatever the size.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
"""The root of a tree without leaves."""

Proof = Sequence[bytes]


def leaf_hash(leaf: bytes) -> bytes:
    """The hash of one leaf's bytes."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two neighbouring subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """The root over ``leaves``, given as their bytes, not as their hashes."""
    frontier = Frontier()
    for leaf in leaves:
        frontier = frontier.append(leaf_hash(leaf))
    return frontier.root()


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Siblings from the leaf up to the root (RFC 9162, 2.1.3.1).

    Raises:
        IndexError: there is no leaf ``index``.
    """
    return Subtree(Frontier(), [leaf_hash(leaf) for leaf in leaves]).inclusion_proof(index)


def verify_inclusion(index: int, size: int, leaf_hash: bytes, proof: Proof, root: bytes) -> bool:
    """Whether ``proof`` leads from a leaf to the root of a tree of ``size`` (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size or not _are_hashes(leaf_hash, *proof):
        return False
    found = leaf_hash
    for sibling, is_left in _path(index, size - 1, proof):
        found = node_hash(sibling, found) if is_left else node_hash(found, sibling)
    return len(proof) == _length(index, size - 1) and found == root


def consistency_proof(leaves: Sequence[bytes], old_size: int) -> list[bytes]:
    """What shows that the first ``old_size`` leaves are still there (RFC 9162, 2.1.4.1).

    Raises:
        IndexError: ``old_size`` is not between 0 and the number of leaves.
    """
    if not 0 <= old_size <= len(leaves):
        raise IndexError(f"no tree of {old_size} leaves precedes one of {len(leaves)}")
    tree = Subtree(Frontier(), [leaf_hash(leaf) for leaf in leaves])
    return tree.consistency_proof(old_size)


def verify_consistency(size1: int, size2: int, root1: bytes, root2: bytes, proof: Proof) -> bool:
    """Whether ``proof`` shows that tree 2 extends tree 1 (RFC 9162, 2.1.4.2).

    From size 0 the answer is always False: everything extends nothing, so nothing would be shown.
    """
    if not 0 < size1 <= size2:
        return False
    if size1 == size2:
        return not proof and root1 == root2
    if not proof or not _are_hashes(root1, *proof):
        return False
    # A first tree that is complete is itself the subtree the path begins with.
    first, *rest = proof if size1 & (size1 - 1) else [root1, *proof]
    position, last = size1 - 1, size2 - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old = new = first
    for sibling, is_left in _path(position, last, rest):
        if is_left:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
        else:
            new = node_hash(new, sibling)
    return len(rest) == _length(position, last) and (old, new) == (root1, root2)


@dataclass(frozen=True, slots=True)
class Frontier:
    """The right edge of a tree: the roots of its complete subtrees, largest first."""

    size: int = 0
    nodes: tuple[bytes, ...] = ()

    def append(self, leaf: bytes) -> "Frontier":
        """The tree with one more leaf, given as its hash."""
        nodes, size = list(self.nodes), self.size
        while size & 1:
            leaf = node_hash(nodes.pop(), leaf)
            size >>= 1
        return Frontier(self.size + 1, (*nodes, leaf))

    def root(self) -> bytes:
        """The root of the whole tree."""
        if not self.nodes:
            return EMPTY_ROOT
        *rest, found = self.nodes
        for node in reversed(rest):
            found = node_hash(node, found)
        return found

    def spans(self) -> dict[tuple[int, int], bytes]:
        """Its subtrees by the leaves they hold: (first, one past the last) -> root."""
        found, start = {}, 0
        for node in self.nodes:
            width = 1 << ((self.size - start).bit_length() - 1)
            found[start, start + width] = node
            start += width
        return found


class Subtree:
    """The newest leaves of a tree, of which everything before them is only a ``Frontier``."""

    def __init__(self, before: Frontier, leaf_hashes: Sequence[bytes]) -> None:
        self._first = before.size
        self._size = before.size + len(leaf_hashes)
        self._hashes = leaf_hashes
        self._known: Mapping[tuple[int, int], bytes] = before.spans()

    def inclusion_proof(self, index: int) -> list[bytes]:
        """The proof of one of the newest leaves, by its index in the whole tree.

        Raises:
            IndexError: it is not one of them.
        """
        if not self._first <= index < self._size:
            raise IndexError(f"leaf {index} is not among {self._first} to {self._size - 1}")
        low, high, proof = 0, self._size, []
        while high - low > 1:
            middle = low + _split(high - low)
            if index < middle:
                proof.append(self._root(middle, high))
                high = middle
            else:
                proof.append(self._root(low, middle))
                low = middle
        return proof[::-1]

    def consistency_proof(self, old_size: int) -> list[bytes]:
        """The proof that this tree extends its first ``old_size`` leaves."""
        low, high, proof = 0, self._size, []
        if old_size in (0, self._size):
            return []
        while old_size != high:
            middle = low + _split(high - low)
            if old_size <= middle:
                proof.append(self._root(middle, high))
                high = middle
            else:
                proof.append(self._root(low, middle))
                low = middle
        if low:  # the old tree is not itself a subtree of the new one: begin with its last part
            proof.append(self._root(low, high))
        return proof[::-1]

    def _root(self, low: int, high: int) -> bytes:
        if (low, high) in self._known:
            return self._known[low, high]
        if high - low == 1:
            return self._hashes[low - self._first]
        middle = low + _split(high - low)
        return node_hash(self._root(low, middle), self._root(middle, high))


def _split(width: int) -> int:
    """The largest power of two below ``width``, which is at least 2."""
    return 1 << ((width - 1).bit_length() - 1)


def _path(position: int, last: int, siblings: Proof) -> Iterator[tuple[bytes, bool]]:
    """The siblings a node meets on its way up, and whether each is on its left.

    ``position`` and ``last`` number the node and the last one of its level. Siblings beyond the
    root are left out.
    """
    for sibling in siblings:
        while position == last and not position & 1 and position:
            position, last = position >> 1, last >> 1  # the last of an odd level goes up as it is
        if last == 0:
            return
        yield sibling, bool(position & 1)
        position, last = position >> 1, last >> 1


def _length(position: int, last: int) -> int:
    """How many siblings a node meets on its way up to the root."""
    count = 0
    while last:
        count += position & 1 or position < last
        position, last = position >> 1, last >> 1
    return count


def _are_hashes(*given: bytes) -> bool:
    """Whether each is as long as a hash; of others, the same bytes could be cut up differently."""
    return all(len(one) == HASH_BYTES for one in given)
