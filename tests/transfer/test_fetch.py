"""A file over real mTLS from peers of every kind: it arrives whole, and liars are named."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from parts.models import safetensors
from rpc.blob_worlds import Scripted, serving
from shelves import Shelf
from structlog.testing import capture_logs

from hanse.core.counters import Counters, zeros
from hanse.core.errors import Unavailable
from hanse.core.ids import Digest
from hanse.core.transfer import download
from hanse.core.transfer.wanted import Elsewhere, File, Neighbour
from hanse.parts.recipe import split
from hanse.rpc.blob_service import BlobService
from hanse.rpc.pacing import Pace
from hanse.storage import unfinished
from hanse.storage.blobs import BlobStore
from hanse.transfer import fetch as fetching
from hanse.transfer.fetch import fetch_file
from hanse.transfer.wish import Like, Progress, Source, Wish
from hanse.v1 import blob_pb2 as pb

RELEASE = Digest.of(b"release")
RNG = np.random.default_rng(3)
OLD_ROWS = [RNG.standard_normal(50_000).astype("f4") for _ in range(12)]
NEW_ROWS = [
    *OLD_ROWS[:5],
    *(row + np.float32(1e-6) for row in OLD_ROWS[5:8]),
    *(RNG.standard_normal(50_000).astype("f4") for _ in range(4)),
]


def model(rows: list[Any]) -> bytes:
    return safetensors({f"t{n}": ("F32", [len(r)], r.tobytes()) for n, r in enumerate(rows)})


OLD, NEW = model(OLD_ROWS), model(NEW_ROWS)
FILE, OLD_FILE = File(Digest.of(NEW), RELEASE), File(Digest.of(OLD), RELEASE)
OLD_MANIFEST: Any = SimpleNamespace(
    files=(SimpleNamespace(name="m.safetensors", digest=OLD_FILE.digest, size=len(OLD)),)
)
PARTS = split(NEW).parts


class Server:
    def __init__(self, shelf: Shelf, source: Source, counters: Counters) -> None:
        self.shelf, self.source, self.counters = shelf, source, counters

    @property
    def sent(self) -> int:
        return self.counters["blob_bytes_sent"]


class World:
    """A node's store, and peers that serve the new file, each in its way."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder, self._stack = folder, stack
        self.store = BlobStore(folder / "node")
        self.damaged: list[Digest] = []

    async def peer(self, name: str, rtt_s: float = 0.001, service: Any = None) -> Server:
        place = self.folder / name
        place.mkdir()
        shelf, counters = Shelf(place), zeros()
        for data in (OLD, NEW):
            shelf.put(data)
        served = service or BlobService(shelf, counters)
        channel, _ = await self._stack.enter_async_context(serving(served))
        return Server(shelf, Source(name, lambda: channel, rtt_s), counters)

    def hold(self, data: bytes = OLD) -> None:
        with self.store.writer(len(data)) as writer:
            writer.write(data)
            writer.commit()

    async def fetch(self, *servers: Server, like: bool = False, **how: Any) -> Progress:
        wish = Wish(
            FILE, len(NEW), "m.safetensors", (Like(OLD_FILE, OLD_MANIFEST),) if like else ()
        )
        progress = Progress(wish)
        sources = [server.source for server in servers]
        await fetch_file(
            self.store,
            wish,
            sources,
            Random(1),
            progress=progress,
            on_damage=self.damaged.append,
            **how,
        )
        with self.store.open_verified(FILE.digest) as file:
            assert file.read() == NEW
        assert progress.done == len(NEW)
        return progress


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(tmp_path, stack)


async def test_from_one_source_it_is_streamed(world: World) -> None:
    one = await world.peer("one")
    progress = await world.fetch(one)
    assert one.sent == progress.came == len(NEW)


async def test_several_sources_share_the_work(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "BATCH_BYTES_FIRST", 300_000)
    peers = [await world.peer(name) for name in ("one", "two", "three")]
    await world.fetch(*peers)
    assert all(peer.sent > len(NEW) // 10 for peer in peers)
    assert sum(peer.sent for peer in peers) < 1.5 * len(NEW)


@pytest.mark.parametrize("slow", [False, True])
async def test_over_a_slow_line_what_has_no_ancestor_comes_packed(
    world: World, monkeypatch: pytest.MonkeyPatch, slow: bool
) -> None:
    monkeypatch.setattr(Progress, "slow", slow)
    one = await world.peer("one")
    await world.fetch(one, neighbour=lambda _: one.source.channel())
    assert (one.sent < 0.95 * len(NEW)) == slow


async def test_who_holds_an_ancestor_fetches_what_is_new(world: World) -> None:
    world.hold()
    one = await world.peer("one")
    await world.fetch(one, like=True)
    untouched = 4 * 200_000  # four tensors are new, three are tuned, five are the same
    assert one.sent < 1.25 * untouched


@pytest.mark.parametrize("like", [False, True])
async def test_every_byte_that_comes_waits_for_our_own_line(world: World, like: bool) -> None:
    if like:
        world.hold()
    taken: list[int] = []

    class Line(Pace):
        async def take(self, caller: Hashable, size: int) -> None:
            assert caller == FILE.digest
            taken.append(size)

    progress = await world.fetch(await world.peer("one"), like=like, line=Line())
    assert sum(taken) == progress.came


async def test_a_rotten_ancestor_is_found_reported_and_does_no_harm(world: World) -> None:
    world.hold()
    world.store.recipe(OLD_FILE.digest)
    path = world.store.path(OLD_FILE.digest)
    rotten = bytearray(OLD)
    for at in (len(OLD) // 12, 6 * len(OLD) // 12):  # in a part to copy, and in one to add to
        rotten[at] ^= 1
    path.chmod(0o600)
    path.write_bytes(rotten)
    one = await world.peer("one")
    with capture_logs() as lines:
        await world.fetch(one, like=True)
    assert world.damaged == [OLD_FILE.digest]
    assert [line["blob"] for line in lines if line["event"] == "blob_damaged"] == [
        str(OLD_FILE.digest)
    ]


@pytest.mark.parametrize("position", range(0, len(PARTS), 3))
async def test_a_base_that_rots_under_way_is_no_fault_of_the_source(
    world: World, position: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.hold()
    one = await world.peer("one")
    read, reads = BlobStore.read_range, 0

    def rots(store: BlobStore, digest: Digest, start: int, length: int) -> bytes:
        nonlocal reads
        reads += 1
        data = read(store, digest, start, length)
        return data if reads < position else bytes([data[0] ^ 1]) + data[1:]

    monkeypatch.setattr(BlobStore, "read_range", rots)
    with capture_logs() as lines:
        await world.fetch(one, like=True)
    assert not [line for line in lines if line["event"] == "source_lied"]


class Lying(BlobService):
    """Spoils what the service of a shelf sends."""

    def __init__(self, shelf: Shelf, spoil: Callable[[pb.PartsResponse], None]) -> None:
        super().__init__(shelf)
        self._spoil = spoil

    async def _write(self, context: Any, *rest: Any) -> None:
        *before, message, count = rest
        try:
            told = pb.PartsResponse.FromString(message)
        except Exception:
            told = pb.PartsResponse()
        if told.data and told.WhichOneof is not None and _is_part(message):
            self._spoil(told)
            message = told.SerializeToString()
        await super()._write(context, *before, message, count)


def _is_part(message: bytes) -> bool:
    return message[:1] in (b"\x08", b"\x12")  # part, or data of part 0


def flip_any_bit(told: pb.PartsResponse) -> None:
    data = bytearray(told.data)
    data[len(data) // 2] ^= 0x10
    told.data = bytes(data)


def too_much(told: pb.PartsResponse) -> None:
    told.data = told.data + bytes(1000)


def too_little(told: pb.PartsResponse) -> None:
    told.data = told.data[:-1]


def another(told: pb.PartsResponse) -> None:
    told.part = told.part + 1


@pytest.mark.parametrize("lie", [flip_any_bit, too_much, too_little, another])
async def test_of_three_one_trickles_one_lies_and_the_file_arrives(
    world: World,
    lie: Callable[[pb.PartsResponse], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(download, "BATCH_BYTES_FIRST", 300_000)
    monkeypatch.setattr(download, "PATIENCE_S", 0.05)
    honest = await world.peer("honest", 0.002)
    shelf = Shelf(tmp_path / "shelf")
    shelf.folder.mkdir()
    shelf.put(NEW)
    liar = await world.peer("liar", service=Lying(shelf, lie))
    slow = await world.peer("slow", service=_trickling())
    with capture_logs() as lines:
        await asyncio.wait_for(world.fetch(slow, liar, honest), 20)
    assert {line["source"] for line in lines if line["event"] == "source_lied"} == {"liar"}
    assert honest.sent > len(NEW) // 2


def _trickling() -> Scripted:
    """Tells the recipe, and then a byte at a time."""
    scripted = Scripted()

    async def answer(request: bytes, context: Any) -> AsyncIterator[bytes]:
        wanted = pb.PartsRequest.FromString(request)
        if not wanted.parts:
            yield pb.RecipeResponse(data=split(NEW).encode()).SerializeToString()
            return
        while True:
            await asyncio.sleep(0.05)
            yield pb.PartsResponse(part=wanted.parts[0], data=b"x").SerializeToString()

    scripted.answer = answer
    return scripted


async def test_a_recipe_that_is_a_lie_costs_a_download_and_is_named(world: World) -> None:
    wrong = split(NEW[:-1] + bytes([NEW[-1] ^ 1]))
    lie = await world.peer("liar")
    lie.shelf.recipe = lambda _: type(wrong)(FILE.digest, wrong.size, wrong.parts)  # type: ignore[method-assign]
    lie.shelf.put(NEW[:-1] + bytes([NEW[-1] ^ 1]), FILE.digest)
    honest = await world.peer("honest", 0.002)
    with capture_logs() as lines:
        await world.fetch(lie, honest)
    assert {line["source"] for line in lines if line["event"] == "source_lied"} == {"liar"}


async def test_nobody_who_serves_it_is_said(world: World) -> None:
    empty = await world.peer("empty")
    empty.shelf.path(FILE.digest).unlink()
    with pytest.raises(Unavailable, match="here for you"):
        await world.fetch(empty)
    with pytest.raises(Unavailable, match="none is known"):
        await world.fetch()


async def test_a_neighbour_that_is_named_is_asked_and_shown_the_ticket(world: World) -> None:
    daemon, near = await world.peer("daemon"), await world.peer("near")
    named = Elsewhere((Neighbour("near", "10.0.0.7:1"),), b"ticket")
    daemon.shelf.pointed = dict.fromkeys(range(2, len(PARTS)), named)
    asked: list[Neighbour] = []

    def channel(neighbour: Neighbour) -> Any:
        asked.append(neighbour)
        return near.source.channel()

    await world.fetch(daemon, neighbour=channel)
    assert set(asked) == {named.neighbours[0]}
    assert near.sent > 0.7 * len(NEW)
    assert daemon.sent < 0.4 * len(NEW)


async def test_a_neighbour_that_has_nothing_sends_us_back(world: World) -> None:
    daemon, near = await world.peer("daemon"), await world.peer("near")
    near.shelf.path(FILE.digest).unlink()
    named = Elsewhere((Neighbour("near", "10.0.0.7:1"),), b"ticket")
    daemon.shelf.pointed = dict.fromkeys(range(len(PARTS)), named)
    await world.fetch(daemon, neighbour=lambda _: near.source.channel())


async def interrupted(
    world: World, attempt: Callable[[], Awaitable[Any]], when: Callable[[], bool]
) -> bool:
    """Stopped once `when` holds; whether it was still under way."""
    task = asyncio.ensure_future(attempt())
    while not task.done() and not when():  # noqa: ASYNC110  # nobody tells of every byte
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return task.cancelled()


@pytest.mark.parametrize("sources", [1, 2])
async def test_stopped_at_every_tenth_hardly_anything_is_fetched_twice(
    world: World, sources: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "BATCH_BYTES_FIRST", 200_000)
    peers = [await world.peer(f"p{n}") for n in range(sources)]
    wish = Wish(FILE, len(NEW), "m.safetensors")
    stops = 0
    for tenth in range(1, 10):
        progress = Progress(wish)

        async def attempt(progress: Progress = progress) -> None:
            every = [peer.source for peer in peers]
            await fetch_file(world.store, wish, every, Random(1), progress=progress)

        stops += await interrupted(
            world, attempt, lambda p=progress, t=tenth: p.done >= t * len(NEW) // 10
        )
    assert stops >= 5
    if not world.store.has(FILE.digest):
        await world.fetch(*peers)
    sent, largest = sum(peer.sent for peer in peers), max(part.size for part in PARTS)
    streamed = 1024**2 if sources == 1 else 0  # by its first fetch, in pieces of that size
    recipes = 10 * len(split(NEW).encode())
    assert sent <= len(NEW) + recipes + streamed + stops * download.BATCHES_MAX * sources * largest


async def test_no_room_is_said_before_the_first_byte(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await world.peer("one")
    world.store = BlobStore(tmp_path / "full", reserve_bytes=2**62)
    with pytest.raises(Unavailable, match="no room"):
        await world.fetch(one)
    assert one.sent == 0


@pytest.mark.parametrize("sources", [1, 2])
async def test_a_disk_that_fills_up_in_the_middle_keeps_what_came(
    world: World, sources: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers = [await world.peer(f"p{n}") for n in range(sources)]
    monkeypatch.setattr(unfinished, "LOOK_BYTES", 400_000)
    usage = shutil.disk_usage(world.folder)
    free = [usage.free, usage.free, *[0] * 100]
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free.pop(0)))
        with capture_logs() as lines, pytest.raises(Unavailable, match=r"^no room"):
            await world.fetch(*peers)
    assert not lines  # nobody is to blame
    rest = await world.fetch(*peers)
    kept = 400_000 if sources == 2 else 0  # streamed pieces are of a MiB: none was kept
    assert rest.came <= len(NEW) + 20_000 - kept


def test_a_part_that_occurs_again_is_fetched_once() -> None:
    data = bytes(4096) + RNG.bytes(4096)
    raw = safetensors(
        {f"t{n}": ("U8", [4096], data[:4096] if n % 2 else data[4096:]) for n in range(6)}
    )
    places = fetching.Places(split(raw))
    assert len(places.first) < len(places.parts)
    covered = bytearray(len(raw))
    for number in places.first:
        for start in places.starts_of(number):
            covered[start : start + places.sizes[number]] = bytes([1]) * places.sizes[number]
    assert set(covered) == {1}
