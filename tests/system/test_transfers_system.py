"""A fine-tuned model reaches a node that holds its ancestor: only what is new leaves the daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from digit_releases import paths
from digit_users import Users
from onnx import numpy_helper
from plan_texts import FIRST
from rot import flip
from system_federation import MODEL, NODES, REGIONS, Federation, done

from hanse.core.ids import Digest

pytestmark = pytest.mark.system
BALLAST_FLOATS = 1_000_000


def weighty(path: Path, tuned: float, to: Path) -> Path:
    """The digit model with a layer of 4 MB beside it, of which some rows were tuned."""
    rng = np.random.default_rng(11)
    ballast = rng.standard_normal(BALLAST_FLOATS).astype("f4")
    ballast[: int(tuned * BALLAST_FLOATS)] += np.float32(1e-4)
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(ballast, "ballast"))
    to.parent.mkdir(exist_ok=True)
    onnx.save(model, to)
    return to


@pytest.fixture(scope="module")
def federation(folder: Path) -> Iterator[Federation]:
    """One region with one node, not started."""
    made = Federation(folder)
    try:
        made.found(NODES[:1], REGIONS[:1])
        yield made
    finally:
        made.close()


def test_a_fine_tune_travels_as_what_is_new(federation: Federation, folder: Path) -> None:
    daemon, node = federation.founder, federation.nodes[0]
    plan = folder / "plan.yaml"
    plan.write_text(FIRST)
    with (daemon.home / "hanse.toml").open("a") as settings:
        settings.write("\nfold_after_s = 20.0\n")  # looks every five seconds what is there
    federation.start(REGIONS[:1])

    def sent() -> int:
        return int(daemon.ask("status")["counters"]["blob_bytes_sent"])

    def stored(version: str) -> bool:
        digest = daemon.ask("release.show", model=MODEL, version=version)["release"]
        models = node.status()["models"]
        return any(digest in (*m["ready"], m["running"], m["candidate"]) for m in models)

    first = weighty(paths()["v1"], 0.0, folder / "first" / "model.onnx")
    federation.publish(first, "1.0.0")
    rollout = federation.roll_out("1.0.0", plan)
    with Users([node.address]):
        federation.until(
            "1.0.0 is proven", lambda: daemon.state_in(rollout, daemon.region) == "healthy"
        )
    whole = sent()
    assert whole >= first.stat().st_size

    tuned = weighty(paths()["v1"], 0.1, folder / "tuned" / "model.onnx")
    federation.publish(tuned, "1.1.0", parent="1.0.0")

    def travels() -> dict[str, int]:
        words = ("rollout", "plan", f"{MODEL}@1.1.0", "--plan", plan, "-o", "json")
        (group,) = json.loads(done(*words, home=daemon.home))["nodes"]
        return group if group["travels_bytes"] < group["download_bytes"] else {}

    most = federation.until("the plan says how much of it is new", travels)
    federation.roll_out("1.1.0", plan)
    federation.until("the node has 1.1.0", lambda: stored("1.1.0"))
    assert sent() - whole < 0.15 * tuned.stat().st_size
    assert sent() - whole <= most["travels_bytes"] < most["download_bytes"]
    to = folder / "fetched"
    said = done("release", "fetch", f"{MODEL}@1.1.0", "--to", to, "-o", "json", home=daemon.home)
    assert json.loads(said)["files"][0]["name"] == tuned.name
    assert (to / tuned.name).read_bytes() == tuned.read_bytes()
    assert [path.name for path in to.iterdir()] == [tuned.name]

    shown = json.loads(done("agent", "status", "--home", node.home, "-o", "json"))
    assert not shown["models"][0]["failed"]
    assert shown["fetching"] == daemon.ask("status")["fetching"] == []


def test_an_ancestor_that_rots_on_a_node_is_fetched_again(
    federation: Federation, folder: Path
) -> None:
    """What was to be built on it comes from the daemon, and the node goes on answering."""
    daemon, node = federation.founder, federation.nodes[0]
    ancestor = folder / "tuned" / "model.onnx"
    digest = Digest.of(ancestor.read_bytes())
    path = node.home / "state/blobs/sha256" / digest.hex[:2] / digest.hex[2:]
    (rollout,) = daemon.ask("rollout.status", model=MODEL)["rollouts"][-1:]
    with Users([node.address]) as users:
        federation.until(
            "1.1.0 is proven",
            lambda: daemon.state_in(rollout["rollout"], daemon.region) == "healthy",
        )
        flip(path, 4 * path.stat().st_size)
        tuned = weighty(paths()["v1"], 0.2, folder / "again" / "model.onnx")
        federation.publish(tuned, "1.2.0", parent="1.1.0")
        federation.roll_out("1.2.0", folder / "plan.yaml")
        federation.until(
            "it is whole again",
            lambda: path.exists() and path.read_bytes() == ancestor.read_bytes(),
        )
        new = Digest.of(tuned.read_bytes())
        federation.until(
            "the node has 1.2.0",
            (node.home / "state/blobs/sha256" / new.hex[:2] / new.hex[2:]).exists,
        )
    assert not users.failures
    logged = [json.loads(line)["event"] for line in node.log.read_text().splitlines()]
    assert "files_damaged" in logged
