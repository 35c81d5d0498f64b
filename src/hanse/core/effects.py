"""What the core wants done beside storing and sending: values, carried out by the driver."""

from __future__ import annotations

from dataclasses import dataclass

from hanse.core.gossip.frames import Frame
from hanse.core.ids import Digest, EventId, MemberId, Origin, Segment


@dataclass(frozen=True, slots=True)
class Send:
    """Give this frame to the link to that peer, if it is still there."""

    peer: MemberId
    frame: Frame


@dataclass(frozen=True, slots=True)
class Dial:
    """Open a link to this member and keep trying until told otherwise."""

    member: MemberId


@dataclass(frozen=True, slots=True)
class Undial:
    """Stop keeping a link to this member; one that it keeps to us is its own affair."""

    member: MemberId


@dataclass(frozen=True, slots=True)
class HangUp:
    """Close the link to this member, which erred; whoever dialled may dial again."""

    member: MemberId
    reason: str


@dataclass(frozen=True, slots=True)
class Serve:
    """Read a suffix of a stored log, up to a signed size, and send it as one chunk.

    It ends at `end` or before.
    """

    peer: MemberId
    origin: Origin
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Reread:
    """Read a whole stored log and give it to `Node.reread`."""

    origin: Origin


@dataclass(frozen=True, slots=True)
class Compare:
    """Weigh events that a peer sent against the stored log (`log.fork.compare`).

    The outcome goes to `Node.compared`.
    """

    peer: MemberId
    origin: Origin
    start: int
    events: tuple[bytes, ...]
    note: bytes


@dataclass(frozen=True, slots=True)
class FetchRelease:
    """Bring every file of this release here and pin it; say so when done."""

    model: Segment
    release: Digest


@dataclass(frozen=True, slots=True)
class Heal:
    """See to it that this RETRAIN of ours gets its result; it is stored, and may run again."""

    model: Segment
    retrain: EventId


@dataclass(frozen=True, slots=True)
class PublishAssignment:
    """Replace what this region tells its nodes."""

    assignment: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Restart:
    """End the process once the step is stored: what it was built on has been replaced."""

    reason: str


@dataclass(frozen=True, slots=True)
class Log:
    """Something an operator should see, as an event name with fields."""

    level: str
    event: str
    fields: tuple[tuple[str, str | int], ...] = ()


Effect = (
    Dial
    | Undial
    | HangUp
    | Serve
    | Reread
    | Compare
    | FetchRelease
    | Heal
    | PublishAssignment
    | Restart
    | Log
)
