"""An exported folder on disk: written once, read with suspicion.

Names come from `core.audit` alone, never from what a file says, and a link or a device in the
folder is refused: whoever made it may have sent it to us.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from hanse.core.audit import export
from hanse.core.audit.paths import Index, log_path, parse_index
from hanse.core.audit.replay import Audit, Read, at, audit
from hanse.core.errors import Conflict, InvalidProof, NotFound, TooLarge
from hanse.core.events import Codec
from hanse.core.ids import Digest, Origin
from hanse.core.limits import EXPORT_FILE_BYTES_MAX
from hanse.core.log.checkpoint import Checkpoint
from hanse.core.log.note import Note

Told = Callable[[int, int], None]
"""Is told how many files of how many are done."""


def reader(folder: Path) -> Read:
    def read(path: str) -> bytes:
        file = folder / path
        if not file.is_file() or file.resolve() != folder.resolve() / path:
            raise NotFound(f"there is no file {path}", fix="export again: something is missing")
        with file.open("rb") as stream:
            raw = stream.read(EXPORT_FILE_BYTES_MAX + 1)
        if len(raw) > EXPORT_FILE_BYTES_MAX:
            raise TooLarge(f"{path} is larger than any file of an export")
        return raw

    return read


def save(read: Read, folder: Path, origins: Iterable[Origin], codec: Codec, told: Told) -> Audit:
    """Copy what `read` gives into `folder`, verify the copy, then seal it.

    Raises `Conflict` if the folder holds something, `NotFound` for an origin that is not there.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(f"{folder} is no empty folder", fix="name a folder that does not exist yet")
    index, notes = _snapshot(read, tuple(origins))
    made = {"logs": index.encode(), **notes}
    paths = list(index.paths())
    sealed: dict[str, Digest] = {}
    for done, path in enumerate(paths):
        raw = made[path] if path in made else read(path)
        sealed[path] = _write(folder, path, raw)
        told(done + 1, len(paths))
    here = reader(folder)
    audited = audit(here, here(paths[1]), codec)
    for path, raw in export.derived(audited).items():
        sealed[path] = _write(folder, path, raw)
    _write(folder, export.SEAL, export.seal(sealed))
    return audited


def verify(folder: Path, bootstrap: bytes, codec: Codec) -> Audit:
    """Everything in the folder stands, or `InvalidProof` says which file does not."""
    read = reader(folder)
    with at(export.SEAL):
        listed = export.parse_seal(read(export.SEAL))
    for path, digest in listed.items():
        with at(path):
            if not _plain(path) or Digest.of(read(path)) != digest:
                raise InvalidProof(f"has other bytes than {export.SEAL} says")
    audited = audit(read, bootstrap, codec)
    derived = export.derived(audited)
    for path, raw in derived.items():
        with at(path):
            if read(path) != raw:
                raise InvalidProof("does not follow from the logs")
    expected = {*parse_index(read("logs")).paths(), *derived}
    export.check_names(listed, _files(folder) - {export.SEAL}, expected)
    return audited


def _snapshot(read: Read, origins: tuple[Origin, ...]) -> tuple[Index, dict[str, bytes]]:
    """Heads first: a log may grow while it is copied, and its tiles follow from its head."""
    index = parse_index(read("logs"))
    absent = [origin for origin in origins if origin not in index.logs]
    if absent:
        raise NotFound(f"there is no log {absent[0]}", fix="leave --origin out for all logs")
    chosen = sorted(origins or index.logs, key=str)
    final = {o: log_path(o, "final") for o in chosen if o in index.final}
    notes = {path: read(path) for path in final.values()}  # before the heads that extend them
    heads = {o: log_path(o, "checkpoint") for o in chosen}
    notes |= {path: read(path) for path in heads.values()}

    def sizes(paths: dict[Origin, str]) -> dict[Origin, int]:
        return {o: Checkpoint.parse(Note.parse(notes[p]).text).size for o, p in paths.items()}

    return replace(index, logs=sizes(heads), final=sizes(final)), notes


def _write(folder: Path, path: str, raw: bytes) -> Digest:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(raw)
    return Digest.of(raw)


def _plain(path: str) -> bool:
    return not path.startswith("/") and ".." not in path.split("/")


def _files(folder: Path) -> set[str]:
    return {
        str((Path(where) / name).relative_to(folder))
        for where, _, names in os.walk(folder)
        for name in names
    }
