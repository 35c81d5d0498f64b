"""Two sources bring the same part: it lands once, right, and is hashed while more comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_blobs import MemoryBlobs
from parts.models import safetensors

from hanse.core.errors import InvalidProof
from hanse.core.ids import Digest
from hanse.core.transfer.download import Ask, Download
from hanse.core.transfer.wanted import File
from hanse.parts import payload
from hanse.parts.recipe import split
from hanse.rpc.blob_client import Arriving
from hanse.storage.blobs import BlobStore
from hanse.transfer import landing as landings
from hanse.transfer.held import Held
from hanse.transfer.job import Job
from hanse.transfer.landing import Ground
from hanse.transfer.parts import Parts
from hanse.transfer.places import Places
from hanse.transfer.underway import Coming
from hanse.transfer.wish import Progress, Wish

RNG = np.random.default_rng(5)
SAME = RNG.bytes(4000)
DATA = safetensors(
    {f"t{n}": ("U8", [4000], SAME if n in (1, 4) else RNG.bytes(4000)) for n in range(6)}
)
RECIPE = split(DATA)
PLACES = Places(RECIPE)
WISH = Wish(File(RECIPE.digest, Digest.of(b"release")), len(DATA), "m")
PARTS = {n: DATA[s : s + PLACES.sizes[n]] for n in PLACES.first for s in PLACES.starts_of(n)[:1]}


def ground_in(store: BlobStore | MemoryBlobs) -> tuple[Ground, Job]:
    coming = store.unfinished(len(DATA), RECIPE.digest)
    job = Job(store, coming, WISH, [], Random(0), Progress(WISH))
    return Ground(job, PLACES, PLACES.first), job


def by_hand(ground: Ground, number: int, data: bytes) -> None:
    landing = ground.begin(number)
    assert landing is not None
    try:
        for at in range(0, len(data), 1000):
            ground.write(landing, data[at : at + 1000])
        ground.check(landing)
    finally:
        ground.give_up(landing)


@settings(max_examples=60)
@given(st.data())
def test_whoever_is_first_lands_it_and_nobody_spoils_it(draw: st.DataObject) -> None:
    """Pieces, whole parts, liars and leavers in any order: what landed is right, each once."""
    store = MemoryBlobs()
    ground, job = ground_in(store)
    landed = set[int]()
    write = job.coming.write

    def written(start: int, data: bytes | memoryview) -> None:
        right = {s for number in landed for s in PLACES.starts_of(number)}
        assert start not in right, "what has landed is never written again"
        write(start, data)

    job.coming.write = written  # type: ignore[method-assign]  # only to look
    flying: dict[int, landings.Landing] = {}
    for _ in range(draw.draw(st.integers(0, 80))):
        number = draw.draw(st.sampled_from(PLACES.first))
        match draw.draw(st.sampled_from(["piece", "lie", "whole", "leave"])):
            case "whole":
                ground.put(number, PARTS[number])
                landed.add(number)
            case "leave" if number in flying:
                ground.give_up(flying.pop(number))
            case ("piece" | "lie") as kind:
                flight = flying.get(number) or ground.begin(number)
                if flight is None:
                    continue
                flying[number] = flight
                piece = PARTS[number][flight.at : flight.at + 1500]
                if not piece:
                    continue
                try:
                    ground.write(flight, bytes(len(piece)) if kind == "lie" else piece)
                except InvalidProof:
                    ground.give_up(flying.pop(number))
                    continue
                if flight.at == PLACES.sizes[number]:
                    ground.check(flight)
                    landed.add(number)
                    ground.give_up(flying.pop(number))
    for number in landed:
        for start in PLACES.starts_of(number):
            assert job.coming.read(start, PLACES.sizes[number]) == PARTS[number]
    for number in set(PLACES.first) - landed:
        ground.put(number, PARTS[number])
    job.commit()
    with store.open_verified(RECIPE.digest) as file:
        assert file.read() == DATA


def test_a_part_that_is_cut_off_too_long_or_wrong_does_not_land() -> None:
    ground, _ = ground_in(MemoryBlobs())
    right = PARTS[2]
    for wrong in (right[:-1], right[:-1] + bytes([right[-1] ^ 1]), right[:-1] + b"xx"):
        with pytest.raises(InvalidProof):
            by_hand(ground, 2, wrong)
    by_hand(ground, 2, right)
    assert ground.begin(2) is None, "it is here"


async def test_what_has_no_hole_before_it_is_hashed_while_more_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landings, "HASHED_BYTES", 1)
    ground, job = ground_in(BlobStore(tmp_path))
    hashed: list[int] = []
    hash_on = job.coming.hash_on

    def noted(end: int) -> None:
        hashed.append(end)
        hash_on(end)

    monkeypatch.setattr(job.coming, "hash_on", noted)
    order = [n for n in PLACES.first if n != 0]
    Random(1).shuffle(order)
    for number in [*order, 0]:
        await asyncio.to_thread(ground.put, number, PARTS[number])
        ground.hash_on()
        await ground.still()
        assert bool(hashed) == (number == 0), "the beginning comes last"
    assert hashed[-1] == len(DATA)
    await asyncio.to_thread(job.commit)


async def test_a_part_that_two_bring_at_once_counts_once(tmp_path: Path) -> None:
    ground, job = ground_in(BlobStore(tmp_path))
    download = Download(PLACES.sizes, PLACES.first)
    for name in ("one", "two"):
        download.join(name, 0.0)
    batch, *_ = (each.batch for each in download.step(0.0) if isinstance(each, Ask))
    held = Held(job.blobs, RECIPE, ())
    parts = Parts(job, PLACES, RECIPE.digest, held, ground, Coming(RECIPE, job.coming))
    parts._download = download

    async def coming(*pieces: bytes) -> AsyncIterator[memoryview]:
        for piece in pieces:
            yield memoryview(piece)

    whole = payload.RAW + PARTS[2]
    async with parts._openers, parts._openers:
        # One byte says not what it is: this one is gathered, and then waits to be opened.
        gathered = asyncio.create_task(
            parts._take(batch, Arriving(2, coming(whole[:1], whole[1:])))
        )
        await asyncio.sleep(0)
        await parts._take(batch, Arriving(2, coming(whole)))
        assert job.progress.done == PLACES.sizes[2]
    await gathered
    assert job.progress.done == PLACES.sizes[2]
