"""The members file: who belongs to the federation and what each may say.

It is canonical JSON inside a DSSE envelope, signed by a threshold of root keys. Membership
is linear: version n+1 replaces version n and is signed by the thresholds of both (T04).
Nothing here is ever decided by concurrent events or by a certificate authority.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hanse.core import limits
from hanse.core.errors import InvalidSpec
from hanse.core.ids import MemberId, Segment, member_id, segment
from hanse.core.reading import Reader, canonical_json, parse_json
from hanse.core.signing import admit_public_key

PAYLOAD_TYPE = "application/vnd.hanse.members+json"
ROLES = ("publisher", "release-manager", "operator", "auditor")


@dataclass(frozen=True, slots=True)
class Member:
    """One daemon: its signing key, its pinned TLS certificate and where it listens."""

    region: Segment
    key: bytes
    tls_cert_pem: str
    address: str

    @property
    def id(self) -> MemberId:
        return member_id(self.key)


@dataclass(frozen=True, slots=True)
class Person:
    """A human or CI key. `regions` limits where its roles count; `*` is everywhere."""

    name: str
    key: bytes
    roles: tuple[str, ...]
    regions: tuple[str, ...]

    @property
    def id(self) -> MemberId:
        return member_id(self.key)

    def holds(self, role: str, region: str) -> bool:
        return role in self.roles and ("*" in self.regions or region in self.regions)


@dataclass(frozen=True, slots=True)
class Region:
    name: Segment
    edge_ca_pem: str


@dataclass(frozen=True)
class Members:
    """Without slots: the digest and the index are asked for with every event, and kept."""

    federation: Segment
    version: int
    root_keys: tuple[bytes, ...]
    root_threshold: int
    ring_seed: str
    regions: tuple[Region, ...]
    members: tuple[Member, ...]
    people: tuple[Person, ...]
    quarantine_quorum: int = 2

    @cached_property
    def digest(self) -> bytes:
        return hashlib.sha256(self.encode()).digest()

    @cached_property
    def _by_id(self) -> dict[MemberId, Member]:
        return {m.id: m for m in self.members}

    def member(self, wanted: MemberId) -> Member | None:
        return self._by_id.get(wanted)

    def region(self, name: str) -> Region | None:
        return next((r for r in self.regions if r.name == name), None)

    def keys(self, role: str, region: str = "*") -> dict[MemberId, bytes]:
        """Keys of the people who hold `role` in `region`."""
        return {p.id: p.key for p in self.people if p.holds(role, region)}

    def name_of(self, wanted: MemberId) -> str:
        """How to call this key when telling a person about it."""
        for person in self.people:
            if person.id == wanted:
                return person.name
        member = self.member(wanted)
        return f"daemon of {member.region}" if member else wanted

    def encode(self) -> bytes:
        return canonical_json(
            {
                "schema": 1,
                "federation": self.federation,
                "version": self.version,
                "root": {
                    "keys": [_b64(k) for k in self.root_keys],
                    "threshold": self.root_threshold,
                },
                "ring_seed": self.ring_seed,
                "regions": [{"name": r.name, "edge_ca": r.edge_ca_pem} for r in self.regions],
                "members": [
                    {
                        "region": m.region,
                        "key": _b64(m.key),
                        "tls": m.tls_cert_pem,
                        "address": m.address,
                    }
                    for m in self.members
                ],
                "people": [
                    {
                        "name": p.name,
                        "key": _b64(p.key),
                        "roles": list(p.roles),
                        "regions": list(p.regions),
                    }
                    for p in self.people
                ],
                "policy": {"quarantine_quorum": self.quarantine_quorum},
            }
        )


def parse_members(raw: bytes) -> Members:
    """Parse a members file that has been verified. Raises `InvalidSpec`, `InvalidName`."""
    document = parse_json(raw, "members file", bytes_max=limits.MEMBERS_FILE_BYTES_MAX)
    with Reader(document, "members") as reader:
        reader.integer("schema", low=1, high=1)
        with reader.child("root") as root:
            keys = root.items("keys", _key, count_max=16)
            threshold = root.integer("threshold", low=1, high=16)
        with reader.child("policy") as policy:
            quorum = policy.integer("quarantine_quorum", low=1, high=1000)
        members = Members(
            federation=segment(reader.text("federation"), "federation"),
            version=reader.integer("version", low=1),
            root_keys=keys,
            root_threshold=threshold,
            ring_seed=reader.text("ring_seed"),
            regions=reader.items("regions", _region, count_max=1000),
            members=reader.items("members", _member, count_max=10_000),
            people=reader.items("people", _person, count_max=10_000),
            quarantine_quorum=quorum,
        )
    _check(members)
    return members


def _check(members: Members) -> None:
    if len(set(members.root_keys)) < members.root_threshold:
        raise InvalidSpec("members.root: fewer distinct keys than the threshold")
    regions = [r.name for r in members.regions]
    if len(set(regions)) != len(regions):
        raise InvalidSpec("members.regions: a region stands twice")
    ids = [m.id for m in members.members]
    if len(set(ids)) != len(ids):
        raise InvalidSpec("members.members: a key stands twice")
    for member in members.members:
        if member.region not in regions:
            raise InvalidSpec(f"members.members: region {member.region} is not listed")


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def parse_key(text: str, path: str) -> bytes:
    """A raw Ed25519 public key in base64, fit to be trusted (no small-order point)."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise InvalidSpec(f"{path}: not base64") from None
    if _b64(raw) != text:
        raise InvalidSpec(f"{path}: not canonical base64")
    admit_public_key(raw)
    return raw


def _key(value: Any, path: str) -> bytes:
    return parse_key(str(value), path)


def _region(value: Any, path: str) -> Region:
    with Reader(value, path) as reader:
        return Region(segment(reader.text("name"), f"{path}.name"), _pem(reader, "edge_ca"))


def _member(value: Any, path: str) -> Member:
    with Reader(value, path) as reader:
        return Member(
            segment(reader.text("region"), f"{path}.region"),
            parse_key(reader.text("key"), f"{path}.key"),
            _pem(reader, "tls"),
            reader.text("address"),
        )


def _person(value: Any, path: str) -> Person:
    with Reader(value, path) as reader:
        return Person(
            reader.text("name"),
            parse_key(reader.text("key"), f"{path}.key"),
            reader.items("roles", _role, count_max=len(ROLES)),
            reader.items("regions", lambda v, _: str(v), count_max=1000),
        )


def _role(value: Any, path: str) -> str:
    if value not in ROLES:
        raise InvalidSpec(f"{path}: {value!r} is not a role", fix=f"use {' or '.join(ROLES)}")
    return str(value)


def _pem(reader: Reader, key: str) -> str:
    value = reader.raw(key)
    if not isinstance(value, str) or len(value) > 8192 or not value.startswith("-----BEGIN CERT"):
        raise InvalidSpec(f"{reader.path}.{key}: expected a PEM certificate")
    return value
