"""A log as static files: tiles of hashes and bundles of entries (C2SP tlog-tiles).

    tile/0/x001/x234/067          256 leaf hashes, from leaf 1234067 * 256 on
    tile/1/000.p/17               17 hashes, each of a whole tile of level 0
    tile/entries/000.p/34         34 events, each after its length in 2 bytes

Level n holds the roots of subtrees of 256 ** n leaves, 256 a tile; only the last tile of a
level may be narrower. Every hash that a proof needs lies in, or is folded from, one tile.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from hanse.core.errors import InvalidProof
from hanse.core.log.merkle import HASH_BYTES, SIZE_MAX, node_hash, root_of
from hanse.core.log.proofs import Subtree, largest_power_below

WIDTH = 256
HEIGHT = 8
LEVELS = 8
"""More than the largest log has."""

ENTRIES = -1
"""The level of the entries themselves, one below that of their hashes."""

_LENGTH_BYTES = 2
_PATH = re.compile(r"tile/(entries|[0-7])/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


@dataclass(frozen=True, slots=True)
class Tile:
    """`width` hashes (or entries) of one level, from `index` * 256 on."""

    level: int
    index: int
    width: int = WIDTH

    def __post_init__(self) -> None:
        if not (ENTRIES <= self.level < LEVELS and self.index >= 0 and 1 <= self.width <= WIDTH):
            raise InvalidProof(f"there is no tile {self.level}/{self.index} of {self.width}")
        if self.stop > SIZE_MAX >> HEIGHT * max(self.level, 0):
            raise InvalidProof(f"no log has a tile {self.level}/{self.index}")

    @property
    def full(self) -> bool:
        return self.width == WIDTH

    @property
    def start(self) -> int:
        """Which hash of its level is the first one."""
        return self.index * WIDTH

    @property
    def stop(self) -> int:
        return self.start + self.width

    @property
    def path(self) -> str:
        """Relative to the log's prefix."""
        level = "entries" if self.level == ENTRIES else str(self.level)
        return f"tile/{level}/{_index_path(self.index)}{'' if self.full else f'.p/{self.width}'}"

    @classmethod
    def parse(cls, path: str) -> Self:
        """Read what `path` writes, and nothing else. Raises `InvalidProof`."""
        found = _PATH.fullmatch(path)
        if found is None:
            raise InvalidProof(f"{path[:200]!r} is not the path of a tile")
        level = ENTRIES if found[1] == "entries" else int(found[1])
        index = int(found[2].replace("x", "").replace("/", ""))
        tile = cls(level, index, int(found[3] or WIDTH))
        if tile.path != path:
            raise InvalidProof(f"{path[:200]!r} is written {tile.path}")
        return tile


def _index_path(index: int) -> str:
    """Base 1000, three digits a step, all but the last one marked with an x."""
    path = f"{index % 1000:03d}"
    while index := index // 1000:
        path = f"x{index % 1000:03d}/{path}"
    return path


def tile_at(level: int, index: int, size: int) -> Tile:
    """That tile as a log of `size` leaves has it. Raises `InvalidProof` if it has none."""
    there = size >> HEIGHT * max(level, 0)
    return Tile(level, index, min(WIDTH, there - index * WIDTH))


def tiles_of(size: int) -> Iterator[Tile]:
    """All that a log of `size` leaves consists of: entries, then each level upwards."""
    for level in range(ENTRIES, LEVELS):
        there = size >> HEIGHT * max(level, 0)
        for index in range(-(-there // WIDTH)):
            yield tile_at(level, index, size)


def hashes_of(tile: Tile, raw: bytes) -> tuple[bytes, ...]:
    """The hashes in a tile's bytes. Raises `InvalidProof` for another number of them."""
    if len(raw) != tile.width * HASH_BYTES:
        raise InvalidProof(
            f"{tile.path} has {len(raw)} bytes, not {tile.width * HASH_BYTES}",
            fix="fetch it again, or from somewhere else",
        )
    return tuple(raw[at : at + HASH_BYTES] for at in range(0, len(raw), HASH_BYTES))


def bundle(entries: Iterable[bytes]) -> bytes:
    """Entries of at most 65,535 bytes, each after its length."""
    return b"".join(len(entry).to_bytes(_LENGTH_BYTES, "big") + entry for entry in entries)


def entries_of(tile: Tile, raw: bytes) -> list[bytes]:
    """The entries of a bundle. Raises `InvalidProof` for another number, or for a rest."""
    return split(raw, tile.width)


def split(raw: bytes, count: int) -> list[bytes]:
    """Exactly the `count` entries that `bundle` joined. Raises `InvalidProof`."""
    entries: list[bytes] = []
    at = 0
    while at < len(raw) and len(entries) < count:
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(raw[at:start], "big")
        entries.append(raw[start:at])
    if at != len(raw) or len(entries) != count:
        raise InvalidProof(
            f"these bytes do not hold exactly {count} entries",
            fix="fetch them again, or from somewhere else",
        )
    return entries


def subtrees(size: int, read: Callable[[Tile], Sequence[bytes]]) -> Subtree:
    """The hash over any leaves [start, stop) of the log, read from few tiles.

    `read` gives the hashes of a tile. For `proofs.inclusion_path` and `consistency_path`.
    """

    def hash_of(start: int, stop: int) -> bytes:
        count = stop - start
        if count & (count - 1):
            middle = start + largest_power_below(count)
            return node_hash(hash_of(start, middle), hash_of(middle, stop))
        level = (count.bit_length() - 1) // HEIGHT
        first, hashes = start >> HEIGHT * level, count >> HEIGHT * level
        tile = read(tile_at(level, first // WIDTH, size))
        return root_of(tile[first % WIDTH : first % WIDTH + hashes])

    return hash_of
