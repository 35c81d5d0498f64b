"""How long a rollback takes: over twenty regions on a bad network, and to two hundred nodes."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from tour import digits
from tour.federation import HANSE, environment, free_ports, hanse

from hanse.cli import client
from hanse.cli.agent import _write
from hanse.core.errors import HanseError
from hanse.core.events import Hold
from hanse.core.ids import Segment
from hanse.daemon.config import load
from hanse.daemon.enrolment import enrol
from hanse.sim.answers import Nature
from hanse.sim.faults import FaultPlan
from hanse.sim.network import Weather
from hanse.sim.run import build
from hanse.sim.story import MODEL, manifest, publish, run_story
from hanse.sim.world import World
from measure.table import markdown, quantile

REGIONS, HOLDS, SEEDS = 20, 60, 1
LOSSES = (0.0, 0.1, 0.3)
BAR_S = 18.0  # nine rounds of two seconds at 30 % loss
NODES, ROUNDS = 200, 5
WAIT_S = 120.0
Told = dict[str, tuple[str, float]]
"""By node, the release that it answers from alone, and since when."""
PLAN = """
apiVersion: hanse.dev/v1alpha1
kind: Rollout
spec:
  stages:
    - name: all
      regions: [eu-north]
      steps:
        - setWeight: 100
        - analysis: {templates: [sound], minSamples: 40}
  templates:
    sound:
      alpha: 0.05
      metrics:
        - {name: error-rate, test: one-arm, event: error, slo: 5%, provenBelow: 5%}
"""


def run() -> str:
    spread = [[f"{loss:.0%}", *_row(_spread(loss)), "18" if loss == 0.3 else ""] for loss in LOSSES]
    stored, swapped, last = _nodes()
    nodes = [
        ["stored and acknowledged", *_row(stored, 1000)],
        ["a node answers from the older release alone", *_row(swapped, 1000)],
        ["the last of them", *_row(last, 1000)],
    ]
    return (
        f"### Time to roll back\n\nTo other regions, simulated: from a hold's storage in one of "
        f"{REGIONS} until all know it, {SEEDS * HOLDS} holds; latency 45 ms with "
        "spread 0.4, frames lost as said. The bar is nine rounds of two seconds.\n\n"
        + markdown(["frames lost", "p50 s", "p99 s", "max s", "bar s"], spread)
        + f"\n\nTo the nodes of a region, measured: one daemon, {NODES} connected agents in one "
        f"other process on the same machine, onnxruntime, users who ask every node once a second; "
        f"{ROUNDS} rollbacks, from the moment at which one is asked for.\n\n"
        + markdown(["", "p50 ms", "p99 ms", "max ms"], nodes)
    )


def _row(values: list[float], scale: float = 1.0) -> list[str]:
    digits_ = 0 if scale > 1 else 2
    return [f"{quantile(values, q) * scale:.{digits_}f}" for q in (0.5, 0.99, 1.0)]


# -- between regions -----------------------------------------------------------


def _spread(loss: float) -> list[float]:
    return [took_s for seed in range(SEEDS) for took_s in _holds(seed, loss)]


def _holds(seed: int, loss: float) -> Iterator[float]:
    weather = Weather(0.045, 0.4, loss)
    world = build(seed, REGIONS, FaultPlan("rollback", weather, calm_s=10_000.0), Nature())
    world.edges.clear()
    first = manifest("1.0.0")
    run_story(world, lambda w: publish(w, next(iter(w.processes)), first, 1), 60)
    world.run_until(world.now_s + 60)
    rng = Random(seed)
    for number in range(HOLDS):
        region = rng.choice(list(world.processes))
        process = world.processes[region]
        assert process.node is not None
        ticket = process.propose(Hold(MODEL, region, None, f"hold {number}"))
        began_s = world.now_s
        while ticket is None or ticket.event is None:
            world.run_until(world.now_s + 0.001)
        size = process.node.book.size(process.node.me)
        while not _known(world, region, size):
            world.run_until(world.now_s + 0.01)
        yield world.now_s - began_s
        world.run_until(world.now_s + 5)


def _known(world: World, region: Segment, size: int) -> bool:
    log = world.processes[region].node.me  # type: ignore[union-attr]  # nobody goes down here
    return all(p.node and p.node.book.size(log) >= size for p in world.processes.values())


# -- to the nodes --------------------------------------------------------------


def _nodes() -> tuple[list[float], list[float], list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        return _measure(Path(folder))


def _measure(folder: Path) -> tuple[list[float], list[float], list[float]]:
    stored, swapped, last = [], [], []
    home, plan = folder / "d", folder / "plan.yaml"
    plan.write_text(PLAN)
    models = digits.make(folder / "models")
    address = f"127.0.0.1:{free_ports(1)[0]}"
    where = ("--region", "eu-north", "--home", str(home), "--listen", address)
    hanse("daemon", "init", "--federation", "bench", *where, home=home)
    _enrol(home, folder / "nodes", folder)
    with _process([str(HANSE), "daemon", "run", "--home", str(home)], folder / "daemon.log"):
        _until("the daemon answers", lambda: client.call(home, "status"))
        with _crowd(folder) as told:
            first = _promote(home, plan, models["v1"], "1.0.0", "", told)
            for number in range(ROUNDS):
                _promote(home, plan, models["v2"], f"2.{number}.0", "1.0.0", told)
                began_s = time.monotonic()
                client.call(
                    home, "rollback", model="digits", reason="measured", by="bench", to=first
                )
                stored.append(time.monotonic() - began_s)
                _until("all are back", lambda: _on(told, first) == NODES)
                took = [at_s - began_s for release, at_s in told.values() if release == first]
                swapped += took
                last.append(max(took))
    return stored, swapped, last


def _enrol(home: Path, nodes: Path, folder: Path) -> None:
    config, now = load(home), datetime.datetime.now(datetime.UTC)
    for number in range(NODES):
        made = enrol(config, f"n{number:03}", now)
        one = nodes / f"n{number:03}"
        _write(one, made, {"listen": f"unix:{folder}/{number}.sock"}, {})
        text = (one / "agent.toml").read_text()
        text = text.replace("# report_interval_s = 5.0", "report_interval_s = 3.0")
        (one / "agent.toml").write_text(text.replace('# log_level = "info"', 'log_level = "error"'))


def _promote(
    home: Path,
    plan: Path,
    path: Path,
    version: str,
    parent: str,
    told: Told,
) -> str:
    words = ("-n", "digits", "-v", version, "--outcome", "label:label")
    hanse(
        "release",
        "publish",
        str(path),
        *words,
        *(("--parent", parent) if parent else ()),
        home=home,
    )
    hanse("rollout", "start", f"digits@{version}", "--plan", str(plan), home=home)
    shown: dict[str, Any] = client.call(home, "release.show", model="digits", version=version)
    release = str(shown["release"])
    _until(f"all run {version}", lambda: _on(told, release) == NODES)
    time.sleep(2 * 3.0)  # until they have reported it: what comes then is measured undisturbed
    return release


def _on(told: Told, release: str) -> int:
    return sum(running == release for running, _ in list(told.values()))


@contextmanager
def _crowd(folder: Path) -> Iterator[Told]:
    told: Told = {}
    command = [sys.executable, "-m", "measure.crowd", str(folder / "nodes")]
    with _process(command, folder / "crowd.log", stdout=subprocess.PIPE) as process:

        def read() -> None:
            for line in process.stdout or ():
                said = json.loads(line)
                told[said["node"]] = said["release"], said["at_s"]

        threading.Thread(target=read, daemon=True).start()
        yield told


@contextmanager
def _process(command: list[str], log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as file:
        process = subprocess.Popen(command, stderr=file, env=environment(), **options)
        try:
            yield process
        except BaseException:
            print(log.read_text()[-4000:], file=sys.stderr)
            raise
        finally:
            process.kill()
            process.wait()


def _until(what: str, happened: Callable[[], Any]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while time.monotonic() < deadline_s:
        try:
            if happened():
                return
        except HanseError:
            pass
        time.sleep(0.05)
    raise TimeoutError(f"not within {WAIT_S:g} s: {what}")
