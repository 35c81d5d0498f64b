"""The chain of members files, replayed from its first version at every start.

Version 1 is the bootstrap: whoever runs a daemon chose to trust it. Each later version is
exactly one higher and carries the thresholds of the version before and of itself, so nobody
can skip, fork or roll back trust. All versions are kept, because an event is judged by the
version that its author names.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from hanse.core import limits
from hanse.core.dsse import open_envelope, parse_envelope, sign_envelope
from hanse.core.encoding import to_base64
from hanse.core.errors import InvalidProof, InvalidSignature
from hanse.core.ids import MemberId, member_id
from hanse.core.reading import canonical_json, parse_json
from hanse.core.signing import SigningKey
from hanse.core.trust import documents
from hanse.core.trust.members import Member, Members, Region

PAYLOAD_TYPE = "application/vnd.hanse.members+json"


@dataclass(frozen=True, slots=True)
class Chain:
    """`files[i]` is the signed version i + 1, `versions[i]` what it says."""

    files: tuple[bytes, ...]
    versions: tuple[Members, ...]

    @property
    def current(self) -> Members:
        return self.versions[-1]

    def at(self, version: int) -> Members | None:
        return self.versions[version - 1] if 1 <= version <= len(self.versions) else None


def start(raw: bytes) -> Chain:
    """Begin a chain from the bootstrap file, which must be signed by its own threshold."""
    members = _open(raw)
    _demand(raw, members)
    if members.version != 1:
        raise InvalidProof(f"the bootstrap members file has version {members.version}, not 1")
    return Chain((raw,), (members,))


def extend(chain: Chain, raw: bytes) -> Chain:
    """Add the next version. Raises `InvalidProof` or `InvalidSignature`; changes nothing."""
    before, members = chain.current, _open(raw)
    if members.version != before.version + 1:
        raise InvalidProof(f"members version {members.version} does not follow {before.version}")
    if members.federation != before.federation:
        raise InvalidProof("the members file belongs to another federation")
    _demand(raw, before)
    _demand(raw, members)
    return replace(chain, files=(*chain.files, raw), versions=(*chain.versions, members))


def replay(files: tuple[bytes, ...]) -> Chain:
    """Verify a whole chain again, as every start does: cached state is never trusted."""
    if not files:
        raise InvalidProof("there is no members file", fix="run hanse daemon init or join")
    chain = start(files[0])
    for raw in files[1:]:
        chain = extend(chain, raw)
    return chain


def sign(members: Members, keys: tuple[SigningKey, ...]) -> bytes:
    documents.check(members)
    return sign_envelope(PAYLOAD_TYPE, encode_members(members), keys)


def _open(raw: bytes) -> Members:
    # The signatures are checked right after, against keys that only the content can name.
    envelope = parse_envelope(raw, limits.MEMBERS_FILE_BYTES_MAX * 2)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise InvalidProof(f"not a members file but {envelope.payload_type}")
    return decode_members(envelope.payload)


def _demand(raw: bytes, by: Members) -> None:
    keys: dict[MemberId, bytes] = {member_id(k): k for k in by.root_keys}
    _, signers = open_envelope(raw, keys, bytes_max=limits.MEMBERS_FILE_BYTES_MAX * 2)
    if len(signers) < by.root_threshold:
        raise InvalidSignature(
            f"{len(signers)} of {by.root_threshold} root keys of version {by.version} signed",
            fix="have more holders of root keys sign the members file",
        )


# -- one document, until trust versions are repositories ---------------------------


def encode_members(members: Members) -> bytes:
    files = {name: raw.decode() for name, raw in documents.shared_files(members).items()}
    for region in members.regions:
        content = documents.region_content(members, region).decode()
        files[documents.region_file(region.name)] = content
    files[documents.CUTS] = documents.cuts_file(members).decode()
    root = {"keys": [to_base64(k) for k in members.root_keys], "threshold": members.root_threshold}
    regions = [r.name for r in members.regions]
    return canonical_json(
        {"files": files, "regions": regions, "root": root, "version": members.version}
    )


def decode_members(raw: bytes) -> Members:
    document = parse_json(raw, "members file", bytes_max=limits.MEMBERS_FILE_BYTES_MAX)
    files = {k: v.encode() for k, v in document["files"].items()}
    found = documents.read_shared(files)
    found["cuts"], found["floor_caps"] = documents.read_cuts(files[documents.CUTS])
    regions: list[Region] = []
    members: list[Member] = []
    for name in document["regions"]:
        region, listed = documents.read_region(name, files[documents.region_file(name)])
        regions.append(region)
        members += listed
    root = document["root"]
    parsed = Members(
        version=document["version"],
        root_keys=tuple(documents.parse_key(k, "root") for k in root["keys"]),
        root_threshold=root["threshold"],
        regions=tuple(regions),
        members=tuple(members),
        digest=hashlib.sha256(raw).digest(),
        **found,
    )
    documents.check(parsed)
    return parsed
