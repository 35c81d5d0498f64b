"""RFC 6962 trees: our roots and proofs against two independent readings of the text."""

from __future__ import annotations

import json
from functools import cache
from hashlib import sha256
from pathlib import Path

import pymerkle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core.errors import InvalidProof
from hanse.core.log.merkle import EMPTY_ROOT, SIZE_MAX, Frontier, leaf_hash, node_hash, root_of
from hanse.core.log.proofs import (
    consistency_proof,
    inclusion_proof,
    verify_consistency,
    verify_inclusion,
)

VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "rfc6962-roots.json").read_text())
SIZES = range(71)
ENTRIES = [b"event %d" % i for i in range(max(SIZES))]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]
OTHER = leaf_hash(b"another event")


@cache
def naive_root(start: int, end: int) -> bytes:
    """RFC 6962 section 2.1, word for word: MTH(D[start:end])."""
    if start == end:
        return sha256(b"").digest()
    if end - start == 1:
        return sha256(b"\x00" + ENTRIES[start]).digest()
    k = 1
    while k * 2 < end - start:
        k *= 2
    left, right = naive_root(start, start + k), naive_root(start + k, end)
    return sha256(b"\x01" + left + right).digest()


@pytest.fixture(scope="module")
def oracle() -> pymerkle.InmemoryTree:
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    for entry in ENTRIES:
        tree.append_entry(entry)
    return tree


def changed_bytes(proof: tuple[bytes, ...]) -> list[tuple[bytes, ...]]:
    """The proof with each of its bytes changed in turn."""
    changed = []
    for at, node in enumerate(proof):
        for byte in range(32):
            other = node[:byte] + bytes([node[byte] ^ 0x40]) + node[byte + 1 :]
            changed.append((*proof[:at], other, *proof[at + 1 :]))
    return changed


def misshapen(proof: tuple[bytes, ...]) -> list[tuple[bytes, ...]]:
    """The proof one longer, one shorter, reversed, and with a hash cut or stretched."""
    shapes = [(*proof, OTHER), (OTHER, *proof), proof[1:], proof[:-1], proof[::-1]]
    if proof:
        shapes += [(proof[0][:31], *proof[1:]), (*proof[:-1], proof[-1] + b"\x00")]
    return [shape for shape in shapes if shape != proof]


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_certificate_transparency(size: int) -> None:
    entries = [bytes.fromhex(leaf) for leaf in VECTOR["leaves"][:size]]
    assert root_of(map(leaf_hash, entries)).hex() == VECTOR["roots"][size]


@pytest.mark.parametrize("size", SIZES)
def test_the_frontier_gives_the_recursive_root_however_it_is_fed(size: int) -> None:
    expected = naive_root(0, size)
    assert root_of(LEAVES[:size]) == expected
    for split in range(size + 1):
        first = Frontier.empty().append(LEAVES[:split])
        whole = Frontier.decode(first.encode()).append(iter(LEAVES[split:size]))
        assert (whole.size, whole.root()) == (size, expected)


@pytest.mark.parametrize("size", SIZES)
def test_pymerkle_has_the_same_roots_and_inclusion_paths(
    size: int, oracle: pymerkle.InmemoryTree
) -> None:
    if size:
        assert root_of(LEAVES[:size]) == oracle.get_root(size)
    for index in range(size):
        theirs = oracle.prove_inclusion(index + 1, size)
        path = inclusion_proof(LEAVES[:size], index)
        assert {LEAVES[index], *path} == set(theirs.path)
        pymerkle.verify_inclusion(LEAVES[index], naive_root(0, size), theirs)


@pytest.mark.parametrize("size", SIZES)
def test_an_inclusion_proof_stands_for_its_leaf_index_size_and_root_only(size: int) -> None:
    root = naive_root(0, size)
    for index in range(size):
        proof = inclusion_proof(LEAVES[:size], index)
        verify_inclusion(LEAVES[index], index, size, proof, root)
        refused = [(OTHER, index, proof, root), (LEAVES[index], index, proof, OTHER)]
        refused += [(LEAVES[index], other, proof, root) for other in range(size) if other != index]
        refused += [(LEAVES[index], index, shape, root) for shape in misshapen(proof)]
        for leaf, at, path, under in refused:
            with pytest.raises(InvalidProof):
                verify_inclusion(leaf, at, size, path, under)


@pytest.mark.parametrize("size", SIZES)
def test_a_consistency_proof_stands_for_its_two_heads_only(size: int) -> None:
    root = naive_root(0, size)
    for old_size in range(size + 1):
        old_root = naive_root(0, old_size)
        proof = consistency_proof(LEAVES[:size], old_size)
        verify_consistency(old_size, size, proof, old_root, root)
        for path, before, after in [
            (proof, OTHER, root),
            # The empty log is a prefix of any log, so the newer root is free there.
            *([(proof, old_root, OTHER)] if old_size else []),
            *((shape, old_root, root) for shape in misshapen(proof)),
        ]:
            with pytest.raises(InvalidProof):
                verify_consistency(old_size, size, path, before, after)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 13, 32, 33, 64, 70])
def test_every_changed_byte_of_a_proof_is_refused(size: int) -> None:
    root = naive_root(0, size)
    for index in range(0, size, 5):
        for proof in changed_bytes(inclusion_proof(LEAVES[:size], index)):
            with pytest.raises(InvalidProof):
                verify_inclusion(LEAVES[index], index, size, proof, root)
    for old_size in range(1, size, 5):
        for proof in changed_bytes(consistency_proof(LEAVES[:size], old_size)):
            with pytest.raises(InvalidProof):
                verify_consistency(old_size, size, proof, naive_root(0, old_size), root)


def test_a_log_that_changed_one_old_leaf_cannot_prove_that_it_extends_the_old_log() -> None:
    for size in range(2, 40):
        for old_size in range(1, size):
            forked = [OTHER, *LEAVES[1:size]]
            proof = consistency_proof(forked, old_size)
            with pytest.raises(InvalidProof):
                verify_consistency(old_size, size, proof, naive_root(0, old_size), root_of(forked))


def test_roots_made_to_fit_a_proof_of_the_wrong_length_are_refused() -> None:
    """A lying signer picks the roots, so the shape has to be checked beside the hashes."""
    with pytest.raises(InvalidProof, match="too long"):
        verify_inclusion(LEAVES[0], 0, 1, [OTHER], node_hash(OTHER, LEAVES[0]))
    with pytest.raises(InvalidProof, match="too short"):
        verify_inclusion(LEAVES[0], 0, 4, [LEAVES[1]], naive_root(0, 2))
    longer = (*consistency_proof(LEAVES[:4], 3), OTHER)
    roots = [node_hash(OTHER, naive_root(0, size)) for size in (3, 4)]
    with pytest.raises(InvalidProof, match="too long"):
        verify_consistency(3, 4, longer, *roots)
    with pytest.raises(InvalidProof, match="too short"):
        verify_consistency(
            4, 16, consistency_proof(LEAVES[:8], 4), *map(root_of, (LEAVES[:4], LEAVES[:8]))
        )


def test_a_byte_moved_from_one_hash_to_the_next_is_refused() -> None:
    left, right = LEAVES[:2]
    with pytest.raises(InvalidProof, match="32 bytes"):
        verify_inclusion(left[:31], 0, 2, [left[31:] + right], node_hash(left, right))


def test_two_roots_for_one_size_are_refused() -> None:
    with pytest.raises(InvalidProof, match="two roots for one size"):
        verify_consistency(5, 5, (), naive_root(0, 5), OTHER)
    with pytest.raises(InvalidProof, match="empty log"):
        verify_consistency(0, 5, (), OTHER, naive_root(0, 5))


@pytest.mark.parametrize(("index", "size"), [(0, 0), (-1, 3), (3, 3), (4, 3), (0, SIZE_MAX + 1)])
def test_indexes_outside_the_log_are_refused(index: int, size: int) -> None:
    with pytest.raises(InvalidProof):
        verify_inclusion(LEAVES[0], index, size, (), LEAVES[0])
    with pytest.raises(InvalidProof):
        inclusion_proof(LEAVES[:3], index if size == 3 else 3)


@pytest.mark.parametrize(("old_size", "size"), [(-1, 3), (4, 3), (0, -1), (1, SIZE_MAX + 1)])
def test_sizes_that_no_growing_log_has_are_refused(old_size: int, size: int) -> None:
    with pytest.raises(InvalidProof, match="does not extend"):
        verify_consistency(old_size, size, (), LEAVES[0], LEAVES[0])
    with pytest.raises(InvalidProof, match="does not extend"):
        consistency_proof(LEAVES[:3], 4 if old_size >= 0 else old_size)


def test_an_event_that_looks_like_an_inner_node_is_not_that_node() -> None:
    left, right = LEAVES[:2]
    assert leaf_hash(left + right) != node_hash(left, right)
    with pytest.raises(InvalidProof):
        verify_inclusion(leaf_hash(left + right), 0, 1, (), node_hash(left, right))


def test_a_long_frontier_stays_small_and_appendable() -> None:
    frontier = Frontier(2**40 - 1, tuple(LEAVES[:40]))
    assert len(frontier.append(LEAVES[:1]).hashes) == 1
    assert len(Frontier(SIZE_MAX, tuple(LEAVES[:63])).encode()) <= 2048
    with pytest.raises(InvalidProof):
        Frontier(SIZE_MAX, tuple(LEAVES[:63])).append(LEAVES[:1])


@pytest.mark.parametrize("leaf", [b"", OTHER[:31], OTHER + b"\x00"])
def test_only_hashes_are_appended(leaf: bytes) -> None:
    with pytest.raises(InvalidProof, match="32 bytes"):
        Frontier.empty().append([leaf, OTHER])


@pytest.mark.parametrize(
    ("size", "hashes"),
    [
        (0, [OTHER]),
        (1, []),
        (3, [OTHER]),
        (4, [OTHER] * 2),
        (1, [b"x"]),
        (-1, []),
        (2**63, [OTHER]),
    ],
)
def test_a_frontier_has_one_hash_for_each_subtree(size: int, hashes: list[bytes]) -> None:
    with pytest.raises(InvalidProof):
        Frontier(size, tuple(hashes))


def test_the_empty_log_has_the_root_of_no_bytes() -> None:
    assert Frontier.empty().root() == EMPTY_ROOT == sha256(b"").digest()


@given(
    st.one_of(
        st.binary(max_size=200),
        st.integers(0, 2**64 - 1).flatmap(
            lambda size: st.binary(
                min_size=32 * size.bit_count(), max_size=32 * size.bit_count()
            ).map(lambda hashes: size.to_bytes(8, "big") + hashes)
        ),
    )
)
def test_decoding_a_frontier_gives_a_value_that_encodes_back_or_a_typed_error(raw: bytes) -> None:
    try:
        frontier = Frontier.decode(raw)
    except InvalidProof:
        return
    assert frontier.encode() == raw


@given(
    st.integers(-2, 80),
    st.integers(-2, 80),
    st.lists(st.sampled_from([*LEAVES[:8], b"", OTHER, naive_root(0, 2), naive_root(0, 4)])),
)
def test_arbitrary_proofs_are_refused_or_true(old: int, size: int, proof: list[bytes]) -> None:
    """Whatever is accepted for the log of 8 leaves is what the log itself would say."""
    root = naive_root(0, 8)
    try:
        verify_inclusion(LEAVES[old % 8], old, size, proof, root)
    except InvalidProof:
        pass
    else:
        assert tuple(proof) == inclusion_proof(LEAVES[:8], old)
    try:
        verify_consistency(old, 8, proof, naive_root(0, old % 9), root)
    except InvalidProof:
        pass
    else:
        assert tuple(proof) == consistency_proof(LEAVES[:8], old)
