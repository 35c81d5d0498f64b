"""A store in which a blob may lean on another: only what is new of it is kept.

    <folder>/blobs/folded/<hex>   payloads of its new parts, one after another
    <folder>/blobs/places/<hex>   where each of its parts lies, see `places`

Read in any way, it is bit for bit what it was, or not there. What a folded blob leans on lies in
whole files, so nothing leans on a folded one, and a read touches two files. Before a whole file is
deleted, what leans on it is made whole again.

Folding: payloads, durable; places, durable; both read back and hashed, whole; only then the file
goes. Unfolding: the whole file, hashed and durable; then places, then payloads. So at any moment a
blob is there whole or folded, and where it is both the whole file counts.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import BinaryIO

import structlog

from hanse.core.errors import Conflict, Unavailable
from hanse.core.ids import Digest
from hanse.parts.recipe import Part, Recipe
from hanse.storage.blobs import BlobStore, check_unpinned
from hanse.storage.folding import ReadPart, fold_up
from hanse.storage.incoming import disk_errors, sync_folder, write_all
from hanse.storage.places import Head, Places
from hanse.storage.recipes import External
from hanse.storage.sealed import write_sealed
from hanse.storage.unfolding import Rotten, Unfolding

log = structlog.get_logger("hanse.folded")

SAVED_SHARE_MIN, SAVED_BYTES_MIN = 0.1, 1024**2


class FoldedBlobs(Unfolding):
    """`Blobs` in `<folder>/blobs`."""

    def sweep_temporaries(self) -> int:
        """Also what an interrupted folding or unfolding left behind."""
        swept = super().sweep_temporaries()
        with disk_errors("sweep what is folded"):
            places = {path.name for path in (self.folder / "places").iterdir()}
            for name in places:
                if len(name) != 64:
                    (self.folder / "places" / name).unlink()
                elif BlobStore.has(self, Digest(name)):
                    self._forget_folded(Digest(name))
                else:
                    continue
                swept += 1
            for path in (self.folder / "folded").iterdir():
                if len(path.name) != 64 or Digest(path.name) not in self._heads:
                    path.unlink()
                    swept += 1
        return swept

    def room(self, going: Collection[Digest]) -> int:
        leaning = [head for d, head in self._leaning(going) if not BlobStore.has(self, d)]
        grown = sum(head.size - head.kept for head in leaning)
        return sum(map(self.occupied, going)) - grown

    def leans_on(self, digest: Digest) -> tuple[Digest, ...]:
        """Nothing for a whole file."""
        head = self._heads.get(digest)
        return head.bases if head and not BlobStore.has(self, digest) else ()

    def _leaning(self, bases: Collection[Digest]) -> tuple[tuple[Digest, Head], ...]:
        """Those that stay although these go."""
        gone = set(bases)
        with self._mutex:
            heads = tuple(self._heads.items())
        return tuple((d, head) for d, head in heads if d not in gone and gone & set(head.bases))

    # -- folding -----------------------------------------------------------------

    def fold(
        self,
        digest: Digest,
        base: Digest,
        external: External | None = None,
        base_external: External | None = None,
        read: Callable[[int], None] = lambda _: None,
    ) -> int:
        """Keep of a whole file only what is new beside another whole one. How many bytes that
        saves; 0 if too few, or something leans on it, and it stays as it is.

        `read` is told of bytes as they are read; what it raises ends this, and nothing is lost.
        """
        if digest == base or self._leaning([digest]):
            return 0
        target = BlobStore.recipe(self, digest, external)
        old = BlobStore.recipe(self, base, base_external)
        most = min(target.size - SAVED_BYTES_MIN, int(target.size * (1 - SAVED_SHARE_MIN)))
        if most <= 0:
            return 0
        with self._setting_aside():
            places = self._write_payloads(target, old, most, read)
        if places is None:
            return 0
        with disk_errors("fold a blob"):
            write_sealed(self._path_of("places", digest), places.encode(), durable=True)
        try:
            for piece in self._pieces(digest, places):
                read(len(piece))  # back: what comes here is the blob, out of these very files
        except Rotten as error:
            log.error("folding_failed", blob=str(digest), found=str(error.digest))
            self._unlink_folded(digest)
            return 0
        return self._leave_out(digest, base, places.head)

    def _write_payloads(
        self, target: Recipe, old: Recipe, most: int, told: Callable[[int], None]
    ) -> Places | None:
        """Durable under their name, if they are not too many."""

        def hashed(file: BinaryIO, digest: Digest) -> ReadPart:
            def read(part: Part, start: int) -> bytes:
                told(part.size)
                data = os.pread(file.fileno(), part.size, start)
                if Digest.of(data) != part.digest:
                    raise Rotten(digest)
                return data

            return read

        folded = self._path_of("folded", target.digest)
        self._promise(most)
        try:
            with (
                self._opened(target.digest) as file,
                self._opened(old.digest) as base,
                disk_errors("fold a blob"),
            ):
                fd, name = tempfile.mkstemp(dir=folded.parent, suffix=".tmp")
                try:
                    places = fold_up(
                        target,
                        old,
                        hashed(file, target.digest),
                        hashed(base, old.digest),
                        lambda packed: write_all(fd, packed),
                        most,
                    )
                    if places is not None:
                        os.fsync(fd)
                        Path(name).replace(folded)
                        sync_folder(folded.parent)
                finally:
                    os.close(fd)
                    Path(name).unlink(missing_ok=True)
                return places
        finally:
            self._release(most)

    def _leave_out(self, digest: Digest, base: Digest, head: Head) -> int:
        """The whole file goes, unless its base has gone or somebody has come to need it so."""
        with self._mutex, disk_errors("fold a blob"):
            place = self._place(digest)
            both = place.is_file() and BlobStore.has(self, base)
            if not both or digest in self._in_use or self._leaning([digest]):
                self._unlink_folded(digest)
                return 0
            came_s = place.stat().st_mtime
            os.utime(self._path_of("places", digest), (came_s, came_s))
            self._heads[digest] = head
            place.unlink()
            self._recipe_place(digest).unlink(missing_ok=True)
        return head.size - head.kept

    def unfold(self, digest: Digest) -> None:
        """Make it whole. Raises `Unavailable` if there is no room, or it is damaged."""
        if BlobStore.has(self, digest):
            self._forget_folded(digest)
            return
        places, came_s = self._places_of(digest), self.came_s(digest)
        with self._setting_aside(), BlobStore.writer(self, places.head.size) as writer:
            for piece in self._pieces(digest, places):
                writer.write(piece)
            path = writer.commit()
        with disk_errors("unfold a blob"):
            os.utime(path, (came_s, came_s))
        self._forget_folded(digest)

    def stand_alone(self, going: Collection[Digest]) -> int:
        """Those for which there is no room go on leaning, and what they lean on will stay."""
        grown = 0
        for digest, head in self._leaning(going):
            try:
                grown += self._grown(digest, head)
            except Unavailable as error:
                log.warning("folding_waits", blob=str(digest), why=str(error))
        return grown

    def _grown(self, digest: Digest, head: Head) -> int:
        grown = 0 if BlobStore.has(self, digest) else head.size - head.kept
        self.unfold(digest)
        return grown

    def delete(self, digest: Digest) -> int:
        check_unpinned(digest, self.pins(digest))
        grown = sum(self._grown(each, head) for each, head in self._leaning([digest]))
        with self._mutex, disk_errors("delete a blob"):
            check_unpinned(digest, self.pins(digest))
            if any(digest in head.bases for head in self._heads.values()):
                raise Conflict(f"something came to lean on {digest}", fix="try again")
            size = self.occupied(digest)
            self._place(digest).unlink(missing_ok=True)
            self._recipe_place(digest).unlink(missing_ok=True)
            self._heads.pop(digest, None)
            self._unlink_folded(digest)
        return size - grown

    def _forget_folded(self, digest: Digest) -> None:
        with self._mutex, disk_errors("unfold a blob"):
            self._heads.pop(digest, None)
            self._unlink_folded(digest)

    def _unlink_folded(self, digest: Digest) -> None:
        """Places first, and for good: without them the payloads are nothing, and what they lean on
        may go next."""
        places = self._path_of("places", digest)
        if places.exists():
            places.unlink()
            sync_folder(places.parent)
        self._path_of("folded", digest).unlink(missing_ok=True)
