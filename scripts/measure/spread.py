"""How long until a new event is in the store of each of fifty daemons."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from random import Random

from hanse.core.ids import Origin
from measure.fleet import Fleet, fleet
from measure.table import markdown, quantile

NODES, REGIONS, EVENTS = 50, 10, 100
PAUSE_S = 0.2  # for the last cosignatures to go round


def run() -> str:
    with tempfile.TemporaryDirectory() as folder:
        durable, everywhere, final = asyncio.run(_measure(Path(folder)))
    rows = [
        [name, *(f"{quantile(values, q) * 1000:.0f}" for q in (0.5, 0.99, 1.0)), bar]
        for name, values, bar in (
            ("durable where it was written", durable, ""),
            ("durable in all fifty", everywhere, "1000"),
            ("final in all fifty: cosigned by a quorum of seven regions of ten", final, ""),
        )
    ]
    return (
        f"### Spreading\n\n{EVENTS} events one after another, each by any of {NODES} daemons in "
        f"{REGIONS} regions, all in one process: real driver, one SQLite database each at FULL, "
        "the memory transport. From the moment at which it is asked for.\n\n"
        + markdown(["", "p50 ms", "p99 ms", "max ms", "bar ms"], rows)
    )


async def _measure(folder: Path) -> tuple[list[float], list[float], list[float]]:
    durable, everywhere, final = [], [], []
    rng = Random(1)  # a bench
    async with fleet(folder, NODES, REGIONS) as made:
        for number in range(EVENTS):
            author = rng.choice(list(made.running.values()))
            began = time.perf_counter()
            await author.write(f"event {number}")
            durable.append(time.perf_counter() - began)
            log, size = author.node.me, author.node.book.size(author.node.me)
            await made.until(lambda log=log, size=size: _held(made, log, size))  # type: ignore[misc]  # binds the loop variables
            everywhere.append(time.perf_counter() - began)
            await made.until(lambda log=log, size=size: _final(made, log, size))  # type: ignore[misc]  # as above
            final.append(time.perf_counter() - began)
            await asyncio.sleep(PAUSE_S)
    return durable, everywhere, final


def _final(made: Fleet, log: Origin, size: int) -> bool:
    return all(r.node.book.heads[log].final_size >= size for r in made.running.values())


def _held(made: Fleet, log: Origin, size: int) -> bool:
    return all(r.store.sizes.get(log, 0) >= size for r in made.running.values())
