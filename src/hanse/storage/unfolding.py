"""Reading a folded blob: bit for bit what it was, or damage, and then it is known of which file.

A part is copied out of a whole file or decoded from its payload, which may be a difference to a
part of one. Where that does not give what the recipe says, either the payload or what it leans on
has rotted; the digest of the latter tells.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import structlog

from hanse.core.errors import InvalidProof, NotFound, Rejected
from hanse.core.ids import Digest
from hanse.parts import payload
from hanse.parts.payload import Base
from hanse.parts.recipe import Recipe
from hanse.storage.blobs import BlobStore, absent, check_range, damaged
from hanse.storage.incoming import disk_errors, sync_folder, write_all
from hanse.storage.places import BYTES_MAX, Head, Place, Places, parse_head, parse_places
from hanse.storage.recipes import External
from hanse.storage.sealed import read_sealed

log = structlog.get_logger("hanse.folded")
_PLACES_KEPT, _PARTS_KEPT = 2, 4
"""In memory: places that were read last, and parts that were decoded, of 8 MiB at most."""
T = TypeVar("T")
K = TypeVar("K")


class Rotten(Exception):
    """These stored bytes are not what they were."""

    def __init__(self, digest: Digest) -> None:
        super().__init__(str(digest))
        self.digest = digest


class Unfolding(BlobStore):
    """A `BlobStore` that also holds what `FoldedBlobs` has folded."""

    def __init__(self, folder: Path, *, reserve_bytes: int = 0) -> None:
        super().__init__(folder, reserve_bytes=reserve_bytes)
        self._heads: dict[Digest, Head] = {}  # of everything folded; guarded by `_mutex`
        self._in_use: Counter[Digest] = Counter()  # laid out; the same
        self._caches = threading.Lock()  # guards the two that follow
        self._places: OrderedDict[Digest, Places] = OrderedDict()
        self._parts: OrderedDict[tuple[Digest, int], bytes] = OrderedDict()
        with disk_errors("create the blob folders"):
            for name in ("folded", "places"):
                (self.folder / name).mkdir(mode=0o700, exist_ok=True)
            sync_folder(self.folder)
        self._read_heads()

    def _read_heads(self) -> None:
        for path in (self.folder / "places").iterdir():
            if len(path.name) != 64:
                continue
            raw = read_sealed(path, BYTES_MAX)
            try:
                if raw is None:
                    raise InvalidProof("its seal is broken")
                self._heads[Digest(path.name)] = parse_head(raw)
            except Rejected as error:
                log.error("blob_damaged", blob=path.name, kind="places", why=str(error))
                self._put_aside(Digest(path.name))

    # -- what is here ------------------------------------------------------------

    def has(self, digest: Digest) -> bool:
        """Asked in this order, since it may be folded or unfolded meanwhile."""
        return super().has(digest) or self._is_folded(digest) or super().has(digest)

    def _is_folded(self, digest: Digest) -> bool:
        head = self._heads.get(digest)
        return head is not None and all(map(super().has, head.bases))

    def list(self) -> tuple[Digest, ...]:
        """Also what cannot be read until what it leans on is back: its bytes are here."""
        return tuple(sorted({*super().list(), *tuple(self._heads)}))

    def size(self, digest: Digest) -> int:
        return self._either(digest, super().size, lambda head: head.size)

    def occupied(self, digest: Digest) -> int:
        """Without the places: so it adds up to what a person finds under `folded`."""
        return self._either(digest, super().size, lambda head: head.kept)

    def came_s(self, digest: Digest) -> float:
        return self._either(
            digest, super().came_s, lambda _: self._path_of("places", digest).stat().st_mtime
        )

    def renew(self, digest: Digest) -> None:
        super().renew(digest)
        with disk_errors("renew a blob"), contextlib.suppress(FileNotFoundError):
            os.utime(self._path_of("places", digest))

    def _either(
        self, digest: Digest, whole: Callable[[Digest], T], folded: Callable[[Head], T]
    ) -> T:
        """Folding and unfolding go on meanwhile: what is neither is looked at once more."""
        for _ in range(2):
            with contextlib.suppress(NotFound, FileNotFoundError):
                return whole(digest)
            if (head := self._heads.get(digest)) is not None:
                with contextlib.suppress(NotFound, FileNotFoundError), self._setting_aside():
                    return folded(head)
        raise absent(digest)

    # -- reading -----------------------------------------------------------------

    def read_range(self, digest: Digest, start: int, length: int) -> bytes:
        check_range(start, length)
        return self._either(
            digest,
            lambda d: super(Unfolding, self).read_range(d, start, length),
            lambda _: self._range(digest, start, length),
        )

    def _range(self, digest: Digest, start: int, length: int) -> bytes:
        places, out = self._places_of(digest), []
        starts = places.starts
        end = min(start + length, starts[-1])
        at = bisect_right(starts, start) - 1
        while start < end:
            low, high = starts[at], min(starts[at + 1], end)
            place = places.each[at]
            if place.base is not None and not place.length:  # not hashed, as in a whole file
                out.append(self._read(place.base, place.start + start - low, high - start))
            else:
                out.append(self._part(digest, places, at)[start - low : high - low])
            start, at = high, at + 1
        return b"".join(out)

    def open_verified(self, digest: Digest) -> BinaryIO:
        def laid(_: Head) -> BinaryIO:
            with self._laid(digest) as path:
                return path.open("rb")

        return self._either(digest, super().open_verified, laid)

    @contextlib.contextmanager
    def laid_out(self, digest: Digest) -> Iterator[Path]:
        """A whole file is not folded meanwhile."""
        with contextlib.ExitStack() as stack:
            with self._mutex:
                self._in_use[digest] += 1
            stack.callback(self._used, digest)
            yield self._either(digest, self.path, lambda _: stack.enter_context(self._laid(digest)))

    def _used(self, digest: Digest) -> None:
        with self._mutex:
            self._in_use[digest] -= 1
            if not self._in_use[digest]:
                del self._in_use[digest]

    @contextlib.contextmanager
    def _laid(self, digest: Digest) -> Iterator[Path]:
        """A temporary file with the bytes of what is folded."""
        places = self._places_of(digest)
        self._promise(places.head.size)
        with disk_errors("lay out a blob"):
            fd, name = tempfile.mkstemp(dir=self.folder / "incoming")
        try:
            try:
                for piece in self._pieces(digest, places):
                    with disk_errors("lay out a blob"):
                        write_all(fd, piece)
            finally:
                os.close(fd)
                self._release(places.head.size)
            yield Path(name)
        finally:
            Path(name).unlink()

    def recipe(self, digest: Digest, external: External | None = None) -> Recipe:
        return self._either(
            digest,
            lambda d: super(Unfolding, self).recipe(d, external),
            lambda _: self._places_of(digest).recipe,
        )

    def known_recipe(self, digest: Digest) -> Recipe | None:
        return self.recipe(digest) if self._is_folded(digest) else super().known_recipe(digest)

    def check(self, digest: Digest, read: Callable[[int], None]) -> tuple[str, ...]:
        def folded(_: Head) -> tuple[str, ...]:
            with self._caches:
                self._places.pop(digest, None)  # of interest is what the disk has
            for piece in self._pieces(digest, self._places_of(digest)):
                read(len(piece))
            return ()

        return self._either(digest, lambda d: super(Unfolding, self).check(d, read), folded)

    def _pieces(self, digest: Digest, places: Places) -> Iterator[bytes]:
        """Part for part, each hashed, and in the end the whole."""
        whole = hashlib.sha256()
        for number in range(len(places.each)):
            data = self._part(digest, places, number, fresh=True)
            whole.update(data)
            yield data
        if whole.hexdigest() != digest.hex:
            raise Rotten(digest)

    def _part(self, digest: Digest, places: Places, number: int, *, fresh: bool = False) -> bytes:
        key = (digest, number)
        if not fresh and (kept := self._kept(self._parts, key)) is not None:
            return kept
        part, place = places.recipe.parts[number], places.each[number]
        if place.base is not None and not place.length:
            data = self._read(place.base, place.start, part.size)
            if Digest.of(data) != part.digest:
                raise Rotten(place.base)
            return data
        base = self._base(place)
        body = self._payload(digest, places.payloads[number], place.length)
        try:
            data = payload.decode(part, body, lambda found: base if _is(base, found) else None)
        except InvalidProof as error:
            whole = base is None or Digest.of(base.data) == base.part.digest
            raise Rotten(digest if whole or place.base is None else place.base) from error
        if not fresh:
            self._keep(self._parts, key, data, _PARTS_KEPT)
        return data

    def _payload(self, digest: Digest, start: int, length: int) -> bytes:
        with disk_errors("read a blob"):
            try:
                with self._path_of("folded", digest).open("rb") as file:
                    return os.pread(file.fileno(), length, start)
            except FileNotFoundError:
                if self._path_of("places", digest).exists():
                    raise Rotten(digest) from None
                raise absent(digest) from None

    def _base(self, place: Place) -> Base | None:
        if place.base is None or place.part is None:
            return None
        return Base(place.part, self._read(place.base, place.start, place.part.size))

    def _read(self, digest: Digest, start: int, length: int) -> bytes:
        with self._opened(digest) as file, disk_errors("read a blob"):
            return os.pread(file.fileno(), length, start)

    def _places_of(self, digest: Digest) -> Places:
        if (kept := self._kept(self._places, digest)) is not None:
            return kept
        path = self._path_of("places", digest)
        raw = read_sealed(path, BYTES_MAX)
        if raw is None and not path.exists():
            raise absent(digest)
        try:
            places = parse_places(raw) if raw is not None else None
        except Rejected:
            places = None
        if places is None or places.recipe.digest != digest:
            raise Rotten(digest)
        self._keep(self._places, digest, places, _PLACES_KEPT)
        return places

    @contextlib.contextmanager
    def _setting_aside(self) -> Iterator[None]:
        """What is found damaged meanwhile goes out of the way, so that it is fetched again."""
        try:
            yield
        except Rotten as error:
            log.error("blob_damaged", blob=str(error.digest))
            if BlobStore.has(self, error.digest):
                with self._opened(error.digest) as file:
                    self._set_aside(error.digest, file)
            else:
                self._put_aside(error.digest)
            raise damaged(error.digest) from error

    def _put_aside(self, digest: Digest) -> None:
        with self._mutex, disk_errors("set a damaged blob aside"):
            self._heads.pop(digest, None)
            self._lost.add(digest)
            for kind in ("places", "folded"):
                with contextlib.suppress(FileNotFoundError):
                    self._path_of(kind, digest).replace(
                        self.folder / "damaged" / f"{digest.hex}.{kind}"
                    )

    # -- small helpers -----------------------------------------------------------

    def _path_of(self, kind: str, digest: Digest) -> Path:
        return self.folder / kind / digest.hex

    def _kept(self, cache: OrderedDict[K, T], key: K) -> T | None:
        with self._caches:
            if key in cache:
                cache.move_to_end(key)
            return cache.get(key)

    def _keep(self, cache: OrderedDict[K, T], key: K, value: T, most: int) -> None:
        with self._caches:
            cache[key] = value
            while len(cache) > most:
                cache.popitem(last=False)


def _is(base: Base | None, digest: Digest) -> bool:
    return base is not None and base.part.digest == digest
