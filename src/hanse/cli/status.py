"""`hanse status`: the first question at 3 a.m., answered worst first."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hanse.cli import client, options
from hanse.cli.errors import OK, UNHEALTHY
from hanse.cli.output import Table, age, emit, fetching, nodes
from hanse.core.errors import NotFound

if TYPE_CHECKING:
    from hanse.cli.shapes import DamageStatus, DiskStatus, ModelStatus, RegionStatus, Status

WATCH_S = 1.0
_NAMED = 8
_TOLD_MS = 7 * 86_400_000
COLUMNS = ("MODEL", "REGION", "STATE", "ACTIVE", "NODES", "QUALITY", "HEARD", "WHY")


@click.command()
@click.argument("model", required=False)
@click.option("--region", help="Show only this region.")
@click.option("-w", "--watch", is_flag=True, help="Show it again every second until stopped.")
@options.home
@options.output
def status(model: str | None, region: str | None, watch: bool, home: Path, form: str) -> int:
    """What is broken, since when, and what to go back to. Worst first.

    Exits with 3 if anything is unhealthy.
    """
    asked = {"model": model} if model else {}
    while True:
        found: Status = client.call(home, "status", **asked)
        known = {r["region"] for m in found["models"] for r in m["regions"]}
        known |= {found["daemon"]["region"], *(each["region"] for each in found["members"])}
        if region is not None and region not in known:
            raise NotFound(f"there is no region {region}", fix=f"known: {', '.join(sorted(known))}")
        if watch and sys.stdout.isatty():
            click.clear()
        models = [_only(each, region) for each in found["models"]]
        shown = {**found, "models": models}
        emit(form, "Status", shown, _table(shown), [each["model"] for each in models])
        if not watch:
            return _exit(models)
        time.sleep(WATCH_S)


def _only(model: ModelStatus, region: str | None) -> ModelStatus:
    if region is None:
        return model
    return {**model, "regions": [r for r in model["regions"] if r["region"] == region]}


def _exit(models: list[ModelStatus]) -> int:
    from hanse.cli.shapes import UNHEALTHY as BAD

    states = {region["state"] for model in models for region in model["regions"]}
    return UNHEALTHY if states & set(BAD) else OK


def _table(found: dict[str, Any]) -> Table:
    rows = [_row(m["model"], r) for m in found["models"] for r in m["regions"]]
    daemon, peers = found["daemon"], found["peers"]
    stale = [daemon["trust_stale"]] if daemon["trust_stale"] else []
    return Table(
        COLUMNS,
        rows or [("-",) * len(COLUMNS)],
        head=[
            *_disk(daemon["disk"]),
            *_damaged(daemon["damage"]),
            *map(fetching, found.get("fetching", [])),
            *(m["sentence"] for m in found["models"]),
        ],
        foot=[
            *_disorder(daemon, found["logs"]),
            *_healed(daemon["damage"], found["at_ms"]),
            *_offline(found["models"]),
            *(f"trust: {why}" for why in stale),
            f"seen from {daemon['region']}, trust version {daemon['trust_version']}; "
            f"peers {peers['connected']}/{peers['of']}, "
            f"longest silence {age(peers['oldest_s']) if peers['of'] else '-'}",
            *(f"nothing moves forward here: {why}" for why in daemon["waits"] if why not in stale),
        ],
    )


def _disk(disk: DiskStatus | None) -> list[str]:
    """One line, and only when somebody has to act."""
    if disk is None or disk["level"] == "enough":
        return []
    free, total = disk["free_bytes"] / 2**20, disk["total_bytes"] / 2**20
    what = (
        "nothing new is begun here; holds and rollbacks are still taken"
        if disk["level"] == "low"
        else "only holds and rollbacks are still written, and no events of others are taken"
    )
    used = "" if disk["reserve_kept"] else "; the reserve is used up"
    return [f"DISK {disk['level'].upper()}: {free:.0f} of {total:.0f} MiB free, {what}{used}"]


def _damaged(found: list[DamageStatus]) -> list[str]:
    """As long as something is not whole again."""
    count = sum(not each["healed"] for each in found)
    if not count:
        return []
    files = "1 file is" if count == 1 else f"{count} files are"
    return [
        f"DAMAGED: {files} no longer as they came to this daemon's disk, and fetched again from "
        "other daemons; check the disk"
    ]


def _healed(found: list[DamageStatus], now_ms: int) -> list[str]:
    """For a week: a disk that has forgotten once will again."""
    recent = [each for each in found if each["healed"] and now_ms - each["at_ms"] < _TOLD_MS]
    if not recent:
        return []
    return [
        f"disk: found damaged and made good in the last week: {len(recent)}, the last of it "
        f"{age((now_ms - recent[0]['at_ms']) / 1000)} ago; check the disk"
    ]


def _disorder(daemon: dict[str, Any], logs: list[dict[str, Any]]) -> list[str]:
    """What keeps a log from going on, this daemon's own first, each with what to do."""
    lines = []
    if daemon["why"]:
        fix = f" ({daemon['fix']})" if daemon["fix"] else ""
        lines.append(f"this daemon is {daemon['phase']}: {daemon['why']}{fix}")
    lines += [f"log {r['log']} is {r['state']}: {r['reason']} ({r['fix']})" for r in logs]
    return lines


def _offline(models: list[ModelStatus]) -> list[str]:
    """Which nodes; those of another region are not known here."""
    counts = [(r["region"], r["nodes"]) for m in models for r in m["regions"] if r["nodes"]]
    away = {(region, name) for region, nodes in counts for name in nodes["offline_names"]}
    names = [f"{name} ({region})" for region, name in sorted(away)]
    more = f" and {len(names) - _NAMED}" if len(names) > _NAMED else ""
    return [f"offline: {', '.join(names[:_NAMED])}{more}"] if names else []


def _row(model: str, region: RegionStatus) -> tuple[str, ...]:
    active, quality = region["active"], region["quality"]
    shown = "-"
    if quality is not None:
        share = quality["bad"] / quality["n"] if quality["n"] else 0.0
        shown = f"{quality['metric']} {share:.1%} of n={quality['n']}, {age(quality['age_s'])} ago"
    return (
        model,
        region["region"],
        region["state"],
        active["version"] if active else "-",
        nodes(region["nodes"]),
        shown,
        age(region["heard_s"]),
        region["reason"],
    )
