"""What every transport promises; the in-memory twin is held to the same as gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import daemons
import pytest
from memory_network import WINDOW_BYTES, MemoryNetwork

from hanse.core import limits
from hanse.core.errors import Conflict, InvalidSpec, NotPermitted, Rejected, TooLarge, Unavailable
from hanse.core.gossip.frames import Announce, Chunk, Frame, Heads, Ping, Pull, TrustFile
from hanse.core.ids import MemberId, Origin, Segment
from hanse.rpc.link import GrpcTransport
from hanse.rpc.peer_service import PeerService
from hanse.rpc.server import build_server
from hanse.rpc.stream import FrameStream
from hanse.rpc.transport import LinkOptions, PeerStream, Transport

ORIGIN = Origin(Segment("hansa"), Segment("eu-north"), MemberId("0" * 32), 1)
OPTIONS = LinkOptions(send_queue_max=8, idle_s=10.0, open_s=5.0)


@dataclass
class End:
    """One daemon of the world: its transport, and what it has been opened."""

    who: daemons.Daemon
    transport: Transport
    opened: asyncio.Queue[PeerStream] = field(default_factory=asyncio.Queue)
    release: asyncio.Event = field(default_factory=asyncio.Event)

    async def hold(self, stream: PeerStream) -> None:
        """An accept callback that leaves the stream to the test."""
        await self.opened.put(stream)
        await self.release.wait()


World = Callable[..., Awaitable[tuple[End, End]]]


def memory_world() -> World:
    async def build(options: LinkOptions = OPTIONS, *, strangers: bool = False) -> tuple[End, End]:
        def admit(peer: object) -> None:
            if strangers:
                raise NotPermitted("no member")

        network = MemoryNetwork()
        return tuple(  # type: ignore[return-value]  # there are two
            End(who, network.join(who.peer, admit=admit, options=options))
            for who in daemons.two_daemons()
        )

    return build


@contextlib.asynccontextmanager
async def grpc_world() -> AsyncIterator[World]:
    async with contextlib.AsyncExitStack() as stack:

        async def build(
            options: LinkOptions = OPTIONS, *, strangers: bool = False
        ) -> tuple[End, End]:
            pair = daemons.two_daemons()
            listed: list[Any] = []
            ends = []
            for number, who in enumerate(pair):

                def known(number: int = number, pair: Any = pair) -> Any:
                    # A stranger passes TLS, as some region's CA would, but is no member.
                    if strangers and number:
                        return daemons.members(listed[1:], elsewhere=pair[0].authority)
                    return daemons.members(listed)

                transport = GrpcTransport(who.id, who.shown, known, options)
                service = PeerService(transport, daemons.REGION)
                server, port = await build_server(who.shown, daemons.doorkeeper(known), [service])
                await server.start()
                stack.push_async_callback(server.stop, None)
                stack.push_async_callback(transport.close)
                listed.append(who.listed(f"127.0.0.1:{port}"))
                ends.append(End(who, transport))
            return ends[0], ends[1]

        yield build


@pytest.fixture(params=["memory", "grpc"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "memory":
        yield memory_world()
    else:
        async with grpc_world() as build:
            yield build


async def linked(world: World, **how: Any) -> tuple[PeerStream, PeerStream]:
    """A link that the first daemon has opened to the second, from both ends."""
    first, second = await world(**how)
    second.transport.accept(second.hold)
    near = await first.transport.open_stream(second.who.id)
    return near, await second.opened.get()


def pulls(count: int) -> list[Frame]:
    return [Pull(ORIGIN, start) for start in range(count)]


async def take(stream: PeerStream, count: int) -> list[Frame]:
    return [frame async for frame, _ in _zip(stream.frames(), range(count))]


async def _zip(frames: AsyncIterator[Frame], numbers: range) -> AsyncIterator[tuple[Frame, int]]:
    for number in numbers:
        yield await anext(frames), number


async def drain(stream: PeerStream) -> tuple[list[Frame], Exception | None]:
    """Every frame until the end, and how it ended."""
    taken = []
    try:
        async for frame in stream.frames():
            taken.append(frame)
    except (Rejected, Unavailable) as error:
        return taken, error
    return taken, None


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # gRPC's own threads do the work
            await asyncio.sleep(0.001)


async def send_all(stream: PeerStream, frames: list[Frame]) -> None:
    for frame in frames:
        assert stream.send(frame)
        await until(lambda: len(stream._queue._waiting) < 4)  # type: ignore[attr-defined]  # both twins have it


async def test_frames_arrive_in_order_both_ways(world: World) -> None:
    near, far = await linked(world)
    sent = pulls(100)
    there = asyncio.create_task(take(far, 100))
    back = asyncio.create_task(take(near, 100))
    await asyncio.gather(send_all(near, sent), send_all(far, sent[::-1]))
    assert await there == sent
    assert await back == sent[::-1]


async def test_both_ends_know_whom_they_speak_with(world: World) -> None:
    near, far = await linked(world)
    first, second = daemons.two_daemons()
    assert (near.peer, far.peer) == (second.id, first.id)
    assert (near.identity.region, far.identity.region) == (daemons.REGION, daemons.REGION)
    assert len(near.spki) == len(far.spki) == 32
    assert near.spki != far.spki


async def test_a_reader_that_stops_costs_hints_and_nothing_else(world: World) -> None:
    near, far = await linked(world)
    big = (bytes(limits.EVENT_BYTES_MAX),) * 8
    answer = Chunk(ORIGIN, 7, (b"event",), b"note")
    hints = 0
    near.send(Ping(bytes(32)))
    while not near.resync:
        hints += 1
        log = dataclasses.replace(
            ORIGIN, incarnation=hints + 1, salt="0badcafe"
        )  # of one log only the newest waits
        near.send(Announce(log, b"", hints, big))
        await asyncio.sleep(0)
        assert hints < 1000
    near.send(answer)
    near.send(Heads(()))
    last = Announce(ORIGIN, b"", 10_000, ())
    near.send(last)

    taken = []
    async for frame in far.frames():
        taken.append(frame)
        if frame == last:
            break
    assert answer in taken
    starts = [f.start for f in taken if isinstance(f, Announce)]
    assert starts == sorted(starts)
    assert len(starts) < hints + 1


async def test_a_peer_that_asks_but_never_reads_loses_its_link(world: World) -> None:
    near, _far = await linked(world)
    chunk = Chunk(ORIGIN, 0, (bytes(limits.EVENT_BYTES_MAX),) * 15, b"")
    part = TrustFile(1, 0, 2, b"x")
    answers = 0
    while near.send(chunk) and near.send(part):
        answers += 1
        await asyncio.sleep(0)
        assert answers < 1000
    assert not near.send(part)
    assert not near.resync
    assert await drain(near) == ([], None)


async def test_an_oversize_message_ends_the_stream(world: World) -> None:
    for size in (limits.FRAME_BYTES_MAX + 1, limits.FRAME_BYTES_MAX + 100_000):
        near, far = await linked(world)
        assert isinstance(near, FrameStream)
        with contextlib.suppress(Unavailable):
            await near._pipe.write(bytes(size))
        taken, error = await drain(far)
        assert taken == []
        assert error is None or isinstance(error, TooLarge | Unavailable)
        assert not far.send(Ping(bytes(32)))
        await drain(near)
        assert not near.send(Ping(bytes(32)))


async def test_an_oversize_frame_is_never_sent(world: World) -> None:
    near, far = await linked(world)
    with pytest.raises(TooLarge):
        near.send(Chunk(ORIGIN, 0, (bytes(limits.FRAME_BYTES_MAX),), b""))
    near.send(Ping(bytes(32)))
    assert await take(far, 1) == [Ping(bytes(32))]


async def test_what_cannot_be_read_ends_the_stream_with_a_reason(world: World) -> None:
    near, far = await linked(world)
    assert isinstance(near, FrameStream)
    await near._pipe.write(b"\xff\xff")
    assert isinstance((await drain(far))[1], InvalidSpec)
    await drain(near)
    assert not near.send(Ping(bytes(32)))


@pytest.mark.parametrize("closer", ["sender", "receiver"])
async def test_close_while_sending_leaves_whole_frames_in_order(world: World, closer: str) -> None:
    near, far = await linked(world)
    reading = asyncio.create_task(drain(far))
    sent = [Chunk(ORIGIN, n, (bytes(10_000),), b"") for n in range(8)]
    for frame in sent:
        near.send(frame)
    await asyncio.sleep(0)
    await (near if closer == "sender" else far).close()
    taken, _ = await reading
    assert taken == sent[: len(taken)]
    await drain(near)
    assert not near.send(sent[0])
    assert not far.send(sent[0])
    await near.close()


async def test_a_cancelled_reader_leaves_the_daemon_able_to_link_again(world: World) -> None:
    first, second = await world()
    second.transport.accept(second.hold)
    for _ in range(3):
        near = await first.transport.open_stream(second.who.id)
        far = await second.opened.get()
        readers = [asyncio.create_task(drain(stream)) for stream in (near, far)]
        near.send(Ping(bytes(32)))
        await asyncio.sleep(0)
        for reader in readers:
            reader.cancel()
        await asyncio.wait(readers)
        assert readers[0].cancelled()
        await near.close()
        await far.close()


async def test_a_peer_has_one_stream(world: World) -> None:
    first, second = await world()
    second.transport.accept(second.hold)
    first.transport.accept(first.hold)
    near = await first.transport.open_stream(second.who.id)
    far = await second.opened.get()
    with pytest.raises(Conflict):
        await first.transport.open_stream(second.who.id)
    with pytest.raises(Conflict):
        await second.transport.open_stream(first.who.id)
    near.send(Ping(bytes(32)))
    assert await take(far, 1) == [Ping(bytes(32))]
    await near.close()
    await drain(far)
    await second.transport.open_stream(first.who.id)


async def test_the_server_refuses_a_second_stream_by_itself(world: World) -> None:
    first, second = await world()
    second.transport.accept(second.hold)
    await first.transport.open_stream(second.who.id)
    first.transport._links._open.clear()  # type: ignore[attr-defined]  # a peer that ignores the rule
    with pytest.raises(Conflict):
        await first.transport.open_stream(second.who.id)


async def test_two_that_dial_each_other_at_once_end_with_one_link(world: World) -> None:
    first, second = await world()
    for end in (first, second):
        end.transport.accept(end.hold)
    dialled = await asyncio.gather(
        first.transport.open_stream(second.who.id),
        second.transport.open_stream(first.who.id),
        return_exceptions=True,
    )
    won = [stream for stream in dialled if isinstance(stream, FrameStream)]
    lost = [error for error in dialled if isinstance(error, Conflict)]
    assert (len(won), len(lost)) == (1, 1)
    far = await (second if won[0].peer == second.who.id else first).opened.get()
    won[0].send(Ping(bytes(32)))
    assert await take(far, 1) == [Ping(bytes(32))]


async def test_a_stranger_is_refused(world: World) -> None:
    first, second = await world(strangers=True)
    second.transport.accept(second.hold)
    with pytest.raises(NotPermitted):
        await first.transport.open_stream(second.who.id)
    assert second.opened.empty()


async def test_a_daemon_that_does_not_listen_yet_is_unavailable(world: World) -> None:
    first, second = await world()
    with pytest.raises(Unavailable):
        await first.transport.open_stream(second.who.id)


async def test_a_silent_peer_is_dropped(world: World) -> None:
    near, _far = await linked(world, options=dataclasses.replace(OPTIONS, idle_s=0.05))
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable, match="silent"):
            await anext(near.frames())
    assert not near.send(Ping(bytes(32)))


async def test_reading_keeps_to_the_pace(world: World) -> None:
    slow = dataclasses.replace(OPTIONS, frames_burst=4, frames_per_s=50, send_queue_max=64)
    near, far = await linked(world, options=slow)
    for frame in pulls(14):
        near.send(frame)
    begin_s = asyncio.get_running_loop().time()
    assert await take(far, 14) == pulls(14)
    assert asyncio.get_running_loop().time() - begin_s >= 0.19


async def test_a_callback_that_returns_or_refuses_ends_the_stream(world: World) -> None:
    async def leave(stream: PeerStream) -> None:
        return

    async def refuse(stream: PeerStream) -> None:
        raise NotPermitted("not you")

    first, second = await world()
    for callback in (leave, refuse):
        second.transport.accept(callback)
        try:
            near = await first.transport.open_stream(second.who.id)
        except NotPermitted:
            assert callback is refuse  # the refusal was as fast as the acceptance
            continue
        assert (await drain(near))[0] == []
        assert not near.send(Ping(bytes(32)))


def in_memory(**changes: Any) -> tuple[MemoryNetwork, End, End]:
    network = MemoryNetwork()
    options = dataclasses.replace(OPTIONS, **changes)
    first, second = (
        End(who, network.join(who.peer, options=options)) for who in daemons.two_daemons()
    )
    second.transport.accept(second.hold)
    return network, first, second


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_half_open_a_cut_is_silent_and_what_waited_arrives_after() -> None:
    network, first, second = in_memory()
    near = await first.transport.open_stream(second.who.id)
    far = await second.opened.get()
    network.cut(first.who.id, second.who.id)
    reading = asyncio.create_task(take(far, 1))
    assert near.send(Pull(ORIGIN, 1))
    assert far.send(Pull(ORIGIN, 2))
    assert await take(near, 1) == [Pull(ORIGIN, 2)]
    await settle()
    assert not reading.done()
    network.mend(first.who.id, second.who.id)
    assert await reading == [Pull(ORIGIN, 1)]


async def test_half_open_a_close_behind_a_cut_is_not_heard() -> None:
    network, first, second = in_memory(open_s=0.02)
    near = await first.transport.open_stream(second.who.id)
    far = await second.opened.get()
    network.cut(second.who.id, first.who.id)
    await far.close()
    for _ in range(3):
        assert near.send(Ping(bytes(32)))
        await settle()
    with pytest.raises(Unavailable, match="does not answer"):
        await second.transport.open_stream(first.who.id)
    network.mend(second.who.id, first.who.id)
    assert await drain(near) == ([], None)


async def test_half_open_a_writer_fills_the_window_and_then_its_own_queue() -> None:
    network, first, second = in_memory()
    near = await first.transport.open_stream(second.who.id)
    network.cut(first.who.id, second.who.id)
    sent = 0
    while near.send(Chunk(ORIGIN, sent, (bytes(limits.EVENT_BYTES_MAX),) * 15, b"")):
        sent += 1
        await settle()
        assert sent < 100
    assert sent >= OPTIONS.send_queue_max + WINDOW_BYTES // limits.FRAME_BYTES_MAX


async def test_memory_loses_on_close_what_nobody_has_read_yet() -> None:
    _, first, second = in_memory()
    near = await first.transport.open_stream(second.who.id)
    far = await second.opened.get()
    near.send(Ping(bytes(32)))
    await settle()
    await near.close()
    assert await drain(far) == ([], None)


async def test_a_member_that_never_answers_is_given_up() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    mute = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    first, second = daemons.two_daemons()
    port = mute.sockets[0].getsockname()[1]
    options = dataclasses.replace(OPTIONS, open_s=0.1)
    known = daemons.members([second.listed(f"127.0.0.1:{port}")])
    transport = GrpcTransport(first.id, first.shown, lambda: known, options)
    for _ in range(2):
        with pytest.raises(Unavailable, match="does not answer"):
            await transport.open_stream(second.id)
    await transport.close()
    mute.close()
