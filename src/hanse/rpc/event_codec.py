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
    DIGEST,
    DIGEST_OR_NONE,
    EVENT_ID,
    HASH,
    HASH_OR_EMPTY,
    ORIGIN_OR_EMPTY,
    PLAIN,
    SEGMENT,
    SEGMENT_OR_EMPTY,
    TEXT,
    VERSION,
    Field,
    Shape,
    Wire,
    bounded,
    one_of,
    parse,
    repeated,
)
from hanse.v1 import event_pb2 as pb

_PLAN = {"model": SEGMENT, "rollout": SEGMENT, "generation": PLAIN}
_BLOBS = {"model": SEGMENT, "digests": repeated(DIGEST)}
_UNDONE = {"from_activation": EVENT_ID, "from_release": DIGEST, "to_release": DIGEST}
_PROOF = {"spec_digest": HASH, "evidence_digest": HASH}
_CAUSE: dict[str, Field] = {"rollout": SEGMENT_OR_EMPTY, "generation": PLAIN}

BODIES: dict[pb.EventType, Shape] = {
    pb.EVENT_TYPE_LOG_OPEN: Shape(
        events.LogOpen,
        pb.LogOpen,
        {
            "incarnation": PLAIN,
            "prev_origin": ORIGIN_OR_EMPTY,
            "prev_size": PLAIN,
            "prev_root": HASH_OR_EMPTY,
            "boot_reason": TEXT,
        },
    ),
    pb.EVENT_TYPE_RELEASE_RECORD: Shape(
        events.ReleaseRecord,
        pb.ReleaseRecord,
        {
            "model": SEGMENT,
            "version": VERSION,
            "counter": PLAIN,
            "manifest": bounded(limits.MANIFEST_BYTES_MAX),
        },
    ),
    pb.EVENT_TYPE_PROMOTE: Shape(
        events.Promote,
        pb.Promote,
        {
            "model": SEGMENT,
            "channel": SEGMENT,
            "region": SEGMENT,
            "release": DIGEST,
            "manifest_size": PLAIN,
            "counter": PLAIN,
            **_CAUSE,
        },
    ),
    pb.EVENT_TYPE_HOLD: Shape(
        events.Hold,
        pb.Hold,
        {
            "model": SEGMENT,
            "region": SEGMENT,
            "release": DIGEST_OR_NONE,
            "reason": TEXT,
            "expires_ms": PLAIN,
            **_CAUSE,
        },
    ),
    pb.EVENT_TYPE_HOLD_LIFT: Shape(
        events.HoldLift, pb.HoldLift, {"model": SEGMENT, "hold": EVENT_ID, "reason": TEXT}
    ),
    pb.EVENT_TYPE_KILL: Shape(
        events.Kill, pb.Kill, {"model": SEGMENT, "release": DIGEST, "reason": TEXT}
    ),
    pb.EVENT_TYPE_ROLLBACK: Shape(
        events.Rollback,
        pb.Rollback,
        {"model": SEGMENT, "channel": SEGMENT, "region": SEGMENT, **_UNDONE, "reason": TEXT},
    ),
    pb.EVENT_TYPE_FLOOR_RAISE: Shape(
        events.FloorRaise, pb.FloorRaise, {"model": SEGMENT, "counter": PLAIN, "reason": TEXT}
    ),
    pb.EVENT_TYPE_BLOB_HAVE: Shape(events.BlobHave, pb.BlobHave, _BLOBS),
    pb.EVENT_TYPE_BLOB_DROP: Shape(events.BlobDrop, pb.BlobDrop, _BLOBS),
    pb.EVENT_TYPE_STATE_ATTEST: Shape(
        events.StateAttest,
        pb.StateAttest,
        {"head_map_digest": HASH, "state_digest": HASH, "trust_version": PLAIN},
    ),
    pb.EVENT_TYPE_NOTE: Shape(events.Note, pb.Note, {"text": TEXT}),
    pb.EVENT_TYPE_ROLLOUT_INTENT: Shape(
        events.RolloutIntent,
        pb.RolloutIntent,
        {
            **_PLAN,
            "release": DIGEST,
            "predecessor": DIGEST_OR_NONE,
            "spec": bounded(limits.SPEC_BYTES_MAX),
            "mandate": bounded(limits.MANDATE_BYTES_MAX),
        },
    ),
    pb.EVENT_TYPE_ROLLOUT_CONTROL: Shape(
        events.RolloutControl,
        pb.RolloutControl,
        {
            **_PLAN,
            "action": one_of("pause", "resume", "abort"),
            "region": SEGMENT_OR_EMPTY,
            "reason": TEXT,
        },
    ),
    pb.EVENT_TYPE_ROLLOUT_APPROVE: Shape(
        events.RolloutApprove,
        pb.RolloutApprove,
        {
            **_PLAN,
            "spec_digest": HASH,
            "stage": SEGMENT,
            "step": PLAIN,
            "role": one_of(*APPROVERS),
            "count": PLAIN,
        },
    ),
    pb.EVENT_TYPE_ROLLOUT_REPORT: Shape(
        events.RolloutReport,
        pb.RolloutReport,
        {
            **_PLAN,
            "release": DIGEST,
            "region": SEGMENT,
            "state": TEXT,
            "stage": PLAIN,
            "step": PLAIN,
            "verdict": TEXT,
            "reason": TEXT,
            "evidence": bounded(limits.EVENT_BYTES_MAX),
        },
    ),
    pb.EVENT_TYPE_HEALTHY: Shape(
        events.Healthy, pb.Healthy, {**_PLAN, "release": DIGEST, "region": SEGMENT, **_PROOF}
    ),
    pb.EVENT_TYPE_RETRAIN: Shape(
        events.Retrain,
        pb.Retrain,
        {
            "model": SEGMENT,
            "region": SEGMENT,
            "release": DIGEST,
            "hold": EVENT_ID,
            "cause": one_of(*events.RETRAIN_CAUSES),
            "reason": TEXT,
        },
    ),
    pb.EVENT_TYPE_RETRAIN_RESULT: Shape(
        events.RetrainResult,
        pb.RetrainResult,
        {
            "model": SEGMENT,
            "region": SEGMENT,
            "retrain": EVENT_ID,
            "outcome": one_of(*events.RETRAIN_OUTCOMES),
            "release": DIGEST_OR_NONE,
            "reason": TEXT,
        },
    ),
    pb.EVENT_TYPE_RELEASE_RETIRE: Shape(
        events.ReleaseRetire,
        pb.ReleaseRetire,
        {"model": SEGMENT, "release": DIGEST, "phase": one_of(*events.RETIRED), "reason": TEXT},
    ),
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
