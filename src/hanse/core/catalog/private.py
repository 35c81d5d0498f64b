"""Values that leave their region only as salted commitments (T37, I11).

The publisher signs a manifest in which a private value is replaced:

    "private": {"hyperparameters.lr": "sha256:…"}
    commitment = SHA-256(hanse-private/v1\\n || 32 bytes of salt || canonical JSON of the value)

So the release id fixes the value, and nobody can guess it. Salt and value, the *opening*, stay
in the store of the daemon that recorded the release. It hands them to an auditor who has asked
for them with a signature, and who then checks them against the log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hanse.core.catalog.manifest import Manifest
from hanse.core.catalog.private_fields import TABLES, may_be_private, value_of
from hanse.core.errors import InvalidProof, InvalidSpec
from hanse.core.ids import Digest, Segment
from hanse.core.limits import MANIFEST_BYTES_MAX
from hanse.core.reading import Reader, canonical_json, parse_json

SALT_BYTES = 32
REQUEST_TYPE = "application/vnd.hanse.reveal+json"
_DOMAIN = b"hanse-private/v1\n"


@dataclass(frozen=True, slots=True)
class Opening:
    """What turns a commitment back into a value. Never shown by `repr`, lest a log has it."""

    release: Digest
    field: str
    salt: bytes
    value: Any

    def __repr__(self) -> str:
        return f"Opening({self.release}, {self.field!r})"

    @property
    def commitment(self) -> Digest:
        return commit(self.salt, self.value)

    def encode(self) -> bytes:
        return canonical_json(
            {
                "field": self.field,
                "release": str(self.release),
                "salt": self.salt.hex(),
                "schema": 1,
                "value": self.value,
            }
        )

    def check(self, manifest: Manifest) -> None:
        """Raises `InvalidProof` unless the release says exactly this value."""
        if manifest.private.get(self.field) != self.commitment:
            raise InvalidProof(
                f"this is not what {manifest.model}@{manifest.version} says as {self.field}",
                fix="ask for the opening again; keep this one, it is false",
            )


def parse_opening(raw: bytes) -> Opening:
    """Read what `encode` writes. Raises `InvalidSpec` or `InvalidName`."""
    document = parse_json(raw, "opening", bytes_max=4 * MANIFEST_BYTES_MAX)
    with Reader(document, "opening") as reader:
        reader.integer("schema", low=1, high=1)
        return Opening(
            Digest.parse(reader.text("release")),
            reader.text("field"),
            parse_salt(reader.text("salt")),
            reader.raw("value"),
        )


def parse_salt(text: str) -> bytes:
    try:
        salt = bytes.fromhex(text)
    except ValueError:
        salt = b""
    if len(salt) != SALT_BYTES:
        raise InvalidSpec(f"a salt is written as {2 * SALT_BYTES} hex digits")
    return salt


def commit(salt: bytes, value: Any) -> Digest:
    return Digest(hashlib.sha256(_DOMAIN + salt + canonical_json(value)).hexdigest())


def hide(
    manifest: Manifest, fields: Iterable[str], salt: Callable[[], bytes]
) -> tuple[Manifest, dict[str, tuple[bytes, Any]]]:
    """The manifest with these values committed to, and (salt, value) of each.

    Raises `InvalidSpec` for a field that cannot be private, or that has no value.
    """
    secrets: dict[str, tuple[bytes, Any]] = {}
    for field in dict.fromkeys(fields):
        value = value_of(manifest.to_mapping(), field) if may_be_private(field) else None
        if not value:
            raise InvalidSpec(
                f"{field}: there is no such value to keep private",
                fix="training.data, training.code, hyperparameters.NAME, metrics.NAME, labels.NAME",
            )
        secrets[field] = (salt(), value)
        manifest = _without(manifest, field)
    return replace(manifest, private={f: commit(*secrets[f]) for f in sorted(secrets)}), secrets


def in_clear(manifest: Manifest, policy: Iterable[str]) -> list[str]:
    """Fields with a value that this policy keeps private. `hyperparameters.*` means all."""
    document, found = manifest.to_mapping(), list[str]()
    for pattern in policy:
        table, dot, name = pattern.partition(".")
        names = getattr(manifest, table) if dot and name == "*" and table in TABLES else ()
        found += [f"{table}.{each}" for each in names]
        found += [pattern] if may_be_private(pattern) and value_of(document, pattern) else []
    return list(dict.fromkeys(found))


def check_policy(policy: Iterable[str]) -> tuple[str, ...]:
    """The fields that a region keeps private. Raises `InvalidSpec` for one that cannot be."""
    checked = tuple(policy)
    for pattern in checked:
        everything = pattern in {f"{table}.*" for table in TABLES}
        if not everything and not may_be_private(pattern):
            raise InvalidSpec(
                f"{pattern[:80]!r} cannot be private",
                fix="training.data, training.code, hyperparameters.NAME or .*, metrics, labels",
            )
    return checked


def request(federation: Segment, release: Digest, field: str) -> bytes:
    """What an auditor signs to be shown a value."""
    return canonical_json({"federation": federation, "field": field, "release": str(release)})


def openings(release: Digest, manifest: Manifest, given: Mapping[str, Any]) -> list[Opening]:
    """What a publisher hands in beside the manifest: one opening for every commitment."""
    if set(given) != set(manifest.private):
        raise InvalidSpec("openings: expected one for every private field of the manifest")
    found = []
    for field, value in given.items():
        with Reader(value, f"openings.{field}") as reader:
            salt = parse_salt(reader.text("salt"))
            found.append(Opening(release, field, salt, reader.raw("value")))
        found[-1].check(manifest)
    return found


def _without(manifest: Manifest, field: str) -> Manifest:
    table, _, name = field.partition(".")
    if field == "training.data":
        return replace(manifest, training_data=())
    if field == "training.code":
        return replace(manifest, code="")
    left = {key: value for key, value in getattr(manifest, table).items() if key != name}
    if table == "hyperparameters":
        return replace(manifest, hyperparameters=left)
    return replace(manifest, metrics=left) if table == "metrics" else replace(manifest, labels=left)
