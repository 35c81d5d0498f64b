"""T01: what was said once changes nothing when it is said again, here or elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
from hand_federation import FIRST, Federation
from test_sync import Net, pair

from hanse.core.gossip.frames import Announce, Chunk, Frame, Hello, HelloProof
from hanse.core.ids import MemberId
from hanse.core.node import Node

Said = list[tuple[MemberId, MemberId, Frame]]


@pytest.fixture(scope="module")
def stream() -> tuple[Federation, Said]:
    """Everything that three daemons said to each other while a release went round."""
    said: Said = []
    heard = Node.frame

    def recorded(node: Node, peer: MemberId, frame: Frame, clock: Any) -> None:
        said.append((peer, node.me.member, frame))
        heard(node, peer, frame, clock)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Node, "frame", recorded)
        town = Federation()
        release = town.publish("3.0.0")
        town.roll_out("r-1", 1, release, None, **FIRST)
        town.run(20.0)
    assert len(said) > 50
    return town, said


def state(node: Node) -> tuple[bytes, bytes, int]:
    return node.catalog.state_digest, node.book.digest, node.book.size(node.me)


def test_a_whole_stream_said_again_changes_nothing(stream: tuple[Federation, Said]) -> None:
    town, said = stream
    town.settle()
    before = {name: state(node) for name, node in town.nodes.items()}
    for source, target, frame in said * 2:
        if not isinstance(frame, Hello | HelloProof):  # those belong to a connection
            town.nodes[target].frame(source, frame, town.clock)
    town.settle()
    assert {name: state(node) for name, node in town.nodes.items()} == before


def test_a_stream_said_in_another_federation_is_refused_whole(
    stream: tuple[Federation, Said],
) -> None:
    _, said = stream
    net = pair()
    net["eu"].write("their own")
    net.settle()
    us, before = net["us"], net["us"].book.digest
    us.sync.ingested.clear()
    news = [frame for _, _, frame in said if isinstance(frame, Announce | Chunk)]
    assert news
    for frame in news:
        us.sync.frame(net["eu"].id, frame, net.now_s)
    counted = us.sync.counters
    assert counted["frames_rejected"] + counted["claims_ignored"] >= len(news)
    assert us.book.digest == before
    assert not us.sync.ingested


def test_greetings_and_proofs_of_another_connection_open_none(
    stream: tuple[Federation, Said],
) -> None:
    _, said = stream
    net = Net("eu", "us")
    net.link("eu", "us")
    us = net["us"]
    for _, _, frame in said:
        if isinstance(frame, Hello | HelloProof):
            us.sync.frame(net["eu"].id, frame, net.now_s)
    assert not us.sync.proven()
