"""`hanse lineage`: what descends from what, and where it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hanse.cli import client, options
from hanse.cli.output import Table, emit

if TYPE_CHECKING:
    from hanse.cli.shapes import Lineage, LineageNode


@click.command()
@click.argument("release", metavar="MODEL[@VERSION]", callback=options.release_name)
@options.home
@options.output
def lineage(release: dict[str, str], home: Path, form: str) -> None:
    """What descends from what, and where it runs; parents come first.

    With a version: its ancestors and descendants only.
    """
    found: Lineage = client.call(home, "lineage", **release)
    versions = {n["release"]: n["version"] or n["release"][:19] for n in found["nodes"]}
    table = Table(
        ("VERSION", "RELEASE", "FROM", "TRAINED ON", "REGIONS", "FILES MAY LIE IN", "STATE", "BY"),
        [_row(node, versions) for node in found["nodes"]],
    )
    emit(form, "Lineage", dict(found), table, [n["release"] for n in found["nodes"]])


def _row(node: LineageNode, versions: dict[str, str]) -> tuple[str, ...]:
    parents = (
        f"{versions.get(p['release'], p['release'][:19])} ({p['relation']})"
        for p in node["parents"]
    )
    known = "barred" if node["barred"] else "proven" if node["proven"] else "recorded"
    state = node["retired"] or known
    return (
        node["version"] or "?",
        node["release"][:19],
        ", ".join(parents) or "-",
        ", ".join(node["training_data"]) or "-",
        ", ".join(f"{region}: {word}" for region, word in sorted(node["regions"].items())) or "-",
        "every region" if "*" in node["residency"] else ", ".join(node["residency"]) or "-",
        state if node["version"] else "not recorded here",
        node["by"] or "-",
    )
