"""A TUF repository of one federation, as it stands at one trust version; and what may follow.

    root.json           who may sign what; +1 with the thresholds of both; names cuts.json
    targets.json        the shared files; one delegation to each region
    <region>.json       that region's file, by its officers' threshold
    snapshot.json       its version is the trust version; names all of the above by digest

Nobody can skip, fork or rewind: the root follows by one, no other version falls or runs ahead
of the trust version, and a snapshot names the one before it (T04, T05, T16). Whatever has not
changed keeps its bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tuf.api.metadata import Delegations, MetaFile, Root, Snapshot, TargetFile, Targets

from hanse.core import limits
from hanse.core.errors import InvalidProof
from hanse.core.ids import Segment
from hanse.core.trust import documents
from hanse.core.trust.bundle import ROOT_NAME, Bundle
from hanse.core.trust.members import Keys, Member, Members, Region
from hanse.core.trust.metadata import Signed, read, role_keys

ROLES = ("root", "targets", "snapshot", "timestamp")
FIRST = bytes(32)
"""What the first snapshot names as the one before it."""


@dataclass(frozen=True, slots=True)
class Repository:
    """A verified version: every file that stands, the root as `root.json`, and what it says."""

    files: Mapping[str, bytes]
    signed: Mapping[str, Signed[Any]]
    members: Members


def advance(before: Repository | None, bundle: Bundle, *, draft: bool = False) -> Repository:
    """The version that `bundle` makes of `before`; without one it must be the first.

    Of a `draft` everything is checked but the signatures. Raises `InvalidProof`,
    `InvalidSignature`, `InvalidSpec` or `TooLarge`.
    """
    last = before.members.version if before else 0
    if bundle.version != last + 1:
        raise InvalidProof(f"trust version {bundle.version} does not follow {last}")
    root = _next_root(before, bundle, draft)
    files = {**(before.files if before else {}), "root.json": root.raw}
    files |= {name: raw for name, raw in bundle.files.items() if not ROOT_NAME.fullmatch(name)}
    keys = {role: role_keys(root.content.roles[role], root.content.keys, role) for role in ROLES}
    targets = _targets(files, "targets.json", None if draft else keys["targets"], documents.SHARED)
    officers = _officers(targets.content.delegations)
    signed: dict[str, Signed[Any]] = {"root.json": root, "targets.json": targets}
    for name, role in officers.items():
        by = None if draft else role
        region = _targets(files, f"{name}.json", by, (documents.region_file(name),))
        signed[region.name] = region
    by = None if draft else keys["snapshot"]
    snapshot = _snapshot(before, files, by, signed, bundle.version)
    signed[snapshot.name] = snapshot
    _check_pinned(root, files)
    files = _belonging(files, bundle, signed, officers)
    members = _view(files, keys, officers, root, snapshot)
    documents.check(members)
    if before:
        _check_progress(before.members, members)
    return Repository(files, signed, members)


def _next_root(before: Repository | None, bundle: Bundle, draft: bool) -> Signed[Root]:
    """The root of this version: as it was, or the next one, signed by both thresholds."""
    brought = bundle.root()
    known: Signed[Root] | None = before.signed["root.json"] if before else None
    if brought is None:
        if known is None:
            raise InvalidProof("the first trust version has no root file")
        return known
    number, raw = brought
    if known is not None and raw == known.raw and number == known.version:
        return known
    root = read(raw, Root, "root.json")
    if number != root.version or root.version != (known.version + 1 if known else 1):
        raise InvalidProof(
            f"root {root.version} does not follow {known.version if known else 0}",
            fix="bring the root versions in order",
        )
    for asked in () if draft else (known, root):
        if asked is not None:
            root.demand(_root_role(asked), f"root {asked.version}")
    return root


def _root_role(root: Signed[Root]) -> Keys:
    return role_keys(root.content.roles["root"], root.content.keys, "root")


def _targets(
    files: Mapping[str, bytes], name: str, role: Keys | None, listed: tuple[str, ...]
) -> Signed[Targets]:
    """A targets file, signed by `role`, for exactly these files, which are here as it says."""
    found = _verified(_file(files, name), name, role)
    if set(found.content.targets) != set(listed):
        raise InvalidProof(f"{name} does not sign for {', '.join(listed)} and no other")
    for path, target in found.content.targets.items():
        _check_file(_file(files, path), path, target, name)
    if name != "targets.json" and found.content.delegations is not None:
        raise InvalidProof(f"{name} delegates, and only targets.json may")
    return found


@lru_cache(maxsize=2 * limits.REGIONS_MAX)
def _verified(raw: bytes, name: str, role: Keys | None) -> Signed[Targets]:
    """Pure, and most files stay as they are from version to version."""
    found = read(raw, Targets, name)
    if role is not None:
        found.demand(role, name.removesuffix(".json"))
    return found


def _check_file(raw: bytes, path: str, target: TargetFile, by: str) -> None:
    said = (target.length, target.hashes, target.unrecognized_fields)
    if said != (len(raw), {"sha256": hashlib.sha256(raw).hexdigest()}, {}):
        raise InvalidProof(f"{path} is not the file that {by} signs for")


def _officers(delegations: Delegations | None) -> dict[Segment, Keys]:
    """The regions, in order, and who may sign for each."""
    if delegations is None:
        return {}
    if delegations.roles is None or len(delegations.roles) > limits.REGIONS_MAX:
        raise InvalidProof(f"targets.json delegates to more than {limits.REGIONS_MAX} regions")
    found = {}
    for text, role in delegations.roles.items():
        name = documents.region_name(text)
        if (role.paths, role.terminating, role.unrecognized_fields) != ([f"{name}/*"], True, {}):
            raise InvalidProof(f"targets.json gives {name} other rights than its own folder")
        found[name] = role_keys(role, delegations.keys, name)
    return found


def _snapshot(
    before: Repository | None,
    files: Mapping[str, bytes],
    role: Keys | None,
    signed: Mapping[str, Signed[Any]],
    version: int,
) -> Signed[Snapshot]:
    snapshot = read(_file(files, "snapshot.json"), Snapshot, "snapshot.json")
    if role is not None:
        snapshot.demand(role, "snapshot")
    if snapshot.version != version:
        raise InvalidProof(f"snapshot.json has version {snapshot.version}, not {version}")
    follows = before.members.digest if before else FIRST
    if snapshot.content.unrecognized_fields != {"hanse_before": follows.hex()}:
        raise InvalidProof(
            f"trust version {version} follows another version {version - 1} than ours",
            fix="compare hanse trust show on both sides: two versions were signed",
        )
    known = before.signed["snapshot.json"].content.meta if before else {}
    _check_metas(known, snapshot.content.meta, signed, version)
    return snapshot


def _check_metas(
    known: Mapping[str, MetaFile],
    metas: Mapping[str, MetaFile],
    signed: Mapping[str, Signed[Any]],
    version: int,
) -> None:
    """A file that changed has a higher version, and none runs ahead of the trust version.

    Files of regions that are gone stay named, as TUF wants it: they cannot come back older.
    """
    if set(metas) != set(signed) | set(known):
        raise InvalidProof("snapshot.json does not name exactly the files of this version")
    for name, meta in metas.items():
        old, file = known.get(name), signed.get(name)
        if file is not None:
            _check_meta(meta, file)
        if old is not None and meta != old and (file is None or meta.version <= old.version):
            raise InvalidProof(f"{name} goes from version {old.version} to {meta.version}")
        if meta.version > version:
            raise InvalidProof(f"{name} has version {meta.version} in trust version {version}")


def _check_meta(meta: MetaFile, file: Signed[Any]) -> None:
    said = (meta.version, meta.length, meta.hashes, meta.unrecognized_fields)
    if said != (file.version, None, None, {"hanse_signed": file.digest.hex()}):
        raise InvalidProof(f"{file.name} is not the one that snapshot.json names")


def _check_pinned(root: Signed[Root], files: Mapping[str, bytes]) -> None:
    raw = _file(files, documents.CUTS)
    pinned = {"length": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    if root.content.unrecognized_fields != {"hanse_cuts": pinned}:
        raise InvalidProof("cuts.json is not the file that the root signs for")


def _belonging(
    files: Mapping[str, bytes],
    bundle: Bundle,
    signed: Mapping[str, Signed[Any]],
    officers: Mapping[Segment, Keys],
) -> dict[str, bytes]:
    """The files of this version; those of regions that are gone go too."""
    names = {*signed, documents.CUTS, *documents.SHARED, *map(documents.region_file, officers)}
    strange = [n for n in bundle.files if n not in names and not ROOT_NAME.fullmatch(n)]
    if strange:
        raise InvalidProof(f"the trust version carries {strange[0][:80]}, which nothing names")
    return {name: raw for name, raw in files.items() if name in names}


def _view(
    files: Mapping[str, bytes],
    keys: Mapping[str, Keys],
    officers: Mapping[Segment, Keys],
    root: Signed[Root],
    snapshot: Signed[Snapshot],
) -> Members:
    regions: list[Region] = []
    listed: list[Member] = []
    for name, led_by in officers.items():
        region, daemons = documents.read_region(name, files[documents.region_file(name)], led_by)
        regions.append(region)
        listed += daemons
    cuts, caps = documents.read_cuts(files[documents.CUTS])
    return Members(
        version=snapshot.version,
        root_keys=keys["root"].keys,
        root_threshold=keys["root"].threshold,
        regions=tuple(regions),
        members=tuple(listed),
        cuts=cuts,
        floor_caps=caps,
        targets=keys["targets"],
        snapshot=keys["snapshot"],
        timestamp=keys["timestamp"],
        root_version=root.version,
        digest=snapshot.digest,
        **documents.read_shared(files),
    )


def _check_progress(before: Members, after: Members) -> None:
    """What may only grow, whoever signs: the federation's name, its cuts and its floors."""
    if after.federation != before.federation:
        raise InvalidProof("the trust version belongs to another federation")
    cuts = {cut.origin: cut for cut in after.cuts}
    for cut in before.cuts:
        now = cuts.get(cut.origin)
        if now is None or now.void_from > cut.void_from:
            raise InvalidProof(f"the cut of {cut.origin} is taken back")
    for model, floor in before.floors.items():
        cap = after.floor_caps.get(model)
        corrected = cap is not None and cap.before == after.version
        if after.floors.get(model, 0) < floor and not corrected:
            raise InvalidProof(
                f"the floor of {model} falls below {floor}, and the root did not say so",
                fix="lower it with hanse trust floor --lower and the root keys",
            )


def _file(files: Mapping[str, bytes], name: str) -> bytes:
    try:
        return files[name]
    except KeyError:
        raise InvalidProof(f"the trust version lacks {name}") from None
