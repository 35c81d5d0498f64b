"""Good bytes of every format, to begin from, and what Python's own readers are too kind to."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import daemons
from hand_federation import FIRST, MODEL, Federation
from parts.models import external_model, onnx_model, safetensors

from hanse.core import ticket
from hanse.core.audit.export import seal
from hanse.core.audit.paths import Index
from hanse.core.dsse import sign_envelope
from hanse.core.encoding import to_base64
from hanse.core.events import Event, HoldLift, Kill, Note, ReleaseRecord, Rollback, RolloutIntent
from hanse.core.gossip.frames import (
    Announce,
    Chunk,
    Fingerprints,
    Heads,
    Hello,
    HelloProof,
    LogHead,
    Ping,
    Pull,
    Range,
    TrustFile,
)
from hanse.core.ids import Digest, EventId, Segment, member_id, parse_member_id
from hanse.core.log.merkle import Frontier, leaf_hash
from hanse.core.log.policy import default_policy
from hanse.core.log.proofs import consistency_proof, inclusion_proof
from hanse.core.log.tiles import bundle
from hanse.core.log.tlog_proof import TlogProof
from hanse.core.reading import canonical_json
from hanse.core.signing import SigningKey
from hanse.core.telemetry import Counts, ModelReport, Pairs, Report, Window
from hanse.core.ticket import Ticket
from hanse.core.trust.bundle import parse_bundle
from hanse.core.trust.members import Member
from hanse.daemon import config as daemon_config
from hanse.daemon.join_request import sign_request
from hanse.daemon.queries import QUERIES
from hanse.edge import config as edge_config
from hanse.parts.payload import Base
from hanse.parts.payload import encode as encode_payload
from hanse.parts.recipe import Part, Tensor, split
from hanse.rpc import certificates
from hanse.rpc.codec import EventCodec, encode_frame
from hanse.v1 import blob_pb2, edge_pb2

CODEC = EventCodec()
TRAPS = (
    b"\xc2\x85",  # str.splitlines ends a line here
    b"\xe2\x80\xa8",  # and here
    b"\x1c", b"\x0b", b"\x0c", b"\r", b"\r\n",
    b"1_0", b"+1", b" 1", b"-0", b"00", b"1e3", b"\xd9\xa1",  # int() takes all but one of these
    b"\xc2\xb2",  # str.isdigit
    b"QR==",  # base64 with bits that should be zero
    b"QQ", b"=", b"====",
    b"NaN", b"Infinity", b"-Infinity", b'{"a":1,"a":2}', b"\\ud800", b"\\u0000",
    b"\0", b"..", b"%2e%2e", b"/", b"\\", b"#", b"\xef\xbb\xbf",
    b"\xe2\x80\xae", b"\xe2\x81\xa6", b"\x1b[2J",
    b"\xff", b"\xed\xa0\x80", b"\x0b" * 64, b"[" * 64, b"9" * 400, b"1" + b"0" * 19,
)  # fmt: skip
"""Seeded into every decoder."""


@cache
def town() -> Federation:
    made = Federation()
    release = made.publish("3.0.0")
    made.roll_out("r-1", 1, release, None, **FIRST)
    made.run(20.0)
    made.propose("eu-north", Note("with \u2028 and \u202e in it"))
    return made


@cache
def events() -> tuple[bytes, ...]:
    """One of each kind that the town wrote, and of some that it did not."""
    found: dict[str, bytes] = {}
    for append in town().appends.values():
        for raw in append.events:
            found.setdefault(type(CODEC.decode(raw).body).__name__, raw)
    header = CODEC.decode(next(iter(found.values()))).header
    digest = Digest.of(b"release")
    for body in (
        HoldLift(MODEL, EventId(bytes(32)), "over"),
        Kill(MODEL, digest, "bad"),
        Rollback(MODEL, Segment("eu-north"), EventId(bytes(32)), digest, digest, "bad"),
    ):
        found[type(body).__name__] = CODEC.encode(Event(header, body))
    return tuple(found.values())


def body_of(kind: type[Any]) -> Any:
    return next(b for b in (CODEC.decode(raw).body for raw in events()) if isinstance(b, kind))


def manifest() -> bytes:
    return bytes(body_of(ReleaseRecord).manifest)


def spec() -> bytes:
    return bytes(body_of(RolloutIntent).spec)


@cache
def signed_head() -> tuple[bytes, str, bytes]:
    """A note, its origin, and the key that signed it."""
    head = next(iter(town().appends.values())).head
    member = town().node("eu-north").book.chain.current.member(head.origin.member)
    assert member is not None
    return head.note, str(head.origin), member.key


def trust_file() -> bytes:
    return town().node("eu-north").book.chain.files[0]


def trust_files() -> dict[str, bytes]:
    return dict(parse_bundle(trust_file()).files)


@cache
def envelope() -> tuple[bytes, SigningKey]:
    key = SigningKey(bytes(32))
    return sign_envelope("application/vnd.hanse.control+json", b'{"a":1}', [key]), key


@cache
def signed_ticket() -> tuple[bytes, SigningKey]:
    key = SigningKey(bytes(32))
    for_whom = Ticket(Segment("dock-7"), bytes(32), Digest.of(b"r"), Digest.of(b"f"), 2**40)
    return ticket.sign(for_whom, key), key


def frames() -> Iterable[bytes]:
    append = next(iter(town().appends.values()))
    origin, note = append.head.origin, append.head.note
    head = LogHead(origin, 3, bytes(8), 2)
    for frame in (
        Hello("hansa", origin, 1, bytes(32), b"n" * 16, bytes(32)),
        HelloProof(bytes(64)),
        Heads((head, head), (b"\1\2", b"")),
        Fingerprints((Range(b"\1", bytes(128)), Range(b"", bytes(128)))),
        Announce(origin, note, 0, append.events),
        Announce(origin, note, 1),
        Pull(origin, 7),
        Chunk(origin, 0, append.events * 3, note),
        TrustFile(2, 0, 3, trust_file()[:500]),
        Ping(bytes(32), 1),
    ):
        yield encode_frame(frame)


def inclusion_proofs(leaves: list[bytes]) -> Iterable[bytes]:
    for size in (1, 2, 3, 7, 8, 20):
        for index in sorted({0, size // 2, size - 1}):
            yield bytes([index, size]) + b"".join(inclusion_proof(leaves[:size], index))


def consistency_proofs(leaves: list[bytes]) -> Iterable[bytes]:
    for new in (1, 2, 7, 8, 20):
        for old in sorted({0, 1, new // 2, new - 1, new}):
            yield bytes([old, new]) + b"".join(consistency_proof(leaves[:new], old))


def checkpoint() -> bytes:
    return signed_head()[0].partition(b"\n\n")[0] + b"\n"


def verifier_keys() -> Iterable[bytes]:
    lines = next(iter(policies())).split(b"\n")
    return [line.split()[2] for line in lines if line.startswith(b"witness")]


def policies() -> Iterable[bytes]:
    regions = {
        Segment(f"r{i}"): {parse_member_id(f"{i:032x}"): SigningKey(bytes([i]) * 32).public}
        for i in range(1, 5)
    }
    yield default_policy(Segment("hansa"), regions).encode()
    yield b"quorum none\n"


def proofs_of_events() -> Iterable[bytes]:
    append = next(iter(town().appends.values()))
    path = inclusion_proof(tuple(map(leaf_hash, append.events)), 0)
    yield TlogProof(0, path, append.head.note, append.events[0]).render()
    yield TlogProof(7, (bytes(32),) * 3, append.head.note).render()


def frontiers() -> Iterable[bytes]:
    for size in (0, 1, 7, 8):
        yield Frontier.empty().append(tuple(map(leaf_hash, [b"x"] * size))).encode()


def bundles() -> Iterable[bytes]:
    for entries in ((b"",), (b"one", b"two" * 100)):
        yield bytes([len(entries) - 1]) + bundle(entries)


def control_lines() -> Iterable[bytes]:
    for verb in QUERIES:
        yield canonical_json({"verb": verb})
        yield canonical_json({"verb": verb, "model": MODEL, "version": "3.0.0"})
    yield canonical_json({"verb": "why", "model": MODEL, "version": "3.0.0", "region": "eu-north"})


def reports() -> Iterable[bytes]:
    counts = Counts(requests=20, errors=1, labelled=10, wrong=1)
    window = Window(MODEL, Segment("r-1"), 1, 2000, 10_000, counts, counts, counts, Pairs(agree=20))
    digest = Digest.of(b"release")
    model = ModelReport(MODEL, digest, ready=(digest,), failed={digest: "why"}, windows=(window,))
    yield Report(Segment("n1"), 1, 17, (model,)).encode()


def assignments() -> Iterable[bytes]:
    for write in town().node("eu-north").region.duty.writes():
        yield bytes(getattr(write, "value", b""))


def names() -> Iterable[bytes]:
    note, origin, _ = signed_head()
    digest = str(Digest.of(note))
    for name in ("eu-north", "4.0.0-rc1", origin, digest, "127.0.0.1:7420", "[::1]:7420", "h.x:1"):
        yield name.encode()


def paths() -> Iterable[bytes]:
    _, origin, _ = signed_head()
    tails = ("checkpoint", "final", "tile/0/000.p/1", "tile/entries/000.p/1", "tile/1/x001/234")
    yield from (path.encode() for path in ("logs", "trust/1", *tails))
    yield from (f"log/{origin}/{tail}".encode() for tail in tails)
    yield from (f"{origin}/{tail}".encode() for tail in tails)


def join_requests() -> Iterable[bytes]:
    keys = SigningKey(bytes([1]) * 32), SigningKey(bytes([2]) * 32)
    uri = certificates.daemon_uri("hansa", "eu-north", member_id(keys[0].public))
    identity = certificates.authority(uri, certificates.from_now(daemons.NOW, daemons.DAY), "d")
    member = Member(
        Segment("eu-north"), keys[0].public, identity.cert_pem.decode(), "h:1", keys[1].public
    )
    yield sign_request(Segment("hansa"), member, daemons.edge_ca(), keys)


def shown_certificates() -> Iterable[bytes]:
    authority = daemons.edge_ca()
    yield daemons.daemon(1).identity.cert_pem
    yield daemons.daemon(1).authority.cert_pem
    yield daemons.node("n1", authority).cert_pem
    yield authority.cert_pem


def fetch_requests() -> Iterable[bytes]:
    digest = bytes(32)
    for offset in (0, 2**64 - 1):
        message = blob_pb2.FetchRequest(digest=digest, release=digest, offset=offset)
        yield message.SerializeToString()


def report_requests() -> Iterable[bytes]:
    for raw in reports():
        message = edge_pb2.ReportRequest(node="n1", boot_nonce=b"boot", seq=1, report=raw)
        yield message.SerializeToString()


def indexes() -> Iterable[bytes]:
    append = next(iter(town().appends.values()))
    origin = append.head.origin
    yield Index(Segment("hansa"), {origin: 7}, {origin: 3}, 1, forked=(origin,)).encode()


def daemon_toml() -> bytes:
    values = {"federation": "hansa", "region": "eu-north", "listen": "127.0.0.1:7420"}
    return daemon_config.render(values).encode()


def agent_toml() -> bytes:
    values = {"node": "n1", "federation": "hansa", "region": "eu-north", "daemon": "127.0.0.1:7420"}
    key = to_base64(signed_head()[2])
    return edge_config.render({**values, "daemon_key": key}, {"site": "dock"}).encode()


def seals() -> Iterable[bytes]:
    yield seal({"logs": Digest.of(b"x"), "trust/1": Digest.of(b"y")})


def model_files() -> Iterable[bytes]:
    yield onnx_model()[:20_000]
    yield onnx_model()
    yield safetensors({"a": ("F32", [200], bytes(800)), "b": ("BF16", [400], b"xy" * 400)})
    yield external_model("weights.bin", [1000, 2000])


def recipes() -> Iterable[bytes]:
    yield from (split(raw).encode() for raw in (b"", b"no model", *model_files()))


@cache
def tuned_parts() -> tuple[tuple[Part, bytes, Base], ...]:
    """A text and small tensors, each with the one that an ancestor has in its place."""
    found = []
    old = bytes(range(250)) * 4
    for dtype, width in (("", 1), ("F32", 4), ("F16", 2), ("I8", 1)):
        for step in (1, 100):
            new = bytearray(old)
            for at in range(0, len(new), step):
                new[at] ^= 1
            tensor = Tensor(40, dtype, (960 // width,), "w", 0) if dtype else None
            one, two = (Part(Digest.of(bytes(raw)), len(raw), tensor) for raw in (old, new))
            found.append((two, bytes(new), Base(one, old)))
    return tuple(found)


def payloads() -> Iterable[bytes]:
    for number, (part, data, base) in enumerate(tuned_parts()):
        yield bytes([number]) + encode_payload(part, data, base)
        yield bytes([number]) + encode_payload(part, data)
