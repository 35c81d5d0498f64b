"""What a peer may say when it is asked for parts: nothing it says can hurt, fill or hold us."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from blob_worlds import Came, Scripted, gathered, serving

from hanse.core.errors import HanseError, InvalidProof, Rejected, TooLarge, Unavailable
from hanse.core.ids import Digest
from hanse.core.transfer.wanted import Elsewhere, File, Wanted
from hanse.parts.recipe import split
from hanse.rpc import blob_client
from hanse.rpc.blob_client import Pointed
from hanse.rpc.blob_service import piece_message
from hanse.v1 import blob_pb2 as pb

DATA = bytes(range(256)) * 20
FILE = File(Digest.of(DATA), Digest.of(b"release"))
SIZES = (100, 50)


class World:
    script: Scripted
    channel: grpc.aio.Channel

    def says(self, *messages: bytes | pb.PartsResponse) -> None:
        raw = [m if isinstance(m, bytes) else m.SerializeToString() for m in messages]

        async def answer(request: bytes, context: Any) -> AsyncIterator[bytes]:
            for message in raw:
                yield message

        self.script.answer = answer

    async def parts(self) -> list[Came | Pointed]:
        wanted = Wanted(FILE, FILE.digest, (7, 0))
        return await gathered(self.channel, wanted, SIZES)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    world.script = Scripted()
    async with serving(world.script) as (world.channel, _):
        yield world


def piece(part: int, size: int, *, last: bool = True) -> pb.PartsResponse:
    return pb.PartsResponse(part=part, data=bytes(size), last=last)


GOOD = [piece(7, 60, last=False), piece(7, 42), piece(0, 0)]
FAR = pb.Neighbour(node="n", address="a" * 257)


async def test_what_was_asked_for_comes_through(world: World) -> None:
    world.says(*GOOD)
    assert await world.parts() == [Came(7, bytes(102)), Pointed(0, Elsewhere())]


@pytest.mark.parametrize(
    ("messages", "kind"),
    [
        ([piece(0, 10), piece(7, 10)], InvalidProof),
        ([piece(7, 10), piece(7, 10)], InvalidProof),
        ([piece(7, 10), piece(2**32 - 1, 10)], InvalidProof),
        ([piece(7, 10, last=False), piece(0, 10)], InvalidProof),
        ([piece(7, 10, last=False), piece(7, 0)], InvalidProof),
        ([piece(7, 10)], InvalidProof),
        ([piece(7, 10, last=False)], InvalidProof),
        ([], InvalidProof),
        ([piece(7, 103)], TooLarge),
        ([piece(7, 60, last=False), piece(7, 43, last=False)], TooLarge),
        ([*GOOD, piece(0, 1)], TooLarge),
        ([pb.PartsResponse(part=7, elsewhere=[pb.Neighbour(node="n")] * 9)], TooLarge),
        ([pb.PartsResponse(part=7, elsewhere=[FAR])], TooLarge),
        ([pb.PartsResponse(part=7, ticket=bytes(1025))], TooLarge),
        ([b"\xff\xff"], Rejected),
        ([b"\x0a\x05no"], Rejected),
        ([piece(7, 2 * 1024 * 1024)], HanseError),
    ],
)
async def test_anything_else_ends_it(
    world: World, messages: list[pb.PartsResponse | bytes], kind: type[HanseError]
) -> None:
    world.says(*messages)
    with pytest.raises(kind):
        await world.parts()


async def test_a_stream_without_end_is_cut_off(world: World) -> None:
    async def answer(request: bytes, context: Any) -> AsyncIterator[bytes]:
        while True:
            yield piece(7, 1, last=False).SerializeToString()

    world.script.answer = answer
    with pytest.raises(TooLarge):
        await world.parts()


@pytest.mark.parametrize("what", ["parts", "recipe", "fetch"])
async def test_a_trickle_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Each piece comes within its own time limit, and all of them together never would."""
    monkeypatch.setattr(blob_client, "PACE_S", 0.05)

    async def answer(request: bytes, context: Any) -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.01)
            if what == "parts":
                yield piece(7, 1, last=False).SerializeToString()
            else:
                yield piece_message(b"x")

    async def fetched() -> None:
        async for _ in blob_client.fetch(world.channel, FILE.digest, FILE.release):
            pass

    world.script.answer = answer
    asked = {
        "parts": world.parts,
        "recipe": lambda: blob_client.recipe(world.channel, FILE, len(DATA)),
        "fetch": fetched,
    }
    with pytest.raises(Unavailable, match="bytes in"):
        await asked[what]()


async def test_silence_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_client, "PIECE_S", 0.05)

    async def answer(request: bytes, context: Any) -> AsyncIterator[bytes]:
        await asyncio.sleep(60)
        yield b""

    world.script.answer = answer
    with pytest.raises(Unavailable, match="no piece"):
        await world.parts()


async def test_a_recipe_is_of_the_file_that_was_asked_for(world: World) -> None:
    good = split(DATA).encode()
    world.says(piece_message(good[:100]), piece_message(good[100:]))
    found, named = await blob_client.recipe(world.channel, FILE, len(DATA))
    assert (found, named) == (split(DATA), Digest.of(good))
    for bad in (split(DATA[1:]).encode(), good[:-1], b"", b"[" * 100_000, good + b" "):
        world.says(piece_message(bad))
        with pytest.raises(Rejected):
            await blob_client.recipe(world.channel, FILE, len(DATA))
    world.says(*[piece_message(bytes(1024**2))] * 9)
    with pytest.raises(TooLarge):
        await blob_client.recipe(world.channel, FILE, len(DATA))
