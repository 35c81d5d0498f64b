"""One trust version on its way: the files that changed in it, by name.

    {"files": {"2.root.json": base64, "snapshot.json": base64, ...}, "schema": 1, "version": n}

A bundle proves nothing by itself; `repository.advance` decides whether it follows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hanse.core import limits
from hanse.core.encoding import strict_base64, to_base64
from hanse.core.errors import InvalidSpec
from hanse.core.reading import Reader, canonical_json, parse_json

ROOT_NAME = re.compile(r"([1-9][0-9]{0,8})\.root\.json")


@dataclass(frozen=True, slots=True)
class Bundle:
    """`files` under their names in a TUF repository; `root.json` carries its version before it."""

    version: int
    files: Mapping[str, bytes]

    def encode(self) -> bytes:
        files = {name: to_base64(raw) for name, raw in self.files.items()}
        return canonical_json({"files": files, "schema": 1, "version": self.version})

    def root(self) -> tuple[int, bytes] | None:
        """The root file in it, with the version in its name. Raises `InvalidSpec` for two."""
        found = [(m, self.files[name]) for name in self.files if (m := ROOT_NAME.fullmatch(name))]
        if len(found) > 1:
            raise InvalidSpec("the trust version carries two root files")
        return (int(found[0][0][1]), found[0][1]) if found else None


def parse_bundle(raw: bytes) -> Bundle:
    """Raises `InvalidSpec` or `TooLarge`; says nothing about signatures."""
    document = parse_json(raw, "trust version", bytes_max=limits.TRUST_BUNDLE_BYTES_MAX)
    with Reader(document, "trust version") as reader:
        reader.integer("schema", low=1, high=1)
        bundle = Bundle(
            reader.integer("version", low=1),
            _files(reader.raw("files"), f"{reader.path}.files"),
        )
    if bundle.encode() != raw:
        raise InvalidSpec("the trust version is not canonical JSON")
    return bundle


def _files(value: object, path: str) -> dict[str, bytes]:
    if not isinstance(value, Mapping) or len(value) > 2 * limits.REGIONS_MAX + 16:
        raise InvalidSpec(f"{path}: expected a mapping of files")
    files = {}
    for name, text in value.items():
        data = strict_base64(text) if isinstance(text, str) else None
        if data is None:
            raise InvalidSpec(f"{path}.{name[:80]}: expected base64")
        files[name] = data
    return files
