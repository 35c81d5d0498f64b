"""Nodes over real mTLS: the newest assignment to all of them, and names that are proved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import daemons
import grpc
import pytest

from hanse.core import limits
from hanse.core.errors import Rejected
from hanse.core.ids import Segment
from hanse.core.trust.members import Members
from hanse.rpc import assignments, edge_service, tls
from hanse.rpc.assignments import AssignmentFeed, Watcher
from hanse.rpc.certificates import Identity
from hanse.rpc.edge_service import EdgeService
from hanse.rpc.server import build_server
from hanse.rpc.tls import Peer
from hanse.v1 import edge_pb2 as pb

WATCH = "/hanse.v1.EdgeService/Watch"
REPORT = "/hanse.v1.EdgeService/Report"


class Handler:
    def __init__(self) -> None:
        self.watching: dict[Segment, Mapping[str, str]] = {}
        self.gone: asyncio.Queue[Segment] = asyncio.Queue()
        self.reports: list[tuple[Any, ...]] = []

    def on_watch(self, peer: Peer, node: Segment, facts: Mapping[str, str]) -> None:
        self.watching[node] = facts

    def on_gone(self, peer: Peer, node: Segment) -> None:
        del self.watching[node]
        self.gone.put_nowait(node)

    async def on_report(
        self, peer: Peer, node: Segment, boot_nonce: bytes, seq: int, report: bytes
    ) -> int:
        if report == b"nonsense":
            raise Rejected("the report cannot be read", fix="upgrade the node")
        self.reports.append((peer.name, node, boot_nonce, seq, report))
        return seq


class World:
    def __init__(self) -> None:
        self.ca = daemons.edge_ca()
        self.other_ca = daemons.edge_ca("us-west")
        self.daemon = daemons.daemon(1)
        self.handler = Handler()
        self.service = EdgeService(daemons.FEDERATION, daemons.REGION, self.handler)
        self.channels: list[grpc.aio.Channel] = []
        self.port = 0

    def channel(self, identity: Identity) -> grpc.aio.Channel:
        channel = tls.open_channel(
            f"127.0.0.1:{self.port}", identity, self.daemon.authority.cert_pem
        )
        self.channels.append(channel)
        return channel

    def members(self) -> Members:
        return daemons.members([self.daemon.listed("")], self.ca, us_west=self.other_ca)

    def node(self, name: str) -> grpc.aio.Channel:
        return self.channel(daemons.node(name, self.ca))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    server, world.port = await build_server(
        world.daemon.shown, daemons.doorkeeper(world.members), [world.service]
    )
    await server.start()
    yield world
    for channel in world.channels:
        await channel.close()
    await world.service.close()
    await server.stop(None)


def watch(channel: grpc.aio.Channel, node: str, **facts: str) -> Any:
    method = channel.unary_stream(
        WATCH, pb.WatchRequest.SerializeToString, pb.WatchResponse.FromString
    )
    return method(pb.WatchRequest(node=node, facts=facts))


async def report(channel: grpc.aio.Channel, node: str, **changes: Any) -> int:
    method = channel.unary_unary(
        REPORT, pb.ReportRequest.SerializeToString, pb.ReportResponse.FromString
    )
    request = {"boot_nonce": b"boot", "seq": 1, "report": b"{}", **changes}
    answer = await method(pb.ReportRequest(node=node, **request))
    return int(answer.acknowledged_seq)


async def refusal(work: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await work
    return caught.value.code(), caught.value.details() or ""


async def test_a_node_hears_the_newest_at_once_and_each_change(world: World) -> None:
    world.service.publish(b"first", b"signature 1")
    call = watch(world.node("n1"), "n1", arch="x86_64")
    newest = await call.read()
    assert (newest.assignment, newest.signature) == (b"first", b"signature 1")
    assert world.handler.watching == {"n1": {"arch": "x86_64"}}
    world.service.publish(b"second", b"signature 2")
    assert (await call.read()).assignment == b"second"
    call.cancel()
    assert await world.handler.gone.get() == "n1"


async def test_a_node_that_comes_before_any_assignment_waits_for_it(world: World) -> None:
    call = watch(world.node("n1"), "n1")
    await call.initial_metadata()
    world.service.publish(b"first", b"")
    assert (await call.read()).assignment == b"first"


async def test_two_hundred_streams_get_the_newest(world: World) -> None:
    channel_of = {f"n{i}": world.node(f"n{i}") for i in range(10)}
    ca = world.ca
    calls = [watch(channel_of[f"n{i}"], f"n{i}") for i in range(10)]
    shared = [daemons.node(f"m{i}", ca) for i in range(190)]
    calls += [watch(world.channel(identity), f"m{i}") for i, identity in enumerate(shared)]
    await asyncio.gather(*(call.initial_metadata() for call in calls))
    for number in range(50):
        world.service.publish(b"%d" % number, b"")

    async def last(call: Any) -> list[bytes]:
        seen = []
        while not seen or seen[-1] != b"49":
            seen.append((await call.read()).assignment)
        return seen

    async with asyncio.timeout(10):
        for seen in await asyncio.gather(*(last(call) for call in calls)):
            assert seen == [b"49"]  # the 49 before were replaced before a writer came


class SlowContext:
    """A stream whose writes end when the test says so."""

    def __init__(self) -> None:
        self.begun: list[bytes] = []
        self.turn = asyncio.Semaphore(0)
        self.writing = 0

    async def write(self, message: bytes) -> None:
        self.writing += 1
        assert self.writing == 1, "the next was begun before the last was taken"
        self.begun.append(message)
        await self.turn.acquire()
        self.writing -= 1


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_comes_while_a_write_lasts_is_coalesced() -> None:
    feed, slow, quick = AssignmentFeed(), SlowContext(), SlowContext()
    quick.turn = asyncio.Semaphore(1000)
    for context in (slow, quick):
        feed.register(Watcher(context))  # type: ignore[arg-type]  # the one method that is used
    for number in range(5):
        feed.publish(b"%d" % number)
        await settle()
    assert slow.begun == [b"0"]
    assert quick.begun == [b"0", b"1", b"2", b"3", b"4"]
    slow.turn.release()
    await settle()
    assert slow.begun == [b"0", b"4"]
    slow.turn.release()
    await settle()
    assert slow.begun == [b"0", b"4"]
    await feed.close()


async def test_streams_that_are_stuck_are_ended_and_do_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(assignments, "WRITE_S", 0.02)
    feed = AssignmentFeed()
    stuck = [Watcher(SlowContext()) for _ in range(20)]  # type: ignore[arg-type]
    well = SlowContext()
    well.turn = asyncio.Semaphore(1)
    for watcher in (*stuck, Watcher(well)):  # type: ignore[arg-type]
        feed.register(watcher)
    feed.publish(b"newest")
    async with asyncio.timeout(5):
        for watcher in stuck:
            await watcher.over.wait()
    await settle()
    assert well.begun == [b"newest"]
    assert all(watcher.error is not None for watcher in stuck)
    await feed.close()


async def test_a_stream_that_breaks_does_not_end_a_writer() -> None:
    class Broken:
        def __init__(self, error: BaseException) -> None:
            self.error = error

        async def write(self, message: bytes) -> None:
            raise self.error

    feed, well = AssignmentFeed(), SlowContext()
    well.turn = asyncio.Semaphore(1)
    errors = [RuntimeError("gone"), asyncio.CancelledError()] * assignments.WRITERS
    broken = [Watcher(context) for context in map(Broken, errors)]  # type: ignore[arg-type]
    for watcher in broken:
        feed.register(watcher)
    feed.publish(b"older")
    await settle()
    assert all(watcher.over.is_set() for watcher in broken)
    feed.register(Watcher(well))  # type: ignore[arg-type]
    feed.publish(b"newest")
    await settle()
    assert well.begun == [b"newest"]
    await feed.close()


async def test_a_second_stream_of_a_node_replaces_the_first(world: World) -> None:
    world.service.publish(b"first", b"")
    first, second = watch(world.node("n1"), "n1"), None
    await first.read()
    second = watch(world.node("n1"), "n1")
    assert (await second.read()).assignment == b"first"
    code, text = await refusal(first.read())
    assert code == grpc.StatusCode.UNAVAILABLE
    assert "another stream" in text
    assert world.handler.gone.empty()
    assert list(world.handler.watching) == ["n1"]
    second.cancel()
    assert await world.handler.gone.get() == "n1"


async def test_a_report_is_handed_on_and_acknowledged(world: World) -> None:
    assert await report(world.node("n1"), "n1", seq=7, report=b"{counts}") == 7
    assert world.handler.reports == [("n1", "n1", b"boot", 7, b"{counts}")]


async def test_a_node_may_only_speak_for_itself(world: World) -> None:
    channel = world.node("n1")
    code, text = await refusal(report(channel, "n2"))
    assert code == grpc.StatusCode.PERMISSION_DENIED
    assert "the name under which this node was enrolled" in text
    code, _ = await refusal(watch(channel, "n2").read())
    assert code == grpc.StatusCode.PERMISSION_DENIED
    code, _ = await refusal(report(channel, "../n1"))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert (world.handler.reports, world.handler.watching) == ([], {})


@pytest.mark.parametrize(
    "case", ["foreign region", "foreign ca", "foreign name", "daemon", "member as ca"]
)
async def test_only_this_regions_ca_names_its_nodes(world: World, case: str) -> None:
    identity = {
        "foreign region": daemons.node("n1", world.other_ca, region="us-west"),
        "foreign ca": daemons.node("n1", world.other_ca),
        "foreign name": daemons.node("n1", world.ca, region="us-west"),
        "daemon": world.daemon.identity,
        "member as ca": daemons.node("n1", world.daemon.authority),
    }[case]
    channel = world.channel(identity)
    code, _ = await refusal(report(channel, "n1"))
    # TLS lets them all pass, even what a member's own authority has signed.
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert world.handler.reports == []


async def test_a_node_of_a_replaced_ca_is_refused_on_its_open_connection(world: World) -> None:
    channel = world.node("n1")
    await report(channel, "n1")
    world.ca = daemons.edge_ca()
    code, _ = await refusal(report(channel, "n1", seq=2))
    assert code == grpc.StatusCode.PERMISSION_DENIED


async def test_reports_and_facts_are_bounded(world: World) -> None:
    channel = world.node("n1")
    assert await report(channel, "n1", report=bytes(limits.REPORT_BYTES_MAX)) == 1
    for spoilt in (
        {"report": bytes(limits.REPORT_BYTES_MAX + 1)},
        {"boot_nonce": b""},
        {"boot_nonce": bytes(65)},
    ):
        code, _ = await refusal(report(channel, "n1", **spoilt))
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    for facts in (
        {str(i): "" for i in range(limits.LABELS_MAX + 1)},
        {"a": "x" * (limits.TEXT_BYTES_MAX + 1)},
    ):
        code, _ = await refusal(watch(channel, "n1", **facts).read())
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("said", "known"),
    [
        ("10.0.0.7:8002", "10.0.0.7:8002"),
        ("dock-7.lan:8002", "dock-7.lan:8002"),
        (":8002", "127.0.0.1:8002"),  # from where it came
        ("unix:/tmp/x", None),
        (":", None),
        (":99999", None),
        ("dock 7:80", None),
        ("", None),
    ],
)
async def test_where_others_reach_a_node_is_an_address_or_nothing(
    world: World, said: str, known: str | None
) -> None:
    call = watch(world.node("n1"), "n1", share=said, tier="gold")
    await call.initial_metadata()
    expected = {"tier": "gold"} | ({"share": known} if known else {})
    assert world.handler.watching[Segment("n1")] == expected


@pytest.mark.parametrize(
    ("caller", "host"),
    [
        ("ipv4:10.0.0.7:4312", "10.0.0.7"),
        ("ipv6:%5B2001:db8::1%5D:4312", "[2001:db8::1]"),
        ("ipv6:[2001:db8::1]:4312", "[2001:db8::1]"),
        ("ipv6:%5B::ffff:10.0.0.7%5D:4312", "10.0.0.7"),
    ],
)
def test_the_host_of_a_caller_is_written_as_one_dials_it(caller: str, host: str) -> None:
    assert edge_service._host(caller) == host


async def test_an_error_arrives_with_its_full_text(world: World) -> None:
    code, text = await refusal(report(world.node("n1"), "n1", report=b"nonsense"))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert text == "the report cannot be read (upgrade the node)"


async def test_a_daemon_that_stops_says_so(world: World) -> None:
    call = watch(world.node("n1"), "n1")
    await call.initial_metadata()
    await world.service.close()
    code, text = await refusal(call.read())
    assert (code, text) == (grpc.StatusCode.UNAVAILABLE, "this daemon is stopping")


async def test_too_many_nodes_are_sent_elsewhere(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "NODES_MAX", 1)
    first = watch(world.node("n1"), "n1")
    await first.initial_metadata()
    code, text = await refusal(watch(world.node("n2"), "n2").read())
    assert code == grpc.StatusCode.UNAVAILABLE
    assert "another daemon" in text


async def test_a_stream_that_comes_while_the_daemon_stops_is_ended_too(world: World) -> None:
    await world.service.close()
    code, text = await refusal(watch(world.node("n1"), "n1").read())
    assert (code, text) == (grpc.StatusCode.UNAVAILABLE, "this daemon is stopping")
