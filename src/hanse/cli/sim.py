"""`hanse sim`: a whole federation in one process, in virtual time, on one seed."""

from __future__ import annotations

import importlib

import click

from hanse.cli.errors import PackageMissing
from hanse.cli.output import safe


@click.command()
@click.option("--seed", type=int, default=7, show_default=True, help="Equal seeds, equal history.")
@click.option(
    "--regions", type=click.IntRange(1, 100), default=5, show_default=True, help="How many."
)
@click.option("--faults", default="some", show_default=True, help="none, some or many.")
def sim(seed: int, regions: int, faults: str) -> None:
    """Play a whole federation on one seed and print its history."""
    try:
        module = importlib.import_module("hanse.sim.run")
    except ModuleNotFoundError as error:
        raise PackageMissing(
            f"the simulator needs {error.name}", fix="pip install 'hanse[daemon]'"
        ) from None
    for line in module.history(seed, regions, faults):
        click.echo(safe(line))
