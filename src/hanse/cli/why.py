"""`hanse why`: after the bleeding has stopped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hanse.cli import client, options
from hanse.cli.output import Table, at, emit

if TYPE_CHECKING:
    from hanse.cli.shapes import Why


@click.command()
@click.argument("release", metavar="MODEL[@VERSION]", callback=options.release_name)
@click.option("--region", help="Ask about this region. Default: the daemon's own.")
@options.home
@options.output
def why(release: dict[str, str], region: str | None, home: Path, form: str) -> None:
    """Say why a release stands where it stands, and what it rests on.

    Without a version: the latest release that went wrong.
    """
    scope = {"region": region} if region else {}
    found: Why = client.call(home, "why", **release, **scope)
    rows = [(at(m["at_ms"]), m["region"], m["event"], m["what"]) for m in found["timeline"]]
    table = Table(
        ("AT", "REGION", "EVENT", "WHAT"),
        rows,
        head=[*found["sentences"], *(f"  {m['text']}" for m in found["metrics"]), ""],
    )
    emit(form, "Why", dict(found), table, [found["release"]])
