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


async def taken(words: list[str], until: int) -> bool:
    """Run a taker and kill it once it has so many bytes; whether it was done before."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async for line in process.stdout:
            if line == b"whole\n" or int(line) >= until:
                return line == b"whole\n"
        raise AssertionError("the taker ended by itself")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.system
async def test_killed_at_every_tenth_only_what_was_on_its_way_comes_twice(tmp_path: Path) -> None:
    (tmp_path / "shelf").mkdir()
    shelf, counters = Shelf(tmp_path / "shelf"), zeros()
    digest, release = shelf.put(DATA), Digest.of(b"release")
    service = BlobService(shelf, counters, Pace(40_000_000))
    async with served(service) as (address, pinned, client):
        for name, raw in (
            ("own.crt", client.identity.cert_pem),
            ("own.key", client.identity.key_pem),
            ("daemon.crt", pinned),
        ):
            (tmp_path / name).write_bytes(raw)
        words = [
            str(Path(__file__).with_name("taker.py")), str(tmp_path), address,
            digest.hex, release.hex, str(len(DATA)),
        ]  # fmt: skip
        kills = 0
        for tenth in TENTHS:
            kills += not await taken(words, tenth * len(DATA) // 10)
        assert kills == len(TENTHS)
        assert await taken(words, len(DATA) + 1)
    with BlobStore(tmp_path).open_verified(digest) as file:
        assert file.read() == DATA
    recipe = split(DATA)
    on_its_way = BATCHES_MAX * max(part.size for part in recipe.parts)
    recipes = (kills + 1) * len(recipe.encode())
    assert counters["blob_bytes_sent"] <= len(DATA) + recipes + kills * on_its_way
