"""Every decoder of foreign bytes as one function of bytes, with bytes to begin from.

A decoder accepts, or raises `Rejected`; any other exception is a find. What it accepts must
keep the promise of its format: mostly, that it renders to the very bytes that were read, since
two readers of one signed text must not see two texts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from audited import run, stored
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from fuzz import samples
from fuzz.samples import CODEC, town
from hanse.core import limits
from hanse.core.assignment import parse_assignment
from hanse.core.audit.export import parse_seal, seal
from hanse.core.audit.paths import parse_index
from hanse.core.catalog.manifest import parse_manifest
from hanse.core.dsse import open_envelope
from hanse.core.errors import InvalidSignature, Rejected
from hanse.core.ids import (
    Digest,
    Origin,
    Segment,
    check_address,
    member_id,
    parse_member_id,
    segment,
    version,
)
from hanse.core.log.checkpoint import Checkpoint, open_checkpoint
from hanse.core.log.merkle import EMPTY_ROOT, Frontier, leaf_hash, root_of
from hanse.core.log.note import Note, VerifierKey
from hanse.core.log.policy import parse_policy
from hanse.core.log.proofs import (
    consistency_proof,
    inclusion_proof,
    verify_consistency,
    verify_inclusion,
)
from hanse.core.log.tiles import Tile, bundle, entries_of
from hanse.core.log.tlog_proof import TlogProof
from hanse.core.reading import canonical_json, parse_json
from hanse.core.rollout.spec import canonical, parse_spec
from hanse.core.signing import admit_public_key
from hanse.core.telemetry import parse_report
from hanse.core.ticket import open_ticket
from hanse.core.ticket import sign as sign_ticket
from hanse.core.trust import chain
from hanse.core.trust.bundle import parse_bundle
from hanse.core.trust.documents import (
    CUTS,
    FLOORS,
    MEMBERS,
    POLICY,
    RESIDENCY,
    read_cuts,
    read_shared,
)
from hanse.core.trust.metadata import read as read_metadata
from hanse.daemon import config as daemon_config
from hanse.daemon.join_request import read_request
from hanse.daemon.queries import QUERIES
from hanse.edge import config as edge_config
from hanse.gateways.log_files import LogFiles
from hanse.parts.payload import decode as decode_payload
from hanse.parts.recipe import parse_recipe, split
from hanse.rpc import tls
from hanse.rpc.codec import decode_frame, encode_frame
from hanse.rpc.fields import parse as parse_protobuf
from hanse.v1 import blob_pb2, edge_pb2

LEAVES = [leaf_hash(b"%d" % number) for number in range(20)]
BYTES_MAX = 64 * 1024


@dataclass(frozen=True)
class Decoder:
    name: str
    read: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    slow: bool = False  # milliseconds an input: fewer of them in a default run

    def fuzz_one(self, raw: bytes) -> bool:
        """Whether it was accepted. Raises only if the decoder is wrong."""
        try:
            self.read(raw)
        except Rejected:
            return False
        return True


def text_of(raw: bytes) -> str:
    """A text as it may come from a socket, a file name or a command line."""
    return raw.decode("utf-8", "surrogateescape")


# -- events, frames, requests ------------------------------------------------------------------


def event(raw: bytes) -> None:
    found, again = CODEC.decode(raw), CODEC.decode(raw)
    assert found == again
    assert found.body == again.body
    assert len(raw) <= limits.EVENT_BYTES_MAX


def frame(raw: bytes) -> None:
    found = decode_frame(raw)
    assert decode_frame(encode_frame(found)) == found
    assert len(raw) <= limits.FRAME_BYTES_MAX


def fetch_request(raw: bytes) -> None:
    """A digest, a release, and from which byte on."""
    found = parse_protobuf(blob_pb2.FetchRequest, raw)
    assert Digest.from_bytes(found.digest).raw == found.digest
    Digest.from_bytes(found.release)
    assert 0 <= found.offset < 2**64


def report_request(raw: bytes) -> None:
    report(parse_protobuf(edge_pb2.ReportRequest, raw).report)


# -- logs --------------------------------------------------------------------------------------


def note(raw: bytes) -> None:
    assert Note.parse(raw).render() == raw


def checkpoint(raw: bytes) -> None:
    text = text_of(raw)
    assert Checkpoint.parse(text).body() == text


def signed_checkpoint(raw: bytes) -> None:
    """Only the text that the key signed opens; others may add lines of their own."""
    good, origin, public = samples.signed_head()
    assert open_checkpoint(raw, origin, public) == open_checkpoint(good, origin, public)


def vkey(raw: bytes) -> None:
    text = text_of(raw)
    key = VerifierKey.parse(text)
    assert key.encode() == text
    admit_public_key(key.public)


def policy(raw: bytes) -> None:
    found = parse_policy(text_of(raw))
    publics = {witness.key.public for witness in found.witnesses}
    assert len(publics) == len(found.witnesses), "one key under two names would count twice"
    assert not found.satisfied(())
    if not found.requires_nothing and found.satisfied(found.keys):
        assert found.liars_tolerated >= -1
        assert found.losses_tolerated >= 0


def inclusion(raw: bytes) -> None:
    """Two numbers, then hashes of 32 bytes, against the true tree."""
    index, size, proof = _numbers(raw)
    leaf = LEAVES[index] if index < len(LEAVES) else bytes(32)
    verify_inclusion(leaf, index, size, proof, root_of(LEAVES[:size]))
    assert tuple(proof) == inclusion_proof(LEAVES[:size], index), "one proof and no other"


def consistency(raw: bytes) -> None:
    old, new, proof = _numbers(raw)
    roots = [root_of(LEAVES[:size]) if size else EMPTY_ROOT for size in (old, new)]
    verify_consistency(old, new, proof, *roots)
    assert tuple(proof) == consistency_proof(LEAVES[:new], old), "one proof and no other"


def _numbers(raw: bytes) -> tuple[int, int, list[bytes]]:
    first, second, rest = raw[:1], raw[1:2], raw[2:]
    most = len(LEAVES) + 1
    hashes = [rest[i : i + 32] for i in range(0, len(rest), 32)]
    return int.from_bytes(first, "big") % most, int.from_bytes(second, "big") % most, hashes


def frontier(raw: bytes) -> None:
    assert Frontier.decode(raw).encode() == raw


def tlog_proof(raw: bytes) -> None:
    found = TlogProof.parse(raw)
    assert found.render() == raw
    found.verify(found.checkpoint)


def tile_path(raw: bytes) -> None:
    text = text_of(raw)
    assert Tile.parse(text).path == text


def tile_entries(raw: bytes) -> None:
    width, rest = raw[:1], raw[1:]
    tile = Tile(-1, 0, int.from_bytes(width, "big") + 1)
    found = entries_of(tile, rest)
    assert bundle(found) == rest
    assert len(found) == tile.width


def door_path(raw: bytes) -> None:
    """What the auditor's door is asked for: it names a file, and never one of the disk."""
    assert run(_files().read(text_of(raw))).data is not None


@cache
def _files() -> LogFiles:
    return LogFiles(stored(town()), Segment("hansa"))


def door_index(raw: bytes) -> None:
    assert parse_index(raw).encode() == raw


def export_seal(raw: bytes) -> None:
    assert seal(parse_seal(raw)) == raw


# -- parts of model files ----------------------------------------------------------------------


def recipe(raw: bytes) -> None:
    assert parse_recipe(raw).encode() == raw


def payload(raw: bytes) -> None:
    """First which of the sample parts it is of. It gives that part, whole and right, or nothing."""
    parts = samples.tuned_parts()
    part, data, base = parts[raw[0] % len(parts) if raw else 0]
    assert decode_payload(part, raw[1:], lambda digest: base) == data


def model_file(raw: bytes) -> None:
    """Any bytes are a file, and it is its parts."""
    found, at = split(raw), 0
    for part in found.parts:
        assert Digest.of(raw[at : at + part.size]) == part.digest
        at += part.size
    assert at == len(raw)
    assert parse_recipe(found.encode()) == found


# -- trust -------------------------------------------------------------------------------------


def dsse(raw: bytes) -> None:
    """Verify before parse: only what the key signed comes out, whatever stands around it."""
    good, key = samples.envelope()
    known = {member_id(key.public): key.public}
    opened, _ = open_envelope(raw, known, bytes_max=BYTES_MAX)
    expected, _ = open_envelope(good, known, bytes_max=BYTES_MAX)
    assert (opened.payload_type, opened.payload) == (expected.payload_type, expected.payload)


def ticket(raw: bytes) -> None:
    """Only what the key signed is one; bytes that it signs, whatever they say, keep to the form."""
    good, key = samples.signed_ticket()
    try:
        assert open_ticket(raw, key.public) == open_ticket(good, key.public)
    except InvalidSignature:
        found = open_ticket(key.sign(b"hanse-ticket/v1\n" + raw[64:]) + raw[64:], key.public)
        assert sign_ticket(found, key)[64:] == raw[64:]


def trust_bundle(raw: bytes) -> None:
    found = parse_bundle(raw)
    assert found.encode() == raw
    found.root()


def trust_version(raw: bytes) -> None:
    """Whoever does not hold the root keys makes no next version, and no other first one."""
    book = town().node("eu-north").book
    try:
        chain.extend(book.chain, raw)
    except Rejected:
        assert chain.start(raw).files == (raw,)
        return
    raise AssertionError("a forged trust version was accepted")


def _metadata(kind: type[Any], name: str) -> Callable[[bytes], None]:
    def read(raw: bytes) -> None:
        found = read_metadata(raw, kind, name)
        assert canonical_json(json.loads(raw)) == raw
        assert found.content.version >= 1

    return read


def members_files(raw: bytes) -> None:
    names = (MEMBERS, RESIDENCY, FLOORS, POLICY)
    parts = raw.split(b"\0") + [b""] * len(names)
    read_shared(dict(zip(names, parts, strict=False)))


def cuts(raw: bytes) -> None:
    read_cuts(raw)


def join_request(raw: bytes) -> None:
    """Of one request, whatever is changed: it stands as it was or not at all."""
    (good,) = samples_once("join")
    assert read_request(raw) == read_request(good)


def certificate(raw: bytes) -> None:
    found = tls.peer_of_certificate(raw)
    assert found.kind in ("daemon", "edge")
    segment(found.region)
    segment(found.federation)


@cache
def samples_once(what: str) -> tuple[bytes, ...]:
    """Samples with fresh keys in them, made once."""
    return tuple({"join": samples.join_requests, "certs": samples.shown_certificates}[what]())


# -- documents ---------------------------------------------------------------------------------


def manifest(raw: bytes) -> None:
    assert parse_manifest(raw).encode() == raw
    assert len(raw) <= limits.MANIFEST_BYTES_MAX


def spec(raw: bytes) -> None:
    found = parse_spec(parse_json(raw, "spec", bytes_max=limits.SPEC_BYTES_MAX))
    assert parse_spec(json.loads(canonical(found))) == found


def assignment(raw: bytes) -> None:
    assert parse_assignment(raw).encode() == raw


def report(raw: bytes) -> None:
    assert parse_report(raw).encode() == raw


NAMES: tuple[Callable[[str], object], ...] = (
    segment, version, parse_member_id, Digest.parse, Origin.parse,
)  # fmt: skip


def names(raw: bytes) -> None:
    """Whatever is accepted is plain: no path, no control character, no second spelling."""
    text, accepted = text_of(raw), False
    for parse in NAMES:
        try:
            found = str(parse(text))
        except Rejected:
            continue
        accepted = True
        assert found == text
        assert text.isascii()
        assert text.isprintable()
        assert not set(text) & set(" \\%#?&<>'\"`;|$*~@!(){}[]^,+=")
        assert not {"", ".", ".."} & set(text.split("/"))
        assert "/" not in text or parse == Origin.parse
    if not accepted:
        raise Rejected("no name of any kind")


def address(raw: bytes) -> None:
    text = text_of(raw)
    assert check_address(text, "address") == text
    assert text.isprintable()


def control_line(raw: bytes) -> None:
    """A question to the control socket: answered or refused, and nothing is changed by it."""
    request = parse_json(raw, "request", bytes_max=limits.CONTROL_LINE_BYTES_MAX)
    if not isinstance(request, dict) or str(request.get("verb")) not in QUERIES:
        raise Rejected("no verb that only looks")
    node = town().node("eu-north")
    before = node.catalog.state_digest
    canonical_json(QUERIES[str(request.pop("verb"))](node, town().clock, request))
    assert node.catalog.state_digest == before


def _config(load: Callable[[Path], Any], file: str) -> Callable[[bytes], None]:
    folder = TemporaryDirectory()
    path = Path(folder.name, file)
    (path.parent / "keys").mkdir()
    for setting in daemon_config.SETTINGS.values():
        if str(setting.default).startswith("keys/"):
            (path.parent / str(setting.default)).touch(0o600)

    def read(raw: bytes, _: Any = folder) -> None:
        path.write_bytes(raw)
        load(path)

    return read


def _of_trust(*names: str) -> Callable[[], list[bytes]]:
    def files() -> list[bytes]:
        there = samples.trust_files()
        return [b"\0".join(there[name] for name in names)]

    return files


def _one(sample: Callable[[], bytes]) -> Callable[[], list[bytes]]:
    return lambda: [sample()]


DECODERS = (
    Decoder("event", event, samples.events),
    Decoder("frame", frame, samples.frames),
    Decoder("fetch-request", fetch_request, samples.fetch_requests),
    Decoder("report-request", report_request, samples.report_requests),
    Decoder("note", note, lambda: [samples.signed_head()[0]]),
    Decoder("checkpoint", checkpoint, _one(samples.checkpoint)),
    Decoder("signed-checkpoint", signed_checkpoint, lambda: [samples.signed_head()[0]]),
    Decoder("vkey", vkey, samples.verifier_keys),
    Decoder("policy", policy, samples.policies),
    Decoder("inclusion", inclusion, lambda: samples.inclusion_proofs(LEAVES)),
    Decoder("consistency", consistency, lambda: samples.consistency_proofs(LEAVES)),
    Decoder("frontier", frontier, samples.frontiers),
    Decoder("tlog-proof", tlog_proof, samples.proofs_of_events),
    Decoder("tile-path", tile_path, samples.paths),
    Decoder("tile-entries", tile_entries, samples.bundles),
    Decoder("door-path", door_path, samples.paths),
    Decoder("door-index", door_index, samples.indexes),
    Decoder("export-seal", export_seal, samples.seals),
    Decoder("recipe", recipe, samples.recipes),
    Decoder("payload", payload, samples.payloads),
    Decoder("model-file", model_file, samples.model_files),
    Decoder("dsse", dsse, lambda: [samples.envelope()[0]]),
    Decoder("ticket", ticket, lambda: [samples.signed_ticket()[0]]),
    Decoder("trust-bundle", trust_bundle, _one(samples.trust_file)),
    Decoder("trust-version", trust_version, _one(samples.trust_file), slow=True),
    Decoder("tuf-root", _metadata(Root, "1.root.json"), _of_trust("1.root.json")),
    Decoder("tuf-targets", _metadata(Targets, "targets.json"), _of_trust("targets.json")),
    Decoder("tuf-snapshot", _metadata(Snapshot, "snapshot.json"), _of_trust("snapshot.json")),
    Decoder("tuf-timestamp", _metadata(Timestamp, "timestamp.json"), _of_trust("snapshot.json")),
    Decoder("members-files", members_files, _of_trust(MEMBERS, RESIDENCY, FLOORS, POLICY)),
    Decoder("cuts", cuts, _of_trust(CUTS)),
    Decoder("join-request", join_request, lambda: samples_once("join"), slow=True),
    Decoder("certificate", certificate, lambda: samples_once("certs")),
    Decoder("manifest", manifest, _one(samples.manifest)),
    Decoder("spec", spec, _one(samples.spec)),
    Decoder("assignment", assignment, samples.assignments),
    Decoder("report", report, samples.reports),
    Decoder("names", names, samples.names),
    Decoder("address", address, samples.names),
    Decoder("control-line", control_line, samples.control_lines, slow=True),
    Decoder(
        "daemon-toml",
        _config(lambda path: daemon_config.load(path.parent), daemon_config.FILE_NAME),
        _one(samples.daemon_toml),
    ),
    Decoder(
        "agent-toml", _config(edge_config.load, edge_config.FILE_NAME), _one(samples.agent_toml)
    ),
)
