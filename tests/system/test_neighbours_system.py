"""Six nodes have a release from each other, and nobody from them without a ticket."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from digit_releases import paths
from digit_users import answers
from parts.models import safetensors
from plan_texts import FIRST
from rpc.blob_worlds import Came, gathered
from system_federation import MODEL, REGIONS, Federation, Node, done
from tour.federation import free_ports

from hanse.core import limits
from hanse.core.errors import NotFound, NotPermitted
from hanse.core.ids import Digest
from hanse.core.transfer.wanted import File, Wanted
from hanse.parts.recipe import split
from hanse.rpc import certificates, tls
from hanse.rpc.blob_client import Pointed
from hanse.rpc.certificates import Identity

pytestmark = pytest.mark.system
HERE = REGIONS[0]
NAMES = tuple(f"n{n}" for n in range(1, 7))
TENSOR_BYTES = 1024**2


@pytest.fixture(scope="module")
def world(folder: Path) -> Iterator[Federation]:
    made = Federation(folder)
    try:
        made.found(nodes=(), regions=(HERE,))
        ports = [f"127.0.0.1:{port}" for port in free_ports(2 * len(NAMES))]
        for name, listen, share in zip(NAMES, ports[::2], ports[1::2], strict=True):
            made.nodes.append(made.enrol(name, listen, more=("--share-listen", share)))
        made.start((HERE,))
        yield made
    finally:
        made.close()


def released(
    world: Federation, folder: Path, version: str, seed: int, tensors: int, *more: str
) -> File:
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
    world.roll_out(version, plan, *more)
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


def test_a_neighbour_that_is_killed_while_it_gives_costs_nobody_the_release(
    world: Federation, folder: Path
) -> None:
    for node in world.nodes:
        assert node.stop() == 0
        path = node.home / "agent.toml"
        usual = "# share_bytes_per_s = 0"
        assert usual in path.read_text()
        path.write_text(path.read_text().replace(usual, "share_bytes_per_s = 2000000"))
        node.start()
    world.until("all answer", lambda: all(answers(node.address) for node in world.nodes))
    file = released(world, folder, "1.1.0", 2, 16, "--supersede")

    def giving() -> Node | None:
        given = [(node.status()["sharing"]["bytes_given"], node) for node in world.nodes]
        most, node = max(given, key=lambda each: each[0])
        return node if most > TENSOR_BYTES else None

    victim = world.until("somebody gives", giving)
    victim.kill()
    assert len(holds(world, file)) < len(NAMES), "and somebody still takes"
    others = [node for node in world.nodes if node is not victim]
    world.until("the others have it", lambda: len(set(holds(world, file)) - {victim.name}) == 5)
    world.until("they answer", lambda: all(answers(node.address) for node in others))
    victim.start()
    world.until("it has it too", lambda: victim.name in holds(world, file))


async def asked(
    world: Federation, name: str, address: str, authority: bytes, shown: str, wanted: Wanted
) -> Came | Pointed:
    """What somebody with the key and certificate of that node is answered."""
    keys = world.founder.home.parent / name / "keys"
    identity = Identity((keys / "tls.crt").read_bytes(), (keys / "tls.key").read_bytes())
    async with tls.open_channel(address, identity, authority, shown) as channel:
        (answer,) = await gathered(channel, wanted, [limits.PART_BYTES_MAX])
        return answer


async def test_a_ticket_is_good_for_one_node_and_who_is_revoked_gets_none(
    world: Federation,
) -> None:
    home = world.founder.home
    recipe = split((home.parent / "1.1.0/weights.safetensors").read_bytes())
    shown = world.founder.ask("release.show", model=MODEL, version="1.1.0")
    file = File(recipe.digest, Digest.parse(shown["release"]))
    wanted = Wanted(file, Digest.of(recipe.encode()), (3,))
    daemon = partial(
        asked,
        world,
        address=world.founder.address,
        authority=(home / "keys/tls.crt").read_bytes(),
        shown=certificates.SERVER_NAME,
        wanted=wanted,
    )
    pointed = await daemon("n6")
    assert isinstance(pointed, Pointed)
    near = pointed.elsewhere.neighbours[0]
    neighbour = partial(
        asked,
        world,
        address=near.address,
        authority=(home / "keys/edge-ca.crt").read_bytes(),
        shown=certificates.NODE_NAME,
        wanted=replace(wanted, ticket=pointed.elsewhere.ticket),
    )
    assert isinstance(await neighbour("n6"), Came)
    with pytest.raises(NotFound):
        await neighbour("n5" if near.node != "n5" else "n4")
    done("agent", "revoke", "n6", "--reason", "stolen", "--yes", home=home)
    with pytest.raises(NotPermitted, match="stolen"):
        await daemon("n6")
