"""How long until a publish is durable, and until all of three regions show it."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import grpc

from hanse.core.events import ReleaseRecord
from hanse.core.ids import Digest
from hanse.core.node import Ticket
from hanse.core.signing import SigningKey
from hanse.core.trust.statements import sign_release
from hanse.daemon.run import Daemon
from measure.federation import MODEL, federation, manifest
from measure.table import markdown, quantile

ROUNDS = 300


def run() -> str:
    with tempfile.TemporaryDirectory() as folder:
        durable, visible, hop = asyncio.run(_measure(Path(folder)))
    rows = [
        [name, *(f"{quantile(values, q) * 1000:.1f}" for q in (0.5, 0.99))]
        for name, values in (
            ("one probe over the same links (one hop and back)", hop),
            ("acknowledged, durable in its own region", durable),
            ("visible in all three regions", visible),
        )
    ]
    return (
        f"### Publish\n\n{ROUNDS} signed releases one after another, three daemons in one process, "
        "mutual TLS on loopback, SQLite WAL at FULL.\n\n" + markdown(["", "p50 ms", "p99 ms"], rows)
    )


async def _measure(folder: Path) -> tuple[list[float], list[float], list[float]]:
    durable, visible, hop = [], [], []
    async with federation(folder) as (daemons, operator):
        peer = daemons[1].driver.node.me.member
        channel = daemons[0].doors.transport.channel(peer)
        for number in range(ROUNDS):
            hop.append(await _probe(channel))
            began = time.perf_counter()
            release = await _publish(daemons[0], operator, number)
            durable.append(time.perf_counter() - began)
            while not all(_shows(d, release) for d in daemons):
                await asyncio.sleep(0.0005)
            visible.append(time.perf_counter() - began)
    return durable, visible, hop


async def _probe(channel: grpc.aio.Channel) -> float:
    began = time.perf_counter()
    call = channel.unary_unary("/hanse.v1.PeerService/Probe", None, None)  # bytes as they are
    await call(b"")
    return time.perf_counter() - began


async def _publish(daemon: Daemon, operator: SigningKey, number: int) -> Digest:
    release = manifest(number)
    raw = release.encode()
    name, counter = f"{MODEL}@{release.version}", number + 1
    envelope = sign_release(name, Digest.of(raw), counter, [operator])
    record = ReleaseRecord(MODEL, release.version, counter, raw)

    def propose(node: object, _: object) -> Ticket:
        return daemon.driver.node.propose(record, attestations=[envelope])

    await daemon.driver.do(propose)
    return Digest.of(raw)


def _shows(daemon: Daemon, release: Digest) -> bool:
    view = daemon.driver.node.catalog.views.get(MODEL)
    return view is not None and view.release(release) is not None
