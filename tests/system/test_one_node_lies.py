"""Five whole agents on one real daemon: one that lies is named and undoes nothing, three undo."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from digit_releases import holdout, paths
from plan_texts import FIRST, HALF
from system_federation import MODEL, Federation, done, hanse

from hanse.core.errors import HanseError
from hanse.core.telemetry import Window
from hanse.edge.agent import Agent
from hanse.edge.certificate import OwnCertificate
from hanse.edge.config import load

pytestmark = pytest.mark.system

DOCKS = [f"dock-{n}" for n in range(1, 6)]
ASK_S = 0.03
CANARY = HALF + "  background: {templates: [sound]}\n"


def nothing_but_errors(window: Window) -> Window:
    canary = window.canary
    return replace(window, canary=replace(canary, errors=canary.requests))


class Crowd:
    """The agents, each with users of its own, on a thread beside the test."""

    def __init__(self, federation: Federation) -> None:
        self.liars: set[str] = set()
        self._homes = {node.name: node.home for node in federation.nodes}
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._run()])

    def __enter__(self) -> Crowd:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(30)

    async def _run(self) -> None:
        agents = [self._agent(name, home) for name, home in self._homes.items()]
        tasks = [asyncio.create_task(w) for a in agents for w in (a.run(), self._use(a))]
        await self._over.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for agent in agents:
            await agent.close()

    def _agent(self, name: str, home: Path) -> Agent:
        config = load(home / "agent.toml")
        config.state.mkdir(parents=True, exist_ok=True)
        agent = Agent(config, OwnCertificate(config), os.urandom(16))
        drain = agent.telemetry.drain

        def told() -> list[Window]:
            return [nothing_but_errors(w) if name in self.liars else w for w in drain()]

        agent.telemetry.drain = told  # type: ignore[method-assign, assignment]  # it lies
        agent.start()
        return agent

    async def _use(self, agent: Agent) -> None:
        rows, n = holdout()[0], 0
        while True:
            n += 1
            feeds = {"X": rows[n % len(rows)][None, :]}
            with contextlib.suppress(HanseError):  # nothing is loaded yet
                await agent.router.infer(MODEL, None, f"{id(agent)}-{n}", "", feeds)
            await asyncio.sleep(ASK_S)


@pytest.fixture
def crowd(folder: Path) -> Iterator[tuple[Federation, Crowd]]:
    federation = Federation(folder)
    try:
        federation.found(nodes=DOCKS, regions=["eu-north"])
        federation.founder.start()
        with Crowd(federation) as agents:
            yield federation, agents
    finally:
        federation.close()


def test_one_liar_of_five_holds_and_is_named_and_three_undo(
    crowd: tuple[Federation, Crowd], tmp_path: Path
) -> None:
    (federation, agents), daemon = crowd, crowd[0].founder
    first, canary = tmp_path / "first.yaml", tmp_path / "canary.yaml"
    first.write_text(FIRST)
    canary.write_text(CANARY)
    federation.until("the daemon writes", lambda: daemon.writing)
    federation.publish(paths()["v1"], "1.0.0")
    rollout = federation.roll_out("1.0.0", first)
    federation.until("1.0.0 is proven", lambda: daemon.state_in(rollout, "eu-north") == "healthy")
    federation.publish(paths()["swapped"], "2.0.0", parent="1.0.0")

    agents.liars = {"dock-4"}
    rollout = federation.roll_out("2.0.0", canary)
    federation.until("it is held", lambda: daemon.state_in(rollout, "eu-north") == "held")
    (asked,) = daemon.rollout(rollout)["regions"]
    assert asked["reason"].startswith("harm does not show without the word of dock-4: error-rate")
    assert "dock-4" in done("why", MODEL, home=daemon.home)
    assert "dock-4" in hanse("rollout", "status", MODEL, home=daemon.home).stdout
    assert daemon.row()["active"]["version"] == "1.0.0"

    agents.liars = {"dock-2", "dock-4", "dock-5"}
    federation.until("it is undone", lambda: daemon.state_in(rollout, "eu-north") == "rolledBack")
    assert "2.0.0 was rolled back in eu-north" in done("why", MODEL, home=daemon.home)
