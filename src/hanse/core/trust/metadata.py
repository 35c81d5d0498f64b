"""One TUF metadata file: read strictly, and verified with our own verifier.

The format and its parser are TUF's. Who signed is counted here, with the one verifier of the
federation and by distinct keys (T18): a key's id is the member id of the key itself, so one
key cannot stand under two ids. Expiry is read and never judged here: what is expired still
says who belongs (F19).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tuf.api.metadata import Key, Metadata, Role, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError, SerializationError

from hanse.core import limits
from hanse.core.errors import InvalidProof, InvalidSignature, InvalidSpec
from hanse.core.ids import MemberId, member_id
from hanse.core.reading import canonical_json, parse_json
from hanse.core.signing import admit_public_key, verify
from hanse.core.trust.members import Keys

S = TypeVar("S", Root, Snapshot, Targets, Timestamp)
VERSION_MAX = 2**53
BYTES_MAX: Mapping[type[Any], int] = {
    Root: limits.TRUST_ROOT_BYTES_MAX,
    Snapshot: limits.TRUST_SNAPSHOT_BYTES_MAX,
    Targets: limits.TRUST_TARGETS_BYTES_MAX,
    Timestamp: limits.TIMESTAMP_BYTES_MAX,
}


@dataclass(frozen=True)
class Signed(Generic[S]):
    """A file of which nothing is verified yet but its form.

    `text` is what is signed: TUF's canonical form of `content`. Its digest is that of the
    file, so that one more signature, which anybody may add, makes no other file.
    """

    name: str
    raw: bytes
    content: S
    text: bytes
    signatures: Mapping[str, bytes]

    @property
    def version(self) -> int:
        return self.content.version

    @property
    def expires_s(self) -> int:
        return int(self.content.expires.timestamp())

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.text).digest()

    def signers(self, role: Keys) -> frozenset[MemberId]:
        """The distinct keys of `role` that signed; what fails or is unknown is passed over."""
        found = set()
        for keyid, key in role.by_id.items():
            if keyid in self.signatures:
                try:
                    verify(key, self.signatures[keyid], self.text)
                except InvalidSignature:
                    continue
                found.add(keyid)
        return frozenset(found)

    def demand(self, role: Keys, what: str) -> None:
        """Raises `InvalidSignature` unless the threshold of `role` signed."""
        count = len(self.signers(role))
        if count < role.threshold:
            raise InvalidSignature(
                f"{count} of {role.threshold} keys of {what} signed {self.name}",
                fix="have more of their holders sign the draft with hanse trust sign",
            )


def read(raw: bytes, kind: type[S], name: str) -> Signed[S]:
    """Read a file that must be of this kind. Raises `InvalidSpec` or `TooLarge`."""
    document = parse_json(raw, name, bytes_max=BYTES_MAX[kind])
    if canonical_json(document) != raw:
        raise InvalidSpec(f"{name} is not canonical JSON")
    try:
        metadata: Metadata[S] = Metadata.from_bytes(raw)
        content, text = metadata.signed, metadata.signed_bytes
        signatures = {k: bytes.fromhex(s.signature) for k, s in metadata.signatures.items()}
    except (DeserializationError, SerializationError, TypeError, ValueError) as error:
        raise InvalidSpec(f"{name} is no TUF metadata: {error.__cause__ or error}") from error
    if not isinstance(content, kind):
        raise InvalidSpec(f"{name} is TUF metadata of another type, {content.type}")
    if type(content.version) is not int or not 1 <= content.version <= VERSION_MAX:
        raise InvalidSpec(f"{name} has version {content.version!r}")
    if any(signatures[k].hex() != s.signature for k, s in metadata.signatures.items()):
        raise InvalidSpec(f"{name} writes a signature otherwise than in lower-case hex")
    if len(signatures) > limits.TRUST_SIGNATURES_MAX:
        raise InvalidSpec(f"{name} has {len(signatures)} signatures")
    return Signed(name, raw, content, text, signatures)


def role_keys(role: Role, keys: Mapping[str, Key], what: str) -> Keys:
    """The keys of a role, in order. Raises `Rejected` for any that is not as we write them."""
    if type(role.threshold) is not int or not 1 <= role.threshold <= len(role.keyids):
        raise InvalidProof(f"{what}: {role.threshold!r} of {len(role.keyids)} keys cannot sign")
    return Keys(tuple(_raw_key(k, keys.get(k), what) for k in role.keyids), role.threshold)


def _raw_key(keyid: str, key: Key | None, what: str) -> bytes:
    if key is None:
        raise InvalidProof(f"{what}: key {keyid[:64]} is not in the file")
    value = key.keyval.get("public")
    try:
        raw = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        raw = b""
    kind = (key.keytype, key.scheme, sorted(key.keyval), key.unrecognized_fields)
    if kind != ("ed25519", "ed25519", ["public"], {}) or value != raw.hex():
        raise InvalidSpec(f"{what}: key {keyid[:64]} is not a plain Ed25519 key")
    admit_public_key(raw)
    if keyid != member_id(raw):
        raise InvalidSpec(f"{what}: key {keyid[:64]} stands under an id that is not its own")
    return raw
