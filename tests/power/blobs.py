"""The blob store in use, on a disk whose power fails; what it has said is done must be there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from hanse.core.errors import Broken, NotFound, Unavailable
from hanse.core.ids import Digest
from hanse.storage.blobs import BlobStore
from power.disk import Disk
from power.recorder import Deaf, Recorder, restore

CONTENTS = [Random(i).randbytes(size) for i, size in enumerate((10, 700, 3000, 9000, 20_000))]
DIGESTS = [Digest.of(content) for content in CONTENTS]
HOME = "home/blobs"


class Lost(AssertionError):
    pass


class Store:
    """A blob store in use, on a disk whose power fails; what it has said is done."""

    make: type[BlobStore] = BlobStore
    contents = CONTENTS
    changes_max = 60

    def __init__(self, seed: int, folder: Path, deaf: Deaf = lambda *_: False) -> None:
        self._rng, self._folder, self._deaf = Random(seed), folder, deaf
        self._disk = Disk()
        self._disk.make_folder("home")
        self._disk.sync_folder("")
        self.kept: set[Digest] = set()
        self.pinned: set[Digest] = set()
        self.cuts = 0

    def run(self, cuts: int) -> None:
        for number in range(cuts):
            place = self._folder / f"{number}"
            restore(self._disk, place)
            if number:
                self._check(place)
            last = self._rng.randrange(1, self.changes_max)
            self._disk.before = self._cut_at(last)
            recorder = Recorder(place, self._disk, self._deaf)
            with recorder.recording(), contextlib.suppress(Broken):
                self._use(self.make(place / HOME))
            recorder.check()
            self._disk = self._disk.after_cut(self._rng)
            self.cuts += 1

    def _cut_at(self, last: int) -> Callable[[int, str], None]:
        def before(change: int, _: str) -> None:
            if change >= last:
                raise self._disk.cut()

        return before

    def _use(self, store: BlobStore) -> None:
        store.sweep_temporaries()
        while True:
            content = self._rng.choice(self.contents)
            self._rng.choice(self._deeds())(store, Digest.of(content), content)

    def _deeds(self) -> tuple[Callable[[Any, Digest, bytes], None], ...]:
        return (self._put, self._fetch, self._fetch, self._pin, self._delete)

    def _put(self, store: BlobStore, digest: Digest, content: bytes) -> None:
        with store.writer(len(content)) as writer:
            writer.write(content)
            writer.commit()
        self.kept.add(digest)

    def _fetch(self, store: BlobStore, digest: Digest, content: bytes) -> None:
        """In pieces, and sometimes not to its end."""
        with store.writer(len(content), digest) as writer:
            while writer.offset < len(content):
                writer.write(content[writer.offset : writer.offset + 1500])
                if self._rng.random() < 0.05:
                    return
            writer.commit()
        self.kept.add(digest)

    def _pin(self, store: BlobStore, digest: Digest, _: bytes) -> None:
        store.pin(digest, "release")
        self.pinned.add(digest)

    def _delete(self, store: BlobStore, digest: Digest, _: bytes) -> None:
        if digest in self.kept and not store.pins(digest) and self._rng.random() < 0.3:
            self.kept.discard(digest)  # from here on it may be gone
            store.delete(digest)

    def _check(self, place: Path) -> None:
        """On a disk that works."""
        store = self.make(place / HOME)
        store.sweep_temporaries()
        for digest in store.list():
            try:
                store.open_verified(digest).close()
            except (NotFound, Unavailable) as error:
                raise Lost("a blob is not whole") from error
        if lost := self.kept - set(store.list()):
            raise Lost(f"{len(lost)} acknowledged blobs")
        if any("release" not in store.pins(digest) for digest in self.pinned):
            raise Lost("a pin")
        self._disk = read_back(place)


def read_back(place: Path) -> Disk:
    """All of it durable."""
    disk = Disk()
    for path in sorted(place.rglob("*")):
        name = str(path.relative_to(place))
        if path.is_dir():
            disk.make_folder(name)
        else:
            made = disk.create(name)
            made.write(0, path.read_bytes())
            made.sync()
        disk.sync_folder(name.rpartition("/")[0])
    disk.changes = 0
    return disk
