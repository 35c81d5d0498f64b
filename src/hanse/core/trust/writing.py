"""Writing the next trust version: from what it should say to the files that have to be signed.

Only what changes is written anew, one version higher; the rest keeps its bytes and its
signatures. Everything can be signed in one pass and in any order, because the snapshot names
what is signed in each file and not the signatures on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any

from tuf.api.metadata import SPECIFICATION_VERSION, Metadata

from hanse.core.reading import canonical_json, parse_json
from hanse.core.trust import documents, instants
from hanse.core.trust.bundle import Bundle
from hanse.core.trust.members import Keys, Members
from hanse.core.trust.repository import FIRST, Repository


@dataclass(frozen=True, slots=True)
class Expiry:
    """Until when new files are good, in Unix seconds."""

    root_s: int = instants.LAST_S
    other_s: int = instants.LAST_S

    @classmethod
    def after(cls, now_s: int) -> Expiry:
        """A year for the root, three months for what it delegates to."""
        return cls(now_s + 365 * instants.DAY_S, now_s + 90 * instants.DAY_S)


def draft(
    before: Repository | None, after: Members, expiry: Expiry, renew: Iterable[str] = ()
) -> Bundle:
    """The files that change, unsigned. `renew` names files that get a new date in any case.

    So does a file whose role has other keys from here on: they have not signed it yet.
    """
    documents.check(after)
    signers = _signers(before.members) if before else {}
    changed = {name for name, keys in _signers(after).items() if signers.get(name, keys) != keys}
    return _Writer(before, after, expiry, changed.union(renew)).bundle()


def _signers(members: Members) -> dict[str, Keys]:
    led = {f"{region.name}.json": region.officers for region in members.regions}
    return {"targets.json": members.targets, **led}


class _Writer:
    def __init__(
        self,
        before: Repository | None,
        after: Members,
        expiry: Expiry,
        renew: Set[str],
    ) -> None:
        self._before, self._after, self._expiry, self._renew = before, after, expiry, renew
        self._changed: dict[str, bytes] = {}
        self._digests: dict[str, tuple[int, bytes]] = {}

    def bundle(self) -> Bundle:
        after = self._after
        cuts, shared = documents.cuts_file(after), documents.shared_files(after)
        self._put("root.json", _root(after, cuts), self._expiry.root_s, {documents.CUTS: cuts})
        self._put("targets.json", _targets(after, shared), self._expiry.other_s, shared)
        for region in after.regions:
            path = documents.region_file(region.name)
            files = {path: documents.region_content(after, region)}
            self._put(f"{region.name}.json", _listing(files), self._expiry.other_s, files)
        self._changed["snapshot.json"] = self._snapshot()
        return Bundle(after.version, self._changed)

    def _put(
        self, name: str, content: dict[str, Any], expires_s: int, files: Mapping[str, bytes]
    ) -> None:
        """Write a metadata file, and what it signs for, unless it says what it said before."""
        old = self._before.signed.get(name) if self._before else None
        if old is not None and name not in self._renew and _body(old.raw) == content:
            self._digests[name] = (old.version, old.digest)
            return
        version = self._known(name) + 1
        raw = _unsigned(content, version, expires_s)
        self._changed[f"{version}.root.json" if name == "root.json" else name] = raw
        self._digests[name] = (version, _digest(raw))
        had = self._before.files if self._before else {}
        self._changed |= {path: data for path, data in files.items() if had.get(path) != data}

    def _known(self, name: str) -> int:
        """The last version of a file, also of one that is gone."""
        metas = self._before.signed["snapshot.json"].content.meta if self._before else {}
        return metas[name].version if name in metas else 0

    def _snapshot(self) -> bytes:
        metas: dict[str, Any] = {}
        if self._before:
            known = self._before.signed["snapshot.json"].content.meta
            metas = {name: meta.to_dict() for name, meta in known.items()}
        for name, (version, digest) in self._digests.items():
            metas[name] = {"hanse_signed": digest.hex(), "version": version}
        before = self._before.members.digest if self._before else FIRST
        content = {"_type": "snapshot", "hanse_before": before.hex(), "meta": metas}
        return _unsigned(content, self._after.version, self._expiry.other_s)


def _root(members: Members, cuts: bytes) -> dict[str, Any]:
    roles = {
        "root": members.root,
        "targets": members.targets,
        "snapshot": members.snapshot,
        "timestamp": members.timestamp,
    }
    return {
        "_type": "root",
        "consistent_snapshot": True,
        "hanse_cuts": {"length": len(cuts), "sha256": hashlib.sha256(cuts).hexdigest()},
        "keys": _keys(roles.values()),
        "roles": {name: _role(keys) for name, keys in roles.items()},
    }


def _targets(members: Members, shared: Mapping[str, bytes]) -> dict[str, Any]:
    roles = [
        {
            "name": region.name,
            "paths": [f"{region.name}/*"],
            "terminating": True,
            **_role(region.officers),
        }
        for region in members.regions
    ]
    keys = _keys(region.officers for region in members.regions)
    return _listing(shared) | {"delegations": {"keys": keys, "roles": roles}}


def _listing(files: Mapping[str, bytes]) -> dict[str, Any]:
    targets = {
        path: {"hashes": {"sha256": hashlib.sha256(raw).hexdigest()}, "length": len(raw)}
        for path, raw in files.items()
    }
    return {"_type": "targets", "targets": targets}


def _role(keys: Keys) -> dict[str, Any]:
    return {"keyids": list(keys.by_id), "threshold": keys.threshold}


def _keys(roles: Iterable[Keys]) -> dict[str, Any]:
    return {
        keyid: {"keytype": "ed25519", "keyval": {"public": key.hex()}, "scheme": "ed25519"}
        for role in roles
        for keyid, key in role.by_id.items()
    }


def _unsigned(content: dict[str, Any], version: int, expires_s: int) -> bytes:
    dated = {
        "expires": instants.to_iso(expires_s),
        "spec_version": ".".join(SPECIFICATION_VERSION),
        "version": version,
    }
    return canonical_json({"signatures": [], "signed": content | dated})


def _body(raw: bytes) -> dict[str, Any]:
    """What a file says, without its version and dates."""
    signed: dict[str, Any] = parse_json(raw, "metadata", bytes_max=len(raw))["signed"]
    return {k: v for k, v in signed.items() if k not in ("expires", "spec_version", "version")}


def _digest(raw: bytes) -> bytes:
    return hashlib.sha256(Metadata.from_bytes(raw).signed_bytes).digest()
