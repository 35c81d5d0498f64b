"""What comparing logs costs: when nothing differs, and when k authors do after a new link."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from hanse.core import limits
from hanse.core.events import Note
from hanse.daemon.config import load
from hanse.daemon.run import Daemon, assemble
from measure import federation
from measure.fleet import Running, fleet
from measure.table import markdown
from measure.wire import EVENTS, Tally, counted, tcp_received

ROUNDS = 3
NODES, REGIONS = 50, 10
QUIET_S = 90.0  # until greetings, and what each daemon says soon after its start, are over
LINKS = 4  # of a daemon on two rings
Row = list[str]


def run() -> str:
    with tempfile.TemporaryDirectory() as folder:
        three = asyncio.run(_three(Path(folder)))
    with tempfile.TemporaryDirectory() as folder:
        fifty = asyncio.run(_fifty(Path(folder)))
    return (
        "### Comparing logs\n\nBytes of frames as they are encoded, and five each for gRPC. "
        f"*Idle*: over {ROUNDS} rounds of {limits.ANTI_ENTROPY_S:.0f} s, nothing new anywhere, all "
        "that a daemon sends and hears in a round, over all its links; the bar is for each peer. "
        "*k differ*: one daemon comes back and lacks "
        "an event of each of k authors; for each of its links, both ways, until all are "
        "equal: what was said to find the difference, the greeting included, and what carried "
        "the events; no pings. Three daemons speak gRPC over mutual TLS on loopback; in brackets "
        "what TCP carried for it, with TLS records, HTTP/2 and keep-alives, and for a new link "
        "the handshake. Fifty run in one process over the memory transport.\n\n"
        + markdown(
            ["daemons", "case", "bar", "comparing, bytes", "carrying, bytes", "for each author"],
            [*three, *fifty],
        )
    )


# -- three daemons on gRPC -------------------------------------------------------


class Site:
    """One daemon that can be stopped and started."""

    def __init__(self, home: Path) -> None:
        self._home, self._stack = home, AsyncExitStack()
        self.daemon: Daemon
        self._driving: asyncio.Task[None]

    async def start(self) -> None:
        self.daemon = await assemble(load(self._home), self._stack)
        self._driving = asyncio.create_task(self.daemon.driver.run())

    async def stop(self) -> None:
        await self.daemon.stop(self._driving)
        await self._stack.aclose()

    async def write(self, text: str) -> None:
        await self.daemon.driver.do(lambda node, _: node.propose(Note(text)))


async def _three(folder: Path) -> list[Row]:
    homes, _ = federation._ceremony(folder)
    sites = [Site(home) for home in homes]
    for site in sites:
        await site.start()
    rows = []
    try:
        await _settled(sites)
        await asyncio.sleep(QUIET_S)
        with counted() as tally:
            tally.bytes.clear()
            before = tcp_received()
            await asyncio.sleep(ROUNDS * limits.ANTI_ENTROPY_S)
            rows.append(_idle(3, tally, len(sites), tcp_received() - before))
        for differ in (0, 1, 2):
            rows.append(await _return_of(sites, differ))
    finally:
        for site in sites:
            await site.stop()
    return rows


async def _return_of(sites: list[Site], differ: int) -> Row:
    *others, last = sites
    await last.stop()
    for site in others[:differ]:
        await site.write(f"while nobody heard, {differ}")
    await asyncio.sleep(1)  # what the two tell each other is not counted
    with counted() as tally:
        before = tcp_received()
        await last.start()
        await _settled(sites)
        return _differ(3, tally, differ, len(others), tcp_received() - before)


async def _settled(sites: Sequence[Site]) -> None:
    async with asyncio.timeout(60):
        while not federation._settled([site.daemon for site in sites]):
            await asyncio.sleep(0.02)


# -- fifty in one process ----------------------------------------------------------


async def _fifty(folder: Path) -> list[Row]:
    rows = []
    async with fleet(folder, NODES, REGIONS) as made:
        await asyncio.sleep(QUIET_S)
        with counted() as tally:
            await asyncio.sleep(ROUNDS * limits.ANTI_ENTROPY_S)
            rows.append(_idle(NODES, tally, NODES, None))
        for differ in (0, 1, 10, NODES - 1):
            away = NODES // 2
            await made.stop(away)
            others = list(made.running.values())[:differ]
            await asyncio.gather(*(r.write(f"while nobody heard, {differ}") for r in others))
            await made.until(made.agreed)
            await asyncio.sleep(1)
            with counted() as tally:
                back = await made.start(away)
                await made.until(made.agreed)
                await made.until(partial(_linked, back))
                await made.until(made.agreed)
                links = len(back.node.sync.proven())
                rows.append(_differ(NODES, tally, differ, links, None))
    return rows


def _linked(running: Running) -> bool:
    return len(running.node.sync.proven()) >= LINKS


# -- rows ----------------------------------------------------------------------------


def _idle(count: int, tally: Tally, daemons: int, tcp: int | None) -> Row:
    each = 2 * tally.total() / ROUNDS / daemons
    return [str(count), "idle, a round", "200", _shown(each, tcp and 2 * tcp / ROUNDS / 3), "", ""]


def _differ(count: int, tally: Tally, differ: int, links: int, tcp: int | None) -> Row:
    comparing, whole = tally.total(*EVENTS, "Ping"), tally.total("Ping")
    return [
        str(count),
        f"{differ} differ, a link",
        "",
        f"{comparing / links:.0f}",
        _shown((whole - comparing) / links, tcp and tcp / links),
        f"{comparing / links / differ:.0f}" if differ else "",
    ]


def _shown(bytes_: float, tcp: float | None) -> str:
    return f"{bytes_:.0f}" + (f" ({tcp:.0f})" if tcp is not None else "")
