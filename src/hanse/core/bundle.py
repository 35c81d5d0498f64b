"""Bundles: what one daemon knows and another lacks, as a file that people carry over.

    hanse-bundle/v1\\n
    4 bytes of length, and the manifest: canonical JSON that lists every part in order
    64 bytes: the daemon key's signature over hanse-bundle/v1\\n || manifest
    the parts, one after another, each as long as the manifest says

Nothing in a bundle is believed because of its signature: trust versions, events and files are
verified by whoever takes them, as on a link. The signature says who judged that these files
may go to that region.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from hanse.core import limits, signing
from hanse.core.encoding import strict_base64, to_base64
from hanse.core.errors import InvalidProof, InvalidSpec
from hanse.core.ids import Digest, Origin, Segment, member_id, segment
from hanse.core.log.merkle import SIZE_MAX
from hanse.core.log.tiles import bundle, split
from hanse.core.reading import Reader, canonical_json, parse_json
from hanse.core.signing import SigningKey
from hanse.core.trust.members import Members

MAGIC = b"hanse-bundle/v1\n"
LENGTH_BYTES = 4
KINDS = ("trust", "timestamp", "evidence", "events", "final", "blob")
"""In this order: what comes first is needed to judge what follows."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a daemon has: carried over to whoever makes the next bundle for it."""

    federation: Segment
    region: Segment
    trust: int
    heads: Mapping[Origin, int] = field(default_factory=dict)
    blobs: frozenset[Digest] = frozenset()

    def to_mapping(self) -> dict[str, Any]:
        return {
            "blobs": sorted(digest.hex for digest in self.blobs),
            "federation": self.federation,
            "heads": {str(origin): size for origin, size in self.heads.items()},
            "region": self.region,
            "schema": 1,
            "trust": self.trust,
        }

    def encode(self) -> bytes:
        return canonical_json(self.to_mapping())


def parse_held(raw: bytes) -> Held:
    return _held(parse_json(raw, "heads", bytes_max=limits.BUNDLE_MANIFEST_BYTES_MAX), "heads")


def _held(value: Any, path: str) -> Held:
    with Reader(value, path) as reader:
        reader.integer("schema", low=1, high=1)
        heads = reader.raw("heads")
        if not isinstance(heads, dict) or not all(
            type(size) is int and 0 <= size <= SIZE_MAX for size in heads.values()
        ):
            raise InvalidSpec(f"{path}.heads: expected a mapping of sizes by origin")
        blobs = reader.items("blobs", lambda hex_, _: Digest(str(hex_)), count_max=10**6)
        return Held(
            segment(reader.text("federation"), "federation"),
            segment(reader.text("region"), "region"),
            reader.integer("trust", high=99_999),
            {Origin.parse(name): size for name, size in heads.items()},
            frozenset(blobs),
        )


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a bundle: how long it is, what it hashes to, and what it claims to be."""

    kind: str
    size: int
    digest: Digest
    version: int = 0
    """Of a trust version."""
    origin: Origin | None = None
    """Of events and of a final head."""
    start: int = 0
    count: int = 0
    release: Digest | None = None
    """For whose sake a model file travels: its residency is judged."""

    def encode(self) -> dict[str, Any]:
        out: dict[str, Any] = {"kind": self.kind, "sha256": self.digest.hex, "size": self.size}
        if self.kind == "trust":
            out["version"] = self.version
        if self.origin is not None:
            out["origin"] = str(self.origin)
        if self.kind == "events":
            out |= {"start": self.start, "count": self.count}
        if self.release is not None:
            out["release"] = self.release.hex
        return out

    @property
    def size_max(self) -> int:
        return limits.FILE_BYTES_MAX if self.kind == "blob" else limits.BUNDLE_PART_BYTES_MAX


def _part(value: Any, path: str) -> Part:
    with Reader(value, path) as reader:
        kind = reader.one_of("kind", KINDS)
        logged = kind in ("evidence", "events", "final")
        part = Part(
            kind,
            reader.integer("size", low=1),
            Digest(reader.text("sha256")),
            reader.integer("version", low=1) if kind == "trust" else 0,
            Origin.parse(reader.text("origin")) if logged else None,
            reader.integer("start", high=SIZE_MAX) if kind == "events" else 0,
            reader.integer("count", low=1, high=limits.CHUNK_EVENTS_MAX) if kind == "events" else 0,
            Digest(reader.text("release")) if kind == "blob" else None,
        )
    if part.size > part.size_max:
        raise InvalidSpec(f"{path}.size: a part of this kind has at most {part.size_max} bytes")
    return part


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that a bundle says of itself. `after` is what its receiver has once it took it."""

    key: bytes
    region: Segment
    after: Held
    parts: tuple[Part, ...]

    def encode(self) -> bytes:
        return canonical_json(
            {
                "after": self.after.to_mapping(),
                "for": self.region,
                "key": to_base64(self.key),
                "parts": [part.encode() for part in self.parts],
                "schema": 1,
            }
        )

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read a manifest. Raises `Rejected`; its signature is another matter."""
        document = parse_json(raw, "bundle", bytes_max=limits.BUNDLE_MANIFEST_BYTES_MAX)
        with Reader(document, "bundle") as reader:
            reader.integer("schema", low=1, high=1)
            key = strict_base64(reader.text("key"))
            if key is None:
                raise InvalidSpec("bundle.key: expected base64")
            manifest = cls(
                key,
                segment(reader.text("for"), "region"),
                _held(reader.raw("after"), "bundle.after"),
                reader.items("parts", _part, count_max=limits.BUNDLE_PARTS_MAX),
            )
        order = [KINDS.index(part.kind) for part in manifest.parts]
        if order != sorted(order) or manifest.encode() != raw:
            raise InvalidSpec("bundle: not in canonical form")
        return manifest


def seal(manifest: Manifest, key: SigningKey) -> bytes:
    """The beginning of a bundle, up to its first part."""
    raw = manifest.encode()
    if len(raw) > limits.BUNDLE_MANIFEST_BYTES_MAX or len(manifest.parts) > limits.BUNDLE_PARTS_MAX:
        raise InvalidSpec(
            f"a bundle of {len(manifest.parts)} parts is too much for one",
            fix="carry over a newer hanse bundle heads, or leave out --with-blobs",
        )
    return MAGIC + len(raw).to_bytes(LENGTH_BYTES, "big") + raw + key.sign(MAGIC + raw)


def open_manifest(raw: bytes, signature: bytes) -> Manifest:
    """The manifest, signed by the key that it names. Whose key that is: `check_sender`."""
    manifest = Manifest.parse(raw)
    signing.verify(manifest.key, signature, MAGIC + raw)
    return manifest


def check_sender(manifest: Manifest, members: Members) -> str:
    """The name of whoever made it. Raises `InvalidProof` unless it is a daemon of ours now."""
    sender = members.member(member_id(manifest.key))
    if sender is None or manifest.after.federation != members.federation:
        raise InvalidProof(
            "no daemon of this federation has signed the bundle",
            fix="have it made by a daemon that the trust file lists",
        )
    return members.name_of(sender.id)


def pack_events(note: bytes, events: tuple[bytes, ...]) -> bytes:
    """The content of an `events` part: the note, then the events up to the size that it signs."""
    return len(note).to_bytes(LENGTH_BYTES, "big") + note + bundle(events)


def unpack_events(part: Part, raw: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    """The note and exactly `part.count` events. Raises `InvalidProof`."""
    end = LENGTH_BYTES + int.from_bytes(raw[:LENGTH_BYTES], "big")
    if end > len(raw):
        raise InvalidProof("a part of the bundle is cut off")
    return raw[LENGTH_BYTES:end], tuple(split(raw[end:], part.count))
