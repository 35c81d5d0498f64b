"""`hanse freeze` and `hanse unfreeze`: a region's own hold, and lifting one.

Anybody who commands the daemon may hold; lifting takes an operator's signature, because a
stolen daemon must not be able to let a bad release go on.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hanse.cli import client, options
from hanse.cli.options import Signing
from hanse.cli.output import emit_change
from hanse.core.errors import Conflict, NotFound

if TYPE_CHECKING:
    from hanse.cli.shapes import HoldRow


@click.command()
@click.argument("model")
@options.reason
@click.option("--until", "until", help="09:00, 2h or 2026-11-23T09:00; for people to read.")
@options.home
@options.output
def freeze(model: str, reason: str | None, until: str | None, home: Path, form: str) -> None:
    """Stop forward moves of a model in this region. Rolling back stays possible."""
    args = {"model": model, "reason": options.ask_reason(reason)}
    more = {"until_ms": _moment_ms(until)} if until else {}
    emit_change(form, "Held", client.call(home, "freeze", **args, **more))


@click.command()
@click.argument("model")
@click.option("--hold", help="Which hold, by its first hex digits; needed if there are several.")
@click.option("--reason", default="", help="Why, for the record.")
@options.signed
def unfreeze(model: str, hold: str | None, reason: str, signing: Signing) -> None:
    """Lift one of this region's holds, signed with your key."""
    chosen = _choose(client.call(signing.home, "holds", model=model)["holds"], hold)["hold"]
    signing.ask("unfreeze", {"model": model, "hold": chosen, "reason": reason})


def _choose(holds: list[HoldRow], wanted: str | None) -> HoldRow:
    prefix = (wanted or "").removeprefix("ev_")
    found = [each for each in holds if each["hold"].startswith(prefix)]
    if not found:
        known = ", ".join(each["hold"][:12] for each in holds) or "this region holds nothing"
        raise NotFound("there is no such hold", fix=f"holds: {known}")
    if len(found) > 1:
        shown = "; ".join(
            f"{h['hold'][:12]} {h['release']['version'] if h['release'] else 'frozen'}: "
            f"{h['reason']}"
            for h in found
        )
        raise Conflict(f"{len(found)} holds match", fix=f"name one with --hold: {shown}")
    return found[0]


def _moment_ms(text: str) -> int:
    """A duration from now, the next time a clock shows this, or a date and time."""
    from hanse.core.errors import InvalidSpec
    from hanse.core.rollout.fields import duration_ms

    now = datetime.datetime.now().astimezone()
    try:
        return int(now.timestamp() * 1000) + duration_ms(1)(text, "--until")
    except InvalidSpec:
        pass
    try:
        if len(text) == 5:
            hour, minute = datetime.time.fromisoformat(text).hour, int(text[3:])
            moment = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
            moment += datetime.timedelta(days=moment <= now)
        else:
            moment = datetime.datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise click.BadParameter(
            f"{text!r}: write 09:00, 2h or 2026-11-23T09:00", param_hint="--until"
        ) from None
    return int(moment.timestamp() * 1000)
