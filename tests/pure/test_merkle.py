import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import merkle
from ledger.merkle import Frontier, Subtree, leaf_hash, node_hash

# RFC 6962's reference leaves, and the first four bytes of the roots over the first 0 to 8 of them.
LEAVES = [
    bytes.fromhex(text)
    for text in "/00/10/2021/3031/40414243/5051525354555657/606162636465666768696a6b6c6d6e6f".split(
        "/"
    )
]
ROOTS = "e3b0c442 6e340b9c fac54203 aeb6bcfe d37ee418 4e3bbb1f 76e67dad ddb89be4 5dc9da79".split()
SIZES = st.integers(1, 70)


def _leaves(count: int) -> list[bytes]:
    return [n.to_bytes(2, "big") for n in range(count)]


@pytest.mark.parametrize(("size", "root"), list(enumerate(ROOTS)))
def test_the_reference_leaves_have_the_reference_roots(size: int, root: str) -> None:
    assert merkle.root(LEAVES[:size]).hex()[:8] == root


def test_a_leaf_and_a_node_of_the_same_bytes_differ() -> None:
    left, right = leaf_hash(b"l"), leaf_hash(b"r")

    assert leaf_hash(left + right) != node_hash(left, right)


@given(SIZES, st.data())
def test_every_leaf_is_proved_and_no_other_is(size: int, data: st.DataObject) -> None:
    leaves, index = _leaves(size), data.draw(st.integers(0, size - 1))
    root, proof = merkle.root(leaves), merkle.inclusion_proof(leaves, index)
    hashed = leaf_hash(leaves[index])

    assert merkle.verify_inclusion(index, size, hashed, proof, root)
    assert not merkle.verify_inclusion(index, size, leaf_hash(b"other"), proof, root)
    assert not merkle.verify_inclusion(index, size, hashed, [*proof, root], root)
    assert not merkle.verify_inclusion(index, size, hashed, proof, leaf_hash(root))
    assert not any(
        merkle.verify_inclusion(other, size, hashed, proof, root)
        for other in range(-1, size + 1)
        if other != index
    )
    assert not proof or not merkle.verify_inclusion(index, size, hashed, proof[:-1], root)


@given(SIZES, st.data())
def test_every_beginning_of_a_log_is_proved_and_no_other_is(size: int, data: st.DataObject) -> None:
    leaves, old = _leaves(size), data.draw(st.integers(1, size))
    roots = merkle.root(leaves[:old]), merkle.root(leaves)
    proof = merkle.consistency_proof(leaves, old)

    assert merkle.verify_consistency(old, size, *roots, proof)
    assert not merkle.verify_consistency(old, size, *roots, [*proof, roots[0]])
    forged = merkle.root([b"forged", *leaves[1:old]])
    assert not merkle.verify_consistency(old, size, forged, roots[1], proof)
    if old < size:
        assert not merkle.verify_consistency(old, size, roots[0], roots[0], proof)
        assert not merkle.verify_consistency(old, size, *roots, proof[:-1])
        assert not merkle.verify_consistency(size, old, roots[1], roots[0], proof)


def test_nothing_is_shown_from_the_empty_tree() -> None:
    assert not merkle.verify_consistency(0, 1, merkle.EMPTY_ROOT, merkle.root([b"a"]), [])
    assert not merkle.verify_consistency(0, 0, merkle.EMPTY_ROOT, merkle.EMPTY_ROOT, [])


def test_what_is_out_of_range_is_an_error_not_a_proof() -> None:
    with pytest.raises(IndexError):
        merkle.inclusion_proof(LEAVES, 8)
    with pytest.raises(IndexError):
        merkle.inclusion_proof(LEAVES, -1)
    with pytest.raises(IndexError):
        merkle.consistency_proof(LEAVES, 9)


def test_a_hash_cut_up_differently_proves_nothing() -> None:
    leaves = _leaves(2)
    root, (sibling,) = merkle.root(leaves), merkle.inclusion_proof(leaves, 0)
    hashed = leaf_hash(leaves[0])

    assert merkle.verify_inclusion(0, 2, hashed, [sibling], root)
    assert not merkle.verify_inclusion(0, 2, hashed + sibling[:1], [sibling[1:]], root)
    assert not merkle.verify_consistency(1, 2, hashed + sibling[:1], root, [sibling[1:]])


@given(st.integers(0, 40), SIZES, st.data())
def test_proofs_of_the_newest_leaves_need_only_the_edge_of_what_came_before(
    before: int, newest: int, data: st.DataObject
) -> None:
    leaves = _leaves(before + newest)
    edge = Frontier()
    for leaf in leaves[:before]:
        edge = edge.append(leaf_hash(leaf))
    tree = Subtree(edge, [leaf_hash(leaf) for leaf in leaves[before:]])
    index = data.draw(st.integers(before, before + newest - 1))

    assert edge.root() == merkle.root(leaves[:before])
    assert tree.inclusion_proof(index) == merkle.inclusion_proof(leaves, index)
    assert tree.consistency_proof(before) == merkle.consistency_proof(leaves, before)
