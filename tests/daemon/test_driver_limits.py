"""What one peer may make the driver do at once: pulls, lines in the log, lost hints."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hand_federation import Federation

from hanse.core import limits
from hanse.core.effects import HangUp, Log, Serve
from hanse.core.gossip.frames import Chunk, Frame, Heads
from hanse.daemon.driver import Driver, log
from hanse.storage.memory import MemoryEventStore


@dataclass
class Stream:
    """A link whose peer reads or does not."""

    resync: bool = False
    backlog_bytes: int = 0
    sent: list[Frame] = field(default_factory=list)

    def send(self, frame: Frame) -> bool:
        self.sent.append(frame)
        return True

    async def close(self) -> None:
        self.resync = False


class World:
    def __init__(self) -> None:
        town = Federation()
        self.node, self.peer = town.node("eu-north"), town.node("us-east").me.member
        self.store = MemoryEventStore()
        self.driver = Driver(self.node, self.store, None)  # type: ignore[arg-type]  # no links here
        self.stream = Stream()
        self.driver._streams[self.peer] = self.stream  # type: ignore[assignment]
        self.lines: list[str] = []

    def pull(self, times: int) -> None:
        for _ in range(times):
            self.driver._effect(Serve(self.peer, self.node.me, 0, 1))

    async def settle(self) -> None:
        while self.driver._tasks:
            await asyncio.wait(self.driver._tasks)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()

    def written(level: int, event: str, **fields: Any) -> None:
        made.lines.append(event)

    monkeypatch.setattr(log, "log", written, raising=False)
    town = Federation()
    append = next(a for a in town.appends.values() if a.head.origin == made.node.me)
    await made.store.apply([append])
    return made


async def test_so_many_pulls_of_a_peer_are_answered_at_once(world: World) -> None:
    world.pull(limits.PULLS_IN_FLIGHT_MAX)
    assert world.node.counters["pulls_ignored"] == 0
    world.pull(1)
    assert world.node.counters["pulls_ignored"] == 1
    await world.settle()
    assert [type(f) for f in world.stream.sent] == [Chunk] * limits.PULLS_IN_FLIGHT_MAX
    world.pull(1)  # answered: there is room again
    await world.settle()
    assert world.node.counters["pulls_ignored"] == 1


async def test_a_peer_that_does_not_read_gets_no_further_answers(world: World) -> None:
    world.stream.backlog_bytes = limits.SEND_QUEUE_BYTES_MAX // 2 - 1
    world.pull(1)
    await world.settle()
    assert len(world.stream.sent) == 1
    world.stream.backlog_bytes += 1
    world.pull(1)
    await world.settle()
    assert len(world.stream.sent) == 1
    assert world.node.counters["pulls_ignored"] == 1


async def test_one_peer_fills_no_log(world: World) -> None:
    said = Log("warning", "frame_rejected", (("peer", world.peer),))
    for _ in range(limits.LOG_LINES_BURST + 50):
        world.driver._effect(said)
    assert len(world.lines) == limits.LOG_LINES_BURST
    assert world.node.counters["log_lines_withheld"] == 50
    world.driver._effect(HangUp(world.peer, "another event"))
    world.driver._effect(Log("warning", "frame_rejected", (("peer", "another"),)))
    world.driver._effect(Log("error", "own_event_refused"))
    await world.settle()
    others = ["hung_up", "frame_rejected", "own_event_refused"]
    assert world.lines[limits.LOG_LINES_BURST :] == others


async def test_whoever_lost_hints_is_told_all_heads_once_it_reads_again(world: World) -> None:
    world.node.sync.links[world.peer].proven = True
    world.stream.resync, world.stream.backlog_bytes = True, 1
    world.driver._resync()
    assert world.stream.resync
    world.stream.backlog_bytes = 0
    world.node.sync.out.clear()
    world.driver._resync()
    assert not world.stream.resync
    assert [type(s.frame) for s in world.node.sync.out] == [Heads]
