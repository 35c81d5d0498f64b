"""Model files in a bucket that several daemons of a region share; the local disk is a cache.

The bucket is where a blob *is*; who needs it and when it may go, `core.claims` says. The bucket is
not trusted with what it holds: whatever comes from it is hashed before anybody sees a byte, and a
copy that is not the blob is removed. A blob that comes here is verified on the local disk first,
then uploaded, then counted as here.

    has     this daemon relies on a copy: asked on the event loop, so answered from memory
    pin     relies on what another daemon put there, without moving a byte
    delete  forgets the blob; the bucket hears of it in `settle`
    list    what this daemon relies on, and what nobody does

The cache holds what was used last, up to `cache_bytes`; what is being read stays, and what waits
for its upload is lost at most to a full disk. While the bucket cannot be reached, what is in the
cache is served, and `bucket.known` tells a daemon that starts then what it relied on.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import BinaryIO

import structlog

from hanse.core import claims
from hanse.core.claims import Object, Objects
from hanse.core.errors import InvalidProof, InvalidSpec, NotFound, Unavailable
from hanse.core.ids import Digest, MemberId
from hanse.parts.recipe import Recipe
from hanse.storage import known
from hanse.storage.blobs import absent, check_range, check_unpinned, damaged
from hanse.storage.cache import Cache
from hanse.storage.incoming import BlobWriter
from hanse.storage.objects import PIECE_BYTES, Bucket
from hanse.storage.one_at_a_time import OneAtATime
from hanse.storage.recipes import External
from hanse.storage.unfinished import Unfinished

log = structlog.get_logger("hanse.bucket")
AGAIN_S = 15.0
OWNER_KEY = "owner"


class BucketBlobs:
    """`Blobs` of one daemon (`member`) of the region that `owner` names."""

    def __init__(
        self,
        folder: Path,
        bucket: Bucket,
        member: MemberId,
        *,
        owner: str,
        cache_bytes: int,
        reserve_bytes: int = 0,
    ) -> None:
        self.cache = Cache(folder, bytes_max=cache_bytes, reserve_bytes=reserve_bytes)
        self._bucket, self._member, self._owner = bucket, member, owner
        self._mutex = threading.RLock()  # guards what follows; never held across a request
        self._relied: dict[Digest, Objects] = {}
        self._came_s: dict[Digest, float] = {}
        self._others: dict[Digest, tuple[str, ...]] = {}
        self._left: dict[Digest, Objects] = {}
        self._leaving: set[Digest] = set()
        self._changed: set[Digest] = set()  # since the look that is under way began
        self._turns = OneAtATime()  # at the bucket
        self._lost: set[Digest] = set()
        self._away_s: float | None = None  # when it was found to be away, on the monotonic clock
        self._looking = threading.Lock()

    # -- what is there -----------------------------------------------------------

    def sweep_temporaries(self) -> int:
        """Also find out what is in the bucket. Raises `InvalidSpec` if it is another region's."""
        swept = self.cache.sweep_temporaries()
        if not self._look_if_it_is_there():
            self._relied = known.read(self.cache.folder / known.NAME)
        return swept

    def _look_if_it_is_there(self) -> bool:
        try:
            self._check_owner()
            self.look()
            self.settle()  # what an earlier life has begun
        except Unavailable as error:
            log.warning("bucket_away", bucket=self._bucket.name, why=str(error))
            self._away_s = time.monotonic()
            return False
        self._away_s = None
        return True

    def _check_owner(self) -> None:
        said = self._owner.encode()
        if not self._bucket.create(OWNER_KEY, said):
            found = self._bucket.read(OWNER_KEY, 0, 1024)
            if found != said:
                theirs = found.decode(errors="replace")[:200]
                raise InvalidSpec(
                    f"{self._bucket.name} holds the blobs of {theirs!r}, not of {self._owner}",
                    fix="give each region a bucket, or a prefix in it, of its own",
                )

    def look(self) -> None:
        """Learn anew what is in the bucket. Raises `Unavailable`; then nothing is forgotten."""
        with self._looking:
            with self._mutex:
                self._changed.clear()
            found = self._bucket.carry_out(claims.look(self._member))
            with self._mutex:
                changed = self._changed
                self._relied = {
                    **{d: copies for d, copies in found.relied.items() if d not in changed},
                    **{d: copies for d, copies in self._relied.items() if d in changed},
                }
                self._came_s = {
                    **{digest: pin.came_s for digest, pin in found.pinned.items()},
                    **{digest: at for digest, at in self._came_s.items() if digest in changed},
                }
                self._others = dict(found.others)
                self._left = {d: each for d, each in found.left.items() if d not in changed}
                empty = found.pinned.keys() - found.relied.keys() - {*found.doubtful} - changed
                self._leaving |= {digest for digest in empty if not self.cache.pins(digest)}
            for digest in found.doubtful:
                with self._turns.alone(digest):
                    self._rely(digest)
            for digest in found.unfinished:
                with self._turns.alone(digest):
                    if self.has(digest):
                        self._bucket.delete(claims.going_key(digest, self._member))
                    elif digest not in changed:
                        self._leaving.add(digest)
        self._remember()

    def has(self, digest: Digest) -> bool:
        return digest in self._relied

    def list(self) -> tuple[Digest, ...]:
        self.look()
        with self._mutex:
            return tuple(sorted(self._relied.keys() | self._left.keys()))

    def size(self, digest: Digest) -> int:
        return self._copies(digest)[0].size

    def came_s(self, digest: Digest) -> float:
        copies = self._copies(digest)
        return self._came_s.get(digest, copies[0].came_s)

    def renew(self, digest: Digest) -> None:
        with self._turns.alone(digest):
            if self.has(digest):
                self._bucket.put(claims.pin_key(digest, self._member))
                self._note(digest)

    def occupied(self, digest: Digest) -> int:
        return sum(copy.size for copy in self._copies(digest))

    def room(self, going: Collection[Digest]) -> int:
        """Nothing of what other daemons need too."""
        return sum(self.occupied(digest) for digest in going if digest not in self._others)

    def stand_alone(self, going: Collection[Digest]) -> int:
        return 0

    def _copies(self, digest: Digest) -> Objects:
        with self._mutex:
            copies = self._relied.get(digest) or self._left.get(digest)
        if not copies:
            raise absent(digest)
        return copies

    # -- who needs it ------------------------------------------------------------

    def pin(self, digest: Digest, name: str) -> None:
        self.cache.pin(digest, name)
        if not self.has(digest):
            with self._turns.alone(digest):
                self._rely(digest)
                if not self.has(digest) and self.cache.has(digest):
                    self._upload(digest)  # it came while the bucket was away
            self._remember()

    def unpin(self, digest: Digest, name: str) -> None:
        self.cache.unpin(digest, name)

    def pins(self, digest: Digest) -> tuple[str, ...]:
        return self.cache.pins(digest)

    def _rely(self, digest: Digest) -> None:
        nonce = secrets.token_hex(8)
        copies = self._bucket.carry_out(claims.rely(digest, self._member, nonce))
        with self._mutex:
            self._leaving.discard(digest)
            self._note(digest)
            if copies:
                self._relied[digest] = copies
            else:
                self._relied.pop(digest, None)

    def _note(self, digest: Digest) -> None:
        with self._mutex:
            self._changed.add(digest)
            self._came_s[digest] = time.time()

    def delete(self, digest: Digest) -> int:
        with self._mutex:
            check_unpinned(digest, self.pins(digest))
            room = self.room([digest])
            self._changed.add(digest)
            self._relied.pop(digest, None)
            self._left.pop(digest, None)
            self._leaving.add(digest)
            self.cache.forget(digest)
            return room

    def lost(self) -> tuple[Digest, ...]:
        """Also looks at the bucket again, if it was away at the start."""
        if self._away_s is not None and time.monotonic() - self._away_s > AGAIN_S:
            self._look_if_it_is_there()
        with self._mutex:
            found, self._lost = self._lost, set()
        return tuple(sorted(found))

    def settle(self) -> None:
        for digest in tuple(self._leaving):
            with self._turns.alone(digest):
                if digest in self._leaving and not self.has(digest):  # it may have come meanwhile
                    self._bucket.carry_out(claims.give_up(digest, self._member))
                self._leaving.discard(digest)
        self._remember()

    # -- bytes -------------------------------------------------------------------

    def writer(self, size: int, digest: Digest | None = None) -> BlobWriter:
        self.cache.make_room(size)
        return self.cache.writer(size, digest, self.arrived)

    def unfinished(self, size: int, digest: Digest) -> Unfinished:
        self.cache.make_room(size)
        return self.cache.unfinished(size, digest, self.arrived)

    def arrived(self, digest: Digest) -> None:
        """It is whole on the local disk. Raises `Unavailable`: then it is not counted as here."""
        with self._turns.alone(digest):
            self.cache.used(digest)
            self._rely(digest)
            if not self.has(digest):
                self._upload(digest)
        self.cache.make_room(0)
        self._remember()

    def _upload(self, digest: Digest) -> None:
        key = claims.copy_key(digest, secrets.token_hex(8))
        self._bucket.upload(key, self.cache.path(digest))
        copy = Object(key, self.cache.size(digest), time.time())
        with self._mutex:
            self._relied[digest] = (copy, *self._relied.get(digest, ()))
            self._note(digest)

    def open_verified(self, digest: Digest) -> BinaryIO:
        with self._read(digest):
            try:
                return self.cache.open_verified(digest)
            except Unavailable:  # the cache has rotted, the bucket may not have
                self._bring(digest)
                return self.cache.open_verified(digest)

    def read_range(self, digest: Digest, start: int, length: int) -> bytes:
        check_range(start, length)
        with self._read(digest):
            return self.cache.read_range(digest, start, length)

    def recipe(self, digest: Digest, external: External | None = None) -> Recipe:
        self._copies(digest)
        if kept := self.known_recipe(digest):
            return kept
        with self._read(digest):
            return self.cache.recipe(digest, external)

    def known_recipe(self, digest: Digest) -> Recipe | None:
        return self.cache.known_recipe(digest)

    @contextlib.contextmanager
    def laid_out(self, digest: Digest) -> Iterator[Path]:
        with self._read(digest):
            yield self.cache.path(digest)

    @contextlib.contextmanager
    def _read(self, digest: Digest) -> Iterator[None]:
        """It is in the cache, and stays there."""
        with self.cache.reading(digest):
            self._bring(digest)
            yield

    def _bring(self, digest: Digest) -> None:
        self._copies(digest)
        if self.cache.has(digest):
            self.cache.used(digest)
            return
        with self._turns.alone(digest):
            if self.cache.has(digest):
                return
            for copy in self._copies(digest):
                if self._download(digest, copy):
                    self.cache.used(digest)
                    return
        raise damaged(digest)

    def _download(self, digest: Digest, copy: Object) -> bool:
        """Into the cache. A copy that is not the blob is looked at twice, then removed."""
        for _ in range(2):
            try:
                return self._receive(digest, copy)
            except NotFound:
                break
            except InvalidProof as error:
                log.error("copy_damaged", blob=str(digest), key=copy.key, why=str(error))
                found = self._bucket.find(claims.copy_key(digest))
                copy = next((each for each in found if each.key == copy.key), copy)
        self._drop(digest, copy)
        return False

    def _receive(self, digest: Digest, copy: Object) -> bool:
        self.cache.make_room(copy.size)
        with self.cache.writer(copy.size, digest) as writer:
            while writer.offset < copy.size:
                length = min(PIECE_BYTES, copy.size - writer.offset)
                piece = self._bucket.read(copy.key, writer.offset, length)
                if len(piece) != length:
                    writer.abort()
                    raise InvalidProof(f"{copy.key} ends after {writer.offset + len(piece)} bytes")
                writer.write(piece)
            writer.commit()
        return True

    def check(self, digest: Digest, read: Callable[[int], None]) -> tuple[str, ...]:
        """The copies in the bucket and the file in the cache: one makes the others good."""
        found: list[str] = []
        if self.cache.has(digest):
            try:
                found += self.cache.check(digest, read)
            except Unavailable:
                found.append("file in the cache")
        bad = [copy for copy in self._copies(digest) if not self._is_whole(digest, copy, read)]
        if not bad:
            return tuple(found)
        with self._turns.alone(digest):
            if self.cache.has(digest):
                self._upload(digest)
            for copy in bad:
                self._drop(digest, copy)
        if not self.has(digest):
            raise damaged(digest)
        return (*found, "copy in the bucket")

    def _is_whole(self, digest: Digest, copy: Object, read: Callable[[int], None]) -> bool:
        whole, at = hashlib.sha256(), 0
        while at < copy.size:
            try:
                piece = self._bucket.read(copy.key, at, min(PIECE_BYTES, copy.size - at))
            except NotFound:  # somebody has removed it
                return False
            if not piece:
                return False
            whole.update(piece)
            at += len(piece)
            read(len(piece))
        return whole.hexdigest() == digest.hex

    def _drop(self, digest: Digest, copy: Object) -> None:
        self._bucket.delete(copy.key)
        with self._mutex:
            self._changed.add(digest)
            for where in (self._relied, self._left):
                left = tuple(each for each in where.pop(digest, ()) if each.key != copy.key)
                if left:
                    where[digest] = left
            if digest not in self._relied:
                self._lost.add(digest)

    def _remember(self) -> None:
        with self._mutex:
            known.write(self.cache.folder / known.NAME, self._relied)
