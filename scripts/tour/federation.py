"""The processes of the demo: daemons, edge nodes and users, each a process of its own."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hanse.cli import client
from hanse.core.errors import HanseError

HANSE = Path(sys.executable).parent / "hanse"
START_S = 30.0


class DemoFailed(Exception):
    """Something did not happen; the message says what and where to look."""


@dataclass
class Process:
    name: str
    command: list[str]
    log: Path
    handle: subprocess.Popen[str] | None = None

    def start(self, **options: Any) -> None:
        with self.log.open("a") as log:
            self.handle = subprocess.Popen(
                self.command, stderr=log, text=True, env=environment(), **options
            )

    def kill(self) -> None:
        """SIGKILL: no goodbye, as when the power goes."""
        if self.handle is not None:
            self.handle.kill()
            self.handle.wait()
            self.handle = None

    def stop(self) -> None:
        if self.handle is not None:
            self.handle.send_signal(signal.SIGTERM)
            try:
                self.handle.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.handle.kill()
            self.handle = None

    @property
    def alive(self) -> bool:
        return self.handle is not None and self.handle.poll() is None


@dataclass
class Users:
    """The traffic of one region; `totals` is what its process said last."""

    process: Process
    totals: dict[str, Any] = field(default_factory=dict)

    def start(self) -> None:
        self.process.start(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        threading.Thread(target=self._read, daemon=True).start()

    def rate(self, per_s: float) -> None:
        self._say(f"rate {per_s}")

    def stop(self) -> None:
        self._say("quit")
        self.process.stop()

    def _say(self, word: str) -> None:
        handle = self.process.handle
        if handle is not None and handle.stdin is not None:
            handle.stdin.write(word + "\n")
            handle.stdin.flush()

    def _read(self) -> None:
        handle = self.process.handle
        if handle is not None and handle.stdout is not None:
            for line in handle.stdout:
                self.totals = json.loads(line)


@dataclass
class Agent:
    """An edge node: enrolled with a token while its daemon runs, as on a machine of its own."""

    node: str
    home: Path
    listen: str
    process: Process

    def start(self, daemon_home: Path) -> None:
        token = hanse("agent", "token", "--node", self.node, home=daemon_home)
        words = ("--home", str(self.home), "--listen", self.listen)
        hanse("agent", "enroll", "--token", "-", *words, said=token)
        config = self.home / "agent.toml"  # 5 s between reports are for quieter places
        usual, often = "# report_interval_s = 5.0", "report_interval_s = 0.5"
        config.write_text(config.read_text().replace(usual, often))
        self.process.start()


@dataclass
class Region:
    name: str
    home: Path
    daemon: Process
    agents: list[Agent]
    nodes: list[str]
    users: Users

    def ask(self, verb: str, **args: Any) -> dict[str, Any]:
        """Ask this region's daemon over its control socket."""
        return dict(client.call(self.home, verb, **args))

    def daemon_answers(self) -> bool:
        try:
            self.ask("status")
        except HanseError:
            return False
        return True

    def status(self, model: str) -> dict[str, Any]:
        """This region's own row of the model's status; empty before the model is known."""
        try:
            models = self.ask("status")["models"]
        except HanseError:
            return {}
        for row in models:
            if row["model"] == model:
                found: dict[str, Any] = next(r for r in row["regions"] if r["region"] == self.name)
                return found
        return {}


def environment() -> dict[str, str]:
    """One thread per model run, so that eight processes share two cores fairly."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def hanse(*words: str, home: Path | None = None, check: bool = True, said: str = "") -> str:
    """Run the command line as a person would; its standard output."""
    env = environment() | ({"HANSE_HOME": str(home)} if home else {})
    done = subprocess.run(
        [str(HANSE), *words], input=said, capture_output=True, text=True, env=env, check=False
    )
    if check and done.returncode != 0:
        raise DemoFailed(f"hanse {' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


_PORTS = range(12_000, 32_000)
"""Below those that the system gives to outgoing connections: what a killed daemon listened on is
still free when it starts again."""


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago; all are held until all are known."""
    held: list[socket.socket] = []
    ports: list[int] = []
    try:
        for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
            probe = socket.socket()
            held.append(probe)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
            if len(ports) == count:
                return ports
    finally:
        for probe in held:
            probe.close()
    raise DemoFailed("no port between 12000 and 32000 is free")


def wait_for(
    what: str,
    happened: Callable[[], bool],
    *,
    within_s: float,
    processes: Sequence[Process] = (),
    say: Callable[[], None] = lambda: None,
) -> None:
    """Poll until it has happened. A process that has died meanwhile ends the wait at once."""
    deadline = time.monotonic() + within_s
    while not happened():
        for process in processes:
            if not process.alive:
                raise DemoFailed(f"{process.name} has ended; its log: {process.log}")
        if time.monotonic() > deadline:
            raise DemoFailed(f"not within {within_s:.0f} s: {what}")
        say()
        time.sleep(0.2)
