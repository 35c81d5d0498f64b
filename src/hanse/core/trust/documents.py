"""The target files of a trust version: how `Members` is written down, and read back strictly.

    members.json            people, thresholds, labels of regions, ring seed    signed by targets
    witness.policy          C2SP tlog-policy text                 "
    residency.json          where model files may go              "
    floors.json             lowest counters that may be active    "
    <region>/region.json    daemons, edge CA, revocations         by the officers of the region
    cuts.json               cuts and corrected floors             by root

All but the policy are canonical JSON: one value has one text, so equal digests are equal trust.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from hanse.core import limits
from hanse.core.encoding import strict_base64, to_base64
from hanse.core.errors import InvalidSpec
from hanse.core.ids import Segment, segment
from hanse.core.log.policy import parse_policy
from hanse.core.reading import Reader, canonical_json, parse_json
from hanse.core.rollout.places import parse_labels
from hanse.core.signing import admit_public_key
from hanse.core.trust.cuts import Cut, parse_cut
from hanse.core.trust.members import ROLES, FloorCap, Keys, Member, Members, Person, Region

T = TypeVar("T")
MEMBERS, POLICY, RESIDENCY, FLOORS, CUTS = (
    "members.json",
    "witness.policy",
    "residency.json",
    "floors.json",
    "cuts.json",
)
SHARED = (MEMBERS, POLICY, RESIDENCY, FLOORS)
PEM_BYTES_MAX = 8192
_RESERVED = frozenset(
    {"root", "targets", "snapshot", "timestamp", "members", "residency", "floors", "cuts"}
)


def region_name(text: str) -> Segment:
    """A name under which a region's files cannot be taken for others of the repository."""
    name = segment(text, "region")
    if name in _RESERVED or name.endswith(".root"):
        raise InvalidSpec(f"no region can be called {name}", fix="choose another name")
    return name


def region_file(region: str) -> str:
    return f"{region}/region.json"


# -- writing ---------------------------------------------------------------------


def shared_files(members: Members) -> dict[str, bytes]:
    """The files that the targets role signs for."""
    people = [
        {
            "name": p.name,
            "key": to_base64(p.key),
            "roles": list(p.roles),
            "regions": list(p.regions),
        }
        for p in members.people
    ]
    policy = {
        "quarantine_quorum": members.quarantine_quorum,
        "thresholds": dict(members.thresholds),
    }
    return {
        MEMBERS: _json(
            federation=members.federation,
            labels={region: dict(pairs) for region, pairs in members.labels.items()},
            people=people,
            policy=policy,
            ring_seed=members.ring_seed,
        ),
        POLICY: members.witness_policy.encode(),
        RESIDENCY: _json(regions={k: list(v) for k, v in members.residency.items()}),
        FLOORS: _json(floors=dict(members.floors)),
    }


def cuts_file(members: Members) -> bytes:
    caps = {k: {"floor": v.floor, "before": v.before} for k, v in members.floor_caps.items()}
    return _json(cuts=[cut.encode() for cut in members.cuts], floors=caps)


def region_content(members: Members, region: Region) -> bytes:
    listed = [_listed(m) for m in members.members if m.region == region.name]
    return _json(
        edge_ca=region.edge_ca_pem,
        members=listed,
        residency=list(region.residency),
        revoked=sorted(region.revoked),
    )


def _listed(member: Member) -> dict[str, Any]:
    value = {
        "key": to_base64(member.key),
        "tls": member.tls_cert_pem,
        "address": member.address,
    }
    if member.witness_key is not None:
        value["witness"] = to_base64(member.witness_key)
    return value


def _json(**fields: Any) -> bytes:
    return canonical_json({"schema": 1, **fields})


# -- reading ---------------------------------------------------------------------


def read_shared(files: Mapping[str, bytes]) -> dict[str, Any]:
    """Fields of `Members`, by name. Raises `Rejected` for what is not as it is written."""
    with _open(files, MEMBERS) as reader:
        with reader.child("policy") as policy:
            quorum = policy.integer("quarantine_quorum", low=1, high=1000)
            thresholds = _table(policy, "thresholds", _threshold, count_max=len(ROLES))
        found: dict[str, Any] = {
            "federation": segment(reader.text("federation"), "federation"),
            "ring_seed": reader.text("ring_seed"),
            "people": reader.items("people", _person, count_max=10_000),
            "quarantine_quorum": quorum,
            "thresholds": thresholds,
            "labels": _table(reader, "labels", _labels, count_max=limits.REGIONS_MAX),
        }
    for role in thresholds:
        _role(role, f"{MEMBERS}.policy.thresholds")
    with _open(files, RESIDENCY) as reader:
        found["residency"] = _table(reader, "regions", _regions, count_max=limits.REGIONS_MAX)
    with _open(files, FLOORS) as reader:
        found["floors"] = _table(reader, "floors", _counter, count_max=10_000)
    found["witness_policy"] = _policy_text(files[POLICY])
    return found


def read_cuts(raw: bytes) -> tuple[tuple[Cut, ...], dict[Segment, FloorCap]]:
    with _open({CUTS: raw}, CUTS) as reader:
        cuts = reader.items("cuts", parse_cut, count_max=10_000)
        caps = _table(reader, "floors", _cap, count_max=10_000)
    if len({cut.origin for cut in cuts}) != len(cuts):
        raise InvalidSpec(f"{CUTS}: a log is cut twice")
    return cuts, caps


@lru_cache(maxsize=2 * limits.REGIONS_MAX)
def read_region(name: Segment, raw: bytes, officers: Keys) -> tuple[Region, tuple[Member, ...]]:
    """The region and its daemons; kept, because most regions stay as they are."""
    path = region_file(name)
    with _open({path: raw}, path) as reader:
        region = Region(
            name,
            _pem(reader, "edge_ca"),
            officers,
            revoked=frozenset(reader.items("revoked", _text, count_max=100_000)),
            residency=reader.items("residency", _text, count_max=limits.REGIONS_MAX),
        )
        listed = reader.items("members", lambda v, p: _member(name, v, p), count_max=10_000)
    return region, listed


def check(members: Members) -> None:
    """What no single file shows: a version that contradicts itself is refused."""
    for role in (members.root, members.targets, members.snapshot, members.timestamp):
        _check_keys(role)
    regions = [r.name for r in members.regions]
    if len(set(regions)) != len(regions):
        raise InvalidSpec("the trust version names a region twice")
    for region in members.regions:
        region_name(region.name)
        _check_keys(region.officers)
    ids = [m.id for m in members.members]
    if len(set(ids)) != len(ids):
        raise InvalidSpec("the trust version lists a member's key twice")
    for member in members.members:
        if member.region not in regions:
            raise InvalidSpec(f"the trust version does not name region {member.region}")
    if unknown := sorted(set(members.labels) - set(regions)):
        raise InvalidSpec(f"{MEMBERS}.labels: the trust version does not name region {unknown[0]}")
    _check_people(members)
    _check_apart(members)


def _check_people(members: Members) -> None:
    """Thresholds count people: a key under two names would be two (T18)."""
    names: dict[bytes, str] = {}
    for person in members.people:
        if names.setdefault(person.key, person.name) != person.name:
            raise InvalidSpec(
                f"{person.name} and {names[person.key]} have the same key",
                fix="give every person a key of their own",
            )


def _check_apart(members: Members) -> None:
    """An online key must not be able to do what only people may (T13), nor cosign itself."""
    daemons = {m.key for m in members.members}
    witnesses = [m.witness_key for m in members.members if m.witness_key is not None]
    roles = (members.root, members.targets, members.snapshot, members.timestamp)
    held = {key for role in roles for key in role.keys}
    held |= {key for region in members.regions for key in region.officers.keys}
    held |= {p.key for p in members.people}
    if daemons & (held | set(witnesses)) or len(set(witnesses)) != len(witnesses):
        raise InvalidSpec(
            "a daemon's key also signs as somebody else, or two daemons share a witness key",
            fix="give every daemon, witness and person a key of its own",
        )


def _check_keys(role: Keys) -> None:
    if not 1 <= role.threshold <= len(set(role.keys)):
        raise InvalidSpec("a role has fewer distinct keys than its threshold")


def parse_key(text: str, path: str) -> bytes:
    """A raw Ed25519 public key in base64, fit to be trusted (no small-order point)."""
    raw = strict_base64(text)
    if raw is None:
        raise InvalidSpec(f"{path}: not base64 in its one canonical form")
    admit_public_key(raw)
    return raw


def _open(files: Mapping[str, bytes], name: str) -> Reader:
    raw = files[name]
    value = parse_json(raw, name, bytes_max=limits.TRUST_TARGET_BYTES_MAX)
    if canonical_json(value) != raw:
        raise InvalidSpec(f"{name} is not canonical JSON")
    reader = Reader(value, name)
    reader.integer("schema", low=1, high=1)
    return reader


def _table(
    reader: Reader, key: str, parse: Callable[[Any, str], T], *, count_max: int
) -> dict[Segment, T]:
    value, path = reader.raw(key), f"{reader.path}.{key}"
    if not isinstance(value, Mapping) or len(value) > count_max:
        raise InvalidSpec(f"{path}: expected a mapping of at most {count_max}")
    return {segment(k, path): parse(v, f"{path}.{k}") for k, v in value.items()}


def _labels(value: Any, path: str) -> dict[str, str]:
    pairs = Reader({"labels": value}, path).pairs("labels", count_max=limits.LABELS_MAX)
    return parse_labels(pairs, path)


def _threshold(value: Any, path: str) -> int:
    return _whole(value, path, 0, 16)


def _counter(value: Any, path: str) -> int:
    return _whole(value, path, 0, 2**53)


def _whole(value: Any, path: str, low: int, high: int) -> int:
    return Reader({path: value}, "trust").integer(path, low=low, high=high)


def _cap(value: Any, path: str) -> FloorCap:
    with Reader(value, path) as reader:
        return FloorCap(reader.integer("floor"), reader.integer("before", low=1))


def _member(region: Segment, value: Any, path: str) -> Member:
    with Reader(value, path) as reader:
        witness = reader.text("witness", None)
        return Member(
            region,
            parse_key(reader.text("key"), f"{path}.key"),
            _pem(reader, "tls"),
            reader.text("address"),
            parse_key(witness, f"{path}.witness") if witness is not None else None,
        )


def _person(value: Any, path: str) -> Person:
    with Reader(value, path) as reader:
        return Person(
            reader.text("name"),
            parse_key(reader.text("key"), f"{path}.key"),
            reader.items("roles", _role, count_max=len(ROLES)),
            reader.items("regions", _text, count_max=limits.REGIONS_MAX),
        )


def _role(value: Any, path: str) -> str:
    if value not in ROLES:
        raise InvalidSpec(f"{path}: {value!r} is not a role", fix=f"use {' or '.join(ROLES)}")
    return str(value)


def _regions(value: Any, path: str) -> tuple[str, ...]:
    return Reader({"to": value}, path).items("to", _text, count_max=limits.REGIONS_MAX)


def _text(value: Any, path: str) -> str:
    return Reader({"": value}, path).text("", bytes_max=128)


def _policy_text(raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise InvalidSpec(f"{POLICY} is not UTF-8") from None
    parse_policy(text)
    return text


def _pem(reader: Reader, key: str) -> str:
    value = reader.raw(key)
    fits = isinstance(value, str) and len(value) <= PEM_BYTES_MAX
    if not fits or not value.startswith("-----BEGIN CERT"):
        raise InvalidSpec(f"{reader.path}.{key}: expected a PEM certificate")
    return str(value)
