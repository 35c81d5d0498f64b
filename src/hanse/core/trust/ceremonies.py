"""What people change about trust: each function makes the next version's content out of one.

Who has to sign it follows from what changed (`signatures.needs`); nothing here knows a key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hanse.core.errors import Conflict, NotFound
from hanse.core.ids import MemberId, Origin, Segment, segment
from hanse.core.log.checkpoint import open_checkpoint
from hanse.core.log.note import Note
from hanse.core.log.policy import default_policy
from hanse.core.rollout.places import parse_labels
from hanse.core.trust.cuts import Cut
from hanse.core.trust.members import ROLES, FloorCap, Keys, Members, Person, Region

TUF_ROLES = ("root", "targets", "snapshot", "timestamp")


def add_person(members: Members, person: Person) -> Members:
    """List a key of a person. Raises `Conflict` if it is listed."""
    if any(known.id == person.id for known in members.people):
        raise Conflict(f"key {person.id} is listed already", fix="remove it first to change it")
    return replace(members, people=(*members.people, person))


def remove_person(members: Members, name: str) -> Members:
    """Every key of that person. What they have signed so far stays signed."""
    left = tuple(p for p in members.people if p.name != name)
    if left == members.people:
        raise NotFound(f"nobody is called {name}", fix="see hanse trust show")
    return _meetable(replace(members, people=left))


def set_threshold(members: Members, role: str, count: int) -> Members:
    if role not in ROLES:
        raise NotFound(f"{role} is not a role of people", fix=f"use {' or '.join(ROLES)}")
    return _meetable(replace(members, thresholds={**members.thresholds, role: count}))


def _meetable(members: Members) -> Members:
    """A threshold that the people listed cannot meet would lock its role."""
    for role, count in members.thresholds.items():
        people = {person.name for person in members.people if role in person.roles}
        if count > len(people):
            raise Conflict(
                f"{count} people are asked and {len(people)} are {role}",
                fix="add people, or lower the threshold, first",
            )
    return members


def rotate(members: Members, role: str, keys: Keys) -> Members:
    """Give a role of the repository, or the officers of a region, other keys.

    Where the root keys also stood for another role, the new ones do.
    """
    given: dict[str, Any] = {role: keys}
    if role in TUF_ROLES[1:]:
        return replace(members, **given)
    if role != "root":
        _known(members, role)
        led = tuple(replace(r, officers=keys) if r.name == role else r for r in members.regions)
        return replace(members, regions=led)
    old = members.root
    given = {name: keys for name in TUF_ROLES[1:] if getattr(members, name) == old}
    led = tuple(replace(r, officers=keys) if r.officers == old else r for r in members.regions)
    return replace(
        members, root_keys=keys.keys, root_threshold=keys.threshold, regions=led, **given
    )


def add_region(
    members: Members,
    name: str,
    edge_ca_pem: str,
    officers: Keys | None,
    labels: Mapping[str, str] | None = None,
) -> Members:
    region = Region(segment(name, "region"), edge_ca_pem, officers or members.root)
    return set_labels(replace(members, regions=(*members.regions, region)), name, labels or {})


def set_labels(members: Members, region: str, labels: Mapping[str, str]) -> Members:
    """Give a region exactly these labels. Plans that are under way keep the regions they have."""
    _known(members, region)
    others = {name: pairs for name, pairs in members.labels.items() if name != region}
    mine = {Segment(region): parse_labels(labels, f"labels of {region}")} if labels else {}
    return replace(members, labels=others | mine)


def remove_region(members: Members, name: str) -> Members:
    """Only once it has no daemon: removing one takes a cut, or its last word would stay open."""
    _known(members, name)
    if any(m.region == name for m in members.members):
        raise Conflict(
            f"{name} still has daemons",
            fix="end the log of each first: hanse trust cut CHECKPOINT --remove-member",
        )
    left = tuple(r for r in members.regions if r.name != name)
    labels = {region: pairs for region, pairs in members.labels.items() if region != name}
    return replace(members, regions=left, labels=labels)


def cut(
    members: Members, checkpoint: bytes, void_from: int | None, *, remove_member: bool
) -> Members:
    """End a log at a signed head of it: from `void_from` on nothing of it counts."""
    origin = Origin.parse(Note.parse(checkpoint).text.partition("\n")[0])
    author = members.member(origin.member)
    if author is None:
        raise NotFound(f"{origin.member} is no member", fix="see hanse trust show")
    head = open_checkpoint(checkpoint, str(origin), author.key)
    ended = Cut(origin, head.size, head.root, head.size if void_from is None else void_from)
    cuts = tuple(c for c in members.cuts if c.origin != origin)
    left = tuple(m for m in members.members if not remove_member or m != author)
    return keep_default_policy(members, replace(members, cuts=(*cuts, ended), members=left))


def set_floor(members: Members, model: str, counter: int, *, lower: bool) -> Members:
    """Raise the floor of a model; `lower` also takes back what events raised, by the root."""
    name = segment(model, "model")
    if not lower and counter <= members.floors.get(name, 0):
        raise Conflict(f"the floor of {name} is {members.floors[name]}", fix="lower it: --lower")
    floors = {**members.floors, name: counter}
    caps = members.floor_caps
    if lower:
        caps = {**caps, name: FloorCap(counter, members.version + 1)}
    return replace(members, floors=floors, floor_caps=caps)


def witnessed_by_all(members: Members) -> Members:
    """The default policy: one witness of each region, and a quorum of the regions."""
    keys: dict[Segment, dict[MemberId, bytes]] = {region.name: {} for region in members.regions}
    for member in members.members:
        if member.witness_key is not None:
            keys[member.region][member.id] = member.witness_key
    return replace(members, witness_policy=default_policy(members.federation, keys))


def keep_default_policy(before: Members, after: Members) -> Members:
    """A witness policy that nobody wrote goes with the members: new regions witness too."""
    unwritten = before.witness_policy == witnessed_by_all(before).witness_policy
    return witnessed_by_all(after) if unwritten else after


def _known(members: Members, region: str) -> None:
    if members.region(region) is None:
        known: Sequence[str] = [r.name for r in members.regions]
        raise NotFound(
            f"there is no region or role {region}",
            fix=f"use {', '.join((*TUF_ROLES, *known))}",
        )
