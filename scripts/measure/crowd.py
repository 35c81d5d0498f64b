"""Two hundred edge nodes in one process: whole agents, each with a folder, certificate and link.

Started by `rollback` with the folder of the nodes. Every line of its output is JSON: the moment,
by the machine's monotonic clock, at which a node began to answer from a release alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from hanse.core.device_step import Route
from hanse.core.errors import HanseError
from hanse.edge.agent import Agent
from hanse.edge.certificate import OwnCertificate
from hanse.edge.config import load
from hanse.logs import configure

ASK_S = 1.0  # between two requests of a node's users
ROW = {"X": np.zeros((1, 64), np.float32)}


class Watched:
    """One agent, whose swaps are told."""

    def __init__(self, home: Path) -> None:
        config = load(home / "agent.toml")
        config.state.mkdir(parents=True, exist_ok=True)
        self.name, self.asked = config.node, 0
        self.agent = Agent(config, OwnCertificate(config), os.urandom(16))
        self._swap = self.agent.router.swap
        self.agent.router.swap = self._told  # type: ignore[method-assign]  # only to look
        self.agent.start()

    def _told(self, route: Route) -> None:
        self._swap(route)
        if route.stable and route.candidate is None:
            said = {"node": self.name, "release": str(route.stable), "at_s": time.monotonic()}
            print(json.dumps(said), flush=True)

    async def use(self) -> None:
        """Its users ask all the time, if it can answer."""
        while True:
            await asyncio.sleep(ASK_S)
            self.asked += 1
            with contextlib.suppress(HanseError):  # nothing is loaded yet
                await self.agent.router.infer("digits", None, f"{self.asked}", "", ROW)


async def main(folder: Path) -> None:
    configure("error")
    crowd = [Watched(home) for home in sorted(folder.iterdir())]
    async with asyncio.TaskGroup() as group:
        for one in crowd:
            group.create_task(one.agent.run())
            group.create_task(one.use())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
