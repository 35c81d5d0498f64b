"""The composition root of an edge node: every part is made here, once, and nothing is global.

Start: serve from the disk first, then look for the daemon. Stop on SIGTERM: take no new
requests, finish those that run, deliver the last counts if the daemon answers within seconds.
"""

from __future__ import annotations

import asyncio
import os
import signal
from importlib.metadata import version
from pathlib import Path

import structlog

from hanse.edge.agent import Agent
from hanse.edge.certificate import OwnCertificate
from hanse.edge.config import Config, load
from hanse.edge.serving import RoutedServing
from hanse.edge.status import hold
from hanse.logs import configure, run_to_the_end
from hanse.rpc.certificates import Identity
from hanse.rpc.inference_server import serve

STOP_S = 5.0
NONCE_BYTES = 16
log = structlog.get_logger("hanse.edge")


async def run(config: Config) -> None:
    """Serve until SIGTERM or SIGINT. Raises `Unavailable` if the port is taken and `Broken`
    when the process must end at once."""
    configure(config.log_level)
    config.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    hold(config.state)  # until the process ends
    agent = Agent(config, OwnCertificate(config), os.urandom(NONCE_BYTES))
    agent.start()
    serving = RoutedServing(agent.router)
    server = await serve(
        config.listen,
        serving,
        agent.telemetry.label,
        version("hanse"),
        shown=_serving_identity(config),
        client_ca_pem=ca.read_bytes() if (ca := config.serving_client_ca) else None,
    )
    stop = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)
    running = asyncio.create_task(agent.run())
    stopping = asyncio.create_task(stop.wait())
    log.info("started", node=config.node, listen=config.listen, pid=os.getpid())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        _raise_first(running)
    await server.stop(STOP_S)
    running.cancel()
    await asyncio.wait({running})
    await agent.close()
    log.info("stopped")


def _serving_identity(config: Config) -> Identity | None:
    if config.serving_cert is None or config.serving_key is None:
        return None
    return Identity(config.serving_cert.read_bytes(), config.serving_key.read_bytes())


def _raise_first(ended: asyncio.Task[None]) -> None:
    """Raise what ended the agent, without the group that its tasks formed."""
    try:
        ended.result()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


def main(path: Path) -> int:
    """Load the configuration and run; the exit code for the shell.

    Raises what `config.load` raises: a person at a terminal has to read that, not a log.
    """
    return run_to_the_end(run(load(path)), log)
