"""A release for fifty nodes of one region: what leaves the daemon, and when the last has it."""

from __future__ import annotations

import contextlib
import datetime
import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tour import digits
from tour.federation import HANSE, free_ports, hanse

from hanse.cli import client
from hanse.cli.agent import _write
from hanse.core.ids import Digest
from hanse.daemon.config import load
from hanse.daemon.enrolment import enrol
from measure.rollback import PLAN, _process, _until
from measure.table import markdown, quantile

NODES = 50
TENSORS, ROWS = 100, 262_144  # of 1 MiB each
UPLINK_BYTES_PER_S = 25_000_000
BAR = 3.0
WAIT_S = 900.0


@dataclass
class Ran:
    left: float  # times the file
    took_s: list[float]
    insisted: int


def run() -> str:
    rows = []
    for uplink in (UPLINK_BYTES_PER_S, 0):
        for sharing in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                found = _measure(Path(folder), sharing, uplink)
            rows.append(
                [
                    f"{uplink / 1e6:g} MB/s" if uplink else "as fast as it goes",
                    "yes" if sharing else "no",
                    f"{found.left:.2f}",
                    f"{BAR:g}" if sharing else "",
                    f"{quantile(found.took_s, 0.5):.1f}",
                    f"{max(found.took_s):.1f}",
                    f"{found.insisted}" if sharing else "",
                ]
            )
    return (
        f"### A release for {NODES} nodes\n\nOne daemon, {NODES} agents (`hanse agent run`, each "
        "a process with a port, certificate and store of its own) on one machine with two cores, "
        f"mutual TLS on loopback; a file of {TENSORS * ROWS * 4 / 1e6:.0f} MB, float32 at random, "
        "of which nobody has anything. From the start of the rollout until the file lies verified "
        "in the node's store. All share two cores: without a limit the time is theirs.\n\n"
        + markdown(
            [
                "what may leave the daemon",
                "neighbours",
                "left it, times the file",
                "bar",
                "half of the nodes, s",
                "the last, s",
                "parts insisted on",
            ],
            rows,
        )
    )


def _measure(folder: Path, sharing: bool, uplink: int) -> Ran:
    home, plan = folder / "d", folder / "plan.yaml"
    plan.write_text(PLAN)
    address = f"127.0.0.1:{free_ports(1)[0]}"
    where = ("--region", "eu-north", "--home", str(home), "--listen", address)
    hanse("daemon", "init", "--federation", "bench", *where, home=home)
    settings = home / "hanse.toml"
    text = settings.read_text()
    assert "# blob_send_bytes_per_s = 0" in text
    settings.write_text(
        text.replace("# blob_send_bytes_per_s = 0", f"blob_send_bytes_per_s = {uplink}")
    )
    nodes = _enrol(home, folder / "nodes", folder, sharing)
    with contextlib.ExitStack() as stack:
        stack.enter_context(
            _process([str(HANSE), "daemon", "run", "--home", str(home)], folder / "daemon.log")
        )
        _until("the daemon answers", lambda: client.call(home, "status"))
        for node in nodes:
            words = [str(HANSE), "agent", "run", "--home", str(node)]
            stack.enter_context(_process(words, folder / f"{node.name}.log"))
        file = _publish(home, folder)
        _until("all are there", lambda: all(map(_connected, nodes)))
        places = [n / "state/blobs/sha256" / file.hex[:2] / file.hex[2:] for n in nodes]
        began_s, came = time.monotonic(), dict[Path, float]()
        hanse("rollout", "start", "digits@1.0.0", "--plan", str(plan), home=home)
        while len(came) < len(places):
            for place in places:
                if place not in came and place.exists():
                    came[place] = time.monotonic() - began_s
            assert time.monotonic() < began_s + WAIT_S, f"only {len(came)} have it"
            time.sleep(0.1)
        counters = client.call(home, "counters")["counters"]
    size = places[0].stat().st_size
    return Ran(counters["blob_bytes_sent"] / size, list(came.values()), counters["parts_insisted"])


def _enrol(home: Path, folder: Path, sockets: Path, sharing: bool) -> list[Path]:
    config, now = load(home), datetime.datetime.now(datetime.UTC)
    ports, homes = iter(free_ports(NODES)), []
    for number in range(NODES):
        made = enrol(config, f"n{number:02}", now)
        settings = {"listen": f"unix:{sockets}/{number}.sock"}
        if sharing:
            settings["share_listen"] = f"127.0.0.1:{next(ports)}"
        _write(folder / made.node, made, settings, {})
        homes.append(folder / made.node)
    return homes


def _publish(home: Path, folder: Path) -> Digest:
    """A model that loads in no time, and beside it a file of weights."""
    files = folder / "release"
    files.mkdir()
    shutil.copy(digits.make(folder / "models")["v1"], files / "model.onnx")
    weights = files / "weights.safetensors"
    chance = np.random.default_rng(1)
    spans = {
        f"t{n}": {
            "dtype": "F32",
            "shape": [ROWS],
            "data_offsets": [n * ROWS * 4, (n + 1) * ROWS * 4],
        }
        for n in range(TENSORS)
    }
    head = json.dumps(spans).encode()
    with weights.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for _ in range(TENSORS):
            file.write(chance.standard_normal(ROWS, np.float32).tobytes())
    words = ("-n", "digits", "-v", "1.0.0", "--outcome", "label:label")
    hanse("release", "publish", str(files), *words, home=home)
    with weights.open("rb") as file:
        return Digest.of(file.read())


def _connected(node: Path) -> bool:
    status = node / "state/status.json"
    return status.exists() and json.loads(status.read_bytes())["daemon"]["connected"]
