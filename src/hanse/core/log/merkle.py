"""The Merkle tree of a log (RFC 6962), kept as its frontier.

    leaf = SHA-256(0x00 || event bytes)        node = SHA-256(0x01 || left || right)

The frontier holds the roots of the perfect subtrees that the log falls into, largest first:
one for each 1 in the binary form of `size`. It is all that is needed to append and to know
the root, so a receiver checks a suffix of a log without reading what it already has.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Self

from hanse.core.errors import InvalidProof

HASH_BYTES = 32
SIZE_MAX = 2**63 - 1
"""The largest log; also the largest integer that SQLite can hold."""

EMPTY_ROOT = sha256(b"").digest()

_SIZE_BYTES = 8


def leaf_hash(data: bytes) -> bytes:
    """The 32-byte leaf hash of an event's bytes; also the event's id."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The 32-byte hash of an inner node over its two children's hashes."""
    return sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Frontier:
    """A log of `size` leaves, reduced to at most 63 subtree roots, largest subtree first."""

    size: int
    hashes: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if not 0 <= self.size <= SIZE_MAX:
            raise InvalidProof(f"a log cannot have {self.size} leaves")
        if len(self.hashes) != self.size.bit_count():
            raise InvalidProof(
                f"a frontier of size {self.size} has {self.size.bit_count()} hashes, "
                f"not {len(self.hashes)}"
            )
        if any(len(node) != HASH_BYTES for node in self.hashes):
            raise InvalidProof("a hash in a frontier has 32 bytes")

    @classmethod
    def empty(cls) -> Self:
        return cls(0, ())

    def append(self, leaf_hashes: Iterable[bytes]) -> Frontier:
        """The frontier after these leaf hashes (32 bytes each); one node hash a leaf."""
        nodes = list(self.hashes)
        size = self.size
        for node in leaf_hashes:
            if len(node) != HASH_BYTES:
                raise InvalidProof(f"a leaf hash has 32 bytes, not {len(node)}")
            carry = size
            # As in adding 1 to a binary number: each trailing 1 merges two equal subtrees.
            while carry & 1:
                node = sha256(b"\x01" + nodes.pop() + node).digest()  # noqa: PLW2901
                carry >>= 1
            nodes.append(node)
            size += 1
        return Frontier(size, tuple(nodes))

    def root(self) -> bytes:
        """The 32-byte RFC 6962 root; `EMPTY_ROOT` for the empty log."""
        if not self.hashes:
            return EMPTY_ROOT
        *larger, root = self.hashes
        for left in reversed(larger):
            root = node_hash(left, root)
        return root

    def encode(self) -> bytes:
        """8 bytes of size, big-endian, then the hashes: at most 2 KiB."""
        return self.size.to_bytes(_SIZE_BYTES, "big") + b"".join(self.hashes)

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Read what `encode` wrote. Raises `InvalidProof` for any other bytes."""
        if len(raw) < _SIZE_BYTES or (len(raw) - _SIZE_BYTES) % HASH_BYTES:
            raise InvalidProof(f"{len(raw)} bytes are not a frontier")
        size = int.from_bytes(raw[:_SIZE_BYTES], "big")
        starts = range(_SIZE_BYTES, len(raw), HASH_BYTES)
        return cls(size, tuple(raw[start : start + HASH_BYTES] for start in starts))


def root_of(leaf_hashes: Iterable[bytes]) -> bytes:
    """The 32-byte root of the tree over these leaf hashes."""
    return Frontier.empty().append(leaf_hashes).root()
