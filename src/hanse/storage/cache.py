"""Files that lie in a bucket too: those that were used last, within a bound."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator
from pathlib import Path

from hanse.core.ids import Digest
from hanse.storage.blobs import BlobStore
from hanse.storage.incoming import disk_errors


class Cache(BlobStore):
    """A `BlobStore` in which the least recently used goes first, and never what is being read."""

    def __init__(self, folder: Path, *, bytes_max: int, reserve_bytes: int = 0) -> None:
        super().__init__(folder, reserve_bytes=reserve_bytes)
        self._bytes_max = bytes_max
        self._guard = threading.Lock()  # of what follows
        self._reading: Counter[Digest] = Counter()
        found = sorted((self.came_s(d), d, self.size(d)) for d in self.list())
        self._sizes = OrderedDict((digest, size) for _, digest, size in found)

    def used(self, digest: Digest) -> None:
        """It is the last that goes now; told to the disk as well, for the next start."""
        with self._guard:
            if digest in self._sizes and next(reversed(self._sizes)) == digest:
                return
            self._sizes[digest] = self.size(digest)
            self._sizes.move_to_end(digest)
        self.renew(digest)

    @contextlib.contextmanager
    def reading(self, digest: Digest) -> Iterator[None]:
        """It stays meanwhile, or once it has come."""
        with self._guard:
            self._reading[digest] += 1
        try:
            yield
        finally:
            with self._guard:
                self._reading[digest] -= 1
                if not self._reading[digest]:
                    del self._reading[digest]

    def make_room(self, size: int) -> None:
        """For one more file; more than that goes beyond the bound only while it is read."""
        with self._guard:
            for digest in list(self._sizes):
                if sum(self._sizes.values()) + size <= self._bytes_max:
                    break
                if digest not in self._reading:
                    self._let_go(digest)

    def forget(self, digest: Digest) -> None:
        """Whatever pins it: the bytes lie elsewhere too, or nobody needs them."""
        with self._guard:
            self._let_go(digest)

    def _let_go(self, digest: Digest) -> None:
        """What it is made of stays known: a recipe is small, and costs the whole file."""
        self._sizes.pop(digest, None)
        with disk_errors("remove a file from the cache"):
            self._place(digest).unlink(missing_ok=True)
