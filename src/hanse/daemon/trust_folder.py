"""The signed members files of a home: `trust/00001.json`, `trust/00002.json`, …

They are the chain itself, so they are only ever added to. Reading proves nothing: whoever
uses them replays the chain.
"""

from __future__ import annotations

import re
from pathlib import Path

from hanse.core import limits
from hanse.core.errors import Conflict, InvalidProof, NotFound, TooLarge
from hanse.daemon.private_files import write_new

_NAME = re.compile(r"[0-9]{5}\.json")


def read_files(folder: Path) -> tuple[bytes, ...]:
    """Versions 1 to n as they were signed; empty if there are none yet."""
    paths = sorted(p for p in folder.glob("*.json") if _NAME.fullmatch(p.name))
    for version, path in enumerate(paths, start=1):
        if path.name != _name(version):
            raise InvalidProof(
                f"{folder / _name(version)} is missing, but {path.name} is there",
                fix="copy the whole trust folder of another daemon",
            )
    return tuple(_read(path) for path in paths)


def add_file(folder: Path, version: int, raw: bytes) -> Path:
    """Add one version; the same bytes again are fine. Raises `Conflict` for others."""
    path = folder / _name(version)
    if path.exists():
        if _read(path) == raw:
            return path
        raise Conflict(
            f"{path} holds another members file of that version",
            fix="two people signed the same version: agree on one, then sign the next",
        )
    write_new(path, raw, mode=0o644)
    return path


def chain_beside(path: Path) -> tuple[bytes, ...]:
    """The chain that a person means by a home folder, a trust folder or a file in one."""
    for folder in (path / "trust", path, path.parent):
        files = read_files(folder) if folder.is_dir() else ()
        if files:
            return files
    raise NotFound(
        f"there is no members file in or beside {path}",
        fix="name the home folder of a daemon, or a copy of its trust folder",
    )


def _name(version: int) -> str:
    return f"{version:05d}.json"


def _read(path: Path) -> bytes:
    limit = limits.TRUST_BUNDLE_BYTES_MAX
    with path.open("rb") as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        raise TooLarge(f"{path} is larger than {limit} bytes", fix="this is no members file")
    return raw
