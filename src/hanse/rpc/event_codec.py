"""Events as bytes.

An author writes an event once; everybody else keeps those bytes and only reads them. What
we would refuse from a peer we never write: `encode` ends by decoding its own result.

A reader level above ours, or a type that we do not know, is no error: the event comes back
without a body, its author's log stalls here, visibly, and nothing behind it is skipped.
"""

from __future__ import annotations

from functools import partial
from operator import attrgetter

from hanse.core import events, limits
from hanse.core.errors import InvalidName, InvalidProof, InvalidSpec, TooLarge
from hanse.core.ids import EventId
from hanse.core.log.merkle import HASH_BYTES
from hanse.core.rollout.plan import APPROVERS
from hanse.rpc.fields import (
    HASH,
    HASH_OR_EMPTY,
    ORIGIN_OR_EMPTY,
    SEGMENT_OR_EMPTY,
    Shape,
    Wire,
    bounded,
    one_of,
    parse,
    shape,
)
from hanse.v1 import event_pb2 as pb

_shape = partial(shape, messages=pb)
_CAUSE = {"rollout": SEGMENT_OR_EMPTY}

BODIES: dict[pb.EventType, Shape] = {
    pb.EVENT_TYPE_LOG_OPEN: _shape(
        events.LogOpen, prev_origin=ORIGIN_OR_EMPTY, prev_root=HASH_OR_EMPTY
    ),
    pb.EVENT_TYPE_RELEASE_RECORD: _shape(
        events.ReleaseRecord, manifest=bounded(limits.MANIFEST_BYTES_MAX)
    ),
    pb.EVENT_TYPE_PROMOTE: _shape(events.Promote, **_CAUSE),
    pb.EVENT_TYPE_HOLD: _shape(events.Hold, **_CAUSE),
    pb.EVENT_TYPE_HOLD_LIFT: _shape(events.HoldLift),
    pb.EVENT_TYPE_KILL: _shape(events.Kill),
    pb.EVENT_TYPE_ROLLBACK: _shape(events.Rollback),
    pb.EVENT_TYPE_FLOOR_RAISE: _shape(events.FloorRaise),
    pb.EVENT_TYPE_BLOB_HAVE: _shape(events.BlobHave),
    pb.EVENT_TYPE_BLOB_DROP: _shape(events.BlobDrop),
    pb.EVENT_TYPE_STATE_ATTEST: _shape(events.StateAttest, head_map_digest=HASH, state_digest=HASH),
    pb.EVENT_TYPE_NOTE: _shape(events.Note),
    pb.EVENT_TYPE_ROLLOUT_INTENT: _shape(
        events.RolloutIntent,
        spec=bounded(limits.SPEC_BYTES_MAX),
        mandate=bounded(limits.MANDATE_BYTES_MAX),
    ),
    pb.EVENT_TYPE_ROLLOUT_CONTROL: _shape(
        events.RolloutControl, action=one_of("pause", "resume", "abort"), region=SEGMENT_OR_EMPTY
    ),
    pb.EVENT_TYPE_ROLLOUT_APPROVE: _shape(
        events.RolloutApprove, spec_digest=HASH, role=one_of(*APPROVERS)
    ),
    pb.EVENT_TYPE_ROLLOUT_REPORT: _shape(
        events.RolloutReport, evidence=bounded(limits.EVENT_BYTES_MAX)
    ),
    pb.EVENT_TYPE_HEALTHY: _shape(events.Healthy, spec_digest=HASH, evidence_digest=HASH),
    pb.EVENT_TYPE_RETRAIN: _shape(events.Retrain, cause=one_of(*events.RETRAIN_CAUSES)),
    pb.EVENT_TYPE_RETRAIN_RESULT: _shape(
        events.RetrainResult, outcome=one_of(*events.RETRAIN_OUTCOMES)
    ),
    pb.EVENT_TYPE_RELEASE_RETIRE: _shape(events.ReleaseRetire, phase=one_of(*events.RETIRED)),
}
_NUMBERS = {shape.value: number for number, shape in BODIES.items()}


class EventCodec:
    """`core.events.Codec` over protobuf."""

    def encode(self, event: events.Event) -> bytes:
        """Bytes that decode to exactly this event.

        Raises `TooLarge` above `EVENT_BYTES_MAX` and `InvalidSpec` for what nobody could read.
        """
        if event.body is None:
            raise InvalidSpec("an event that we cannot read is never written again")
        number = _NUMBERS[type(event.body)]
        payload: bytes = BODIES[number].to_message(event.body).SerializeToString()
        raw = _message(event.header, number, payload)
        if len(raw) > limits.EVENT_BYTES_MAX:
            raise TooLarge(
                f"the event has {len(raw)} bytes, more than {limits.EVENT_BYTES_MAX}",
                fix="shorten what it carries, or attest less in it",
            )
        if event.header.min_reader_level <= events.READER_LEVEL and self.decode(raw) != event:
            raise InvalidSpec(f"{type(event.body).__name__} would be read as something else")
        return raw

    def decode(self, raw: bytes) -> events.Event:
        """Raises `InvalidSpec`, and when its body is asked for also `InvalidProof` for a payload
        that is not what the event commits to.

        Oversize is `InvalidSpec` too: the limit is part of the format, and a log that holds
        such a leaf is void from there, which is more than a refused request.
        """
        if len(raw) > limits.EVENT_BYTES_MAX:
            raise InvalidSpec(f"an event of {len(raw)} bytes exceeds {limits.EVENT_BYTES_MAX}")
        message = parse(pb.Event, raw)
        if message.min_reader_level > events.READER_LEVEL:
            return events.Event(_newer_header(message), None)
        shape = BODIES.get(message.type)
        read = partial(_body, shape, message) if shape else None
        return events.Event(_header(message), None, read)


def _message(header: events.Header, number: pb.EventType, payload: bytes) -> bytes:
    try:
        raw: bytes = pb.Event(
            schema=header.schema,
            min_reader_level=header.min_reader_level,
            origin_hash=header.origin_hash,
            seq=header.seq,
            trust_version=header.trust_version,
            trust_digest=header.trust_digest,
            hlc_ms=header.hlc_ms,
            hlc_counter=header.hlc_counter,
            type=number,
            supersedes=[event.raw for event in header.supersedes],
            payload_commitment=events.commitment(header.salt, payload),
            salt=header.salt,
            payload=payload,
            attestations=header.attestations,
        ).SerializeToString()
    except (TypeError, ValueError) as error:
        raise InvalidSpec(f"the event's header cannot be written: {error}") from None
    return raw


_FIELDS = attrgetter(
    *("origin_hash", "seq", "trust_version", "trust_digest", "hlc_ms", "hlc_counter"),
    *("supersedes", "attestations", "salt", "schema", "min_reader_level", "deps"),
)


def _header(message: Wire) -> events.Header:
    # All fields at once: reading a message is a good part of what an event costs.
    place, seq, version, trust, ms, counter, replaced, attested, salt, schema, level, deps = (
        _FIELDS(message)
    )
    if any(len(hash_) != HASH_BYTES for hash_ in (place, trust, salt, *replaced)):
        raise InvalidSpec(f"event {seq}: a hash or salt does not have {HASH_BYTES} bytes")
    if (
        len(deps) > limits.DEPS_MAX
        or len(replaced) > limits.SUPERSEDES_MAX
        or len(attested) > limits.ATTESTATIONS_MAX
    ):
        raise InvalidSpec(f"event {seq} names too many deps, supersedes or attestations")
    supersedes = tuple(map(EventId, replaced)) if replaced else ()
    attestations = tuple(attested) if attested else ()
    return events.Header(
        place, seq, version, trust, ms, counter, supersedes, attestations, salt, schema, level
    )


def _newer_header(message: Wire) -> events.Header:
    """What says whose event it is and where; the rest has rules that we do not know yet."""
    return events.Header(
        origin_hash=message.origin_hash,
        seq=message.seq,
        trust_version=message.trust_version,
        trust_digest=message.trust_digest,
        schema=message.schema,
        min_reader_level=message.min_reader_level,
    )


def _body(shape: Shape, message: Wire) -> events.Body:
    payload = message.payload
    if message.payload_commitment != events.commitment(message.salt, payload):
        raise InvalidProof(f"the payload of event {message.seq} is not what it commits to")
    try:
        body: events.Body = shape.from_message(parse(shape.message, payload))
    except InvalidName as error:
        raise InvalidSpec(str(error)) from None
    return body
