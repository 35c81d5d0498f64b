"""`hanse explain`: what an error code means."""

from __future__ import annotations

import click

from hanse.cli.errors import EXPLANATIONS
from hanse.core.errors import NotFound


@click.command()
@click.argument("code", required=False)
def explain(code: str | None) -> None:
    """Explain an error code, such as E0106. Without one: list them all."""
    wanted = code.upper() if code else None
    if wanted is not None and wanted not in EXPLANATIONS:
        raise NotFound(f"there is no code {code!r}", fix="run hanse explain to list them")
    for each, text in EXPLANATIONS.items():
        if wanted in (None, each):
            click.echo(click.wrap_text(text, 96, f"{each}  ", "       "))
