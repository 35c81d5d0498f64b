"""HTTP/2 frame by frame over mutual TLS, for what no gRPC library would ever send.

Only what a hostile client needs: nothing here waits for permission, counts windows or reads
header blocks. Whether a stream has ended is told by its flags alone.
"""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hanse.rpc.certificates import Identity

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
CANCEL = 8


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
    return head + payload


def _literal(text: str) -> bytes:
    raw = text.encode()
    assert len(raw) < 127
    return bytes([len(raw)]) + raw


def header_block(path: str, *more: tuple[str, str]) -> bytes:
    """Literal fields, not indexed and not compressed."""
    fields = [
        (":method", "POST"), (":scheme", "https"), (":path", path), (":authority", "hanse"),
        ("content-type", "application/grpc"), ("te", "trailers"), *more,
    ]  # fmt: skip
    return b"".join(b"\0" + _literal(name) + _literal(value) for name, value in fields)


def call(stream: int, path: str, *more: tuple[str, str]) -> bytes:
    """The frame that opens a call."""
    return frame(HEADERS, END_HEADERS, stream, header_block(path, *more))


def message(raw: bytes, *, compressed: bool = False) -> bytes:
    return bytes([compressed]) + len(raw).to_bytes(4, "big") + raw


def data(stream: int, raw: bytes, *, end: bool = False) -> bytes:
    return frame(DATA, END_STREAM if end else 0, stream, raw)


def reset(stream: int) -> bytes:
    return frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big"))


@dataclass
class Connection:
    """One connection; `ended` has the streams that the server has ended, `closed` is the end."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ended: dict[int, str] = field(default_factory=dict)
    goaway: bool = False
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, *frames: bytes) -> bool:
        """False once the server has closed the connection."""
        try:
            self.writer.write(b"".join(frames))
            await self.writer.drain()
        except (ConnectionError, ssl.SSLError):
            return False
        return not self.closed.is_set()

    async def read(self) -> None:
        try:
            while True:
                head = await self.reader.readexactly(9)
                size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
                payload = await self.reader.readexactly(size)
                self._take(kind, flags, int.from_bytes(head[5:], "big"), payload)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            self.closed.set()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            self.writer.write(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.writer.write(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            self.goaway = True
        elif kind == RST_STREAM:
            self.ended[stream] = "reset"
        elif kind in (HEADERS, DATA) and flags & END_STREAM:
            self.ended.setdefault(stream, "answered")

    async def until_ended(self, *streams: int) -> None:
        while not self.closed.is_set() and not self.ended.keys() >= set(streams):  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def context(identity: Identity, server_cert: bytes) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(cadata=server_cert.decode())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "both.pem")
        path.write_bytes(identity.cert_pem + identity.key_pem)
        made.load_cert_chain(path)
    made.set_alpn_protocols(["h2"])
    return made


@asynccontextmanager
async def connected(
    port: int, identity: Identity, server_cert: bytes, settings: Sequence[bytes] = ()
) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context(identity, server_cert), server_hostname="hanse"
    )
    connection = Connection(reader, writer)
    reading = asyncio.create_task(connection.read())
    try:
        await connection.send(PREFACE, frame(SETTINGS, 0, 0, b"".join(settings)))
        yield connection
    finally:
        reading.cancel()
        await asyncio.wait({reading})
        writer.transport.abort()
