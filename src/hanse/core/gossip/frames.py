"""What two daemons say to each other on a link.

Frames are decided here and put on the wire by `rpc.codec`. Everything in a frame is the
peer's claim until a signature over the log it speaks of has been checked.
"""

from __future__ import annotations

from dataclasses import dataclass

from hanse.core.ids import Origin

PROTOCOL = 1


@dataclass(frozen=True, slots=True)
class Hello:
    """First frame each way: who I am, which trust I act under, what I have."""

    federation: str
    origin: Origin
    trust_version: int
    trust_digest: bytes
    nonce: bytes
    head_map_digest: bytes
    reader_level: int = 1
    protocol: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class HelloProof:
    """Signature of the daemon key over both TLS keys and both nonces."""

    signature: bytes


@dataclass(frozen=True, slots=True)
class LogHead:
    origin: Origin
    size: int
    root_prefix: bytes  # 8 B: a hint that two heads of one size differ


@dataclass(frozen=True, slots=True)
class Heads:
    """Heads that changed since this peer last heard from us, or all of them when `full`."""

    heads: tuple[LogHead, ...]
    full: bool
    head_map_digest: bytes


@dataclass(frozen=True, slots=True)
class Announce:
    """A new signed head; the events travel inline when they are few."""

    origin: Origin
    note: bytes
    start: int
    events: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Pull:
    origin: Origin
    start: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Events from `start` up to the size that `note` signs."""

    origin: Origin
    start: int
    events: tuple[bytes, ...]
    note: bytes


@dataclass(frozen=True, slots=True)
class TrustFile:
    version: int
    part: int
    parts: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Ping:
    head_map_digest: bytes


Frame = Hello | HelloProof | Heads | Announce | Pull | Chunk | TrustFile | Ping
