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
    boot_nonce: bytes = b""  # random, anew at every start
    yours: tuple[LogHead, ...] = ()  # what I hold of your own logs
    rival_nonce: bytes = b""  # the boot nonce of another process that speaks with your key
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
    final_size: int = 0
    frozen: int = 0  # index of the proven fork, and one


@dataclass(frozen=True, slots=True)
class Heads:
    """Heads that the peer may lack, and all heads that we have `below` these prefixes.

    A list with ranges asks for an answer: those heads of the peer that we do not have.
    """

    heads: tuple[LogHead, ...]
    below: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Range:
    """A range of origin hashes, by its first digits, and the fingerprints of its 16 parts."""

    prefix: bytes  # one byte a digit, 0 to 15
    parts: bytes  # 16 times 8 B


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """What we have in these ranges, to be compared: see `gossip.reconcile`."""

    ranges: tuple[Range, ...]


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
class Timestamp:
    """The newest TUF timestamp that we know."""

    raw: bytes


@dataclass(frozen=True, slots=True)
class Ping:
    """What we hold and trust, in short. `answer` asks for a ping back if all is equal."""

    head_map_digest: bytes
    trust_version: int = 0
    answer: bool = False
    timestamp_s: int = 0
    """Version of the newest timestamp that we know; 0 if we know none."""
    trust_prefix: bytes = bytes(8)
    """Beginning of our trust digest: two files of one version are news at once."""


@dataclass(frozen=True, slots=True)
class Status:
    """A word of a member of which only the latest counts; see `gossip.statuses`."""

    origin: Origin
    kind: str
    serial: int
    body: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Evidence:
    """Proof of a fork (`log.evidence`); it travels ahead of everything else."""

    raw: bytes


Frame = (
    Hello
    | HelloProof
    | Heads
    | Announce
    | Pull
    | Chunk
    | TrustFile
    | Timestamp
    | Ping
    | Evidence
    | Fingerprints
    | Status
)
