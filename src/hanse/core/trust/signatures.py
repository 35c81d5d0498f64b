"""Signing a draft of a trust version, by people who need not meet and in any order.

A draft is a bundle whose thresholds are not met yet. Each holder of a key adds signatures to
every file that the key may sign; copies that were signed apart are put together again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuf.api.metadata import Root, Snapshot, Targets

from hanse.core.errors import Conflict
from hanse.core.ids import MemberId, member_id
from hanse.core.reading import canonical_json, parse_json
from hanse.core.signing import SigningKey
from hanse.core.trust.bundle import ROOT_NAME, Bundle
from hanse.core.trust.members import Keys
from hanse.core.trust.metadata import Signed, read, role_keys
from hanse.core.trust.repository import Repository


@dataclass(frozen=True, slots=True)
class Need:
    """One threshold that a file of a draft has to meet."""

    file: str
    role: str
    keys: Keys
    signed: frozenset[MemberId]

    @property
    def missing(self) -> int:
        return max(0, self.keys.threshold - len(self.signed))


def needs(bundle: Bundle, before: Repository | None) -> tuple[Need, ...]:
    """Every threshold that this draft has to meet, the root of the version before among them."""
    root, targets = _root(bundle, before), _targets(bundle, before)
    found = []
    for name, raw in bundle.files.items():
        if ROOT_NAME.fullmatch(name):
            old = before.signed["root.json"] if before else None
            asked = [("root", file) for file in (old, root) if file is not None]
            roles = [(f"root {f.version}", _keys_of(f, role)) for role, f in asked]
            found += [Need(name, what, keys, root.signers(keys)) for what, keys in roles]
        elif name in ("targets.json", "snapshot.json"):
            role = name.removesuffix(".json")
            keys = _keys_of(root, role)
            file: Signed[Any] = read(raw, Targets if role == "targets" else Snapshot, name)
            found.append(Need(name, role, keys, file.signers(keys)))
        elif (led := _officers(targets, name)) is not None:
            file = read(raw, Targets, name)
            found.append(Need(name, f"officers of {file.name[:-5]}", led, file.signers(led)))
    return tuple(found)


def sign(bundle: Bundle, before: Repository | None, keys: Iterable[SigningKey]) -> Bundle:
    """Add the signatures of these keys to every file that they may sign."""
    asked = needs(bundle, before)
    files = dict(bundle.files)
    for key in keys:
        keyid = member_id(key.public)
        for need in asked:
            if keyid in need.keys.by_id:
                files[need.file] = _signed(files[need.file], need.file, key)
    return Bundle(bundle.version, files)


def merge(bundle: Bundle, copies: Sequence[Bundle]) -> Bundle:
    """Put together what was signed apart. Raises `Conflict` for a copy of another draft."""
    files = dict(bundle.files)
    for copy in copies:
        if _unsigned(copy) != _unsigned(bundle):
            raise Conflict(
                "one of the files is a copy of another draft",
                fix="sign copies of one and the same draft",
            )
        for name in filter(is_metadata, files):
            ours, theirs = _document(files[name]), _document(copy.files[name])
            files[name] = _with(ours, {s["keyid"]: s for s in theirs["signatures"]})
    return Bundle(bundle.version, files)


def _root(bundle: Bundle, before: Repository | None) -> Signed[Root]:
    brought = bundle.root()
    if brought is not None:
        return read(brought[1], Root, "root.json")
    if before is None:
        raise Conflict("this draft has no root file, and there is no version before it")
    known: Signed[Root] = before.signed["root.json"]
    return known


def _targets(bundle: Bundle, before: Repository | None) -> Signed[Targets]:
    if "targets.json" in bundle.files or before is None:
        return read(bundle.files["targets.json"], Targets, "targets.json")
    known: Signed[Targets] = before.signed["targets.json"]
    return known


def _keys_of(root: Signed[Root], role: str) -> Keys:
    return role_keys(root.content.roles[role], root.content.keys, role)


def _officers(targets: Signed[Targets], name: str) -> Keys | None:
    delegations = targets.content.delegations
    if delegations is None or not delegations.roles:
        return None
    role = delegations.roles.get(name.removesuffix(".json"))
    return role_keys(role, delegations.keys, name) if role else None


def _signed(raw: bytes, name: str, key: SigningKey) -> bytes:
    kinds = {"targets.json": Targets, "snapshot.json": Snapshot}
    kind: Any = Root if ROOT_NAME.fullmatch(name) else kinds.get(name, Targets)
    signature = key.sign(read(raw, kind, name).text)
    keyid = member_id(key.public)
    return _with(_document(raw), {keyid: {"keyid": keyid, "sig": signature.hex()}})


def _with(document: dict[str, Any], added: Mapping[str, Any]) -> bytes:
    signatures = {s["keyid"]: s for s in document["signatures"]} | dict(added)
    ordered = [signatures[keyid] for keyid in sorted(signatures)]
    return canonical_json(document | {"signatures": ordered})


def _unsigned(bundle: Bundle) -> tuple[int, Mapping[str, bytes]]:
    files = {
        name: canonical_json(_document(raw)["signed"]) if is_metadata(name) else raw
        for name, raw in bundle.files.items()
    }
    return bundle.version, files


def _document(raw: bytes) -> dict[str, Any]:
    document: dict[str, Any] = parse_json(raw, "metadata", bytes_max=len(raw))
    return document


def is_metadata(name: str) -> bool:
    """Target files lie in the same bundle; only metadata carries signatures."""
    return name.endswith(".json") and "/" not in name and name not in _UNSIGNED


_UNSIGNED = frozenset({"members.json", "residency.json", "floors.json", "cuts.json"})
