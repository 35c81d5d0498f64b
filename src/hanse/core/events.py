"""Every fact that may be logged.

An event is one leaf of its author's log. Its bytes are written once by a codec that is
handed in, are stored and sent as they are, and their leaf hash is its identity. Decoded
values here are for deciding; nothing is ever re-encoded from them.

Only decisions are logged. Telemetry, heartbeats and node states are latest-value status.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from hanse.core import limits
from hanse.core.errors import InvalidSpec, TooLarge
from hanse.core.ids import Digest, EventId, Segment, Version

SCHEMA = 1
READER_LEVEL = 1
CHANNEL = Segment("stable")
RETRAIN_CAUSES = ("trial", "undone", "serving")
"""Worse in its rollout; promoted and undone since; found worse, and it still serves."""
RETRAIN_OUTCOMES = ("passed", "refused", "failed", "late")
RETIRED = ("deprecated", "retired")
_COMMITMENT = b"hanse-payload/v1\n"


@dataclass(frozen=True, slots=True)
class LogOpen:
    """Leaf 0 of every log: which incarnation opens, and after what."""

    incarnation: int
    prev_origin: str = ""
    prev_size: int = 0
    prev_root: bytes = b""
    boot_reason: str = ""


@dataclass(frozen=True, slots=True)
class ReleaseRecord:
    """A release exists. `manifest` is canonical JSON; its digest is the release id."""

    model: Segment
    version: Version
    counter: int
    manifest: bytes

    @property
    def release(self) -> Digest:
        return Digest.of(self.manifest)


@dataclass(frozen=True, slots=True)
class RolloutIntent:
    """An operator's signed plan; a higher (generation, spec digest) replaces a lower one."""

    model: Segment
    rollout: Segment
    generation: int
    release: Digest
    predecessor: Digest | None
    spec: bytes
    mandate: bytes = b""
    """Under which a daemon starts it by itself (`trust.mandate`); empty: people signed it."""


@dataclass(frozen=True, slots=True)
class RolloutControl:
    """A person's word on a running rollout: `pause`, `resume` or `abort`."""

    model: Segment
    rollout: Segment
    generation: int
    action: str
    region: str = ""  # empty: every region
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RolloutApprove:
    """`count` people who hold `role` let exactly this plan pass one approve step of a stage."""

    model: Segment
    rollout: Segment
    generation: int
    spec_digest: bytes
    stage: Segment
    step: int
    role: str
    count: int


@dataclass(frozen=True, slots=True)
class RolloutReport:
    """Where the author's region stands in a rollout, with the counts it rests on."""

    model: Segment
    rollout: Segment
    generation: int
    release: Digest
    region: Segment
    state: str
    stage: int
    step: int
    verdict: str = ""
    reason: str = ""
    evidence: bytes = b""


@dataclass(frozen=True, slots=True)
class Healthy:
    """A region's proof that this release is healthy there: it may be a rollback target."""

    model: Segment
    release: Digest
    rollout: Segment
    generation: int
    region: Segment
    spec_digest: bytes
    evidence_digest: bytes


@dataclass(frozen=True, slots=True)
class Promote:
    """The author's region runs this release from here on."""

    model: Segment
    region: Segment
    release: Digest
    manifest_size: int
    counter: int
    rollout: str = ""
    generation: int = 0
    channel: Segment = CHANNEL


@dataclass(frozen=True, slots=True)
class Rollback:
    """Compare-and-set: replaces exactly the activation that it names."""

    model: Segment
    region: Segment
    from_activation: EventId
    from_release: Digest
    to_release: Digest
    reason: str
    channel: Segment = CHANNEL


@dataclass(frozen=True, slots=True)
class Hold:
    """Forward moves stop in the author's region; without a release it freezes the model.

    `expires_ms` is for people and for the holder itself: no fold reads it.
    """

    model: Segment
    region: Segment
    release: Digest | None
    reason: str
    expires_ms: int = 0
    rollout: str = ""
    generation: int = 0


@dataclass(frozen=True, slots=True)
class HoldLift:
    """The author withdraws one of its own region's holds."""

    model: Segment
    hold: EventId
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Kill:
    """The release, and every other that names one of its artifacts, is dead for ever."""

    model: Segment
    release: Digest
    reason: str


@dataclass(frozen=True, slots=True)
class FloorRaise:
    """Releases whose counter is below this may not become active again."""

    model: Segment
    counter: int
    reason: str


@dataclass(frozen=True, slots=True)
class BlobHave:
    """A hint: the author serves these blobs to whom residency allows."""

    model: Segment
    digests: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class BlobDrop:
    model: Segment
    digests: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class StateAttest:
    """What the author computed; equal inputs with unequal outputs raise an alarm (T50)."""

    head_map_digest: bytes
    state_digest: bytes
    trust_version: int


@dataclass(frozen=True, slots=True)
class Retrain:
    """The author's region asks for a better model. Its id is what the hook is called with."""

    model: Segment
    region: Segment
    release: Digest
    hold: EventId
    cause: str  # one of RETRAIN_CAUSES
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RetrainResult:
    """What became of it; `passed` names the release that answers it and stood its checks."""

    model: Segment
    region: Segment
    retrain: EventId
    outcome: str  # one of RETRAIN_OUTCOMES
    release: Digest | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ReleaseRetire:
    """Nobody starts it or goes back to it any more; where it runs it goes on."""

    model: Segment
    release: Digest
    phase: str  # one of RETIRED
    reason: str


@dataclass(frozen=True, slots=True)
class Note:
    text: str


Body = (
    LogOpen
    | ReleaseRecord
    | RolloutIntent
    | RolloutControl
    | RolloutApprove
    | RolloutReport
    | Healthy
    | Promote
    | Rollback
    | Hold
    | HoldLift
    | Kill
    | FloorRaise
    | BlobHave
    | BlobDrop
    | StateAttest
    | Retrain
    | RetrainResult
    | ReleaseRetire
    | Note
)


class Header(NamedTuple):
    """What every event carries beside its body. A tuple: one is made for every event read."""

    origin_hash: bytes
    seq: int
    trust_version: int
    trust_digest: bytes
    hlc_ms: int = 0
    hlc_counter: int = 0
    supersedes: tuple[EventId, ...] = ()
    attestations: tuple[bytes, ...] = ()
    salt: bytes = bytes(32)
    schema: int = SCHEMA
    min_reader_level: int = READER_LEVEL


class Event:
    """An event whose header has been read; its body is read when it is first asked for.

    A log is verified by its bytes and headers. What an event *says* matters only to whoever
    folds it, and a body that nobody can read must not keep a whole log out: it is void.
    """

    __slots__ = ("_body", "_read", "header")

    def __init__(
        self, header: Header, body: Body | None, read: Callable[[], Body] | None = None
    ) -> None:
        self.header = header
        self._body, self._read = body, read

    @property
    def body(self) -> Body | None:
        """None for an unknown type. Raises `Rejected` if it is not as its type demands."""
        if self._read is not None:
            self._body = self._read()
            self._read = None
        return self._body

    @property
    def readable(self) -> bool:
        """Whether we know this type at this reader level."""
        known = self._read is not None or self._body is not None
        return known and self.header.min_reader_level <= READER_LEVEL

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Event) and (self.header, self.body) == (other.header, other.body)

    __hash__ = None  # type: ignore[assignment]  # nobody needs it, and a body may be unreadable

    def __repr__(self) -> str:
        return f"Event({self.header!r}, {self.body!r})"


class Codec(Protocol):
    """Turns events into bytes and back; pure, so the core may be handed one."""

    def encode(self, event: Event) -> bytes:
        """Raises `TooLarge` above `limits.EVENT_BYTES_MAX`."""
        ...

    def decode(self, raw: bytes) -> Event:
        """Raises `InvalidProof` or `InvalidSpec`, now or when the body is asked for."""
        ...


def commitment(salt: bytes, payload: bytes) -> bytes:
    """What the leaf says of the payload, whether or not the payload lies beside it."""
    return hashlib.sha256(_COMMITMENT + salt + payload).digest()


def model_of(body: Body | None) -> Segment | None:
    """The model whose view this event changes, if any."""
    return getattr(body, "model", None)


_REGIONAL = frozenset({Promote, Rollback, Hold, RolloutReport, Healthy, Retrain, RetrainResult})


def region_of(body: Body | None) -> str | None:
    """The region in whose name the event speaks; it must be its author's."""
    region: str | None = body.region if type(body) in _REGIONAL else None  # type: ignore[union-attr]  # those have one
    return region


# What steers a terminal or turns the direction of what follows, and half characters.
_STEERS = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)


def check_text(text: str, what: str) -> str:
    """Local authoring only: remote text is escaped where it is shown instead (T42)."""
    check_plain(text, what)
    if len(text.encode()) > limits.TEXT_BYTES_MAX:
        raise TooLarge(f"{what} is longer than {limits.TEXT_BYTES_MAX} bytes", fix="shorten it")
    return text


def check_plain(text: str, what: str) -> None:
    """The same of a document, whose length has a bound of its own."""
    if _STEERS.search(text):
        raise InvalidSpec(f"{what} holds control characters", fix="use plain text")
