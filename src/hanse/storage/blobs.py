"""Model files on the local disk, named by the digest of their bytes.

A file gets its name only once all of it was hashed and is on disk: write to a temporary file,
compare digest and size, fsync, rename, fsync of the folder. So `has` never lies after a crash,
and what a wrong or cut-off transfer leaves behind is never served (T34). Bytes are hashed again
by `open_verified`, because disks forget.

    <folder>/blobs/sha256/ab/cdef…     verified; read-only
    <folder>/blobs/parts/<hex>         what arrived of an interrupted fetch, see `parts`
    <folder>/blobs/unfinished/<hex>    what came of a fetch by parts, see `unfinished`
    <folder>/blobs/incoming/           temporary files of unknown digest
    <folder>/blobs/pins/<hex>/<name>   empty files: who still needs the blob
    <folder>/blobs/damaged/<hex>       found not to match; until the next start
    <folder>/blobs/recipes/<hex>       what the blob is made of, see `recipes`

All functions block: call them through `asyncio.to_thread`. Different threads may use one store.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Protocol

from hanse.core.errors import Conflict, NotFound, TooLarge, Unavailable
from hanse.core.ids import Digest, segment
from hanse.core.limits import BLOB_CHUNK_BYTES, DISK_FREE_SHARE_MIN, FILE_BYTES_MAX
from hanse.parts.recipe import Recipe
from hanse.storage.incoming import BlobWriter, Part, disk_errors, mark_of, sync_folder
from hanse.storage.recipes import External, keep_recipe, kept_recipe, made_recipe
from hanse.storage.unfinished import Unfinished

FOLDERS = ("sha256", "parts", "unfinished", "incoming", "pins", "damaged", "recipes")
UNFINISHED_KEPT_S = 7 * 86_400.0


class Writer(Protocol):
    """One blob on its way in. Use as a context: leaving it without `commit` suspends it."""

    @property
    def offset(self) -> int:
        """Bytes that are already here; the sender continues from this byte."""

    def write(self, chunk: bytes) -> None:
        """Take the next bytes. Raises `TooLarge` past the declared size."""

    def commit(self) -> Path:
        """Verify and publish. Raises `InvalidProof` for a wrong size or digest."""

    def suspend(self) -> None:
        """Stop for now: what has arrived of a known digest can be resumed by a new writer."""

    def abort(self) -> None:
        """Stop for good and forget what has arrived."""

    def __enter__(self) -> Writer: ...
    def __exit__(self, *_: object) -> None: ...


class Arriving(Protocol):
    """One blob on its way in, in pieces in any order; see `unfinished`."""

    begun: bool

    def read(self, start: int, length: int) -> bytes: ...
    def write(self, start: int, data: bytes | memoryview) -> None: ...
    def kept(self, start: int, data: bytes | memoryview) -> None: ...
    def hash_on(self, end: int) -> None: ...
    def commit(self) -> Path: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...


class Blobs(Protocol):
    """Stores bytes under their digest. `NotFound` is raised for what is not here."""

    def writer(self, size: int, digest: Digest | None = None) -> Writer:
        """Begin a blob of exactly `size` bytes, or go on with the part of `digest`.

        Raises `TooLarge` over `FILE_BYTES_MAX` and `Unavailable` when the disk would get too
        full or somebody else is writing the same digest.
        """

    def unfinished(self, size: int, digest: Digest) -> Arriving:
        """Begin a blob, or go on with what came of it. Raises as `writer` does."""

    def has(self, digest: Digest) -> bool: ...
    def size(self, digest: Digest) -> int: ...
    def open_verified(self, digest: Digest) -> BinaryIO:
        """The blob at position 0, after all of it was hashed again.

        Raises `Unavailable` when it no longer matches; it is then gone and can be fetched anew.
        """

    def read_range(self, digest: Digest, start: int, length: int) -> bytes:
        """At most `BLOB_CHUNK_BYTES` from byte `start`; not hashed: the receiver does that."""

    def recipe(self, digest: Digest, external: External | None = None) -> Recipe:
        """What the blob is made of: worked out at the first call, from all of its bytes, and kept.

        Raises `Unavailable` when these are no longer the blob; it is then gone.
        """

    def known_recipe(self, digest: Digest) -> Recipe | None:
        """The same if it is cheap to tell: worked out before, and kept."""

    def laid_out(self, digest: Digest) -> AbstractContextManager[Path]:
        """A file with these bytes, to be read within the context; not hashed."""

    def came_s(self, digest: Digest) -> float:
        """Unix time at which it was written or last renewed."""

    def renew(self, digest: Digest) -> None:
        """Somebody is about to need it: it counts as new. Nothing is done if it is not here."""

    def delete(self, digest: Digest) -> int:
        """Forget a blob; readers that have it open finish. How many bytes that gives back.

        Raises `Conflict` when it is pinned. Takes long if others lean on it, see `stand_alone`.
        """

    def occupied(self, digest: Digest) -> int:
        """Bytes that are kept for it, which may be fewer than it has."""

    def room(self, going: Collection[Digest]) -> int:
        """Bytes that deleting all of these would give back."""

    def stand_alone(self, going: Collection[Digest]) -> int:
        """Before these are deleted: what stays leans on none of them. How many bytes it takes."""

    def lost(self) -> tuple[Digest, ...]:
        """What was found damaged, by whoever read it, since this was asked last."""

    def settle(self) -> None:
        """After deletions: let others who share the store know. May wait for them."""

    def check(self, digest: Digest, read: Callable[[int], None]) -> tuple[str, ...]:
        """Look at every bit that is kept of a blob, telling `read` of each piece of so many bytes.

        Returns what was damaged and has been made good. Raises `Unavailable` for a blob that
        could not be: it is then gone.
        """

    def pin(self, digest: Digest, name: str) -> None:
        """Keep the blob, here or yet to come, until `name` is unpinned. Survives restarts."""

    def unpin(self, digest: Digest, name: str) -> None: ...
    def pins(self, digest: Digest) -> tuple[str, ...]: ...
    def list(self) -> tuple[Digest, ...]: ...
    def sweep_temporaries(self) -> int:
        """At start, before any writer: remove what cannot be resumed; how many files."""


class BlobStore:
    """`Blobs` in `<folder>/blobs`; keeps `reserve_bytes` or 5 % of the disk free, if more."""

    def __init__(self, folder: Path, *, reserve_bytes: int = 0) -> None:
        self.folder = folder / "blobs"
        self._reserve_bytes = reserve_bytes
        self._promised_bytes = 0  # declared by open writers and not yet written
        self._mutex = threading.RLock()  # guards `_promised_bytes` and pin against delete
        self._lost: set[Digest] = set()
        with disk_errors("create the blob folders"):
            for name in FOLDERS:
                (self.folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
            for made in (self.folder, folder, folder.parent):
                sync_folder(made)

    def writer(
        self,
        size: int,
        digest: Digest | None = None,
        published: Callable[[Digest], None] = lambda _: None,
    ) -> BlobWriter:
        check_size(size)
        with disk_errors("begin a blob"):
            if digest is None:
                fd, name = tempfile.mkstemp(dir=self.folder / "incoming")
                part = Part(fd, Path(name), resumable=False)
            else:
                part = Part.resume(self.folder / "parts" / digest.hex, size)
        try:
            self._promise(size - part.length)
        except BaseException:
            os.close(part.fd)
            raise
        return BlobWriter(part, size, digest, self._place, self._release, published)

    def unfinished(
        self,
        size: int,
        digest: Digest,
        published: Callable[[Digest], None] = lambda _: None,
    ) -> Unfinished:
        check_size(size)
        path = self.folder / "unfinished" / digest.hex
        with disk_errors("begin a blob"):
            return Unfinished(
                path, size, digest, self._place, self._promise, self._release, published
            )

    def _promise(self, size: int) -> None:
        """Refuse before the first byte, while reads and holds still have room to go on (T48)."""
        with self._mutex, disk_errors("measure the free space"):
            usage = shutil.disk_usage(self.folder)
            keep = max(int(usage.total * DISK_FREE_SHARE_MIN), self._reserve_bytes)
            if usage.free - self._promised_bytes - size < keep:
                raise Unavailable(
                    f"no room for a blob of {size} bytes: {usage.free} are free, "
                    f"{self._promised_bytes} promised, {keep} kept in reserve",
                    fix="delete releases that nobody needs, or give the daemon a larger disk",
                )
            self._promised_bytes += size

    def _release(self, size: int) -> None:
        with self._mutex:
            self._promised_bytes -= size

    def _place(self, digest: Digest) -> Path:
        return self.folder / "sha256" / digest.hex[:2] / digest.hex[2:]

    def _recipe_place(self, digest: Digest) -> Path:
        return self.folder / "recipes" / digest.hex

    def has(self, digest: Digest) -> bool:
        return self._place(digest).is_file()

    def path(self, digest: Digest) -> Path:
        place = self._place(digest)
        if not place.is_file():
            raise absent(digest)
        return place

    def size(self, digest: Digest) -> int:
        with self._opened(digest) as file:
            return os.fstat(file.fileno()).st_size

    def open_verified(self, digest: Digest) -> BinaryIO:
        file = self._opened(digest)
        try:
            with disk_errors("read a blob"):
                found = hashlib.file_digest(file, "sha256").hexdigest()
                if found != digest.hex:
                    self._set_aside(digest, file)
                    raise damaged(digest)
                file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    def lost(self) -> tuple[Digest, ...]:
        with self._mutex:
            found, self._lost = self._lost, set()
        return tuple(sorted(found))

    def _set_aside(self, digest: Digest, damaged: BinaryIO) -> None:
        """Move these very bytes out of the way, not a good copy that came meanwhile."""
        place = self._place(digest)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(damaged.fileno()), place.stat()):
                place.replace(self.folder / "damaged" / digest.hex)
                self._lost.add(digest)

    def read_range(self, digest: Digest, start: int, length: int) -> bytes:
        check_range(start, length)
        with self._opened(digest) as file, disk_errors("read a blob"):
            return os.pread(file.fileno(), length, start)

    def recipe(self, digest: Digest, external: External | None = None) -> Recipe:
        with self._opened(digest) as file, disk_errors("keep a recipe"):
            kept = self._recipe_place(digest)
            recipe = kept_recipe(kept, digest)
            if recipe is None:
                recipe = made_recipe(file, external)
                if recipe.digest != digest:
                    self._set_aside(digest, file)
                    raise damaged(digest)
                keep_recipe(kept, recipe)
            return recipe

    def known_recipe(self, digest: Digest) -> Recipe | None:
        return kept_recipe(self._recipe_place(digest), digest)

    @contextlib.contextmanager
    def laid_out(self, digest: Digest) -> Iterator[Path]:
        yield self.path(digest)

    def _opened(self, digest: Digest) -> BufferedReader:
        with disk_errors("open a blob"):
            try:
                return self._place(digest).open("rb")
            except FileNotFoundError as error:
                raise absent(digest) from error

    def came_s(self, digest: Digest) -> float:
        return self.path(digest).stat().st_mtime

    def renew(self, digest: Digest) -> None:
        with disk_errors("renew a blob"), contextlib.suppress(FileNotFoundError):
            os.utime(self._place(digest))

    def delete(self, digest: Digest) -> int:
        with self._mutex, disk_errors("delete a blob"):
            check_unpinned(digest, self.pins(digest))
            size = self.size(digest)
            self._place(digest).unlink()
            self._recipe_place(digest).unlink(missing_ok=True)
            return size

    def occupied(self, digest: Digest) -> int:
        return self.size(digest)

    def room(self, going: Collection[Digest]) -> int:
        return sum(map(self.occupied, going))

    def stand_alone(self, going: Collection[Digest]) -> int:
        return 0

    def settle(self) -> None:
        """Nobody shares it."""

    def check(self, digest: Digest, read: Callable[[int], None]) -> tuple[str, ...]:
        with self._opened(digest) as file, disk_errors("check a blob"):
            whole = hashlib.sha256()
            while piece := file.read(BLOB_CHUNK_BYTES):
                whole.update(piece)
                read(len(piece))
            if whole.hexdigest() != digest.hex:
                self._set_aside(digest, file)
                raise damaged(digest)
        return self._check_recipe(digest)

    def _check_recipe(self, digest: Digest) -> tuple[str, ...]:
        """A damaged one is removed: it is made again when somebody asks."""
        path = self._recipe_place(digest)
        with disk_errors("check a recipe"):
            if not path.exists() or kept_recipe(path, digest):
                return ()
            path.unlink()
        return ("recipe",)

    def pin(self, digest: Digest, name: str) -> None:
        folder = self.folder / "pins" / digest.hex
        with self._mutex, disk_errors("pin a blob"):
            folder.mkdir(mode=0o700, exist_ok=True)
            (folder / segment(name, "pin")).touch(mode=0o600)
            sync_folder(folder)
            sync_folder(folder.parent)

    def unpin(self, digest: Digest, name: str) -> None:
        folder = self.folder / "pins" / digest.hex
        with self._mutex, disk_errors("unpin a blob"):
            (folder / segment(name, "pin")).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # others still pin it, or nobody ever did
                folder.rmdir()

    def pins(self, digest: Digest) -> tuple[str, ...]:
        folder = self.folder / "pins" / digest.hex
        return tuple(sorted(pin.name for pin in folder.iterdir())) if folder.is_dir() else ()

    def list(self) -> tuple[Digest, ...]:
        with disk_errors("list the blobs"):
            files = (self.folder / "sha256").glob("[0-9a-f][0-9a-f]/*")
            names = (file.parent.name + file.name for file in files)
            return tuple(sorted(Digest(name) for name in names if len(name) == 64))

    def sweep_temporaries(self) -> int:
        with disk_errors("sweep the temporary files"):
            parts = set((self.folder / "parts").iterdir())
            kept = {part for part in parts if not part.suffix and mark_of(part) in parts}
            kept |= {mark_of(part) for part in kept}
            swept = [
                *(self.folder / "incoming").iterdir(),
                *(self.folder / "damaged").iterdir(),
                *(parts - kept),
                *(self.folder / "recipes").glob("*.tmp"),
                *_stale(self.folder / "unfinished"),
            ]
            for file in swept:
                file.unlink()
            return len(swept)


def _stale(folder: Path) -> Iterator[Path]:
    """What nobody has gone on with for so long."""
    before_s = time.time() - UNFINISHED_KEPT_S
    return (path for path in folder.iterdir() if path.stat().st_mtime < before_s)


def check_size(size: int) -> None:
    if not 0 <= size <= FILE_BYTES_MAX:
        raise TooLarge(f"a blob of {size} bytes", fix=f"at most {FILE_BYTES_MAX} are taken")


def check_range(start: int, length: int) -> None:
    if not (0 <= start <= FILE_BYTES_MAX and 0 <= length <= BLOB_CHUNK_BYTES):
        raise TooLarge(
            f"a range of {length} bytes from {start}",
            fix=f"ask for at most {BLOB_CHUNK_BYTES} bytes of a blob at a time",
        )


def check_unpinned(digest: Digest, pins: tuple[str, ...]) -> None:
    if pins:
        raise Conflict(
            f"{digest} is pinned by {', '.join(pins[:5])}",
            fix="it is still needed, often as a rollback target; unpin it first",
        )


def damaged(digest: Digest) -> Unavailable:
    return Unavailable(
        f"the stored bytes of {digest} are damaged", fix="fetch the blob again and check the disk"
    )


def absent(digest: Digest) -> NotFound:
    return NotFound(f"{digest} is not in this blob store", fix="fetch it from a peer that has it")
