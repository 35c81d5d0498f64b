"""What one trust version says: who belongs to the federation and what each may say.

`Members` is the parsed view that everything else reads; `documents` says how it is written
down. Membership is linear: version n+1 replaces version n (T04). Nothing here is ever decided
by concurrent events or by a certificate authority.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from hanse.core.ids import MemberId, Segment, member_id
from hanse.core.trust.cuts import Cut

ROLES = ("publisher", "operator", "release-manager", "approver", "auditor")
"""What people and CI jobs may be; daemons, witnesses and edge nodes are listed elsewhere."""

NO_FINALITY = "quorum none\n"


@dataclass(frozen=True, slots=True)
class Keys:
    """Raw public keys, and how many distinct ones of them must sign."""

    keys: tuple[bytes, ...]
    threshold: int = 1

    @property
    def by_id(self) -> dict[MemberId, bytes]:
        return {member_id(key): key for key in self.keys}


NOBODY = Keys(())


@dataclass(frozen=True, slots=True)
class Member:
    """One daemon: its signing key, its pinned TLS certificate and where it listens."""

    region: Segment
    key: bytes
    tls_cert_pem: str
    address: str
    witness_key: bytes | None = None
    """Raw key with which it cosigns other members' logs; never the one it signs its own with."""

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
    """A region and the officers who decide alone who and what belongs to it."""

    name: Segment
    edge_ca_pem: str
    officers: Keys = NOBODY
    revoked: frozenset[str] = frozenset()
    """Edge nodes by name, or certificates by serial number, that may not connect any more."""
    residency: tuple[str, ...] = ("*",)
    """Regions to which this one gives model files."""


@dataclass(frozen=True, slots=True)
class FloorCap:
    """A root-signed correction: floors raised under trust versions below `before` are `floor`."""

    floor: int
    before: int


@dataclass(frozen=True, slots=True)
class Floors:
    """Lowest counters that may be active, as trust has them; `caps` correct what events say."""

    lowest: Mapping[Segment, int] = field(default_factory=dict)
    caps: Mapping[Segment, FloorCap] = field(default_factory=dict)

    def of(self, model: Segment, raised: Iterable[tuple[int, int]]) -> int:
        """The floor of `model`, after events that raised it: (counter, trust version)."""
        cap = self.caps.get(model)
        counters = (
            min(counter, cap.floor) if cap and version < cap.before else counter
            for counter, version in raised
        )
        return max([self.lowest.get(model, 0), *counters])


@dataclass(frozen=True)
class Members:
    """Without slots: the index is asked for with every event, and kept.

    Roles without keys of their own (`targets`, `snapshot`, `timestamp`, a region's officers)
    are held by the root keys, as in a small federation.
    """

    federation: Segment
    version: int
    root_keys: tuple[bytes, ...]
    root_threshold: int
    ring_seed: str
    regions: tuple[Region, ...]
    members: tuple[Member, ...]
    people: tuple[Person, ...]
    quarantine_quorum: int = 2
    witness_policy: str = NO_FINALITY
    cuts: tuple[Cut, ...] = ()
    floors: Mapping[Segment, int] = field(default_factory=dict)
    floor_caps: Mapping[Segment, FloorCap] = field(default_factory=dict)
    residency: Mapping[Segment, tuple[str, ...]] = field(default_factory=dict)
    """Where model files of a region may go at all; a region that is not named: anywhere."""
    labels: Mapping[Segment, Mapping[str, str]] = field(default_factory=dict)
    """Of regions, by which rollouts select them; those without any are left out."""
    thresholds: Mapping[str, int] = field(default_factory=dict)
    """Distinct signers that a statement of a role needs; 1 where nothing is said."""
    targets: Keys = NOBODY
    snapshot: Keys = NOBODY
    timestamp: Keys = NOBODY
    root_version: int = 1
    digest: bytes = field(default=b"", compare=False)
    """32 bytes that every event of this version names; known once the version is verified."""

    def __post_init__(self) -> None:
        root = self.root
        for role in ("targets", "snapshot", "timestamp"):
            if getattr(self, role) == NOBODY:
                object.__setattr__(self, role, root)
        led = tuple(r if r.officers != NOBODY else replace(r, officers=root) for r in self.regions)
        object.__setattr__(self, "regions", led)

    @property
    def root(self) -> Keys:
        return Keys(self.root_keys, self.root_threshold)

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

    @property
    def labels_of_all(self) -> dict[Segment, Mapping[str, str]]:
        return {region.name: self.labels.get(region.name, {}) for region in self.regions}

    def threshold(self, role: str) -> int:
        return self.thresholds.get(role, 0 if role == "approver" else 1)

    @property
    def all_floors(self) -> Floors:
        return Floors(self.floors, self.floor_caps)

    def may_give(self, source: str, target: str) -> bool:
        """Whether daemons of `source` may hand model files to `target`; both must agree."""
        region = self.region(source)
        ceiling = self.residency.get(Segment(source), ("*",))
        own = region.residency if region else ()
        return source == target or all("*" in r or target in r for r in (ceiling, own))

    def name_of(self, wanted: MemberId) -> str:
        """How to call this key when telling a person about it."""
        for person in self.people:
            if person.id == wanted:
                return person.name
        member = self.member(wanted)
        return f"daemon of {member.region}" if member else wanted
