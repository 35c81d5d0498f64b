"""Parts as they reach the disk: by whom, each once, and what of the file has no hole before it.

Two sources may bring the same part. One of them at most writes it as it comes; another gathers it,
and whoever has all of it first lands it. What has landed is never written again, so that it may be
hashed and read while more comes.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterable

from hanse.core.errors import InvalidProof
from hanse.transfer.job import Job
from hanse.transfer.places import Places

HASHED_BYTES = 4 * 1024**2
"""So much is hashed at a time for the digest of the whole."""


class Landing:
    """A part that is written as it comes."""

    def __init__(self, number: int) -> None:
        self.number, self.at = number, 0
        self.hash = hashlib.sha256()


class Ground:
    """Where the `missing` parts of one file land."""

    def __init__(self, job: Job, places: Places, missing: Iterable[int]) -> None:
        self._job, self._places = job, places
        self._missing = set(missing)
        self._landing: dict[int, Landing] = {}
        self._writing = threading.Lock()
        self._next = self._end = self._hashed = 0  # a part, and bytes, from the beginning on
        self._hashing: asyncio.Future[None] | None = None

    def begin(self, number: int) -> Landing | None:
        """None if somebody else is writing it."""
        if number in self._landing or number not in self._missing:
            return None
        found = self._landing[number] = Landing(number)
        return found

    def give_up(self, landing: Landing) -> None:
        if self._landing.get(landing.number) is landing:
            del self._landing[landing.number]

    def check(self, landing: Landing) -> None:
        """All of it was written. Raises `InvalidProof` if it is too short."""
        if landing.at < self._places.sizes[landing.number]:
            raise self._wrong(landing.number)

    # -- in threads --------------------------------------------------------------

    def write(self, landing: Landing, data: bytes | memoryview) -> None:
        """The next piece. Raises `InvalidProof` if the part becomes too long, or a wrong one."""
        number, room = landing.number, self._places.sizes[landing.number] - landing.at
        landing.hash.update(data)
        if len(data) > room or (len(data) == room and not self._is_right(landing)):
            raise self._wrong(number)
        with self._writing:
            if number in self._missing and self._landing.get(number) is landing:
                for start in self._places.starts_of(number):
                    self._job.put(start + landing.at, data)
                if len(data) == room:
                    self._missing.discard(number)
        landing.at += len(data)

    def _is_right(self, landing: Landing) -> bool:
        return landing.hash.digest() == self._places.parts[landing.number].digest.raw

    def put(self, number: int, data: bytes | memoryview) -> None:
        """A whole part that is right."""
        with self._writing:
            if number in self._missing:
                self._landing.pop(number, None)
                self._job.put_part(self._places, number, data)
                self._missing.discard(number)

    def _wrong(self, number: int) -> InvalidProof:
        digest = self._places.parts[number].digest
        return InvalidProof(f"a payload does not hold {digest}", fix="ask another peer")

    # -- the digest of the whole -------------------------------------------------

    def hash_on(self) -> None:
        """Have what lies there without a hole hashed, if that is much more than before."""
        sizes, same = self._places.sizes, self._places.same
        while self._next < len(sizes) and same[self._next] not in self._missing:
            self._end += sizes[self._next]
            self._next += 1
        if self._hashing is None and self._end - self._hashed >= HASHED_BYTES:
            self._hashed = self._end
            loop, coming = asyncio.get_running_loop(), self._job.coming
            self._hashing = loop.run_in_executor(None, coming.hash_on, self._end)
            self._hashing.add_done_callback(self._hash_on)

    def _hash_on(self, done: asyncio.Future[None]) -> None:
        self._hashing = None
        if not done.cancelled() and done.exception() is None:  # or whoever commits learns it
            self.hash_on()

    async def still(self) -> None:
        """Until nobody hashes."""
        while self._hashing is not None:
            await asyncio.wait([self._hashing])
