"""The boundary with protobuf: every value survives it, no stranger's bytes break it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core import events, limits
from hanse.core.errors import InvalidProof, InvalidSpec, Rejected, TooLarge
from hanse.core.gossip import frames
from hanse.core.gossip.heads import DEPTH, FAN
from hanse.core.gossip.reconcile import FINGERPRINT_BYTES
from hanse.core.ids import Digest, EventId, Origin, Segment, member_id, segment, version
from hanse.core.rollout.plan import APPROVERS
from hanse.rpc.codec import EventCodec, decode_frame, encode_frame, require_upb
from hanse.rpc.event_codec import BODIES
from hanse.rpc.frame_codec import FRAMES
from hanse.v1 import event_pb2, sync_pb2

CODEC = EventCodec()
ORIGIN = Origin(Segment("hansa"), Segment("eu-north"), member_id(bytes(32)), 1)

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
hashes = st.binary(min_size=32, max_size=32)
segments = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,63}", fullmatch=True).map(segment)
versions = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True).map(version)
digests = hashes.map(Digest.from_bytes)
origins = st.builds(
    lambda *name: Origin(*name, f"{name[3] % 2**32:08x}" if name[3] > 1 else ""),
    segments,
    segments,
    hashes.map(member_id),
    st.integers(1, 10**9 - 1),
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=100)
batches = st.lists(st.binary(max_size=300), max_size=8).map(tuple)

# By field name where the type alone does not say which values are allowed.
NAMED: dict[str, st.SearchStrategy[Any]] = {
    "prev_origin": st.just("") | origins.map(str),
    "prev_root": st.just(b"") | hashes,
    "action": st.sampled_from(["pause", "resume", "abort"]),
    "manifest": st.binary(max_size=limits.MANIFEST_BYTES_MAX),
    "spec": st.binary(max_size=limits.SPEC_BYTES_MAX),
    "evidence": st.binary(max_size=500),
    "role": st.sampled_from(APPROVERS),
    "cause": st.sampled_from(events.RETRAIN_CAUSES),
    "outcome": st.sampled_from(events.RETRAIN_OUTCOMES),
    "phase": st.sampled_from(events.RETIRED),
    "mandate": st.binary(max_size=limits.MANDATE_BYTES_MAX),
    "nonce": st.binary(min_size=16, max_size=32),
    "signature": st.binary(min_size=64, max_size=64),
    "root_prefix": st.binary(min_size=8, max_size=8),
    "trust_prefix": st.binary(min_size=8, max_size=8),
    "note": st.binary(max_size=1000),
    "data": st.binary(max_size=1000),
    "events": batches,
    "federation": segments,
    "kind": segments,
    **dict.fromkeys(["incarnation", "hlc_counter", "stage", "step", "protocol"], u32),
    **dict.fromkeys(["reader_level", "schema", "count"], u32),
}


def values(cls: type[Any], **fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Any legal value of a core dataclass, from its annotations."""
    by_type: dict[Any, st.SearchStrategy[Any]] = {
        int: u64,
        bool: st.booleans(),
        bytes: hashes,
        str: texts,
        Digest: digests,
        Digest | None: st.none() | digests,
        EventId: hashes.map(EventId),
        Origin: origins,
        Segment: segments,
        events.Version: versions,
        tuple[Digest, ...]: st.lists(digests, max_size=5).map(tuple),
    }
    hints = typing.get_type_hints(cls)
    optional_names = {"region": "", "rollout": ""}
    chosen = {}
    for name, hint in hints.items():
        strategy = {**(NAMED if hint is not Segment else {}), **fixed}.get(name)
        if strategy is None and name in optional_names and hint is str:
            strategy = st.just("") | segments
        chosen[name] = strategy if strategy is not None else by_type[hint]
    return st.builds(cls, **chosen)


bodies = st.one_of([values(shape.value) for shape in BODIES.values()])
headers = values(
    events.Header,
    supersedes=st.lists(hashes.map(EventId), max_size=limits.SUPERSEDES_MAX).map(tuple),
    attestations=st.lists(st.binary(max_size=100), max_size=limits.ATTESTATIONS_MAX).map(tuple),
    min_reader_level=st.integers(0, events.READER_LEVEL),
)
some_heads = st.lists(values(frames.LogHead), max_size=20).map(tuple)


def prefixes(digits_max: int) -> st.SearchStrategy[bytes]:
    return st.lists(st.integers(0, FAN - 1), max_size=digits_max).map(bytes)


frame_values = st.one_of(
    [
        values(
            frames.Heads,
            heads=some_heads,
            below=st.lists(prefixes(DEPTH), max_size=20).map(tuple),
        )
        if shape.value is frames.Heads
        else values(
            frames.Fingerprints,
            ranges=st.lists(
                st.builds(
                    frames.Range,
                    prefixes(DEPTH - 1),
                    st.binary(min_size=16 * FINGERPRINT_BYTES, max_size=16 * FINGERPRINT_BYTES),
                ),
                max_size=5,
            ).map(tuple),
        )
        if shape.value is frames.Fingerprints
        else values(frames.Hello, yours=some_heads)
        if shape.value is frames.Hello
        else st.builds(
            frames.TrustFile, u64, st.integers(0, 9), st.just(10), st.binary(max_size=99)
        )
        if shape.value is frames.TrustFile
        else values(shape.value)
        for shape in FRAMES.values()
    ]
)


def header(**changes: Any) -> events.Header:
    plain = events.Header(ORIGIN.hash, seq=3, trust_version=1, trust_digest=bytes(32))
    return plain._replace(**changes)


def read(raw: bytes) -> events.Event:
    """Decode an event with its body, which is otherwise read when it is asked for."""
    event = CODEC.decode(raw)
    assert event.body is not None or not event.readable
    return event


def message(**changes: Any) -> event_pb2.Event:
    """A valid event as a message, to be spoilt by a test."""
    raw = CODEC.encode(events.Event(header(), events.Note("hello")))
    result = event_pb2.Event.FromString(raw)
    for name, value in changes.items():
        setattr(result, name, value)
    return result


def payload_of(number: int, payload: bytes) -> bytes:
    """An event of this type whose commitment fits, whatever the payload."""
    return message(
        type=number, payload=payload, payload_commitment=events.commitment(bytes(32), payload)
    ).SerializeToString()


def test_every_body_and_frame_has_a_row() -> None:
    assert {s.value for s in BODIES.values()} == set(typing.get_args(events.Body))
    assert {s.value for s in FRAMES.values()} == set(typing.get_args(frames.Frame))


@pytest.mark.parametrize(
    "shape", [*BODIES.values(), *FRAMES.values()], ids=lambda s: s.message.__name__
)
def test_every_field_of_value_and_message_is_in_the_row(shape: Any) -> None:
    assert set(shape.fields) == {f.name for f in dataclasses.fields(shape.value)}
    assert set(shape.fields) == {f.name for f in shape.message.DESCRIPTOR.fields}


@given(headers, bodies)
def test_an_event_survives_the_wire(head: events.Header, body: events.Body) -> None:
    event = events.Event(head, body)
    assert CODEC.decode(CODEC.encode(event)) == event


@pytest.mark.parametrize("shape", BODIES.values(), ids=lambda s: s.value.__name__)
def test_each_body_type_survives_the_wire(shape: Any) -> None:
    @settings(max_examples=10)
    @given(values(shape.value))
    def check(body: events.Body) -> None:
        assert CODEC.decode(CODEC.encode(events.Event(header(), body))).body == body

    check()


@given(frame_values)
def test_a_frame_survives_the_wire(frame: frames.Frame) -> None:
    assert decode_frame(encode_frame(frame)) == frame


def test_request_and_response_have_one_wire_form() -> None:
    raw = encode_frame(frames.Ping(bytes(32)))
    assert sync_pb2.LinkResponse.FromString(raw).frame.ping.head_map_digest == bytes(32)


@given(st.binary(max_size=300))
def test_any_bytes_are_an_event_or_rejected(raw: bytes) -> None:
    with contextlib.suppress(InvalidProof, InvalidSpec):
        read(raw)


@given(st.sampled_from(list(BODIES)), st.binary(max_size=200))
def test_any_payload_is_a_body_or_invalid(number: int, payload: bytes) -> None:
    with contextlib.suppress(InvalidSpec):
        assert CODEC.decode(payload_of(number, payload)).body is not None


@given(headers, bodies, st.data())
def test_a_flipped_byte_never_raises_anything_else(
    head: events.Header, body: events.Body, data: st.DataObject
) -> None:
    raw = bytearray(CODEC.encode(events.Event(head, body)))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(InvalidProof, InvalidSpec):
        read(bytes(raw))


@given(st.binary(max_size=300) | frame_values.map(encode_frame), st.binary(max_size=20))
def test_any_bytes_are_a_frame_or_rejected(raw: bytes, tail: bytes) -> None:
    with contextlib.suppress(Rejected):
        decode_frame(raw + tail)


@pytest.mark.parametrize("opening", [b"\x0b", b"\x0a\x7f", b"\x73"])
def test_deep_nesting_is_refused(opening: bytes) -> None:
    deep = opening * 5_000
    with pytest.raises(InvalidSpec):
        read(deep)
    with pytest.raises(Rejected):
        decode_frame(opening * 100_000)
    with pytest.raises(InvalidSpec):
        read(payload_of(14, deep))


def test_a_wrong_commitment_is_an_invalid_proof() -> None:
    for spoilt in (
        message(payload=b"\x0a\x01x"),
        message(salt=b"\x01" * 32),
        message(payload_commitment=bytes(32)),
    ):
        with pytest.raises(InvalidProof):
            read(spoilt.SerializeToString())


@pytest.mark.parametrize("number", [0, 9, 12, 99, 2**31 - 1])
def test_an_unknown_type_has_no_body(number: int) -> None:
    event = CODEC.decode(payload_of(number, b"\xff" * 40))
    assert event.body is None
    assert not event.readable
    assert event.header == header()


def test_a_newer_reader_level_has_no_body_whatever_its_rules() -> None:
    raw = message(min_reader_level=2, payload_commitment=b"new", salt=b"", seq=7)
    raw.supersedes.extend([b"short"] * 40)
    event = CODEC.decode(raw.SerializeToString())
    assert (event.body, event.readable) == (None, False)
    assert (event.header.seq, event.header.min_reader_level) == (7, 2)


def test_unknown_fields_do_not_disturb() -> None:
    extra = b"\xfa\x3e\x03new"  # field 1007, length 3
    raw = CODEC.encode(events.Event(header(), events.Note("hello")))
    assert CODEC.decode(raw + extra) == CODEC.decode(raw)
    payload = event_pb2.Note(text="hello").SerializeToString() + extra
    assert CODEC.decode(payload_of(14, payload)).body == events.Note("hello")


@pytest.mark.parametrize(
    ("number", "body"),
    [
        (3, event_pb2.Promote(model="../x", channel="stable", region="eu", release=bytes(32))),
        (3, event_pb2.Promote(model="m", channel="stable", region="eu", release=bytes(31))),
        (3, event_pb2.Promote(model="m", channel="", region="eu", release=bytes(32))),
        (6, event_pb2.Kill(model="m", release=b"")),
        (7, event_pb2.Rollback(model="m", channel="stable", region="eu", from_activation=b"x")),
        (14, event_pb2.Note(text="x" * 513)),
        (1, event_pb2.LogOpen(prev_origin="somewhere")),
        (2, event_pb2.ReleaseRecord(model="m", version="1", manifest=bytes(12 * 1024 + 1))),
        (15, event_pb2.RolloutIntent(model="m", rollout="r", spec=bytes(8 * 1024 + 1))),
        (16, event_pb2.RolloutControl(model="m", rollout="r", action="explode")),
        (15, event_pb2.RolloutIntent(model="m", rollout="r", mandate=bytes(1025))),
        (20, event_pb2.Retrain(model="m", region="eu", release=bytes(32), cause="bored")),
        (22, event_pb2.ReleaseRetire(model="m", release=bytes(32), phase="buried")),
        (13, event_pb2.StateAttest(head_map_digest=b"", state_digest=bytes(32))),
    ],
)
def test_a_malformed_body_is_an_invalid_spec(number: int, body: Any) -> None:
    with pytest.raises(InvalidSpec):
        read(payload_of(number, body.SerializeToString()))


@pytest.mark.parametrize(
    ("name", "most"),
    [("supersedes", limits.SUPERSEDES_MAX), ("attestations", limits.ATTESTATIONS_MAX)],
)
def test_a_list_may_be_full_and_no_fuller(name: str, most: int) -> None:
    raw = message()
    getattr(raw, name).extend([bytes(32)] * most)
    read(raw.SerializeToString())
    getattr(raw, name).append(bytes(32))
    with pytest.raises(InvalidSpec):
        read(raw.SerializeToString())


def test_an_event_may_have_16_kib_and_not_a_byte_more() -> None:
    def sized(extra: int) -> events.Event:
        return events.Event(header(attestations=(bytes(extra),)), events.Note("x"))

    room = limits.EVENT_BYTES_MAX - len(CODEC.encode(sized(10_000))) + 10_000
    assert len(CODEC.encode(sized(room))) == limits.EVENT_BYTES_MAX
    with pytest.raises(TooLarge):
        CODEC.encode(sized(room + 1))
    with pytest.raises(InvalidSpec):
        read(bytes(limits.EVENT_BYTES_MAX + 1))


def test_a_whole_event_that_is_too_long_is_refused() -> None:
    """Sound but for its length: a field that a later version may add fills it up."""

    def filled(size: int) -> bytes:
        whole = message().SerializeToString()
        padding = size - len(whole) - 4  # tag and length: two bytes each
        tag = (1000 << 3) | 2
        varints = [
            b & 0x7F | 0x80 if i == 0 else b
            for n in (tag, padding)
            for i, b in enumerate((n & 0x7F, n >> 7))
        ]
        return whole + bytes(varints) + bytes(padding)

    read(filled(limits.EVENT_BYTES_MAX))
    with pytest.raises(InvalidSpec, match="exceeds"):
        read(filled(limits.EVENT_BYTES_MAX + 1))


@pytest.mark.parametrize(
    "event",
    [
        events.Event(header(), None),
        events.Event(header(), events.Note("x" * 513)),
        events.Event(header(), events.Note("\ud800")),
        events.Event(header(seq=-1), events.Note("x")),
        events.Event(header(salt=b"short"), events.Note("x")),
        events.Event(header(), events.Kill(Segment("Not A Name"), Digest.of(b""), "r")),
    ],
)
def test_what_a_peer_would_refuse_is_never_written(event: events.Event) -> None:
    with pytest.raises(InvalidSpec):
        CODEC.encode(event)


def ranges(prefix: bytes, parts: bytes) -> sync_pb2.Fingerprints:
    return sync_pb2.Fingerprints(ranges=[sync_pb2.Range(prefix=prefix, parts=parts)])


def test_a_frame_is_bounded_in_every_direction() -> None:
    event = bytes(limits.EVENT_BYTES_MAX)
    full = frames.Chunk(ORIGIN, 0, (event,) * 15, b"")
    assert decode_frame(encode_frame(full)) == full
    for events_ in ((event,) * 16, (b"x",) * 257, (event + b"x",)):
        spoilt = sync_pb2.LinkRequest(
            frame=sync_pb2.Frame(chunk=sync_pb2.Chunk(origin=str(ORIGIN), events=events_))
        ).SerializeToString()
        with pytest.raises(TooLarge):
            decode_frame(spoilt)
    with pytest.raises(TooLarge):
        decode_frame(bytes(limits.FRAME_BYTES_MAX + 1))
    with pytest.raises(TooLarge):
        encode_frame(frames.Chunk(ORIGIN, 0, (bytes(limits.FRAME_BYTES_MAX),), b""))


@pytest.mark.parametrize(
    "frame",
    [
        sync_pb2.Frame(),
        sync_pb2.Frame(pull=sync_pb2.Pull(origin="../../etc")),
        sync_pb2.Frame(ping=sync_pb2.Ping(head_map_digest=b"short")),
        sync_pb2.Frame(heads=sync_pb2.Heads(below=[b"\1\2\3\4"])),
        sync_pb2.Frame(heads=sync_pb2.Heads(below=[b"\x10"])),
        sync_pb2.Frame(fingerprints=ranges(b"\1\2\3", bytes(128))),
        sync_pb2.Frame(fingerprints=ranges(b"\xff", bytes(128))),
        sync_pb2.Frame(fingerprints=ranges(b"", bytes(127))),
        sync_pb2.Frame(trust_file=sync_pb2.TrustFile(part=2, parts=2)),
        sync_pb2.Frame(hello_proof=sync_pb2.HelloProof(signature=bytes(63))),
        sync_pb2.Frame(announce=sync_pb2.Announce(origin=str(ORIGIN), note=bytes(64 * 1024 + 1))),
    ],
)
def test_a_malformed_frame_is_rejected(frame: sync_pb2.Frame) -> None:
    with pytest.raises(Rejected):
        decode_frame(sync_pb2.LinkRequest(frame=frame).SerializeToString())


def test_a_daemon_refuses_the_pure_python_parser() -> None:
    require_upb()
    code = "from hanse.rpc.codec import require_upb; require_upb()"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    assert "not on upb" in result.stderr
