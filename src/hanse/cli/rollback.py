"""`hanse rollback`: one command that takes a region back, needing no peer and no approval.

The order is the region's own signed event, so it holds while every other region is away.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hanse.cli import client, options
from hanse.cli.output import emit_change, nodes, note
from hanse.core.errors import NotFound

if TYPE_CHECKING:
    from hanse.cli.shapes import ModelStatus, RegionStatus, ReleaseRef, Status


@click.command()
@click.argument("model")
@click.option("--to", help="Version or digest. Default: the nearest proven ancestor.")
@options.reason
@options.yes
@click.option("-w", "--watch", is_flag=True, help="Wait until every online node has moved.")
@options.timeout
@options.home
@options.output
def rollback(
    model: str,
    to: str | None,
    reason: str | None,
    yes: bool,
    watch: bool,
    timeout: float,
    home: Path,
    form: str,
) -> None:
    """Take this region back to a release that was good.

    The release that it leaves is held, so that nothing promotes it again by itself. With
    --watch the command ends with 0 only when every online node runs the target.
    """
    reason = options.ask_reason(reason)
    options.confirm(yes, model, _preview(client.call(home, "status", model=model), to))
    wanted = {"to": to} if to else {}
    done: dict[str, Any] = client.call(
        home, "rollback", model=model, reason=reason, by=options.operator(), **wanted
    )
    emit_change(form, "RolledBack", done)
    if watch:
        _watch(home, model, done["to"], timeout)


def _preview(status: Status, to: str | None) -> str:
    model, region = _own(status)
    active, good = region["active"], model["last_good"]
    count = region["nodes"]["of"] if region["nodes"] else 0
    goal = to or (good["version"] if good else "the nearest proven ancestor")
    start = active["version"] if active else "its canary"
    return f"will move {count} nodes of {region['region']} from {start} to {goal}"


def _watch(home: Path, model: str, target: ReleaseRef, timeout_s: float) -> None:
    from hanse.cli.waiting import until

    def ask() -> RegionStatus:
        return _own(client.call(home, "status", model=model))[1]

    def moved(region: RegionStatus) -> bool:
        active, counts = region["active"], region["nodes"]
        there = active is not None and active["release"] == target["release"]
        return there and (counts is None or counts["on_target"] >= counts["of"])

    last = until(
        ask,
        done=moved,
        describe=lambda r: f"{r['region']} {nodes(r['nodes'])} on {target['version']}",
        timeout_s=timeout_s,
    )
    if last["nodes"] and last["nodes"]["offline"]:
        names = ", ".join(last["nodes"]["offline_names"])
        note(f"{last['nodes']['offline']} nodes are offline and follow on contact: {names}")


def _own(status: Status) -> tuple[ModelStatus, RegionStatus]:
    own = status["daemon"]["region"]
    for model in status["models"]:
        for region in model["regions"]:
            if region["region"] == own:
                return model, region
    raise NotFound(f"nothing of this model is known in {own}", fix="see hanse status")
