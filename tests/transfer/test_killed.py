"""A real process is killed at every tenth of a file, and what had come never comes again."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import numpy as np
import pytest
from parts.models import safetensors
from rpc.blob_worlds import served
from shelves import Shelf

from hanse.core.counters import zeros
from hanse.core.ids import Digest
from hanse.core.transfer.download import BATCHES_MAX
from hanse.parts.recipe import SLAB_BYTES, split
from hanse.rpc.blob_service import BlobService
from hanse.rpc.pacing import Pace
from hanse.storage.blobs import BlobStore

CHUNKS = 12
DATA = safetensors(
    {
        f"t{n}": ("U8", [SLAB_BYTES], np.random.default_rng(n).bytes(SLAB_BYTES))
        for n in range(CHUNKS)
    }
)
TENTHS = range(1, 10)


async def taken(words: list[str], until: int) -> tuple[bool, list[int]]:
    """Run a taker and kill it once it has so many bytes: whether it was done before, and which
    parts began to come."""
    began = list[int]()
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    done = None
    try:
        async for line in process.stdout:
            match line.split():
                case [b"began", number]:
                    began.append(int(number))
                case [b"whole"]:
                    done = True
                case [count] if done is None and int(count) >= until:
                    done = False
                    process.kill()  # and read what it had said before
        if done is None:
            raise AssertionError("the taker ended by itself")
        return done, began
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.system
@pytest.mark.parametrize("way", ["stream", "parts"])
async def test_killed_at_every_tenth_at_most_one_chunk_comes_twice(
    tmp_path: Path, way: str
) -> None:
    (tmp_path / "shelf").mkdir()
    shelf, counters = Shelf(tmp_path / "shelf"), zeros()
    digest, release = shelf.put(DATA), Digest.of(b"release")
    service = BlobService(shelf, counters, Pace(40_000_000))
    runs = list[list[int]]()
    async with served(service) as (address, pinned, client):
        for name, raw in (
            ("own.crt", client.identity.cert_pem),
            ("own.key", client.identity.key_pem),
            ("daemon.crt", pinned),
        ):
            (tmp_path / name).write_bytes(raw)
        words = [
            str(Path(__file__).with_name("taker.py")), str(tmp_path), address,
            digest.hex, release.hex, str(len(DATA)), way,
        ]  # fmt: skip
        for tenth in TENTHS:
            whole, began = await taken(words, tenth * len(DATA) // 10)
            assert not whole
            runs.append(began)
        whole, began = await taken(words, len(DATA) + 1)
        assert whole
        runs.append(began)
    with BlobStore(tmp_path).open_verified(digest) as file:
        assert file.read() == DATA
    recipe = split(DATA)
    later = set[int]()
    for began in reversed(runs):
        assert len(later.intersection(began)) <= 1
        later.update(began)
    assert way == "stream" or later == set(range(len(recipe.parts)))
    on_its_way = BATCHES_MAX * max(part.size for part in recipe.parts)  # in the buffers of the line
    recipes = (len(TENTHS) + 1) * len(recipe.encode())
    assert counters["blob_bytes_sent"] <= len(DATA) + recipes + len(TENTHS) * on_its_way
