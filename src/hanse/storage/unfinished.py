"""A blob that comes in pieces in any order; what has come outlives the process.

    <folder>/blobs/unfinished/<hex>    as large as the blob will be, with holes

Nothing is written down beside it: whoever goes on reads what is there, holds it against what it
should be, and fetches the rest. So a kill costs nothing that was written, and a power cut what the
disk had not written yet. The name comes last, as for every blob: hashed whole, fsync, rename.

What is told to be `kept` in order is hashed on the way, the rest by `hash_on` or at the end.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from hanse.core.errors import InvalidProof, TooLarge
from hanse.core.ids import Digest
from hanse.storage.incoming import disk_errors, lock_part, publish

LOOK_BYTES = 64 * 1024**2
"""So often it is asked whether the disk still has room."""
_READ_BYTES = 1024**2


class Unfinished:
    """One for each digest; `close` keeps what has come.

    For one thread at a time, but that another may read, and `hash_on` over what is not written any
    more.
    """

    def __init__(
        self,
        path: Path,
        size: int,
        digest: Digest,
        place: Callable[[Digest], Path],
        promise: Callable[[int], None],
        release: Callable[[int], None],
        published: Callable[[Digest], None],
    ) -> None:
        self.size, self.digest = size, digest
        self._path, self._place, self._published = path, place, published
        self._promise, self._release = promise, release  # bytes that the store keeps free
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._hash, self._hashed = hashlib.sha256(), 0
        self._looked = 0
        self._owed = 0
        try:
            lock_part(self._fd, path)
            there = min(os.fstat(self._fd).st_blocks * 512, size)
            promise(size - there)
            self._owed = size - there
            os.ftruncate(self._fd, size)
        except BaseException:
            os.close(self._fd)
            raise
        self.begun = there > 0
        """Whether something may have come before."""

    def read(self, start: int, length: int) -> bytes:
        with disk_errors("read what has come of a blob"):
            return os.pread(self._fd, length, start)

    def write(self, start: int, data: bytes | memoryview) -> None:
        """Raises `Unavailable` if the disk is full; what came before stays."""
        if start < 0 or start + len(data) > self.size:
            raise TooLarge(
                f"more than the declared {self.size} bytes arrived",
                fix="fetch the blob from another peer",
            )
        self._look(len(data))
        with disk_errors("write a blob"):
            view, at = memoryview(data), start
            while view:
                done = os.pwrite(self._fd, view, at)
                view, at = view[done:], at + done
        if start < self._hashed:
            self._begin_anew()

    def kept(self, start: int, data: bytes | memoryview) -> None:
        """These bytes are there, and right as far as anybody knows."""
        if start < self._hashed:
            self._begin_anew()
        if start == self._hashed:
            self._hash.update(data)
            self._hashed += len(data)

    def hash_on(self, end: int) -> None:
        """All up to this byte lies there."""
        room = memoryview(bytearray(min(_READ_BYTES, max(0, end - self._hashed))))
        with disk_errors("read what has come of a blob"):
            while (left := end - self._hashed) > 0 and (
                count := os.preadv(self._fd, [room[:left]], self._hashed)
            ):
                self.kept(self._hashed, room[:count])

    def _begin_anew(self) -> None:
        self._hash, self._hashed = hashlib.sha256(), 0

    def _look(self, size: int) -> None:
        given = min(size, self._owed)
        self._owed -= given
        self._release(given)
        self._looked += size
        if self._looked >= LOOK_BYTES:
            self._promise(0)
            self._looked = 0

    def commit(self) -> Path:
        """Publish it. Raises `InvalidProof` if it is not the blob; all of it stays."""
        self.hash_on(self.size)
        if self._hash.hexdigest() != self.digest.hex:
            self._begin_anew()
            raise InvalidProof(
                f"what has come is not {self.digest}", fix="fetch the blob from another peer"
            )
        path = self._place(self.digest)
        with disk_errors("publish a blob"):
            publish(self._fd, self._path, path)
        self.close()
        self._published(self.digest)
        return path

    def abort(self) -> None:
        """Forget all that has come."""
        if self._fd >= 0:
            with disk_errors("discard a part"), contextlib.suppress(FileNotFoundError):
                self._path.unlink()
            self.close()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._release(self._owed)
