"""A real Prometheus server scrapes an application; a region judges by it, and waits without it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hand_federation import Federation, serving
from orders import body, spec, state
from tour.federation import free_ports

from hanse.core.errors import InvalidSpec, Unavailable
from hanse.core.evidence.verdict import Reason
from hanse.core.ids import Digest
from hanse.core.node import Clock, Node
from hanse.core.rollout.table import State
from hanse.daemon.prometheus import Prometheus, configured
from hanse.gateways import prometheus_client as reached

PROMETHEUS = shutil.which("prometheus")
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed"),
]


@dataclass
class Shop:
    """An application with two counters for each release, as it would expose them."""

    sold: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)

    def sell(self, release: Digest, orders: int, failed: int) -> None:
        name = str(release)
        self.sold[name] = self.sold.get(name, 0) + orders
        self.failed[name] = self.failed.get(name, 0) + failed

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        lines = [
            f'{metric}{{release="{release}",region="eu-north"}} {count}'
            for metric, counts in (
                ("orders_total", self.sold),
                ("orders_failed_total", self.failed),
            )
            for release, count in counts.items()
        ]
        text = "\n".join([*lines, ""])
        head = f"content-type: text/plain\r\ncontent-length: {len(text)}\r\n\r\n"
        writer.write(f"HTTP/1.1 200 OK\r\n{head}{text}".encode())
        await writer.drain()
        writer.close()


@dataclass
class Server:
    folder: Path
    scraped: int
    port: int
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        config = self.folder / "prometheus.yml"
        config.write_text(
            "scrape_configs: [{job_name: shop, scrape_interval: 100ms, scrape_timeout: 100ms, "
            f'static_configs: [{{targets: ["127.0.0.1:{self.scraped}"]}}]}}]\n'
        )
        assert PROMETHEUS is not None
        self.process = await asyncio.create_subprocess_exec(
            PROMETHEUS,
            f"--config.file={config}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=error",
        )

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()

    async def until(self, query: str, found: Callable[[int], bool]) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(Unavailable):
                if found(await reached.Server(self.url).count(query)):
                    return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{query} never came true")


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[tuple[Shop, Server]]:
    shop = Shop()
    exporter = await asyncio.start_server(shop.answer, "127.0.0.1", 0)
    server = Server(tmp_path, exporter.sockets[0].getsockname()[1], free_ports(1)[0])
    await server.start()
    yield shop, server
    await server.stop()
    exporter.close()


class Driver:
    """Hands stimuli to one node at once, as the daemon's driver does between its steps."""

    def __init__(self, federation: Federation) -> None:
        self._federation = federation

    async def do(self, stimulus: Callable[[Node, Clock], Any]) -> Any:
        return stimulus(self._federation.node("eu-north"), self._federation.clock)

    tell = do


@pytest.fixture
def trial() -> tuple[Federation, Digest, Digest]:
    federation = Federation()
    old = serving(federation)
    new = federation.publish("4.0.0", parents=(old,))
    federation.roll_out("r-2", 2, new, old, **body())
    federation.run(5.0)
    return federation, new, old


async def test_a_real_server_counts_an_outage_holds_and_harm_is_undone(
    shop: tuple[Shop, Server], trial: tuple[Federation, Digest, Digest]
) -> None:
    (sales, server), (federation, new, old) = shop, trial
    prometheus = Prometheus(Driver(federation), reached.Server(server.url))  # type: ignore[arg-type]

    async def look(orders: int, failed: int) -> None:
        sales.sell(new, orders, failed)
        sales.sell(old, 4 * orders, orders // 25)
        query = f'sum(orders_total{{release="{new}"}})'
        await server.until(query, lambda n: n == sales.sold[str(new)])
        query = f'sum(orders_total{{release="{old}"}})'
        await server.until(query, lambda n: n == sales.sold[str(old)])
        await prometheus.look()
        federation.run(1.0)

    await look(0, 0)
    await look(100, 1)
    assert state(federation)[0] is not State.HELD
    (execution,) = (
        e for e in federation.node("eu-north").region.executions.values() if e.plan.name == "r-2"
    )
    totals = execution.progress.evidence.row("orders").totals
    assert (*totals.bad, *totals.exposed) == (1, 4, 100, 400), "exactly what was sold"

    await server.stop()
    for _ in range(30):
        await prometheus.look()
        federation.run(1.0)
    assert state(federation)[:2] == (State.HELD, Reason.TELEMETRY_GAP)
    assert "cannot be asked" in state(federation)[2]

    await server.start()
    await look(100, 1)
    assert state(federation)[0] is not State.HELD, "what was missed is counted now"
    await look(400, 100)
    federation.run(2.0)
    assert state(federation)[:2] == (State.ROLLED_BACK, Reason.WORSE)


async def test_a_plan_with_unknown_names_or_queries_is_refused_at_entry(
    shop: tuple[Shop, Server], trial: tuple[Federation, Digest, Digest]
) -> None:
    (sales, server), (federation, _, old) = shop, trial
    sales.sell(old, 10, 1)
    await server.until("sum(orders_total)", lambda n: n == 10)
    prometheus = Prometheus(Driver(federation), reached.Server(server.url))  # type: ignore[arg-type]
    await prometheus.check(spec())

    def asking(bad: str) -> dict[str, str]:
        return {"bad": bad, "total": 'sum(orders_total{release="$release"})'}

    for bad, said in (
        ('sum(oders_failed_total{release="$release"})', "has seen no oders_failed_total"),
        ('sum(orders_failed_total{release="$release"}', "parse error"),
        ('vector(1) # "$release"', "no metric is named"),
    ):
        with pytest.raises(InvalidSpec) as caught:
            await prometheus.check(spec(prometheus=asking(bad)))
        assert said in str(caught.value)
        assert "metric orders.prometheus.bad" in str(caught.value)
    with pytest.raises(InvalidSpec, match="asks no Prometheus"):
        configured(None, spec())
    assert configured(None, replace(spec(), templates=())) is None
    await server.stop()
    with pytest.raises(Unavailable):
        await prometheus.check(spec())
