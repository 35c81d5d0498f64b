"""Frames as bytes.

`LinkRequest` and `LinkResponse` have one wire form (a `Frame` in field 1), so a frame is
encoded once, whichever way it travels. gRPC hands us the bytes as they came: a stranger's
bytes are parsed here, under our bounds and our errors, never inside the transport.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from hanse.core import limits
from hanse.core.errors import InvalidSpec, TooLarge
from hanse.core.gossip import frames
from hanse.core.gossip.heads import DEPTH, FAN
from hanse.core.gossip.reconcile import FINGERPRINT_BYTES
from hanse.rpc.fields import (
    HASH,
    SEGMENT,
    Field,
    Shape,
    bounded,
    exactly,
    nested,
    parse,
    repeated,
    shape,
)
from hanse.v1 import sync_pb2 as pb


def _batch(events: Sequence[bytes]) -> tuple[bytes, ...]:
    if len(events) > limits.CHUNK_EVENTS_MAX:
        raise TooLarge(f"{len(events)} events in one frame exceed {limits.CHUNK_EVENTS_MAX}")
    if any(len(event) > limits.EVENT_BYTES_MAX for event in events):
        raise TooLarge(f"an event in the frame exceeds {limits.EVENT_BYTES_MAX} bytes")
    if sum(map(len, events)) > limits.CHUNK_BYTES_MAX:
        raise TooLarge(f"the events in one frame exceed {limits.CHUNK_BYTES_MAX} bytes")
    return tuple(events)


def _prefix(digits_max: int) -> Field:
    """The first digits of a range of origin hashes."""

    def check(raw: bytes) -> bytes:
        if len(raw) > digits_max or any(digit >= FAN for digit in raw):
            raise InvalidSpec(f"a range is named by up to {digits_max} digits below {FAN}")
        return raw

    return Field(bytes, check)


_shape = partial(shape, messages=pb)
_EVENTS = Field(list, _batch)
_NOTE = bounded(limits.NOTE_BYTES_MAX)
_HEADS = repeated(nested(_shape(frames.LogHead, root_prefix=exactly(8))))
_RANGES = repeated(
    nested(_shape(frames.Range, prefix=_prefix(DEPTH - 1), parts=exactly(FAN * FINGERPRINT_BYTES)))
)


def _few(heads: Sequence[pb.LogHead]) -> Sequence[pb.LogHead]:
    if len(heads) > limits.MEMBER_LOGS_MAX:
        raise TooLarge(f"{len(heads)} logs of one member exceed {limits.MEMBER_LOGS_MAX}")
    return heads


FRAMES: dict[str, Shape] = {
    "hello": _shape(
        frames.Hello,
        federation=SEGMENT,
        trust_digest=HASH,
        nonce=bounded(64),
        head_map_digest=HASH,
        boot_nonce=bounded(64),
        yours=Field(_HEADS.to_wire, lambda heads: _HEADS.from_wire(_few(heads))),
        rival_nonce=bounded(64),
    ),
    "hello_proof": _shape(frames.HelloProof, signature=exactly(64)),
    "heads": _shape(frames.Heads, heads=_HEADS, below=repeated(_prefix(DEPTH))),
    "announce": _shape(frames.Announce, note=_NOTE, events=_EVENTS),
    "pull": _shape(frames.Pull),
    "chunk": _shape(frames.Chunk, note=_NOTE, events=_EVENTS),
    "trust_file": _shape(frames.TrustFile, data=bounded(limits.FRAME_BYTES_MAX)),
    "timestamp": _shape(frames.Timestamp, raw=bounded(limits.TIMESTAMP_BYTES_MAX)),
    "status": _shape(
        frames.Status,
        kind=SEGMENT,
        body=bounded(limits.STATUS_BYTES_MAX),
        signature=exactly(64),
    ),
    "ping": _shape(frames.Ping, head_map_digest=HASH, trust_prefix=exactly(8)),
    "fingerprints": _shape(frames.Fingerprints, ranges=_RANGES),
    "evidence": _shape(frames.Evidence, raw=bounded(limits.EVIDENCE_BYTES_MAX)),
}
_KINDS = {shape.value: kind for kind, shape in FRAMES.items()}


def encode_frame(frame: frames.Frame) -> bytes:
    """A serialised `LinkRequest`, which is a serialised `LinkResponse` too.

    Raises `TooLarge` above `FRAME_BYTES_MAX`, `InvalidSpec` if a field does not fit.
    """
    kind = _KINDS[type(frame)]
    message = pb.Frame(**{kind: FRAMES[kind].to_message(frame)})
    raw: bytes = pb.LinkRequest(frame=message).SerializeToString()
    _check_size(raw)
    return raw


def decode_frame(raw: bytes) -> frames.Frame:
    """Raises `TooLarge`, `InvalidName` or `InvalidSpec`: the stream is closed then.

    A frame kind that we do not know is `InvalidSpec`: peers agree on kinds in `Hello`.
    """
    _check_size(raw)
    message = parse(pb.LinkRequest, raw).frame
    kind = message.WhichOneof("kind")
    if kind is None:
        raise InvalidSpec("the frame is empty or of a kind that we do not know")
    frame: frames.Frame = FRAMES[kind].from_message(getattr(message, kind))
    if isinstance(frame, frames.TrustFile) and frame.part >= frame.parts:
        raise InvalidSpec(f"trust file part {frame.part} of {frame.parts} cannot be")
    return frame


def _check_size(raw: bytes) -> None:
    if len(raw) > limits.FRAME_BYTES_MAX:
        raise TooLarge(f"a frame of {len(raw)} bytes exceeds {limits.FRAME_BYTES_MAX}")
