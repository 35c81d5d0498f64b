"""`hanse sim`: a whole federation in one process, in virtual time, on one seed."""

from __future__ import annotations

import importlib
from typing import Any

import click

from hanse.cli.errors import ERROR, OK, PackageMissing
from hanse.cli.output import safe


@click.command()
@click.option("--seed", type=int, default=7, show_default=True, help="Equal seeds, equal history.")
@click.option(
    "--regions", type=click.IntRange(1, 100), default=3, show_default=True, help="How many."
)
@click.option(
    "--faults",
    default="default",
    show_default=True,
    help="none, default, crashes, partitions, storm, clocks, or (from 4 regions on) byzantine.",
)
def sim(seed: int, regions: int, faults: str) -> int:
    """Play a whole federation on one seed and print its history.

    Exits with 1 if a promise was broken; the last line then says which.
    """
    module = _simulator()
    broken = False
    try:
        for line in module.history(seed, regions, faults):
            click.echo(safe(line))
            broken = broken or line.startswith("VIOLATED")
    except KeyError:
        raise click.BadParameter(f"{faults!r} is not known", param_hint="--faults") from None
    return ERROR if broken else OK


def _simulator() -> Any:
    try:
        return importlib.import_module("hanse.sim.run")
    except ModuleNotFoundError as error:
        raise PackageMissing(
            f"the simulator needs {error.name}", fix="install hanse[daemon]"
        ) from None
