"""`hanse bundle`: what a daemon without a network lacks, carried over as one file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hanse.cli import client, options
from hanse.cli.errors import next_step
from hanse.cli.output import Table, emit, note
from hanse.core.errors import InvalidProof, NotFound

if TYPE_CHECKING:
    from hanse.core.bundle import Held

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def bundle() -> None:
    """Carry logs, trust and model files to a daemon that has no network."""


@bundle.command()
@options.home
def heads(home: Path) -> None:
    """Print what this daemon has, for whoever makes the next bundle for it.

    Carry it over as a file: hanse bundle heads > heads.json
    """
    from hanse.core.reading import canonical_json

    click.echo(canonical_json(client.call(home, "bundle.heads")).decode())


@bundle.command()
@click.argument("out", type=_FILE)
@click.option("--for-region", "region", required=True, help="Where the bundle will be taken in.")
@click.option("--heads", type=_FILE, help="What the receiver has, by its own hanse bundle heads.")
@click.option("--since", type=_FILE, help="The last bundle that the receiver has taken in.")
@click.option("--with-blobs", is_flag=True, help="Also model files, where residency allows.")
@options.home
@options.output
def export(
    out: Path, region: str, heads: Path | None, since: Path | None, with_blobs: bool, home: Path,
    form: str,
) -> None:  # fmt: skip
    """Write into OUT what the receiver lacks: trust, events and, where allowed, model files.

    Without --heads or --since it lacks everything.
    """
    if heads and since:
        raise click.UsageError("--heads and --since say the same thing: give one of them")
    held = _held(home, region, heads, since)
    part = out.with_name(out.name + ".part")
    try:
        made = _receive(home, part, held=held, region=region, blobs=with_blobs)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    rows = [(key, str(made[key])) for key in ("region", "trust", "events", "files", "bytes")]
    emit(form, "Bundle", made, Table((), rows), [str(out)])
    note(f"next, where {region} is: hanse bundle import {out.name}")


@bundle.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@options.home
@options.output
def take(file: Path, home: Path, form: str) -> int:
    """Take in a bundle. Everything in it is verified as if a peer had sent it.

    Once more is harmless, and goes on where an interrupted one has stopped. Exits with 5 if a
    part did not stand.
    """
    from hanse.cli.errors import OK, UNVERIFIED

    size = file.stat().st_size
    with click.progressbar(
        length=size, label=file.name, file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as bar:
        taken = client.send_file(home, file, "bundle.import", bar.update, size=size)
    rows = [(key, str(taken[key])) for key in ("sender", "trust", "events", "known", "files")]
    foot = [f"refused: {each}" for each in taken["refused"]]
    emit(form, "Taken", taken, Table((), rows, foot=foot), [taken["sender"]])
    return UNVERIFIED if taken["refused"] else OK


def _held(home: Path, region: str, heads: Path | None, since: Path | None) -> str:
    from hanse.core.bundle import Held, parse_held
    from hanse.core.ids import segment

    if heads is not None:
        with next_step("write it with hanse bundle heads, where the receiver is"):
            held = parse_held(_read(heads))
        if held.region != region:
            raise InvalidProof(
                f"{heads} was written in {held.region}, not in {region}",
                fix="name that region, or carry over the right file",
            )
    elif since is not None:
        held = _after(since)
    else:
        ours = client.call(home, "bundle.heads")["federation"]
        held = Held(segment(ours, "federation"), segment(region, "region"), 0)
    return held.encode().decode()


@next_step("name the last bundle that was taken in, or use --heads")
def _after(since: Path) -> Held:
    """What the receiver of that bundle has now, as its signed manifest says."""
    from hanse.core import bundle as format_
    from hanse.core.limits import BUNDLE_MANIFEST_BYTES_MAX
    from hanse.core.signing import SIGNATURE_BYTES

    with since.open("rb") as file:
        magic = file.read(len(format_.MAGIC))
        size = int.from_bytes(file.read(format_.LENGTH_BYTES), "big")
        if magic != format_.MAGIC or size > BUNDLE_MANIFEST_BYTES_MAX:
            raise InvalidProof(f"{since} is no bundle")
        raw = file.read(size)
        return format_.open_manifest(raw, file.read(SIGNATURE_BYTES)).after


def _receive(home: Path, path: Path, **args: Any) -> dict[str, Any]:
    """Write what the daemon streams; its last word is returned."""
    answers = client.stream(home, "bundle.export", **args)
    with (
        path.open("xb") as file,
        click.progressbar(
            length=1, label=path.stem, file=sys.stderr, hidden=not sys.stderr.isatty()
        ) as bar,
    ):

        def heard(said: dict[str, Any]) -> None:
            bar.length = max(said["of"], 1)
            file.write(said["data"])
            bar.update(len(said["data"]))

        return dict(client.result(answers, heard))


def _read(path: Path) -> bytes:
    from hanse.core.limits import CONTROL_LINE_BYTES_MAX

    try:
        with path.open("rb") as file:
            return file.read(CONTROL_LINE_BYTES_MAX)
    except OSError:
        raise NotFound(f"cannot read {path}", fix="write it with hanse bundle heads") from None
