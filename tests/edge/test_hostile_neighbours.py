"""Neighbours that lie, stall or die cost a detour: the file comes whole, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import daemons
import grpc
import pytest
from parts.models import safetensors
from shelves import Shelf

from hanse.core.errors import InvalidName
from hanse.core.ids import Digest
from hanse.core.transfer import download
from hanse.core.transfer.wanted import Elsewhere, File, Neighbour, Wanted
from hanse.parts.recipe import split
from hanse.rpc import channels
from hanse.rpc.blob_service import BlobService
from hanse.rpc.certificates import Identity
from hanse.rpc.channels import Channels
from hanse.rpc.server import Service, build_server
from hanse.rpc.tls import Peer
from hanse.storage.blobs import BlobStore
from hanse.transfer.fetch import fetch_file
from hanse.transfer.underway import Underway
from hanse.transfer.wish import Source, Wish
from hanse.v1 import blob_pb2 as pb

DATA = safetensors({f"t{n}": ("U8", [300_000], Random(n).randbytes(300_000)) for n in range(8)})
RECIPE = split(DATA)
FILE = File(RECIPE.digest, Digest.of(b"release"))
Say = Callable[[pb.PartsRequest, Any], Awaitable[None]]


class Pointing(Shelf):
    """A daemon that sends everybody to the neighbours first, and who insists is served."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.neighbours: tuple[Neighbour, ...] = ()
        self.insisted: set[int] = set()

    async def elsewhere(self, peer: Peer, wanted: Wanted) -> Mapping[int, Elsewhere]:
        if wanted.insist or not self.neighbours:
            self.insisted.update(wanted.parts)
            return {}
        return dict.fromkeys(wanted.parts, Elsewhere(self.neighbours, b"ticket"))


class Hostile:
    """Says what it likes to whoever asks for parts."""

    name = "hanse.v1.BlobService"

    def __init__(self, say: Say) -> None:
        self.say, self.asked = say, 0

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        async def parts(request: pb.PartsRequest, context: Any) -> None:
            self.asked += 1
            await self.say(request, context)

        method = grpc.unary_stream_rpc_method_handler(
            parts, request_deserializer=pb.PartsRequest.FromString
        )
        return grpc.method_handlers_generic_handler(self.name, {"Parts": method})


class World:
    def __init__(self, folder: Path) -> None:
        self.ca, self.daemon = daemons.edge_ca(), daemons.daemon(1)
        self.shelf = Pointing(folder / "shelf")
        self.shelf.folder.mkdir()
        self.shelf.put(DATA)
        self.store = BlobStore(folder / "store")
        self.channels = Channels(daemons.node("asker", self.ca))
        self.servers: list[grpc.aio.Server] = []
        self.underway = Underway()
        self.address = ""

    async def serve(self, identity: Identity, service: Service) -> str:
        keeper = daemons.doorkeeper(lambda: daemons.members([], self.ca))
        server, port = await build_server(lambda: identity, keeper, [service])
        await server.start()
        self.servers.append(server)
        return f"127.0.0.1:{port}"

    async def neighbour(self, service: Service) -> None:
        name = f"n{len(self.servers)}"
        address = await self.serve(daemons.node(name, self.ca), service)
        self.shelf.neighbours += (Neighbour(name, address),)

    async def fetch(self) -> None:
        authority = self.daemon.authority.cert_pem.decode()
        source = Source("daemon", lambda: self.channels.to(self.address, authority), 0.001)
        await fetch_file(
            self.store,
            Wish(FILE, len(DATA), "weights"),
            [source],
            Random(1),
            underway=self.underway,
            neighbour=lambda n: self.channels.to_neighbour(n.address, self.ca.cert_pem.decode()),
        )
        with self.store.open_verified(FILE.digest) as file:
            assert file.read() == DATA


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    world.address = await world.serve(world.daemon.identity, BlobService(world.shelf))
    yield world
    await world.channels.close()
    for server in world.servers:
        await server.stop(None)


async def wrong_bytes(request: pb.PartsRequest, context: Any) -> None:
    for number in request.parts:
        data = bytes([1, 0]) + bytes(RECIPE.parts[number].size)
        await context.write(_message(number, data, last=True))


async def more_than_there_is(request: pb.PartsRequest, context: Any) -> None:
    while True:
        await context.write(_message(request.parts[0], bytes(500_000)))


async def a_byte_at_a_time(request: pb.PartsRequest, context: Any) -> None:
    while True:
        await context.write(_message(request.parts[0], b"\1"))
        await asyncio.sleep(0.05)


async def nothing_ever(request: pb.PartsRequest, context: Any) -> None:
    await asyncio.Event().wait()


async def half_and_then_nothing(request: pb.PartsRequest, context: Any) -> None:
    await context.write(_message(request.parts[0], bytes(1000)))
    await context.abort(grpc.StatusCode.UNAVAILABLE, "I die")


async def not_here(request: pb.PartsRequest, context: Any) -> None:
    for number in request.parts:
        await context.write(pb.PartsResponse(part=number, last=True).SerializeToString())


async def no_such_ticket(request: pb.PartsRequest, context: Any) -> None:
    await context.abort(grpc.StatusCode.NOT_FOUND, "no blob")


def _message(number: int, data: bytes, *, last: bool = False) -> bytes:
    return pb.PartsResponse(part=number, data=data, last=last).SerializeToString()


HOSTILE = (
    wrong_bytes, more_than_there_is, a_byte_at_a_time, nothing_ever, half_and_then_nothing,
    not_here, no_such_ticket,
)  # fmt: skip


@pytest.mark.parametrize("say", HOSTILE, ids=lambda say: say.__name__)
async def test_a_hostile_neighbour_costs_a_detour(
    world: World, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "NEIGHBOUR_SILENT_S", 0.3)
    monkeypatch.setattr(download, "PAUSE_S", 0.01)
    hostile = Hostile(say)
    await world.neighbour(hostile)
    await world.fetch()
    assert hostile.asked
    assert world.shelf.insisted == set(range(len(RECIPE.parts)))


async def test_among_hostile_ones_an_honest_neighbour_is_found(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "PAUSE_S", 0.01)
    honest = Shelf(tmp_path / "honest")
    honest.folder.mkdir()
    honest.put(DATA)
    for say in (wrong_bytes, half_and_then_nothing, not_here, no_such_ticket):
        await world.neighbour(Hostile(say))
    await world.neighbour(BlobService(honest))
    await world.fetch()
    assert world.shelf.insisted == set()


@pytest.mark.parametrize("address", ["127.0.0.1:9", "unix:/tmp/x", "no address", "unix:80", ""])
async def test_an_address_that_leads_nowhere_costs_a_detour(
    world: World, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "NEIGHBOUR_SILENT_S", 0.3)
    monkeypatch.setattr(download, "PAUSE_S", 0.01)
    world.shelf.neighbours = (Neighbour("n1", address),)
    await world.fetch()
    assert world.shelf.insisted == set(range(len(RECIPE.parts)))


async def test_a_neighbour_that_knew_nothing_yet_is_asked_again_when_it_is_named_again(
    world: World, tmp_path: Path
) -> None:
    """It had not begun, or the ticket had ended: the daemon's next word counts."""
    honest = Shelf(tmp_path / "honest")
    honest.folder.mkdir()
    await world.neighbour(BlobService(honest))
    seen: list[bool] = []
    may_fetch = honest.may_fetch

    def later(peer: Peer, file: File, ticket: bytes = b"") -> bool:
        if not seen:
            honest.put(DATA)
        seen.append(True)
        return len(seen) > 1 and may_fetch(peer, file, ticket)

    honest.may_fetch = later  # type: ignore[method-assign]  # only this one
    await world.fetch()
    assert world.shelf.insisted == set()


async def test_nobody_is_sent_on_by_a_neighbour(world: World, tmp_path: Path) -> None:
    """Whom it names was judged by nobody, and its ticket is signed by nobody."""
    trap = Hostile(not_here)
    address = await world.serve(daemons.node("trap", world.ca), trap)

    async def sends_on(request: pb.PartsRequest, context: Any) -> None:
        where = [pb.Neighbour(node="trap", address=address)]
        for number in request.parts:
            message = pb.PartsResponse(part=number, elsewhere=where, last=True)
            await context.write(message.SerializeToString())

    await world.neighbour(Hostile(sends_on))
    await world.fetch()
    assert not trap.asked


async def test_what_has_come_is_there_for_others_while_the_rest_is_under_way(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    last, gate = len(RECIPE.parts) - 1, asyncio.Event()

    async def has_part(file: File, part: int, until_s: float) -> bool:
        if part == last:
            await gate.wait()
        return True

    monkeypatch.setattr(world.shelf, "has_part", has_part)
    fetching = asyncio.create_task(world.fetch())
    soon_s = asyncio.get_running_loop().time() + 10
    for _ in range(5000):
        if coming := world.underway.get(FILE.digest):
            break
        await asyncio.sleep(0.001)
    assert coming
    assert await coming.has(0, soon_s)
    assert coming.read(0, RECIPE.parts[0].size) == DATA[: RECIPE.parts[0].size]
    assert not await coming.has(last, 0.0)
    gate.set()
    await fetching
    assert world.underway.get(FILE.digest) is None


async def test_whatever_a_neighbour_calls_its_address_it_is_a_host_and_a_port(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC would take `unix:80` for a socket, and others for services that resolve names."""
    dialled: list[str] = []
    monkeypatch.setattr(channels, "open_channel", lambda address, *_: dialled.append(address))
    for address in ("10.0.0.7:80", "unix:80", "xds:1"):
        world.channels.to_neighbour(address, "ca")
    assert dialled == ["dns:///10.0.0.7:80", "dns:///unix:80", "dns:///xds:1"]
    world.channels = Channels(daemons.node("asker", world.ca))  # those above were none
    with pytest.raises(InvalidName):
        world.channels.to_neighbour("unix:/tmp/x", "ca")
