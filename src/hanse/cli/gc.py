"""`hanse gc`: remove the model files that nothing in this region reaches.

hanse gc --dry-run
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hanse.cli import client, options
from hanse.cli.output import Table, emit, size

if TYPE_CHECKING:
    from hanse.cli.gc_shapes import Collected


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what stays, why, and how much would go.")
@click.option(
    "--grace",
    callback=options.duration_s,
    default="1d",
    show_default=True,
    metavar="DURATION",
    help="Nothing that came within it goes.",
)
@click.option(
    "--unused",
    is_flag=True,
    help="Also what was published here and nothing reaches; the others then have nobody to ask.",
)
@options.yes
@options.home
@options.output
def gc(dry_run: bool, grace: float, unused: bool, yes: bool, home: Path, form: str) -> None:
    """Remove the model files that nothing in this region reaches.

    What serves, a rollout, a way back, a node and a pin each reach a release.

    What was removed and becomes needed is fetched again from the daemon where it was published,
    which keeps it until it is retired, killed or below the floor.
    """
    if unused and not dry_run:
        options.confirm(yes, "unused", "may remove the last copy of what nothing uses any more")
    args = {"dry_run": dry_run, "grace_s": grace, "unused": unused}
    found: Collected = client.call(home, "gc", **args)
    goes = "would go" if dry_run else "went"
    rows = [
        (
            f"{r['model']}@{r['version']}",
            size(r["size"]),
            "stays" if r["why"] else goes,
            "; ".join(r["why"]) or "nothing reaches it",
        )
        for r in found["releases"]
    ]
    foot = [f"{size(found['bytes'])} {goes}, {size(found['kept_bytes'])} stay"]
    table = Table(("RELEASE", "SIZE", "FATE", "WHY"), rows, foot=foot)
    names = [f"{r['model']}@{r['version']}" for r in found["releases"] if not r["why"]]
    emit(form, "Collection", dict(found), table, names)
