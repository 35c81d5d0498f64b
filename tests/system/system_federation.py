"""A whole federation of installed `hanse` processes on loopback, made by its own command line.

Every wait polls for a condition and has a deadline; whoever waits in vain is shown the end of
every process's log. Whatever was started is killed when the federation is closed.
"""

from __future__ import annotations

import datetime
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tour.federation import HANSE, free_ports

from hanse.cli import client
from hanse.core.errors import HanseError
from hanse.core.ids import member_id
from hanse.core.signing import SigningKey
from hanse.daemon.private_files import read_seed
from hanse.rpc import certificates
from hanse.rpc.certificates import Identity

MODEL = "digits"
REGIONS = ("eu-north", "us-east", "ap-south")
NODES = ("n1", "n2")  # both in the first region
CLI_S = 60.0
WAIT_S = 60.0
EXIT_S = 20.0
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def hanse(*words: str | Path, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line as a person would, without a terminal."""
    env = ENVIRONMENT | ({"HANSE_HOME": str(home)} if home else {})
    command = [str(HANSE), *map(str, words)]
    return subprocess.run(  # noqa: PLW1510  # callers look at the code
        command, capture_output=True, text=True, env=env, timeout=CLI_S, stdin=subprocess.DEVNULL
    )


def done(*words: str | Path, home: Path | None = None) -> str:
    """As `hanse`, for what has to succeed; its standard output."""
    ran = hanse(*words, home=home)
    assert ran.returncode == 0, f"hanse {words} ended with {ran.returncode}\n{ran.stderr}"
    return ran.stdout


def ends_of(logs: Sequence[Path]) -> str:
    return "\n".join(f"--- {log.name}\n{log.read_text()[-2000:]}" for log in logs if log.exists())


def until(
    what: str,
    happened: Callable[[], Any],
    *,
    within_s: float = WAIT_S,
    logs: Sequence[Path] = (),
) -> Any:
    """Poll until it is true, and return it. A daemon that does not answer is asked again."""
    deadline, why = time.monotonic() + within_s, ""
    while time.monotonic() < deadline:
        try:
            found, why = happened(), ""
            if found:
                return found
        except HanseError as error:
            why = str(error)
        time.sleep(0.05)
    raise AssertionError(f"not within {within_s:g} s: {what} {why}\n{ends_of(logs)}")


@dataclass
class Process:
    """One `hanse daemon run` or `hanse agent run`; its log goes on over restarts."""

    home: Path
    words: tuple[str, ...]
    under: tuple[str, ...] = ()  # a command that runs it, such as a tracer
    handle: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.home.with_suffix(".log")

    def start(self) -> None:
        command = [*self.under, str(HANSE), *self.words, "--home", str(self.home)]
        with self.log.open("ab") as log:
            self.handle = subprocess.Popen(command, stdout=log, stderr=log, env=ENVIRONMENT)

    def kill(self) -> None:
        """SIGKILL: no goodbye, as when the power goes."""
        if self.handle is not None:
            self.handle.kill()
            self.handle.wait(EXIT_S)
            self.handle = None

    def stop(self) -> int:
        """SIGTERM; the exit code. Fails if the process needs longer than `EXIT_S`."""
        assert self.handle is not None
        self.handle.send_signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> int:
        """Wait for the end that somebody else has caused; the exit code."""
        assert self.handle is not None
        code = self.handle.wait(EXIT_S)
        self.handle = None
        return code


@dataclass
class Daemon(Process):
    region: str = ""
    address: str = ""

    def ask(self, verb: str, **args: Any) -> dict[str, Any]:
        return dict(client.call(self.home, verb, **args))

    @property
    def state_digest(self) -> str:
        return str(self.ask("status")["daemon"]["state_digest"])

    @property
    def writing(self) -> bool:
        """Whether it has recovered its log after a start."""
        return bool(self.ask("status")["daemon"]["phase"] == "writing")

    @property
    def key(self) -> SigningKey:
        return SigningKey(read_seed(self.home / "keys/daemon.key"))

    @property
    def authority(self) -> Identity:
        keys = self.home / "keys"
        return Identity((keys / "tls.crt").read_bytes(), (keys / "tls.key").read_bytes())

    def identity(self) -> Identity:
        """A certificate such as this daemon shows, made by its own authority."""
        uri = certificates.daemon_uri("harbour", self.region, member_id(self.key.public))
        now = datetime.datetime.now(datetime.UTC)
        return certificates.issue(
            uri, self.authority, certificates.from_now(now, certificates.LIFE)
        )

    def operator_key(self) -> SigningKey:
        return SigningKey(read_seed(self.home / "keys/operator.key"))

    def row(self, region: str = "") -> dict[str, Any]:
        """One region of the model's status as this daemon sees it."""
        (model,) = self.ask("status", model=MODEL)["models"]
        return next(r for r in model["regions"] if r["region"] == (region or self.region))

    def rollout(self, name: str) -> dict[str, Any]:
        (found,) = self.ask("rollout.status", model=MODEL, rollout=name)["rollouts"]
        return dict(found)

    def state_in(self, rollout: str, region: str) -> str:
        rows = self.rollout(rollout)["regions"]
        return next(str(r["state"]) for r in rows if r["region"] == region)


@dataclass
class Node(Process):
    name: str = ""
    address: str = ""

    def status(self) -> dict[str, Any]:
        import json

        found = hanse("agent", "status", "--home", self.home, "-o", "json")
        return dict(json.loads(found.stdout)) if found.stdout else {}


@dataclass
class Federation:
    home: Path
    daemons: dict[str, Daemon] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)

    @property
    def founder(self) -> Daemon:
        return self.daemons[REGIONS[0]]

    @property
    def logs(self) -> list[Path]:
        return [p.log for p in (*self.daemons.values(), *self.nodes)]

    def found(
        self,
        nodes: Sequence[str] = NODES,
        regions: Sequence[str] = REGIONS,
        hosts: Mapping[str, str] | None = None,
    ) -> None:
        ports = iter(free_ports(len(regions) + len(nodes)))
        for region in regions:
            host = (hosts or {}).get(region, "127.0.0.1")
            home, address = self.home / region, f"{host}:{next(ports)}"
            how = ("join", "--via", self.founder.home) if self.daemons else ("init",)
            name = () if self.daemons else ("--federation", "harbour")
            where = ("--region", region, "--home", home, "--listen", address)
            done("daemon", *how, *name, *where)
            self.daemons[region] = Daemon(home, ("daemon", "run"), region=region, address=address)
        for name in nodes:
            self.nodes.append(self.enrol(name, f"127.0.0.1:{next(ports)}"))

    def enrol(
        self, name: str, address: str, region: str = REGIONS[0], more: Sequence[str] = ()
    ) -> Node:
        """A node that reports often, so that tests need not wait for it."""
        home = self.home / name
        done(
            *("agent", "enroll", "--via", self.daemons[region].home, "--node", name),
            *("--home", home, "--listen", address, *more),
        )
        settings = (home / "agent.toml").read_text()
        usual = "# report_interval_s = 5.0"
        assert usual in settings
        (home / "agent.toml").write_text(settings.replace(usual, "report_interval_s = 0.2"))
        return Node(home, ("agent", "run"), name=name, address=address)

    def start(self, regions: Sequence[str] = REGIONS) -> None:
        for region in regions:
            self.daemons[region].start()
        for node in self.nodes:
            node.start()
        for region in regions:
            daemon = self.daemons[region]
            self.until(
                f"{region} hears the others",
                lambda d=daemon: d.ask("status")["peers"]["connected"] == len(regions) - 1,
            )

    def until(self, what: str, happened: Callable[[], Any], within_s: float = WAIT_S) -> Any:
        """As `until`; a process that has ended by itself ends the wait at once."""

        def alive_and_happened() -> Any:
            for process in (*self.daemons.values(), *self.nodes):
                if process.handle is not None and (code := process.handle.poll()) is not None:
                    raise AssertionError(
                        f"{process.home.name} ended with {code} before {what}\n{ends_of(self.logs)}"
                    )
            return happened()

        return until(what, alive_and_happened, within_s=within_s, logs=self.logs)

    def agreed(self) -> str:
        """Wait until all running daemons hold the same state; its digest."""
        running = [d for d in self.daemons.values() if d.handle is not None]

        def one() -> str:
            digests = {d.state_digest for d in running}
            return digests.pop() if len(digests) == 1 else ""

        return str(self.until("one state digest everywhere", one))

    def settled(self) -> str:
        """As `agreed`, and every log is final: nothing is left that could change the state."""
        running = [d for d in self.daemons.values() if d.handle is not None]

        def still() -> str:
            found = [d.ask("status")["daemon"] for d in running]
            digests = {d["state_digest"] for d in found}
            final = all(d["final_size"] == d["log_size"] for d in found)
            return digests.pop() if final and len(digests) == 1 else ""

        return str(self.until("one final state everywhere", still))

    def publish(self, path: Path, version: str, *more: str, parent: str = "") -> None:
        ran = hanse(
            *("release", "publish", path, "-n", MODEL, "-v", version, "--outcome", "label:label"),
            *(("--parent", parent) if parent else ()),
            *more,
            home=self.founder.home,
        )
        assert ran.returncode == 0, f"{ran.stderr}\n{ends_of(self.logs)}"

    def roll_out(self, version: str, plan: Path, *more: str) -> str:
        import json

        said = done(
            *("rollout", "start", f"{MODEL}@{version}", "--plan", plan, *more, "-o", "json"),
            home=self.founder.home,
        )
        return str(json.loads(said)["rollout"])

    def close(self) -> None:
        for process in (*self.nodes, *self.daemons.values()):
            process.kill()
