"""Counting what goes over links: frames as they are encoded, and bytes as TCP carries them."""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hanse.core.gossip.frames import Frame
from hanse.rpc import stream
from hanse.rpc.frame_codec import encode_frame

GRPC_BYTES: Final = 5  # a flag and a length before every message
EVENTS: Final = ("Announce", "Chunk", "Pull")  # carry events or ask for them; the rest compares
_RECEIVED: Final = 128  # where `tcp_info` has tcpi_bytes_received


class Tally:
    """Bytes of frames that were sent, by kind, with gRPC's five for each."""

    def __init__(self) -> None:
        self.bytes: Counter[str] = Counter()

    def add(self, frame: Frame, raw: bytes) -> None:
        self.bytes[type(frame).__name__] += len(raw) + GRPC_BYTES

    def total(self, *without: str) -> int:
        return sum(n for kind, n in self.bytes.items() if kind not in without)


@contextmanager
def counted() -> Iterator[Tally]:
    """Everything that any stream of this process encodes meanwhile."""
    tally = Tally()

    def counting(frame: Frame) -> bytes:
        raw = encode_frame(frame)
        tally.add(frame, raw)
        return raw

    setattr(stream, "encode_frame", counting)  # noqa: B010  # it is the name that streams call
    try:
        yield tally
    finally:
        setattr(stream, "encode_frame", encode_frame)  # noqa: B010


def tcp_received() -> int:
    """Payload bytes that all open TCP connections of this process have received so far.

    With both ends of each connection in the process that is every byte once: TLS records, HTTP/2
    frames, keep-alives, but not the headers of TCP and IP.
    """
    return sum(_received(int(entry.name)) for entry in Path("/proc/self/fd").iterdir())


def _received(descriptor: int) -> int:
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return 0
        with socket.socket(fileno=os.dup(descriptor)) as copy:
            info = copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED + 8)
    except OSError:  # closed meanwhile, or no TCP
        return 0
    (received,) = struct.unpack_from("Q", info, _RECEIVED) if len(info) >= _RECEIVED + 8 else (0,)
    return int(received)
