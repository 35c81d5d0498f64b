"""Payloads of parts, made in a thread and kept: whoever asks next gets the same bytes.

What leaves here was hashed within ten minutes, so that a disk that forgets is found by whoever owns
it. A part that nothing makes smaller is not kept in memory: it is read again, piece by piece.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Coroutine, Hashable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from hanse.core.errors import Unavailable
from hanse.core.ids import Digest
from hanse.core.limits import BLOB_CHUNK_BYTES, PARTS_MAX
from hanse.core.transfer.wanted import File
from hanse.parts import payload, plan
from hanse.parts.payload import RAW, Base
from hanse.parts.recipe import Part, Recipe

KEPT_BYTES_MAX = 32 * 1024**2
RECIPES_PARTS_MAX = 2 * PARTS_MAX
SMALL_SHARE = 32
LATELY_S = 600.0
MAKERS_MAX = 2
"""Payloads made at once; each takes a core, and some tens of MiB beside the part."""
SLOW_PIECE_BYTES = 64 * 1024
_KEY_BYTES = 512
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Damaged(Unavailable):
    """Stored bytes are not what they were."""

    def __init__(self, file: Digest) -> None:
        super().__init__(f"the stored bytes of {file} are damaged", fix="ask another peer")
        self.file = file


class Reads(Protocol):
    def read_range(self, digest: Digest, start: int, length: int) -> bytes: ...
    def recipe(self, file: File) -> Recipe: ...


@dataclass(frozen=True, slots=True)
class Known:
    """A recipe, its digest, and where each part begins."""

    recipe: Recipe
    id: Digest
    starts: tuple[int, ...]

    def place(self, number: int) -> Place:
        return Place(self.recipe.parts[number], self.recipe.digest, self.starts[number])


@dataclass(frozen=True, slots=True)
class Place:
    """A part, and where it lies."""

    part: Part
    file: Digest
    start: int


class Piece(NamedTuple):
    """What goes at a time: `data` behind `head`, which is empty but for the first of a part."""

    head: bytes
    data: bytes
    last: bool

    @property
    def size(self) -> int:
        return len(self.head) + len(self.data)


class Payloads:
    def __init__(self, source: Reads) -> None:
        self._source = source
        self._recipes = _Made[Digest, Known](RECIPES_PARTS_MAX, lambda k: len(k.recipe.parts))
        self._bases = _Newest[tuple[Digest, Digest], dict[Digest, Place]](RECIPES_PARTS_MAX)
        self._made = _Made[object, bytes](KEPT_BYTES_MAX, lambda made: len(made) + _KEY_BYTES)
        self._right = _Newest[tuple[Digest, int], float](RECIPES_PARTS_MAX)  # when it was hashed
        self._makers = asyncio.Semaphore(MAKERS_MAX)

    async def recipe(self, file: File) -> Known:
        return await self._recipes.of(file.digest, lambda: asyncio.to_thread(self._known, file))

    def _known(self, file: File) -> Known:
        recipe = self._source.recipe(file)
        return Known(recipe, Digest.of(recipe.encode()), recipe.starts())

    async def bases(self, target: Known, base: Known) -> dict[Digest, Place]:
        """For each part of the target, the part of the base that it may be against."""
        key = (target.id, base.id)
        found = self._bases.get(key)
        if found is None:
            found = await asyncio.to_thread(_paired, target.recipe, base)
            self._bases.put(key, found, len(found))
        return found

    def is_small(self, place: Place, base: Place | None) -> bool:
        """Whether its payload is at hand and so small that sending it is less than the detour."""
        kept = (self._made.get((place.part, base.part)) if base else None) or RAW
        return kept != RAW and len(kept) * SMALL_SHARE <= place.part.size

    async def pieces(
        self, place: Place, base: Place | None, *, packed: bool, bytes_max: int = BLOB_CHUNK_BYTES
    ) -> AsyncGenerator[Piece, None]:
        """The payload of a part. Raises `Damaged` instead of the last piece if the stored bytes
        are not the part."""
        step = min(SLOW_PIECE_BYTES, bytes_max) if packed else bytes_max
        made = RAW
        if packed or base:
            key = (place.part, base and base.part)
            made = await self._made.of(key, lambda: self._make(place, base))
        if made != RAW:
            for at in range(0, len(made), step):
                yield Piece(b"", made[at : at + step], at + step >= len(made))
            return
        end, found = place.start + place.part.size, hashlib.sha256()
        now_s, at_disk = asyncio.get_running_loop().time(), (place.file, place.start)
        right_s = self._right.get(at_disk)
        hashed = right_s is None or now_s - right_s >= LATELY_S

        def read(start: int) -> Piece:
            data = self._read_range(place.file, start, min(step, end - start))
            if hashed:
                found.update(data)
            last = start + len(data) == end
            if last and hashed:
                _check(Digest(found.hexdigest()), place)
            return Piece(RAW if start == place.start else b"", data, last)

        async with aclosing(read_ahead(read, range(place.start, end, step))) as pieces:
            async for piece in pieces:
                yield piece
        if hashed:
            self._right.put(at_disk, now_s, 1)

    def _read_range(self, file: Digest, start: int, length: int) -> bytes:
        piece = self._source.read_range(file, start, length)
        if len(piece) != length:
            raise Damaged(file)
        return piece

    async def _make(self, place: Place, base: Place | None) -> bytes:
        """`RAW` alone stands for a payload that would be no smaller than the part."""
        async with self._makers:
            return await asyncio.to_thread(self._encoded, place, base)

    def _encoded(self, place: Place, base: Place | None) -> bytes:
        against = Base(base.part, self._read(base)) if base else None
        made = payload.encode(place.part, self._read(place), against)
        return RAW if made[: len(RAW)] == RAW else made

    def _read(self, place: Place) -> bytes:
        end = place.start + place.part.size
        data = b"".join(
            self._read_range(place.file, at, min(BLOB_CHUNK_BYTES, end - at))
            for at in range(place.start, end, BLOB_CHUNK_BYTES)
        )
        _check(Digest.of(data), place)
        return data


async def read_ahead(read: Callable[[int], V], starts: Sequence[int]) -> AsyncGenerator[V, None]:
    """What `read` makes of each, in a thread: the next one while the last is sent."""
    loop = asyncio.get_running_loop()
    ahead: asyncio.Future[V] | None = None
    try:
        for at, start in enumerate(starts):
            found = await (ahead or loop.run_in_executor(None, read, start))
            ahead = None
            if at + 1 < len(starts):
                ahead = loop.run_in_executor(None, read, starts[at + 1])
            yield found
    finally:
        if ahead is not None:
            ahead.cancel()


def _check(found: Digest, place: Place) -> None:
    if found != place.part.digest:
        raise Damaged(place.file)


def _paired(target: Recipe, base: Known) -> dict[Digest, Place]:
    places = {
        part.digest: Place(part, base.recipe.digest, start)
        for part, start in zip(base.recipe.parts, base.starts, strict=False)
    }
    return {digest: places[part.digest] for digest, part in plan.bases(target, base.recipe).items()}


class _Newest(Generic[K, V]):
    """Values of so much weight together, the longest unused one going first."""

    def __init__(self, weight_max: int) -> None:
        self._weight_max, self._weight = weight_max, 0
        self._values = OrderedDict[K, tuple[V, int]]()

    def get(self, key: K) -> V | None:
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: K, value: V, weight: int) -> None:
        if key in self._values:
            self._weight -= self._values.pop(key)[1]
        self._values[key] = (value, weight)
        self._weight += weight
        while self._weight > self._weight_max and len(self._values) > 1:
            self._weight -= self._values.popitem(last=False)[1][1]


class _Made(_Newest[K, V]):
    """Made once, however many ask at the same time, as nodes do that were told together."""

    def __init__(self, weight_max: int, weigh: Callable[[V], int]) -> None:
        super().__init__(weight_max)
        self._weigh = weigh
        self._making: dict[K, asyncio.Task[V]] = {}

    async def of(self, key: K, make: Callable[[], Coroutine[None, None, V]]) -> V:
        if (kept := self.get(key)) is not None:
            return kept
        if key not in self._making:
            task = self._making[key] = asyncio.create_task(make())
            task.add_done_callback(lambda done: self._finished(key, done))
        return await asyncio.shield(self._making[key])

    def _finished(self, key: K, done: asyncio.Task[V]) -> None:
        del self._making[key]
        if not done.cancelled() and done.exception() is None:
            self.put(key, done.result(), self._weigh(done.result()))
