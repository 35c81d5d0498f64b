"""`hanse release fetch`: the files of a release into a folder, through the daemon at hand.

    model.onnx                      a file gets its name once its SHA-256 is right
    model.onnx~5f2c01d0a9be.part    what came of it so far; a mark beside it proves how much,
                                    and the same command goes on behind that

No file of a release has a `~` in its name, so neither is taken for one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hanse.cli import client, options
from hanse.cli.output import Table, emit, note
from hanse.cli.progress import files_bar
from hanse.core.catalog.manifest import File, parse_manifest
from hanse.core.errors import Conflict, InvalidProof, Unavailable
from hanse.storage.incoming import FULL, Part, mark_of, sync_folder

if TYPE_CHECKING:
    from hanse.cli.shapes import ReleaseShown

AGAIN = "run the same command again: it goes on where it stopped"


@click.command()
@click.argument("name", metavar="MODEL@VERSION", callback=options.exact_release)
@click.option(
    "--to",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the files go; it is made if it is not there.",
)
@options.home
@options.output
def fetch(name: dict[str, str], folder: Path, home: Path, form: str) -> None:
    """Write the files of a release into a folder, each once its digest is right.

    What this daemon does not hold it fetches first, if the release may lie in its region. After
    an interruption the same command goes on where it stopped.
    """
    found: ReleaseShown = client.call(home, "release.show", **name)
    asked = {"model": found["model"], "release": found["release"]}
    files = parse_manifest(found["manifest"].encode()).files
    with _disk(folder), _daemon(home, folder):
        folder.mkdir(parents=True, exist_ok=True)
        missing = [file for file in files if not _is_there(folder, file)]
        region = _brought(home, asked)
        with files_bar("writing") as told:
            left = sum(file.size for file in missing)
            for file in missing:
                here = found["size"] - left
                _write(home, asked, file, folder, partial(_tell, told, here, found["size"]))
                left -= file.size
    value = {
        "release": found["release"],
        "version": found["version"],
        "region": region,
        "files": [{"name": f.name, "digest": str(f.digest), "size": f.size} for f in files],
        "folder": str(folder),
    }
    rows = [(file.name, str(file.size), str(file.digest)) for file in files]
    table = Table(("FILE", "BYTES", "DIGEST"), rows, foot=[f"{found['version']} is in {folder}"])
    emit(form, "Fetched", value, table, [str(folder / file.name) for file in files])


def _is_there(folder: Path, file: File) -> bool:
    """Raises `Conflict` if something else has its name."""
    path = folder / file.name
    if not os.path.lexists(path):
        return False
    if not path.is_file() or _digest(path) != file.digest.hex:
        raise Conflict(
            f"{path} is there, and is another than in the release",
            fix="move it away, or name another folder with --to",
        )
    return True


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tell(told: Callable[[int, int], None], here: int, of: int, count: int) -> None:
    told(here + count, of)


def _brought(home: Path, asked: dict[str, str]) -> str:
    """Wait until the daemon has all of it; the daemon's region."""
    why = ""
    with files_bar("fetching") as told:

        def heard(said: dict[str, Any]) -> None:
            nonlocal why
            told(said["bytes"], said["of"])
            if said["why"] != why:
                note(why := said["why"])

        found = client.result(client.stream(home, "release.files", **asked), heard)
    return str(found["region"])


def _write(
    home: Path, asked: dict[str, str], file: File, folder: Path, told: Callable[[int], None]
) -> None:
    """From where an earlier call stopped; the name comes last, once the bytes are on the disk."""
    place = folder / f"{file.name}~{file.digest.hex[:12]}.part"
    asked = {**asked, "file": file.name}
    part = Part.resume(place, file.size, mode=0o666)
    try:
        _append(home, asked, part, file.size, told)
        if part.hash.hexdigest() != file.digest.hex:
            part.discard()
            client.call(home, "release.file", **asked, suspect=True)
            raise InvalidProof(
                f"{file.name} came with other bytes than were signed",
                fix="run the same command again; if it fails again, see hanse status for the disk",
            )
        os.fsync(part.fd)
        mark_of(place).unlink(missing_ok=True)
        place.replace(folder / file.name)
        sync_folder(folder)
    finally:
        os.close(part.fd)


def _append(
    home: Path, asked: dict[str, str], part: Part, size: int, told: Callable[[int], None]
) -> None:
    """Whatever ends it, what came so far is marked as proved."""
    told(part.length)
    try:
        for said in client.stream(home, "release.file", **asked, **{"from": part.length}):
            part.append(said["data"])
            told(part.length)
            if part.length > size:
                break  # it cannot be right any more
    finally:
        with suppress(OSError):  # a full disk: the last mark still holds
            part.mark()


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise Unavailable(
                f"the disk of {folder} is full", fix=f"make room there, then {AGAIN}"
            ) from None
        raise Conflict(
            f"cannot write into {folder}: {error.strerror or error}",
            fix="let this user write there, or name another folder with --to",
        ) from None


@contextmanager
def _daemon(home: Path, folder: Path) -> Iterator[None]:
    try:
        yield
    except (client.DaemonDown, client.NoAnswer) as error:
        raise type(error)(
            f"the daemon went away before all of it was in {folder}; what came is kept",
            fix=f"start it (hanse daemon run --home {home}), then {AGAIN}",
        ) from None
