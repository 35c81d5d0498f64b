"""The blob store in memory: the same promises as on disk, for tests."""

from __future__ import annotations

import contextlib
import hashlib
import io
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import BinaryIO, Self

from hanse.core.errors import Broken, InvalidProof, NotFound, TooLarge, Unavailable
from hanse.core.ids import Digest, segment
from hanse.core.limits import FILE_BYTES_MAX
from hanse.parts.recipe import Recipe, split
from hanse.storage.blobs import check_range, check_unpinned, damaged
from hanse.storage.recipes import External


class MemoryBlobs:
    """`Blobs` in dictionaries; `capacity_bytes` plays the size of the disk."""

    def __init__(self, *, capacity_bytes: int = FILE_BYTES_MAX) -> None:
        self.capacity_bytes = capacity_bytes
        self._blobs: dict[Digest, bytes] = {}
        self._parts: dict[Digest, bytes] = {}
        self.unfinished_bytes: dict[Digest, bytearray] = {}
        self._recipes: dict[Digest, Recipe] = {}
        self._pins: dict[Digest, set[str]] = {}
        self._writing: set[Digest] = set()
        self._came_s: dict[Digest, float] = {}
        self._promised_bytes = 0
        self._lost: list[Digest] = []

    def crash(self) -> MemoryBlobs:
        """What the next process finds: blobs, pins and suspended parts; no open writers."""
        after = MemoryBlobs(capacity_bytes=self.capacity_bytes)
        after._blobs = dict(self._blobs)
        after._parts = dict(self._parts)
        after.unfinished_bytes = {d: bytearray(b) for d, b in self.unfinished_bytes.items()}
        after._came_s = dict(self._came_s)
        after._pins = {digest: set(names) for digest, names in self._pins.items()}
        return after

    def damage(self, digest: Digest, position: int) -> None:
        """Flip one bit at rest, as disks do."""
        rotten = bytearray(self._get(digest))
        rotten[position] ^= 1
        self._blobs[digest] = bytes(rotten)

    def writer(self, size: int, digest: Digest | None = None) -> MemoryWriter:
        if not 0 <= size <= FILE_BYTES_MAX:
            raise TooLarge(f"a blob of {size} bytes", fix=f"at most {FILE_BYTES_MAX} are taken")
        if digest in self._writing:
            raise Unavailable(f"another fetch of {digest} is under way", fix="ask again later")
        used = sum(map(len, self._blobs.values())) + sum(map(len, self._parts.values()))
        part = self._parts.get(digest, b"") if digest else b""
        if used + self._promised_bytes + size - len(part) > self.capacity_bytes:
            raise Unavailable(f"no room for a blob of {size} bytes", fix="delete other blobs")
        return MemoryWriter(self, size, digest, part)

    def unfinished(self, size: int, digest: Digest) -> MemoryUnfinished:
        if digest in self._writing:
            raise Unavailable(f"another fetch of {digest} is under way", fix="ask again later")
        return MemoryUnfinished(self, self.writer(size), digest)

    def has(self, digest: Digest) -> bool:
        return digest in self._blobs

    def size(self, digest: Digest) -> int:
        return len(self._get(digest))

    def open_verified(self, digest: Digest) -> BinaryIO:
        raw = self._get(digest)
        if Digest.of(raw) != digest:
            del self._blobs[digest]
            self._lost.append(digest)
            raise damaged(digest)
        return io.BytesIO(raw)

    def read_range(self, digest: Digest, start: int, length: int) -> bytes:
        check_range(start, length)
        return self._get(digest)[start : start + length]

    def recipe(self, digest: Digest, external: External | None = None) -> Recipe:
        raw = self._get(digest)
        if digest not in self._recipes:
            recipe = split(raw, external() if external else None)
            if recipe.digest != digest:
                del self._blobs[digest]
                raise damaged(digest)
            self._recipes[digest] = recipe
        return self._recipes[digest]

    def known_recipe(self, digest: Digest) -> Recipe | None:
        return self._recipes.get(digest)

    @contextlib.contextmanager
    def laid_out(self, digest: Digest) -> Iterator[Path]:
        with tempfile.NamedTemporaryFile() as file:
            file.write(self._get(digest))
            file.flush()
            yield Path(file.name)

    def came_s(self, digest: Digest) -> float:
        self._get(digest)
        return self._came_s[digest]

    def renew(self, digest: Digest) -> None:
        self._came_s[digest] = time.time()

    def delete(self, digest: Digest) -> int:
        check_unpinned(digest, self.pins(digest))
        size = self.size(digest)
        del self._blobs[digest]
        return size

    def occupied(self, digest: Digest) -> int:
        return self.size(digest)

    def room(self, going: Collection[Digest]) -> int:
        return sum(map(self.size, going))

    def stand_alone(self, going: Collection[Digest]) -> int:
        return 0

    def lost(self) -> tuple[Digest, ...]:
        found, self._lost = self._lost, []
        return tuple(found)

    def settle(self) -> None:
        """Nobody shares it."""

    def check(self, digest: Digest, read: Callable[[int], None]) -> tuple[str, ...]:
        self.open_verified(digest).close()
        read(self.size(digest))
        return ()
        self._recipes.pop(digest, None)

    def pin(self, digest: Digest, name: str) -> None:
        self._pins.setdefault(digest, set()).add(segment(name, "pin"))

    def unpin(self, digest: Digest, name: str) -> None:
        self._pins.get(digest, set()).discard(segment(name, "pin"))

    def pins(self, digest: Digest) -> tuple[str, ...]:
        return tuple(sorted(self._pins.get(digest, ())))

    def list(self) -> tuple[Digest, ...]:
        return tuple(sorted(self._blobs))

    def sweep_temporaries(self) -> int:
        return 0  # open writers leave nothing behind here

    def _get(self, digest: Digest) -> bytes:
        if digest not in self._blobs:
            raise NotFound(f"{digest} is not in this blob store", fix="fetch it from a peer")
        return self._blobs[digest]


class MemoryWriter:
    """`Writer` of one blob into a `MemoryBlobs`."""

    def __init__(self, store: MemoryBlobs, size: int, digest: Digest | None, part: bytes) -> None:
        self._store = store
        self.size = size
        self._digest = digest
        self._arrived = bytearray(part)
        self._promised = size - len(part)
        self._open = True
        store._promised_bytes += self._promised
        if digest:
            store._writing.add(digest)

    @property
    def offset(self) -> int:
        return len(self._arrived)

    def write(self, chunk: bytes) -> None:
        self._check_open()
        if len(self._arrived) + len(chunk) > self.size:
            self.abort()
            raise TooLarge(f"more than the declared {self.size} bytes arrived")
        self._arrived += chunk

    def commit(self) -> Path:
        self._check_open()
        if len(self._arrived) != self.size:
            self.suspend()
            raise InvalidProof(f"the blob ended after {self.offset} of {self.size} bytes")
        digest = Digest(hashlib.sha256(self._arrived).hexdigest())
        self.abort()
        if self._digest not in (None, digest):
            raise InvalidProof(f"the bytes have digest {digest}, not {self._digest}")
        self._store._blobs[digest] = bytes(self._arrived)
        self._store.renew(digest)
        return _path(digest)

    def suspend(self) -> None:
        if self._open:
            self._close()
            if self._digest and self._arrived:
                self._store._parts[self._digest] = bytes(self._arrived)

    def abort(self) -> None:
        if self._open:
            self._close()
            if self._digest:
                self._store._parts.pop(self._digest, None)

    def _close(self) -> None:
        self._open = False
        self._store._promised_bytes -= self._promised
        if self._digest:
            self._store._writing.discard(self._digest)

    def _check_open(self) -> None:
        if not self._open:
            raise Broken("the blob writer is closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.suspend()


class MemoryUnfinished:
    """`Arriving` of one blob; `room` is what the store promised for it."""

    def __init__(self, store: MemoryBlobs, room: MemoryWriter, digest: Digest) -> None:
        self._store, self._room, self._digest = store, room, digest
        kept = store.unfinished_bytes
        self.begun = digest in kept
        self._bytes = kept.setdefault(digest, bytearray(room.size))
        store._writing.add(digest)

    def read(self, start: int, length: int) -> bytes:
        return bytes(self._bytes[start : start + length])

    def write(self, start: int, data: bytes | memoryview) -> None:
        if start < 0 or start + len(data) > len(self._bytes):
            raise TooLarge(f"more than the declared {len(self._bytes)} bytes arrived")
        self._bytes[start : start + len(data)] = data

    def kept(self, start: int, data: bytes | memoryview) -> None:
        """Nothing is hashed on the way."""

    def hash_on(self, end: int) -> None:
        """Nor here."""

    def commit(self) -> Path:
        if Digest.of(bytes(self._bytes)) != self._digest:
            raise InvalidProof(f"what has come is not {self._digest}")
        self._room.write(bytes(self._bytes))
        path = self._room.commit()
        self.abort()
        return path

    def abort(self) -> None:
        self._store.unfinished_bytes.pop(self._digest, None)
        self.close()

    def close(self) -> None:
        self._room.abort()
        self._store._writing.discard(self._digest)


def _path(digest: Digest) -> Path:
    return Path("sha256", digest.hex[:2], digest.hex[2:])
