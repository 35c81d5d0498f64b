"""The auditor's door: what other people's clients of C2SP tlog-tiles expect, and no more."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from hanse.core import limits
from hanse.core.errors import NotFound, Unavailable
from hanse.core.ids import Origin, Segment
from hanse.core.log.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from hanse.core.log.merkle import Frontier, leaf_hash, root_of
from hanse.core.log.proofs import (
    consistency_path,
    inclusion_path,
    verify_consistency,
    verify_inclusion,
)
from hanse.core.log.tiles import ENTRIES, Tile, entries_of, hashes_of, subtrees, tiles_of
from hanse.core.signing import SigningKey
from hanse.core.step import AppendEvents, DropTrust, Head, PutTrust, Stop, TruncateLog
from hanse.gateways import log_door
from hanse.gateways.log_files import LogFiles
from hanse.storage.memory import MemoryEventStore

KEY = SigningKey(b"k" * 32)
ORIGIN = Origin.parse(f"harbour/eu-north/{'a' * 32}/i1")
SIZE = 66_100  # two levels of whole tiles, three of parts
EVENTS = [b"event %d".ljust(60) % i for i in range(SIZE)]
LEAVES = [leaf_hash(event) for event in EVENTS]


class CountingStore(MemoryEventStore):
    reads = 0

    async def events(self, origin: Origin, start: int, limit: int, bytes_max: int) -> list[bytes]:
        self.reads += 1
        return await super().events(origin, start, limit, bytes_max)


async def filled(size: int = SIZE) -> CountingStore:
    store, frontier = CountingStore(), Frontier.empty()
    await store.apply([PutTrust(1, b'{"version": 1}'), PutTrust(2, b'{"version": 2}')])
    for start in range(0, size, 256):
        part = tuple(EVENTS[start : min(start + 256, size)])
        frontier = frontier.append(LEAVES[start : start + len(part)])
        root = frontier.root()
        note = sign_checkpoint(Checkpoint(str(ORIGIN), frontier.size, root), KEY)
        head = Head(ORIGIN, frontier.size, root, frontier.encode(), note)
        await store.apply([AppendEvents(head, start, part)])
    return store


@pytest.fixture(scope="module")
def store() -> CountingStore:
    return asyncio.run(filled())


@pytest.fixture
def files(store: CountingStore) -> LogFiles:
    return LogFiles(store, Segment("harbour"))


@pytest.fixture
async def client(files: LogFiles) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(log_door.door(files))
    async with httpx.AsyncClient(transport=transport, base_url="http://door") as made:
        yield made


async def test_the_index_names_every_log_and_trust_version(client: httpx.AsyncClient) -> None:
    answer = await client.get("/logs")
    assert answer.json() == {
        "federation": "harbour", "final": {}, "forked": [], "logs": {str(ORIGIN): SIZE},
        "schema": 1,
        "timestamp": False, "trust_versions": 2,
    }  # fmt: skip
    assert answer.headers["content-type"] == "application/json"
    assert (await client.get("/trust/00002.json")).content == b'{"version": 2}'


async def test_the_checkpoint_is_the_signed_head_and_is_not_cached(
    client: httpx.AsyncClient,
) -> None:
    answer = await client.get(f"/log/{ORIGIN}/checkpoint")
    assert open_checkpoint(answer.content, str(ORIGIN), KEY.public).size == SIZE
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"


async def test_a_trust_version_that_the_root_replaced_is_shown_at_once() -> None:
    store = await filled(1)
    transport = httpx.ASGITransport(log_door.door(LogFiles(store, Segment("harbour"))))
    async with httpx.AsyncClient(transport=transport, base_url="http://door") as client:
        first = await client.get("/trust/00002.json")
        assert first.headers["cache-control"] == "no-cache"
        await store.apply([DropTrust(1), PutTrust(2, b"the other")])
        assert (await client.get("/trust/00002.json")).content == b"the other"


async def test_every_tile_holds_what_its_level_is_defined_to_hold(
    client: httpx.AsyncClient,
) -> None:
    for tile in (Tile(0, 0), Tile(0, 258, 52), Tile(1, 0), Tile(1, 1, 2), Tile(2, 0, 1)):
        answer = await client.get(f"/log/{ORIGIN}/{tile.path}")
        span = 256**tile.level
        expected = [
            root_of(LEAVES[i * span : (i + 1) * span]) for i in range(tile.start, tile.stop)
        ]
        assert list(hashes_of(tile, answer.content)) == expected, tile.path
        assert answer.headers["content-type"] == "application/octet-stream"
        assert "immutable" in answer.headers["cache-control"]
    entries = await client.get(f"/log/{ORIGIN}/tile/entries/001")
    assert entries_of(Tile(ENTRIES, 1), entries.content) == EVENTS[256:512]


async def test_every_file_of_a_log_is_there_and_proofs_follow_from_them(files: LogFiles) -> None:
    small = [tile for tile in tiles_of(SIZE) if tile.level != ENTRIES]
    read = {tile: (await files.read(f"log/{ORIGIN}/{tile.path}")).data for tile in small}
    hashes = subtrees(SIZE, lambda tile: hashes_of(tile, read[tile]))
    root = root_of(LEAVES)
    for index in (0, 255, 65_536, SIZE - 1):
        verify_inclusion(LEAVES[index], index, SIZE, inclusion_path(hashes, SIZE, index), root)
    for old in (1, 256, 65_537):
        path = consistency_path(hashes, old, SIZE)
        verify_consistency(old, SIZE, path, root_of(LEAVES[:old]), root)


@pytest.mark.parametrize(
    "path",
    [
        "", "logs/", "nothing", "trust/00003.json", "trust/00000.json", "trust/1.json",
        f"log/{ORIGIN}/tile/0/259", f"log/{ORIGIN}/tile/0/258.p/53", f"log/{ORIGIN}/tile/0/258",
        f"log/{ORIGIN}/tile/3/000.p/1", f"log/{ORIGIN}/tile/0/../../checkpoint", f"log/{ORIGIN}",
        f"log/harbour/eu-north/{'b' * 32}/i1/checkpoint", "log/a/b/c/d/checkpoint",
        "trust/../keys/daemon.key", "log/" + "x" * 4000,
    ],
)  # fmt: skip
async def test_whatever_is_no_such_file_is_not_found(files: LogFiles, path: str) -> None:
    with pytest.raises(NotFound):
        await files.read(path)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_nothing_but_reading_is_answered(client: httpx.AsyncClient, method: str) -> None:
    assert (await client.request(method, "/logs", content=b"x")).status_code == 405


async def test_a_log_is_hashed_once_however_often_it_is_asked_for(
    store: CountingStore, files: LogFiles
) -> None:
    for path in ("tile/2/000.p/1", "tile/1/001.p/2"):
        await files.read(f"log/{ORIGIN}/{path}")
    before = store.reads
    for path in ("tile/2/000.p/1", "tile/1/000", "tile/1/001.p/1"):
        await files.read(f"log/{ORIGIN}/{path}")
    assert store.reads == before


async def test_a_whole_tile_is_read_once(store: CountingStore, files: LogFiles) -> None:
    await files.read(f"log/{ORIGIN}/tile/0/007")
    before = store.reads
    await files.read(f"log/{ORIGIN}/tile/0/007")
    assert store.reads == before


async def test_roots_are_kept_longer_than_the_tiles_that_they_are_of(
    store: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOOR_TILES_KEPT", 0)
    files = LogFiles(store, Segment("harbour"))
    await files.read(f"log/{ORIGIN}/tile/1/001.p/2")
    before = store.reads
    await files.read(f"log/{ORIGIN}/tile/1/001.p/2")
    assert store.reads == before


@pytest.mark.parametrize("path", ["tile/1/001", "tile/2/000", "tile/7/000", "tile/0/400"])
async def test_a_tile_that_is_not_there_costs_no_reading(
    store: CountingStore, files: LogFiles, path: str
) -> None:
    before = store.reads
    with pytest.raises(NotFound):
        await files.read(f"log/{ORIGIN}/{path}")
    assert store.reads == before


async def test_what_is_kept_has_a_bound(
    store: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOOR_ROOTS_KEPT", 8)
    monkeypatch.setattr(limits, "DOOR_TILES_KEPT", 2)
    files = LogFiles(store, Segment("harbour"))
    for index in range(12):
        await files.read(f"log/{ORIGIN}/tile/0/{index:03d}")
    await files.read(f"log/{ORIGIN}/tile/1/001.p/2")
    assert len(files._tiles._kept) <= 2
    assert len(files._roots._kept) <= 8


# -- over a real socket -------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def opened(files: LogFiles) -> AsyncIterator[int]:
    from tour.federation import free_ports

    (port,) = free_ports(1)
    async with log_door.serve(files, f"127.0.0.1:{port}"):
        yield port


async def test_a_real_client_reads_through_a_real_socket(files: LogFiles) -> None:
    async with opened(files) as port, httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{port}/logs")
        assert json.loads(answer.content)["federation"] == "harbour"
        assert "server" not in answer.headers


async def test_an_address_that_is_taken_is_said_at_start(files: LogFiles) -> None:
    async with opened(files) as port:
        with pytest.raises(Unavailable, match="audit_listen"):
            async with log_door.serve(files, f"127.0.0.1:{port}"):
                pass


async def test_a_caller_that_says_nothing_is_hung_up_on(
    files: LogFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_door, "DOOR_CONNECTION_S", 0.2)
    async with opened(files) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /logs HTTP/1.1\r\nhost: door\r\n")  # and no end of the headers
        before = time.monotonic()
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 10) == b""
        assert time.monotonic() - before < 5
        writer.close()


async def test_endless_headers_are_refused(files: LogFiles) -> None:
    async with opened(files) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /logs HTTP/1.1\r\n" + b"x: " + b"a" * 200_000)
        with contextlib.suppress(ConnectionResetError):
            answer = await asyncio.wait_for(reader.read(), 10)
            assert answer.startswith(b"HTTP/1.1 4") or answer == b""
        writer.close()


async def test_one_connection_too_many_is_told_so(
    files: LogFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_door, "DOOR_CONNECTIONS_MAX", 2)
    async with opened(files) as port:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        await asyncio.sleep(0)
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://127.0.0.1:{port}/logs")
        assert answer.status_code == 503
        for _, writer in idle:
            writer.close()


async def test_a_tile_of_a_branch_that_was_given_up_is_not_served_again() -> None:
    store = await filled(600)
    files = LogFiles(store, Segment("harbour"))
    path = f"log/{ORIGIN}/tile/0/001"
    before = await files.read(path)
    assert before.immutable
    kept = Frontier.empty().append(LEAVES[:300])
    note = sign_checkpoint(Checkpoint(str(ORIGIN), 300, kept.root()), KEY)
    stop = Stop(300, 300, kept.root(), 301)
    cut = Head(ORIGIN, 300, kept.root(), kept.encode(), note, stop=stop)
    others = tuple(b"another " + event for event in EVENTS[300:556])
    grown = kept.append([leaf_hash(event) for event in others])
    note = sign_checkpoint(Checkpoint(str(ORIGIN), 556, grown.root()), KEY)
    stop = Stop(556, 556, grown.root(), 301)
    head = Head(ORIGIN, 556, grown.root(), grown.encode(), note, stop=stop)
    await store.apply([TruncateLog(cut)])
    await store.apply([AppendEvents(head, 300, others)])
    after = await files.read(path)
    assert after.data[: 32 * 44] == before.data[: 32 * 44]
    assert after.data[32 * 44 :] != before.data[32 * 44 :]
    assert not after.immutable, "it has changed once"
