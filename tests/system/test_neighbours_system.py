"""Six nodes have a release from each other: real processes, and one neighbour that is hostile."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from digit_releases import paths
from digit_users import answers
from parts.models import safetensors
from plan_texts import FIRST
from system_federation import MODEL, REGIONS, Federation
from tour.federation import free_ports

from hanse.core.ids import Digest
from hanse.core.transfer.wanted import File

pytestmark = pytest.mark.system
HERE = REGIONS[0]
NAMES = tuple(f"n{n}" for n in range(1, 7))
TENSOR_BYTES = 1024**2


@pytest.fixture(scope="module")
def world(folder: Path) -> Iterator[Federation]:
    made = Federation(folder)
    try:
        made.found(nodes=(), regions=(HERE,))
        for name, inference, share in zip(NAMES, free_ports(6), free_ports(12)[6:], strict=True):
            made.nodes.append(
                made.enrol(
                    *(name, f"127.0.0.1:{inference}"), more=("--share-listen", f"127.0.0.1:{share}")
                )
            )
        made.start((HERE,))
        yield made
    finally:
        made.close()


def released(world: Federation, folder: Path, version: str, seed: int, tensors: int) -> File:
    """A release of a model and of random weights beside it, rolled out to all nodes."""
    files = folder / version
    files.mkdir()
    shutil.copy(paths()["v1"], files / "model.onnx")
    chance = np.random.default_rng(seed)
    weights = safetensors(
        {f"t{n}": ("U8", [TENSOR_BYTES], chance.bytes(TENSOR_BYTES)) for n in range(tensors)}
    )
    (files / "weights.safetensors").write_bytes(weights)
    world.publish(files, version)
    plan = folder / "plan.yaml"
    plan.write_text(FIRST)
    world.roll_out(version, plan)
    shown = world.founder.ask("release.show", model=MODEL, version=version)
    return File(Digest.of(weights), Digest.parse(shown["release"]))


def holds(world: Federation, file: File) -> list[str]:
    place = f"state/blobs/sha256/{file.digest.hex[:2]}/{file.digest.hex[2:]}"
    return [node.name for node in world.nodes if (node.home / place).exists()]


def sent(world: Federation) -> dict[str, int]:
    return dict(world.founder.ask("counters")["counters"])


def test_every_node_serves_what_left_the_daemon_three_times_at_most(
    world: Federation, folder: Path
) -> None:
    before = sent(world)
    file = released(world, folder, "1.0.0", seed=1, tensors=12)
    world.until("all answer", lambda: all(answers(node.address) for node in world.nodes))
    assert holds(world, file) == list(NAMES)
    after = sent(world)
    size = sum(each.stat().st_size for each in (folder / "1.0.0").iterdir())
    assert after["blob_bytes_sent"] - before["blob_bytes_sent"] <= 3 * size
    assert after["parts_pointed"] > 0
    assert after["tickets_signed"] > 0
    given = [node.status()["sharing"]["bytes_given"] for node in world.nodes]
    assert sum(given) >= 3 * 12 * TENSOR_BYTES
