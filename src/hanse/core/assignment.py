"""What a region tells its edge nodes: which release each model serves, and from where to get it.

One assignment holds the whole wish of the region, so only the newest counts and a lost one
never matters. It is canonical JSON of at most 1 MiB, signed by the daemon's key over
`hanse-assignment/v1`, a line feed and the bytes; the bytes travel and are stored as they were
signed. `(epoch, serial)` only rises: a daemon that lost its counter begins a new epoch.

    {"schema": 1, "federation": "acme", "region": "eu-north", "epoch": 1, "serial": 17,
     "models": [{"model": "ocr-rec", "active": "sha256:897a…", "candidate": "sha256:48fc…",
                 "rollout": "r-17", "generation": 12, "weight_bp": 500, "shadow_bp": 1000,
                 "salt": "r-17/12", "last_good": ["sha256:897a…"], "barred": [],
                 "slow_ms": 40, "audience": {"unit": "customer", "target": []},
                 "whole_nodes": false}],
     "releases": {"sha256:48fc…": "{…the manifest's own bytes…}"},
     "sources": [{"address": "eu-north:7421", "region": "eu-north", "tls_cert_pem": "…"}],
     "edge_ca_pem": "…"}

By `edge_ca_pem`, the region's edge CA, its nodes know each other; it is left out where there is
none.

Manifests are checked here by digest only. A node that cannot read one reports that release
as failed; refusing the whole assignment would also refuse the rollback that it may carry.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hanse.core import limits, signing
from hanse.core.audience import EVERYBODY, Audience, parse_audience
from hanse.core.errors import InvalidSpec
from hanse.core.ids import Digest, Segment, segment
from hanse.core.reading import Reader, canonical_json, parse_json

ASSIGNMENT_BYTES_MAX = 1024 * 1024
MODELS_MAX = 256
RELEASES_MAX = 1024
SOURCES_MAX = 64
BARRED_MAX = 256
CERTIFICATE_BYTES_MAX = 8 * 1024
WEIGHT_FULL_BP = 10_000
_DOMAIN = b"hanse-assignment/v1\n"


@dataclass(frozen=True, slots=True)
class Source:
    """A daemon that serves blobs; its TLS key is pinned to exactly this certificate."""

    address: str
    region: Segment
    tls_cert_pem: str


@dataclass(frozen=True, slots=True)
class ModelAssignment:
    """What one model serves. Weights are basis points (0 to 10,000) of all units.

    `last_good` is ordered, the nearest first. `barred` releases are never routed to, whatever
    the other fields say. An answer slower than `slow_ms` counts as slow.
    """

    model: Segment
    active: Digest | None = None
    candidate: Digest | None = None
    rollout: str = ""
    generation: int = 0
    weight_bp: int = 0
    shadow_bp: int = 0
    salt: str = ""
    last_good: tuple[Digest, ...] = ()
    barred: tuple[Digest, ...] = ()
    slow_ms: int | None = None
    audience: Audience = EVERYBODY
    whole_nodes: bool = False
    """The weight is a share of the nodes: each answers with one release alone."""

    @property
    def named(self) -> tuple[Digest, ...]:
        """Every release that a node may have to hold, in order of need, each once."""
        wanted = (self.active, self.candidate, *self.last_good)
        return tuple(dict.fromkeys(d for d in wanted if d is not None))


@dataclass(frozen=True, slots=True)
class Assignment:
    federation: Segment
    region: Segment
    epoch: int
    serial: int
    models: tuple[ModelAssignment, ...] = ()
    releases: dict[Digest, bytes] = field(default_factory=dict)
    sources: tuple[Source, ...] = ()
    edge_ca_pem: str = ""

    @property
    def order(self) -> tuple[int, int]:
        return (self.epoch, self.serial)

    def encode(self) -> bytes:
        """The canonical bytes. Raises `InvalidSpec` or `TooLarge` if nobody could read them."""
        raw = canonical_json(_mapping(self))
        parse_assignment(raw)
        return raw


def signed_bytes(raw: bytes) -> bytes:
    """What the daemon's key signs for an assignment of these bytes."""
    return _DOMAIN + raw


def open_assignment(raw: bytes, signature: bytes, public_key: bytes) -> Assignment:
    """Verify first, then read. `public_key`: the daemon's 32 raw Ed25519 bytes.

    Raises `InvalidSignature`, `InvalidSpec`, `InvalidName` or `TooLarge`.
    """
    signing.verify(public_key, signature, signed_bytes(raw))
    return parse_assignment(raw)


def parse_assignment(raw: bytes) -> Assignment:
    """Read bytes that are trusted already, such as those that this node verified and stored."""
    document = parse_json(raw, "assignment", bytes_max=ASSIGNMENT_BYTES_MAX)
    require_canonical(document, raw, "assignment")
    with Reader(document, "assignment") as reader:
        reader.integer("schema", low=1, high=1)
        assignment = Assignment(
            federation=segment(reader.text("federation"), "assignment.federation"),
            region=segment(reader.text("region"), "assignment.region"),
            epoch=reader.integer("epoch"),
            serial=reader.integer("serial"),
            models=reader.items("models", _model, count_max=MODELS_MAX),
            releases=_releases(reader),
            sources=reader.items("sources", _source, count_max=SOURCES_MAX),
            edge_ca_pem=_pem(reader, "edge_ca_pem") if reader.has("edge_ca_pem") else "",
        )
    _check(assignment)
    return assignment


def require_canonical(document: Any, raw: bytes, what: str) -> None:
    """Refuse any second spelling of a document, and text that is not valid Unicode."""
    try:
        same = canonical_json(document) == raw
    except ValueError as error:
        raise InvalidSpec(f"{what}: {error}") from error
    if not same:
        raise InvalidSpec(f"{what}: not in canonical form", fix="write it with hanse")


def _check(assignment: Assignment) -> None:
    names = [m.model for m in assignment.models]
    if len(set(names)) != len(names):
        raise InvalidSpec("assignment.models: each model once")
    for model in assignment.models:
        for digest in model.named:
            if digest not in assignment.releases:
                raise InvalidSpec(f"assignment.releases: {model.model} needs {digest.short}")


def _mapping(assignment: Assignment) -> dict[str, Any]:
    return {
        "schema": 1,
        "federation": assignment.federation,
        "region": assignment.region,
        "epoch": assignment.epoch,
        "serial": assignment.serial,
        "models": [_model_mapping(m) for m in assignment.models],
        "releases": {str(d): raw.decode() for d, raw in assignment.releases.items()},
        "sources": [
            {"address": s.address, "region": s.region, "tls_cert_pem": s.tls_cert_pem}
            for s in assignment.sources
        ],
        **({"edge_ca_pem": assignment.edge_ca_pem} if assignment.edge_ca_pem else {}),
    }


def _model_mapping(model: ModelAssignment) -> dict[str, Any]:
    return {
        "model": model.model,
        "active": str(model.active) if model.active else None,
        "candidate": str(model.candidate) if model.candidate else None,
        "rollout": model.rollout,
        "generation": model.generation,
        "weight_bp": model.weight_bp,
        "shadow_bp": model.shadow_bp,
        "salt": model.salt,
        "last_good": [str(d) for d in model.last_good],
        "barred": [str(d) for d in model.barred],
        "slow_ms": model.slow_ms,
        "whole_nodes": model.whole_nodes,
        "audience": model.audience.mapping(),
    }


def _model(value: Any, path: str) -> ModelAssignment:
    with Reader(value, path) as reader:
        for key in ("last_good", "barred", "whole_nodes"):
            reader.raw(key)  # none may be left out: an assignment has one spelling
        slow_ms = reader.raw("slow_ms")
        model = ModelAssignment(
            model=segment(reader.text("model"), f"{path}.model"),
            active=_digest_or_none(reader, "active"),
            candidate=_digest_or_none(reader, "candidate"),
            rollout=reader.text("rollout"),
            generation=reader.integer("generation"),
            weight_bp=reader.integer("weight_bp", high=WEIGHT_FULL_BP),
            shadow_bp=reader.integer("shadow_bp", high=WEIGHT_FULL_BP),
            salt=reader.text("salt"),
            last_good=reader.items("last_good", read_digest, count_max=limits.LAST_GOOD_MAX),
            barred=reader.items("barred", read_digest, count_max=BARRED_MAX),
            slow_ms=None if slow_ms is None else reader.integer("slow_ms", low=1, high=10**9),
            audience=parse_audience(reader.raw("audience"), f"{path}.audience"),
            whole_nodes=reader.flag("whole_nodes", False),
        )
    if model.candidate is None and (model.weight_bp or model.shadow_bp):
        raise InvalidSpec(f"{path}: a weight without a candidate")
    return model


def _source(value: Any, path: str) -> Source:
    with Reader(value, path) as reader:
        pem = _pem(reader, "tls_cert_pem")
        return Source(reader.text("address"), segment(reader.text("region"), f"{path}.region"), pem)


def _pem(reader: Reader, key: str) -> str:
    pem = reader.raw(key)
    if (
        not isinstance(pem, str)
        or len(pem) > CERTIFICATE_BYTES_MAX
        or not pem.isascii()
        or not pem.startswith("-----BEGIN CERTIFICATE-----")
    ):
        raise InvalidSpec(f"{reader.path}.{key}: expected one certificate in PEM form")
    return pem


def _releases(reader: Reader) -> dict[Digest, bytes]:
    path = f"{reader.path}.releases"
    value = reader.raw("releases")
    if not isinstance(value, dict) or len(value) > RELEASES_MAX:
        raise InvalidSpec(f"{path}: expected a mapping of at most {RELEASES_MAX} manifests")
    releases = {}
    for key, text in value.items():
        digest = Digest.parse(key)
        raw = text.encode() if isinstance(text, str) else b""
        if len(raw) > limits.MANIFEST_BYTES_MAX or Digest.of(raw) != digest:
            raise InvalidSpec(f"{path}.{digest.short}: the manifest does not have this digest")
        releases[digest] = raw
    return releases


def read_digest(value: Any, path: str) -> Digest:
    if not isinstance(value, str):
        raise InvalidSpec(f"{path}: expected a digest")
    return Digest.parse(value)


def _digest_or_none(reader: Reader, key: str) -> Digest | None:
    value = reader.raw(key)
    return None if value is None else read_digest(value, f"{reader.path}.{key}")
