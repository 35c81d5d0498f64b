"""A chain of trust laid out as a TUF repository, so that any client of TUF can follow it.

tuf/metadata/timestamp.json  1.root.json  2.root.json  7.snapshot.json  3.targets.json  ...
tuf/targets/<sha256>.members.json  tuf/targets/<region>/<sha256>.region.json  ...
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from hanse.core.reading import parse_json
from hanse.core.trust.bundle import ROOT_NAME, parse_bundle
from hanse.core.trust.signatures import is_metadata


def tuf_files(versions: Iterable[bytes], timestamp: bytes | None) -> dict[str, bytes]:
    """Every file of every version by its path. Verifies nothing."""
    found = {}
    for raw in versions:
        for name, content in parse_bundle(raw).files.items():
            found[_path(name, content)] = content
    if timestamp is not None:
        found["tuf/metadata/timestamp.json"] = timestamp
    return found


def _path(name: str, content: bytes) -> str:
    if ROOT_NAME.fullmatch(name):
        return f"tuf/metadata/{name}"
    if is_metadata(name):
        signed = parse_json(content, name, bytes_max=len(content))["signed"]
        return f"tuf/metadata/{signed['version']}.{name}"
    folder, separator, last = name.rpartition("/")
    return f"tuf/targets/{folder}{separator}{hashlib.sha256(content).hexdigest()}.{last}"
