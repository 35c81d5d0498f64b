"""Every log, the trust chain and all evidence as files under fixed paths, read from the store.

    logs                            JSON: the federation, its logs, trust versions, evidence
    trust/00001.json                the chain of trust, each version as it was signed
    trust/timestamp.json            the newest timestamp of trust, if there is one
    evidence/<origin>.json          the proof that this log has forked
    log/<origin>/checkpoint         the latest signed head with its cosignatures
    log/<origin>/final              the largest head that a quorum of witnesses has cosigned
    log/<origin>/tile/…             C2SP tlog-tiles; the prefix of a log is log/<origin>

The same paths make up an exported folder, so whoever can read one can read the other. What
is full is immutable, unless its log has ended at a fork or a cut. A tile above level 0 is
folded from whole tiles below it; their roots are kept, so the first question after a start
hashes a log once and the next ones do not.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from hanse.core import freeze, limits
from hanse.core.audit.paths import TIMESTAMP, Index
from hanse.core.errors import InvalidName, InvalidProof, NotFound
from hanse.core.ids import Origin, Segment
from hanse.core.log.merkle import leaf_hash, root_of
from hanse.core.log.tiles import ENTRIES, WIDTH, Tile, bundle, hashes_of
from hanse.core.step import Head
from hanse.core.trust.freshness import SPACE
from hanse.storage.contract import EventStore

T = TypeVar("T")
TEXT, JSON, BYTES = "text/plain; charset=utf-8", "application/json", "application/octet-stream"
_TRUST = re.compile(r"trust/([0-9]{5})\.json")
_EVIDENCE = re.compile(r"evidence/((?:[^/]+/){3}[^/]+)\.json")
_LOG = re.compile(r"log/((?:[^/]+/){3}[^/]+)/(checkpoint|final|tile/.+)")


@dataclass(frozen=True, slots=True)
class File:
    data: bytes
    media_type: str
    immutable: bool = False


class _Latest(Generic[T]):
    """A bounded memory: what was not asked for longest is forgotten first."""

    def __init__(self, count_max: int) -> None:
        self._kept: OrderedDict[Hashable, T] = OrderedDict()
        self._max = count_max

    def get(self, key: Hashable) -> T | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: Hashable, value: T) -> None:
        self._kept[key] = value
        if len(self._kept) > self._max:
            self._kept.popitem(last=False)


class LogFiles:
    """Reads committed state only; made once a daemon, by the composition root."""

    def __init__(self, store: EventStore, federation: Segment) -> None:
        self._store, self._federation = store, federation
        self._tiles: _Latest[bytes] = _Latest(limits.DOOR_TILES_KEPT)
        self._roots: _Latest[bytes] = _Latest(limits.DOOR_ROOTS_KEPT)
        self._building = asyncio.Semaphore(limits.DOOR_TILES_AT_ONCE)

    async def read(self, path: str) -> File:
        """The file at `path`. Raises `NotFound` for whatever is no such path."""
        if path == "logs":
            return await self._index()
        if path == TIMESTAMP and (stamp := await self._timestamp()) is not None:
            return File(stamp, JSON)
        if found := _TRUST.fullmatch(path):
            return await self._trust(int(found[1]))
        if found := _EVIDENCE.fullmatch(path):
            if (proof := (await self._store.local(freeze.SPACE)).get(found[1])) is None:
                raise _absent(path)
            return File(proof, JSON)
        if found := _LOG.fullmatch(path):
            head = await self._head(found[1])
            if found[2] == "checkpoint":
                return File(head.note, TEXT)
            if found[2] == "final" and head.final_size:
                return File(head.final_note, TEXT)
            return await self._tile_file(head, found[2])
        raise _absent(path)

    async def _index(self) -> File:
        heads = [head for head in await self._store.heads() if head.size]
        sizes = {head.origin: head.size for head in heads}
        final = {head.origin: head.final_size for head in heads if head.final_size}
        trust, stamped = len(await self._store.trust()), await self._timestamp() is not None
        forked = tuple(map(Origin.parse, await self._store.local(freeze.SPACE)))
        index = Index(self._federation, sizes, final, trust, stamped, forked)
        return File(index.encode(), JSON)

    async def _timestamp(self) -> bytes | None:
        return (await self._store.local(SPACE)).get("timestamp")

    async def _trust(self, version: int) -> File:
        files = await self._store.trust()
        if not 1 <= version <= len(files):
            raise _absent(f"trust version {version}")
        # Not for ever: of two versions of one number the root may choose the other one.
        return File(files[version - 1], JSON)

    async def _head(self, name: str) -> Head:
        try:
            origin = Origin.parse(name)
        except InvalidName:
            raise _absent(name) from None
        head = await self._store.head(origin)
        if head is None or not head.size:
            raise _absent(name)
        return head

    async def _tile_file(self, head: Head, path: str) -> File:
        try:
            tile = Tile.parse(path)
        except InvalidProof:
            raise _absent(path) from None
        if tile.stop > head.size >> 8 * max(tile.level, 0):
            raise _absent(path)
        async with self._building:
            # Where a log has ended at a fork or a cut, another branch may have come in its place.
            return File(await self._tile(head, tile), BYTES, immutable=head.stop is None)

    async def _tile(self, head: Head, tile: Tile) -> bytes:
        origin, key = head.origin, (head.origin, head.stop and head.stop.root, tile)
        if tile.level == ENTRIES:
            return bundle(await self._entries(origin, tile))
        kept = self._tiles.get(key) if tile.full else None
        if kept is not None:
            return kept
        if tile.level == 0:
            hashes = list(map(leaf_hash, await self._entries(origin, tile)))
        else:
            lower = range(tile.start, tile.stop)
            hashes = [await self._root(head, Tile(tile.level - 1, i)) for i in lower]
        raw = b"".join(hashes)
        if tile.full:
            self._tiles.put(key, raw)
        return raw

    async def _root(self, head: Head, tile: Tile) -> bytes:
        """The root of a whole tile: one hash of the level above."""
        key = (head.origin, head.stop and head.stop.root, tile)
        kept = self._roots.get(key)
        if kept is None:
            kept = root_of(hashes_of(tile, await self._tile(head, tile)))
            self._roots.put(key, kept)
        return kept

    async def _entries(self, origin: Origin, tile: Tile) -> list[bytes]:
        bytes_max = tile.width * limits.EVENT_BYTES_MAX
        found = await self._store.events(origin, tile.start, tile.width, bytes_max)
        if len(found) != tile.width:
            raise _absent(tile.path)  # the log was cut while we read it
        return found


def _absent(path: str) -> NotFound:
    return NotFound(f"there is no {path[:200]!r} here", fix="see logs for what there is")


assert WIDTH == limits.CHUNK_EVENTS_MAX  # what one read of the store gives
