"""A member with valid keys and a valid certificate that speaks `Link` and may say anything.

Frames and events are written here field by field, never with the product's encoders: those
refuse to build what this peer wants to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from types import TracebackType
from typing import Any, Self

import grpc
from system_federation import WAIT_S, Daemon, ends_of

from hanse.core.ids import Origin, Segment, member_id
from hanse.core.log.checkpoint import Checkpoint, sign_checkpoint
from hanse.core.log.merkle import Frontier, leaf_hash
from hanse.core.trust.chain import replay
from hanse.daemon.trust_folder import read_files
from hanse.rpc import tls
from hanse.rpc.certificates import spki_hash
from hanse.v1 import event_pb2, sync_pb2

LINK = "/hanse.v1.PeerService/Link"


class Log:
    """The log of the member whose keys were stolen, and anything that is like it but wrong."""

    def __init__(self, owner: Daemon, federation: str = "harbour") -> None:
        self.key = owner.key
        self.trust = replay(read_files(owner.home / "trust")).current
        member = member_id(self.key.public)
        self.origin = Origin(Segment(federation), Segment(owner.region), member, 1)
        self.events: list[bytes] = []

    def event(self, number: int, body: Any, **changes: Any) -> bytes:
        """The next event of this log, with `changes` to its header."""
        raw = body if isinstance(body, bytes) else body.SerializeToString()
        salt = bytes(32)
        fields = {
            "schema": 1,
            "min_reader_level": 1,
            "origin_hash": self.origin.hash,
            "seq": len(self.events),
            "trust_version": self.trust.version,
            "trust_digest": self.trust.digest,
            "hlc_ms": 1_795_000_000_000,
            "type": number,
            "salt": salt,
            "payload": raw,
            "payload_commitment": hashlib.sha256(b"hanse-payload/v1\n" + salt + raw).digest(),
        }
        return event_pb2.Event(**(fields | changes)).SerializeToString()

    def text(self, text: str, **changes: Any) -> bytes:
        return self.event(event_pb2.EVENT_TYPE_NOTE, event_pb2.Note(text=text), **changes)

    def frontier(self, *more: bytes) -> Frontier:
        return Frontier.empty().append(tuple(map(leaf_hash, (*self.events, *more))))

    def note(self, *more: bytes) -> bytes:
        """A signed head of this log with `more` at its end."""
        end = self.frontier(*more)
        return sign_checkpoint(Checkpoint(str(self.origin), end.size, end.root()), self.key)

    def chunk(self, *more: bytes, **changes: Any) -> sync_pb2.Frame:
        fields = {
            "origin": str(self.origin),
            "start": len(self.events),
            "events": more,
            "note": self.note(*more),
        }
        return sync_pb2.Frame(chunk=sync_pb2.Chunk(**(fields | changes)))


class HostilePeer:
    """One link to `victim`, as `owner`; a context that closes it."""

    def __init__(self, owner: Daemon, victim: Daemon, log: Log) -> None:
        self.log = log
        self.victim = victim
        self.owner = owner
        self.identity = owner.identity()
        self.nonce = b"a nonce of sixte"
        self.heard: list[sync_pb2.Frame] = []
        self.ended = asyncio.Event()
        self.refusal = ""
        self.proven = False  # as far as we know
        self._channel = tls.open_channel(victim.address, self.identity, victim.authority.cert_pem)

    async def __aenter__(self) -> Self:
        self._call = self._channel.stream_stream(LINK, None, None)()
        self._reader = asyncio.create_task(self._read())
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self._call.initial_metadata()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._call.cancel()
        await asyncio.wait({self._reader})
        await self._channel.close()

    async def _read(self) -> None:
        try:
            while raw := await self._call.read():
                self.heard.append(sync_pb2.LinkResponse.FromString(raw).frame)
            self.refusal = f"{(await self._call.code()).name}: {await self._call.details()}"
        except grpc.aio.AioRpcError as error:
            self.refusal = f"{error.code().name}: {error.details()}"
        except asyncio.CancelledError:
            self.refusal = "closed by us"
        finally:
            self.ended.set()

    async def say(self, *frames: sync_pb2.Frame | bytes) -> None:
        for frame in frames:
            bare = isinstance(frame, bytes)
            raw = frame if bare else sync_pb2.LinkRequest(frame=frame).SerializeToString()
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await self._call.write(raw)

    async def greet(self, **changes: Any) -> None:
        fields = {
            "protocol": 1,
            "reader_level": 1,
            "federation": "harbour",
            "origin": str(self.log.origin),
            "trust_version": self.log.trust.version,
            "trust_digest": self.log.trust.digest,
            "nonce": self.nonce,
            "head_map_digest": bytes(32),
        }
        await self.say(sync_pb2.Frame(hello=sync_pb2.Hello(**(fields | changes))))

    async def prove(self, key: Any = None) -> None:
        """Greet, and prove to hold the member's key (or, wrongly, another)."""
        await self.greet()
        hello = (await self.hears("hello")).hello
        mine, theirs = (spki_hash(who.authority.cert_pem) for who in (self.owner, self.victim))
        text = b"hanse-hello/v1\n" + mine + theirs + self.nonce + hello.nonce
        proof = sync_pb2.HelloProof(signature=(key or self.log.key).sign(text))
        await self.say(sync_pb2.Frame(hello_proof=proof))
        self.proven = key is None

    async def accepted(self) -> bool:
        """Whether the victim carries this link: it greets whomever it does."""
        while not self.ended.is_set():
            if any(frame.WhichOneof("kind") == "hello" for frame in self.heard):
                return True
            await asyncio.sleep(0.01)
        return False

    async def hears(self, kind: str) -> sync_pb2.Frame:
        async with asyncio.timeout(WAIT_S):
            while True:
                for frame in self.heard:
                    if frame.WhichOneof("kind") == kind:
                        return frame
                assert not self.ended.is_set(), f"{self.refusal}\n{ends_of([self.victim.log])}"
                await asyncio.sleep(0.02)

    async def shown(self) -> None:
        """Wait until the victim's own heads say that it holds exactly our log."""
        end = self.log.frontier()
        wanted = (str(self.log.origin), end.size, end.root()[:8])
        async with asyncio.timeout(WAIT_S):
            while True:
                self.heard.clear()
                await self.say(
                    sync_pb2.Frame(
                        ping=sync_pb2.Ping(head_map_digest=bytes(32), trust_prefix=bytes(8))
                    )
                )
                heads = (await self.hears("heads")).heads.heads
                if wanted in [(h.origin, h.size, h.root_prefix) for h in heads]:
                    return
                await asyncio.sleep(0.05)
