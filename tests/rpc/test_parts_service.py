"""Recipes and parts over real mTLS: each part as what the caller can open, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from blob_worlds import Came, gathered, serving
from parts.models import safetensors
from shelves import Shelf

from hanse.core import limits
from hanse.core.counters import Counters, zeros
from hanse.core.errors import InvalidProof, NotFound, Rejected, Unavailable
from hanse.core.ids import Digest
from hanse.core.transfer.wanted import ASKED_MAX, Elsewhere, File, Neighbour, Wanted
from hanse.parts import payload
from hanse.parts.payload import Base, Method
from hanse.parts.recipe import Recipe, split
from hanse.rpc import blob_client, payloads, tls
from hanse.rpc.blob_client import Pointed
from hanse.rpc.blob_service import BlobService
from hanse.rpc.pacing import Pace

RELEASE = Digest.of(b"release")
NOWHERE = Digest.of(b"nowhere")
RNG = np.random.default_rng(5)
OLD_ROWS = [RNG.standard_normal(300_000).astype("f4") for _ in range(4)]
NEW_ROWS = [OLD_ROWS[0], OLD_ROWS[1] + np.float32(1e-6), OLD_ROWS[2], RNG.bytes(1_200_000)]


def model(rows: list[Any]) -> bytes:
    raw = [bytes(row) for row in rows]
    return safetensors({f"t{n}": ("F32", [len(row) // 4], row) for n, row in enumerate(raw)})


OLD, NEW = model(OLD_ROWS), model(NEW_ROWS)
FILE, BASE = File(Digest.of(NEW), RELEASE), File(Digest.of(OLD), RELEASE)


class World:
    shelf: Shelf
    channel: grpc.aio.Channel
    counters: Counters

    async def recipe(self, file: File = FILE) -> tuple[Recipe, Digest]:
        return await blob_client.recipe(self.channel, file, len(NEW))

    async def parts(self, *numbers: int, **how: Any) -> list[Came | Pointed]:
        recipe = split(NEW)
        wanted = Wanted(FILE, Digest.of(recipe.encode()), numbers, **how)
        sizes = [recipe.parts[n].size for n in numbers]
        return await gathered(self.channel, wanted, sizes)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World()
    world.shelf, world.counters = Shelf(tmp_path), zeros()
    world.shelf.put(NEW)
    world.shelf.put(OLD)
    async with serving(BlobService(world.shelf, world.counters)) as (world.channel, _):
        yield world


def opened(answers: list[Came | Pointed]) -> bytes:
    """The file from all its payloads, with the old one at hand."""
    old = {}
    start = 0
    for part in split(OLD).parts:
        old[part.digest] = Base(part, OLD[start : start + part.size])
        start += part.size
    recipe = split(NEW)
    return b"".join(
        payload.decode(recipe.parts[a.part], a.payload, old.get)
        for a in answers
        if isinstance(a, Came)
    )


def methods(answers: list[Came | Pointed]) -> list[int]:
    return [answer.payload[1] for answer in answers if isinstance(answer, Came)]


EVERY = tuple(range(len(split(NEW).parts)))


async def test_a_recipe_is_that_of_the_file(world: World) -> None:
    assert await world.recipe() == (split(NEW), Digest.of(split(NEW).encode()))


async def test_without_a_base_the_parts_are_the_file(world: World) -> None:
    answers = await world.parts(*EVERY)
    assert set(methods(answers)) == {Method.RAW}
    assert opened(answers) == NEW
    assert len(NEW) < world.counters["blob_bytes_sent"] < len(NEW) + 100


async def test_over_a_slow_link_everything_is_compressed(world: World) -> None:
    answers = await world.parts(*EVERY, packed=True)
    assert Method.PLANES in methods(answers)
    assert opened(answers) == NEW
    assert world.counters["blob_bytes_sent"] < 0.95 * len(NEW)


async def test_against_a_base_a_tuned_tensor_is_small_and_the_rest_is_whole(world: World) -> None:
    answers = await world.parts(*EVERY, base=BASE)
    assert opened(answers) == NEW
    tuned, other = methods(answers)[1], methods(answers)[-1]
    assert tuned in (Method.DENSE, Method.SPARSE)
    assert other == Method.RAW
    sizes = [len(a.payload) for a in answers if isinstance(a, Came)]
    assert sizes[1] < len(NEW_ROWS[1].tobytes()) // 4


async def test_a_base_that_is_not_for_the_caller_helps_nobody(world: World) -> None:
    world.shelf.secret.add(BASE.digest)
    for base in (BASE, File(NOWHERE, RELEASE)):
        assert set(methods(await world.parts(*EVERY, base=base))) == {Method.RAW}
    assert [digest for _, digest, _ in world.shelf.asked].count(BASE.digest) == 1


async def test_a_payload_is_made_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Digest] = []
    encode = payload.encode

    def counted(part: Any, *args: Any) -> bytes:
        made.append(part.digest)
        return encode(part, *args)

    monkeypatch.setattr(payload, "encode", counted)
    first = await world.parts(1, base=BASE)
    assert await world.parts(1, base=BASE) == first
    assert len(made) == 1


async def test_parts_come_in_the_order_asked_for(world: World) -> None:
    answers = await world.parts(2, 0, 1)
    assert [answer.part for answer in answers] == [2, 0, 1]


async def test_a_part_may_be_elsewhere_and_can_be_insisted_on(world: World) -> None:
    near = Elsewhere((Neighbour("edge-1", "10.0.0.7:7500"),), b"ticket")
    world.shelf.pointed = {1: near}
    world.shelf.lacking = {0}
    answers = await world.parts(0, 1, 2)
    assert answers[:2] == [Pointed(0, Elsewhere()), Pointed(1, near)]
    assert isinstance(answers[2], Came)
    assert len(methods(await world.parts(1, 2, insist=True))) == 2


async def test_what_is_small_and_at_hand_is_sent_wherever_else_it_may_be(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payloads, "SMALL_SHARE", 4)
    near = Elsewhere((Neighbour("edge-1", "10.0.0.7:7500"),), b"ticket")
    world.shelf.pointed = dict.fromkeys(EVERY, near)
    assert all(isinstance(a, Pointed) for a in await world.parts(*EVERY, base=BASE))
    await world.parts(*EVERY, base=BASE, insist=True)
    answers = await world.parts(*EVERY, base=BASE)
    assert [a.part for a in answers if isinstance(a, Came)] == [1], "the tuned tensor alone"
    assert all(isinstance(a, Pointed) for a in await world.parts(*EVERY))


async def test_who_may_not_have_a_file_learns_of_nobody_who_has_it(world: World) -> None:
    near = Elsewhere((Neighbour("edge-1", "10.0.0.7:7500"),), b"ticket")
    world.shelf.pointed = dict.fromkeys(EVERY, near)
    world.shelf.secret.add(FILE.digest)
    with pytest.raises(NotFound):
        await world.parts(*EVERY)


async def test_not_for_you_not_here_and_dropped_are_one_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = set()

    async def refused(file: File) -> None:
        with pytest.raises(NotFound) as caught:
            await world.recipe(file)
        said.add(str(caught.value).replace(str(file.digest), "…"))

    await refused(File(NOWHERE, RELEASE))
    world.shelf.secret.add(FILE.digest)
    await refused(FILE)
    monkeypatch.setattr(world.shelf, "may_fetch", lambda *_: True)

    def dropped(file: File) -> Recipe:
        raise NotFound("dropped a moment ago")

    monkeypatch.setattr(world.shelf, "recipe", dropped)
    await refused(File(NOWHERE, RELEASE))
    assert len(said) == 1


@pytest.mark.parametrize(
    "numbers", [(), (0, 0), (len(EVERY),), tuple(range(ASKED_MAX + 1)), (2**32 - 1,)]
)
async def test_what_the_recipe_lacks_cannot_be_asked_for(
    world: World, numbers: tuple[int, ...]
) -> None:
    wanted = Wanted(FILE, Digest.of(split(NEW).encode()), numbers)
    with pytest.raises(Rejected):
        _ = await gathered(world.channel, wanted, [0] * len(numbers))


async def test_numbers_of_another_recipe_mean_nothing(world: World) -> None:
    wanted = Wanted(FILE, NOWHERE, (0,))
    with pytest.raises(NotFound):
        _ = await gathered(world.channel, wanted, [limits.PART_BYTES_MAX])


@pytest.mark.parametrize("how", [{}, {"base": BASE}, {"packed": True}])
@pytest.mark.parametrize("at", [200, len(NEW) // 2, len(NEW) - 1])
async def test_a_damaged_part_is_never_sent_whole_and_its_owner_hears(
    world: World, how: dict[str, Any], at: int
) -> None:
    await world.recipe()
    rotten = bytearray(NEW)
    rotten[at] ^= 4
    world.shelf.put(bytes(rotten), FILE.digest)
    with pytest.raises(Unavailable, match="damaged"):
        await world.parts(*EVERY, **how)
    assert world.shelf.damaged == [FILE.digest]


async def test_what_was_hashed_lately_is_not_hashed_for_everybody_who_asks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receiver hashes it in any case; whoever asks again later learns that it is damaged."""
    assert opened(await world.parts(*EVERY)) == NEW
    rotten = bytearray(NEW)
    rotten[len(NEW) // 2] ^= 4
    world.shelf.put(bytes(rotten), FILE.digest)
    with pytest.raises(InvalidProof):
        opened(await world.parts(*EVERY))
    assert not world.shelf.damaged
    monkeypatch.setattr(payloads, "LATELY_S", 0.0)
    with pytest.raises(Unavailable, match="damaged"):
        await world.parts(*EVERY)
    assert world.shelf.damaged == [FILE.digest]


class Counted(Pace):
    """A quarter of a MiB a second, of which the test needs no second to pass."""

    def __init__(self) -> None:
        super().__init__(limits.BLOB_CHUNK_BYTES // 4)
        self.taken: list[tuple[Hashable, int]] = []

    async def take(self, caller: Hashable, size: int) -> None:
        self.taken.append((caller, size))


async def test_every_byte_waits_for_its_turn_in_small_pieces(tmp_path: Path) -> None:
    world, pace = World(), Counted()
    world.shelf = Shelf(tmp_path)
    world.shelf.put(NEW)
    async with serving(BlobService(world.shelf, zeros(), pace)) as (world.channel, client):
        whole = [p async for p in blob_client.fetch(world.channel, FILE.digest, RELEASE)]
        recipe, _ = await world.recipe()
        parts = await world.parts(*range(len(recipe.parts)))
    assert b"".join(whole) == opened(parts) == NEW
    assert {caller for caller, _ in pace.taken} == {
        tls.peer_of_certificate(client.identity.cert_pem).spki
    }
    assert max(size for _, size in pace.taken) <= pace.piece_bytes + 2 < 70_000
    heads = 2 * len(recipe.parts)
    assert sum(s for _, s in pace.taken) == 2 * len(NEW) + len(recipe.encode()) + heads


async def test_who_asks_at_the_same_time_waits_for_one_recipe(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[File] = []

    def recipe(file: File) -> Recipe:
        made.append(file)
        return Shelf.recipe(world.shelf, file)

    monkeypatch.setattr(world.shelf, "recipe", recipe)
    found = await asyncio.gather(*(world.recipe() for _ in range(6)))
    assert len(set(found)) == len(made) == 1
