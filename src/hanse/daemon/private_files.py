"""Files that hold secrets or prove who we are: written once, whole, and for their owner alone.

Keys are never replaced. A key that is overwritten is a member that is lost, so a
name that is taken is an error, and a crash leaves either the whole file or none.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from hanse.core.errors import Conflict, InvalidSpec, NotFound, NotPermitted
from hanse.storage.incoming import sync_folder

PRIVATE_BYTES_MAX = 64 * 1024


def write_new(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Create `path` atomically and durably. Raises `Conflict` if it exists."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # unlike rename, fails when the name is taken
        except FileExistsError:
            raise Conflict(
                f"{path} exists and is never overwritten", fix="choose another name or move it away"
            ) from None
    finally:
        Path(temporary).unlink()
    sync_folder(path.parent)


def replace_private(path: Path, content: bytes) -> None:
    """Put other content into a file that people hand on. Never for keys."""
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(temporary).replace(path)


def check_private(path: Path) -> None:
    """Raises `NotFound`, or `NotPermitted` if anybody but the owner may read the file."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise NotFound(
            f"there is no key file {path}", fix="restore it from your backup, or check the path"
        ) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise NotPermitted(
            f"the key file {path} can be read by others (mode {stat.S_IMODE(mode):04o})",
            fix=f"run: chmod 600 {path}",
        )


def read_private(path: Path) -> bytes:
    """The content of a small key file that nobody else may read."""
    check_private(path)
    with path.open("rb") as file:
        content = file.read(PRIVATE_BYTES_MAX + 1)
    if len(content) > PRIVATE_BYTES_MAX:
        raise InvalidSpec(f"{path} is too large for a key file", fix="check the path")
    return content


def read_seed(path: Path) -> bytes:
    """The 32-byte seed of an Ed25519 key, written as 64 hex digits."""
    try:
        seed = bytes.fromhex(read_private(path).decode("ascii").strip())
    except ValueError:
        seed = b""
    if len(seed) != 32:
        raise InvalidSpec(
            f"{path} does not hold an Ed25519 seed of 64 hex digits",
            fix="point at a key file that hanse made",
        )
    return seed


def write_seed(path: Path, seed: bytes) -> None:
    write_new(path, seed.hex().encode() + b"\n")
