"""Proofs about a log's tree (RFC 6962, verified as RFC 9162 section 2.1 describes).

An inclusion proof shows that a leaf stands at an index under a root; a consistency proof
shows that the log behind an older root is a prefix of the log behind a newer one. Both are
the hashes of at most two subtrees a level, so whoever verifies needs no leaves. A verifier
accepts exactly the one proof that an honest log would give: none longer, none shorter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hanse.core.errors import InvalidProof
from hanse.core.log.merkle import EMPTY_ROOT, HASH_BYTES, SIZE_MAX, node_hash, root_of

Proof = tuple[bytes, ...]
"""Hashes of 32 bytes, from the leaves towards the root."""

Subtree = Callable[[int, int], bytes]
"""The RFC 6962 hash over the leaves [start, stop): from leaf hashes, or from stored tiles."""

_FIX = "fetch the proof again from another peer; keep both if they contradict each other"


def inclusion_path(subtree: Subtree, size: int, index: int) -> Proof:
    """The siblings on the way from leaf `index` to the root: O(log n) subtrees."""
    if not 0 <= index < size:
        raise InvalidProof(f"there is no leaf {index} in a log of {size}")
    start, stop, path = 0, size, []
    while stop - start > 1:
        middle = start + largest_power_below(stop - start)
        if index < middle:
            path.append(subtree(middle, stop))
            stop = middle
        else:
            path.append(subtree(start, middle))
            start = middle
    return tuple(reversed(path))


def consistency_path(subtree: Subtree, old_size: int, size: int) -> Proof:
    """What leads from the root of the first `old_size` leaves to that of all: O(log n)."""
    if not 0 <= old_size <= size:
        raise InvalidProof(f"a log of {size} does not extend one of {old_size}")
    if old_size in {0, size}:
        return ()
    start, stop, path = 0, size, []
    while stop > old_size:
        middle = start + largest_power_below(stop - start)
        if old_size <= middle:
            path.append(subtree(middle, stop))
            stop = middle
        else:
            path.append(subtree(start, middle))
            start = middle
    # RFC 6962's SUBPROOF: the verifier has the old root, so where it is one subtree it is left out.
    if start:
        path.append(subtree(start, stop))
    return tuple(reversed(path))


def inclusion_proof(leaf_hashes: Sequence[bytes], index: int) -> Proof:
    """As `inclusion_path`, from all leaf hashes. O(n) hashes."""
    return inclusion_path(_over(leaf_hashes), len(leaf_hashes), index)


def consistency_proof(leaf_hashes: Sequence[bytes], old_size: int) -> Proof:
    """As `consistency_path`, from all leaf hashes. O(n) hashes."""
    return consistency_path(_over(leaf_hashes), old_size, len(leaf_hashes))


def _over(leaf_hashes: Sequence[bytes]) -> Subtree:
    return lambda start, stop: root_of(leaf_hashes[start:stop])


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Return if the leaf hash `leaf` stands at `index` in the log of `size` under `root`.

    Raises `InvalidProof` otherwise.
    """
    if not 0 <= index < size <= SIZE_MAX:
        raise InvalidProof(f"there is no leaf {index} in a log of {size}")
    _require_hashes(leaf, root, *proof)
    node, position, last = leaf, index, size - 1
    for sibling in proof:
        if last == 0:
            raise InvalidProof("the inclusion proof is too long", fix=_FIX)
        if position & 1 or position == last:
            node = node_hash(sibling, node)
            position, last = _climb_past_lone_nodes(position, last)
        else:
            node = node_hash(node, sibling)
        position, last = position >> 1, last >> 1
    if last != 0:
        raise InvalidProof("the inclusion proof is too short", fix=_FIX)
    if node != root:
        raise InvalidProof(f"the leaf is not at {index} under this root", fix=_FIX)


def verify_consistency(
    old_size: int, new_size: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes
) -> None:
    """Return if the log (`new_size`, `new_root`) extends the log (`old_size`, `old_root`).

    Raises `InvalidProof` otherwise.
    """
    if not 0 <= old_size <= new_size <= SIZE_MAX:
        raise InvalidProof(f"a log of {new_size} does not extend one of {old_size}")
    _require_hashes(old_root, new_root, *proof)
    for size, root in ((old_size, old_root), (new_size, new_root)):
        if size == 0 and root != EMPTY_ROOT:
            raise InvalidProof("an empty log has one root only, and it is another", fix=_FIX)
    if old_size in {0, new_size}:
        if proof:
            raise InvalidProof("the consistency proof is too long", fix=_FIX)
        if old_size == new_size and old_root != new_root:
            raise InvalidProof(f"two roots for one size, {new_size}", fix=_FIX)
        return
    if _fold_consistency(old_size, new_size, proof, old_root) != (old_root, new_root):
        raise InvalidProof("the newer log does not extend the older one", fix=_FIX)


def _fold_consistency(
    old_size: int, new_size: int, proof: Sequence[bytes], old_root: bytes
) -> tuple[bytes, bytes]:
    """The old and the new root as this proof has them, for 0 < old_size < new_size."""
    # The proof begins at the old log's last perfect subtree. If that is the whole old log,
    # its root is the old root and therefore not in the proof.
    hashes = (old_root, *proof) if old_size.bit_count() == 1 else tuple(proof)
    if not hashes:
        raise InvalidProof("the consistency proof is too short", fix=_FIX)
    trailing_ones = ((old_size - 1) ^ old_size).bit_length() - 1
    position, last = (old_size - 1) >> trailing_ones, (new_size - 1) >> trailing_ones
    old = new = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            raise InvalidProof("the consistency proof is too long", fix=_FIX)
        if position & 1 or position == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            position, last = _climb_past_lone_nodes(position, last)
        else:
            new = node_hash(new, sibling)
        position, last = position >> 1, last >> 1
    if last != 0:
        raise InvalidProof("the consistency proof is too short", fix=_FIX)
    return old, new


def _climb_past_lone_nodes(position: int, last: int) -> tuple[int, int]:
    """Skip the levels at which the node is a last, left one: it has no sibling there."""
    while position and not position & 1:
        position, last = position >> 1, last >> 1
    return position, last


def _require_hashes(*hashes: bytes) -> None:
    if any(len(node) != HASH_BYTES for node in hashes):
        raise InvalidProof("a hash in a proof has 32 bytes")


def largest_power_below(size: int) -> int:
    """RFC 6962's k: the largest power of two smaller than `size`, for `size` > 1."""
    return 1 << ((size - 1).bit_length() - 1)
