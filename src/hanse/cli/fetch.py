"""`hanse release fetch`: the files of a release into a folder, through the daemon at hand."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, BinaryIO

import click

from hanse.cli import client, options
from hanse.cli.output import Table, emit, note
from hanse.cli.progress import files_bar
from hanse.core.encoding import strict_base64
from hanse.core.errors import Broken, Conflict, InvalidProof
from hanse.core.ids import segment


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

    What this daemon does not hold it fetches first, if the release may lie in its region.
    """
    folder.mkdir(parents=True, exist_ok=True)
    taking = _Taking(folder)
    try:
        found = _received(home, name, taking)
        taking.publish(found["files"])
    finally:
        taking.close()
    rows = [(each["name"], str(each["size"]), each["digest"]) for each in found["files"]]
    table = Table(("FILE", "BYTES", "DIGEST"), rows, foot=[f"{found['version']} is in {folder}"])
    value = {**found, "folder": str(folder)}
    emit(form, "Fetched", value, table, [str(folder / each["name"]) for each in found["files"]])


def _received(home: Path, name: dict[str, str], taking: _Taking) -> dict[str, Any]:
    """First the daemon fetches what it lacks, then the files come from it."""
    answers, done, why = client.stream(home, "release.files", **name), 0, ""
    with files_bar("fetching") as fetched, files_bar("writing") as written:
        while True:
            try:
                said = next(answers)
            except StopIteration as end:
                return dict(end.value)
            if "data" not in said:
                fetched(said["bytes"], said["of"])
                if said["why"] != why:
                    note(why := said["why"])
                continue
            raw = strict_base64(said["data"])
            if raw is None:
                raise Broken("the daemon's answer makes no sense", fix="run the same version as it")
            taking.write(said["file"], raw)
            done += len(raw)
            written(done, said["of"])


class _Taking:
    """Files beside their names, until all of them have come."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, tuple[BinaryIO, Any]] = {}

    def write(self, name: str, data: bytes) -> None:
        if name not in self._open:
            if (self._folder / segment(name, "file")).exists():
                raise Conflict(f"{self._folder / name} is there", fix="name another folder")
            self._open[name] = (self._part(name).open("wb"), hashlib.sha256())
        file, found = self._open[name]
        file.write(data)
        found.update(data)

    def publish(self, files: list[dict[str, Any]]) -> None:
        for each in files:
            if not each["size"]:
                self.write(each["name"], b"")
            found = self._open[each["name"]][1].hexdigest()
            if each["digest"] != f"sha256:{found}":
                raise InvalidProof(
                    f"{each['name']} came with another digest", fix="fetch the release again"
                )
        for each in files:
            self._open[each["name"]][0].close()
            self._part(each["name"]).replace(self._folder / each["name"])

    def close(self) -> None:
        for name, (file, _) in self._open.items():
            file.close()
            self._part(name).unlink(missing_ok=True)

    def _part(self, name: str) -> Path:
        return self._folder / f"{name}.part"
