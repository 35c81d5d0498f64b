"""The auditor's door and an offline verification, for one long log."""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from pathlib import Path

from hanse.core.audit.proof import find, prove, verify_proof
from hanse.core.audit.replay import audit
from hanse.core.log.merkle import leaf_hash, root_of
from hanse.core.log.tiles import tiles_of
from hanse.core.step import PutTrust
from hanse.gateways.log_files import LogFiles
from hanse.rpc.codec import EventCodec
from hanse.storage.sqlite import SqliteEventStore
from measure.ingest import _written
from measure.table import markdown

EVENTS, BATCH = 100_000, 250


def run() -> str:
    rows = asyncio.run(_measured())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return (
        f"### Audit\n\nOne log of {EVENTS} events. The door reads SQLite; the second column is the "
        "first question after a start, the third the same one again. An audit verifies every tile, "
        f"root, signature and place, judges and folds. Peak memory: {peak} MB.\n\n"
        + markdown(["", "first, ms", "again, ms"], rows)
    )


async def _measured() -> list[list[str]]:
    appends, chain, origin = _written(BATCH, EVENTS)
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        store = await SqliteEventStore.open(Path(folder))
        await store.apply([PutTrust(1, chain.files[0])])
        for append in appends:
            await store.apply([append])
        files = LogFiles(store, origin.federation)
        for name in ("tile/2/000.p/1", "tile/1/001.p/134", "tile/0/000", "tile/entries/000",
                     "checkpoint"):  # fmt: skip
            path = f"log/{origin}/{name}"
            rows.append([f"`{name}`", await _asked(files, path), await _asked(files, path)])
        kept = await _copied(files, [f"log/{origin}/{t.path}" for t in tiles_of(EVENTS)], origin)
        await store.close()
    raws = [raw for append in appends for raw in append.events]
    rows += _offline(kept, raws, chain.files, str(origin))
    return rows


async def _asked(files: LogFiles, path: str) -> str:
    start = time.perf_counter()
    await files.read(path)
    return f"{(time.perf_counter() - start) * 1000:.2f}"


async def _copied(files: LogFiles, tiles: list[str], origin: object) -> dict[str, bytes]:
    paths = ["logs", "trust/00001.json", f"log/{origin}/checkpoint", *tiles]
    return {path: (await files.read(path)).data for path in paths}


def _offline(
    kept: dict[str, bytes], raws: list[bytes], trust: tuple[bytes, ...], origin: str
) -> list[list[str]]:
    def timed(deed: object) -> str:
        start = time.perf_counter()
        deed()  # type: ignore[operator]
        return f"{(time.perf_counter() - start) * 1000:.2f}"

    read, codec = kept.__getitem__, EventCodec()
    event = leaf_hash(raws[EVENTS * 3 // 4]).hex()
    where = find(read, event)
    proof = prove(read, *where).render()
    return [
        ["bare: hash the events and the tree", timed(lambda: root_of(map(leaf_hash, raws))), ""],
        ["verify all of it", timed(lambda: audit(read, trust[0], codec)), ""],
        ["find an event by its id", timed(lambda: find(read, event)), ""],
        [f"make its proof, {len(proof)} bytes", timed(lambda: prove(read, *where)), ""],
        ["verify the proof", timed(lambda: verify_proof(proof, trust[0], trust, codec)), ""],
    ]
