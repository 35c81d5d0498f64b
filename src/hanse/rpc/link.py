"""`Link` streams over gRPC: mutual TLS, one stream a peer, frames as their bytes.

The client trusts exactly the authority that the members file pins for that member; the server
holds the caller's certificate against the one pinned for whom it names. Both ends name each other
by these authorities, so a certificate may be renewed under a proof. Messages pass gRPC as bytes,
so a stranger's bytes are parsed by our codec alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from hanse.core.counters import Counters, zeros
from hanse.core.errors import Conflict, HanseError, NotPermitted, Rejected, Unavailable
from hanse.core.ids import MemberId
from hanse.core.trust.members import Member, Members
from hanse.rpc import tls
from hanse.rpc.certificates import Identity
from hanse.rpc.status import Context, error_of, refuse, reraise_if_ours
from hanse.rpc.stream import FrameStream, carry
from hanse.rpc.tls import Peer
from hanse.rpc.transport import Accept, LinkOptions, Links, Second

LINK = "/hanse.v1.PeerService/Link"
BOOT = "hanse-boot-bin"  # metadata: which start of the daemon dials


@dataclass(frozen=True, slots=True)
class _Known:
    """A channel, whom it was pinned to and which of our certificates it shows."""

    member: Member
    shown: Identity
    channel: grpc.aio.Channel


class _ClientPipe:
    def __init__(self, call: Any, whom: str) -> None:
        self._call = call
        self._whom = whom

    async def read(self) -> bytes | None:
        try:
            raw = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise Unavailable(f"{self._whom} ended the stream: {error.details()}") from None
        except asyncio.CancelledError:
            reraise_if_ours()
            return None  # `abort` has ended the call under this read
        return raw or None  # grpc's end of file is falsy, and no frame is empty

    async def write(self, raw: bytes) -> None:
        try:
            await self._call.write(raw)
        except grpc.aio.AioRpcError as error:
            raise Unavailable(f"{self._whom} ended the stream: {error.details()}") from None
        except asyncio.InvalidStateError:
            raise Unavailable(f"{self._whom} has ended the stream") from None

    def abort(self, error: HanseError | None) -> None:
        self._call.cancel()


class _ServerPipe:
    """The handler coroutine lives until `over` is set, then answers with `error`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.over = asyncio.Event()
        self.error: HanseError | None = None

    async def read(self) -> bytes | None:
        read = asyncio.ensure_future(self._context.read())
        over = asyncio.ensure_future(self.over.wait())
        try:
            await asyncio.wait({read, over}, return_when=asyncio.FIRST_COMPLETED)
            if self.over.is_set() or read.cancelled() or read.exception() is not None:
                return None
            return read.result() or None
        finally:
            over.cancel()
            read.cancel()

    async def write(self, raw: bytes) -> None:
        try:
            await self._context.write(raw)
        except asyncio.CancelledError:
            reraise_if_ours()
            raise Unavailable("the caller has ended the stream") from None
        except Exception as error:  # grpc raises private classes for a call that has ended
            raise Unavailable(f"the stream has ended: {error}") from None

    def abort(self, error: HanseError | None) -> None:
        self.error = self.error or error
        self.over.set()


class GrpcTransport:
    """`rpc.transport.Transport` over gRPC; `rpc.peer_service` feeds it what others open."""

    def __init__(
        self,
        own: MemberId,
        identity: Callable[[], Identity],
        members: Callable[[], Members],
        options: LinkOptions | None = None,
        counters: Counters | None = None,
        *,
        boot_nonce: bytes = b"",
    ) -> None:
        self._identity = identity
        self._counters = zeros() if counters is None else counters
        self._metadata = ((BOOT, boot_nonce),)
        self._second: Second | None = None
        self._members = members
        self._options = options or LinkOptions()
        self._links = Links(own)
        self._accept: Accept | None = None
        self._channels: dict[MemberId, _Known] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._carried: set[asyncio.Task[None]] = set()

    def accept(self, callback: Accept, second: Second | None = None) -> None:
        self._accept, self._second = callback, second

    def channel(self, member: MemberId) -> grpc.aio.Channel:
        """The one channel to this member, for links, probes and blobs; closed by `close`.

        Raises `NotPermitted` if the members file in force does not list it.
        """
        listed = self._members().member(member)
        if listed is None:
            raise NotPermitted(f"{member} is no member", fix="bring this daemon's trust up to date")
        identity, known = self._identity(), self._channels.get(member)
        if known is not None and (known.member, known.shown) == (listed, identity):
            return known.channel
        if known is not None:
            self._close(known)
        channel = tls.open_channel(listed.address, identity, listed.tls_cert_pem.encode())
        self._channels[member] = _Known(listed, identity, channel)
        return channel

    def look_again(self) -> None:
        """Close what leads to a member that is none any more, has moved, or saw an old certificate.

        Links that end by that are dialled again by whoever wants them.
        """
        identity, members = self._identity(), self._members()
        for member, known in list(self._channels.items()):
            if members.member(member) != known.member or known.shown != identity:
                del self._channels[member]
                self._close(known)

    def _close(self, known: _Known) -> None:
        self._closing.add(task := asyncio.create_task(known.channel.close(None)))
        task.add_done_callback(self._closing.discard)

    async def open_stream(self, member: MemberId) -> FrameStream:
        channel = self.channel(member)
        peer = tls.pinned_peer(self._channels[member].member)
        tls.check_member(peer, self._members())
        self._links.dial(member)
        try:
            call = channel.stream_stream(LINK, None, None)(None, metadata=self._metadata)
            await self._accepted(call, member)
        finally:
            self._links.dial_failed(member)
        try:
            self._links.dialled(member)
        except Rejected:
            call.cancel()
            raise
        return self._stream(peer, _ClientPipe(call, member))

    async def _accepted(self, call: Any, whom: str) -> None:
        """Wait for the other side's word that the stream stands."""
        try:
            async with asyncio.timeout(self._options.open_s):
                await call.initial_metadata()
        except TimeoutError:
            call.cancel()
            raise Unavailable(f"{whom} does not answer") from None
        except asyncio.CancelledError:
            call.cancel()
            reraise_if_ours()
            raise Unavailable(f"the channel to {whom} was closed") from None
        if call.done() and await call.code() is not grpc.StatusCode.OK:
            raise error_of(await call.code(), await call.details(), whom)

    async def serve(self, context: Context) -> None:
        """Carry a stream that a peer has opened, for as long as it stands."""
        try:
            peer = tls.pinned_peer(tls.check_member(tls.peer_of(context), self._members()))
            if self._accept is None:
                raise Unavailable("this daemon is starting or stopping")
            self._enter(MemberId(peer.name), context)
        except (Rejected, Unavailable) as error:
            self._counters["links_refused"] += 1
            await refuse(context, error)
        pipe = _ServerPipe(context)
        stream = self._stream(peer, pipe)
        try:
            await context.send_initial_metadata(())
            # A task of its own: gRPC cancels the handler when the caller goes, and nothing
            # that the driver does just then may be torn in the middle by that.
            self._carried.add(task := asyncio.create_task(carry(self._accept, stream)))
            task.add_done_callback(self._carried.discard)
            await pipe.over.wait()
        finally:
            stream.end(None)
        if isinstance(pipe.error, Rejected | Unavailable):
            await refuse(context, pipe.error)

    def _enter(self, member: MemberId, context: Context) -> None:
        try:
            self._links.accepted(member)
        except Conflict:
            nonce = dict(context.invocation_metadata() or ()).get(BOOT, b"")
            if self._second is not None and isinstance(nonce, bytes):
                self._second(member, nonce[:64])
            raise

    def _stream(self, peer: Peer, pipe: _ClientPipe | _ServerPipe) -> FrameStream:
        name = MemberId(peer.name)
        return FrameStream(
            peer, pipe, self._options, self._counters, lambda: self._links.ended(name)
        )

    async def close(self) -> None:
        self._accept = None
        for known in self._channels.values():
            await known.channel.close(None)
        self._channels.clear()
