"""What a daemon relied on in its bucket, for a start while that cannot be reached."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hanse.core.claims import Object, Objects, digest_of
from hanse.core.errors import Rejected
from hanse.core.ids import Digest
from hanse.core.reading import Reader, canonical_json, parse_json
from hanse.storage.incoming import disk_errors
from hanse.storage.sealed import read_sealed, write_sealed

NAME = "bucket.known"
_BYTES_MAX = 256 * 1024**2


def write(path: Path, relied: Mapping[Digest, Objects]) -> None:
    copies = [[c.key, c.size, int(c.came_s)] for each in relied.values() for c in each]
    with disk_errors("remember what is in the bucket"):
        write_sealed(path, canonical_json({"schema": 1, "copies": copies}))


def read(path: Path) -> dict[Digest, Objects]:
    """Nothing if there is no such file or it is damaged: the next look at the bucket tells."""
    found: dict[Digest, Objects] = {}
    raw = read_sealed(path, _BYTES_MAX)
    if raw is None:
        return found
    try:
        with Reader(parse_json(raw, NAME, bytes_max=_BYTES_MAX), NAME) as reader:
            reader.integer("schema", low=1, high=1)
            copies = reader.items("copies", _copy, count_max=10**7)
    except Rejected:  # of another version
        return found
    for copy in copies:
        digest = digest_of(copy.key)
        found[digest] = (*found.get(digest, ()), copy)
    return found


def _copy(value: object, path: str) -> Object:
    match value:
        case [str(key), int(size), int(came_s)]:
            return Object(key, size, float(came_s))
    raise Rejected(f"{path}: no copy")
