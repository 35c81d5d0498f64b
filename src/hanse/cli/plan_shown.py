"""What `hanse rollout plan` shows for reading: stages, then regions, then groups of nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hanse.cli.output import Table

if TYPE_CHECKING:
    from hanse.cli.rollout_shapes import PlannedNodes, PlannedStage, RolloutPlanned


def table(found: RolloutPlanned) -> Table:
    old = found["predecessor"]
    head = [
        f"{found['rollout']} would bring {found['release']['version']} of {found['model']}"
        + (f" in place of {old['version']}" if old else ""),
        *(line for stage in found["stages"] for line in _stage(stage)),
    ]
    rows = [
        (
            each["region"],
            each["stage"],
            each["active"]["version"] if each["active"] else "-",
            "-" if each["download_bytes"] is None else size(each["download_bytes"]),
            "" if each["admitted"] else "its residency keeps the release out",
        )
        for each in found["regions"]
    ]
    kept = ", ".join(each["version"] for each in found["keeps"])
    foot = [f"kept to go back to: {kept}"] if kept else []
    foot += [_nodes(group) for group in found["nodes"]]
    foot += [f"would be refused: {why}" for why in found["objections"]]
    return Table(("REGION", "STAGE", "RUNS", "FETCHES", "NOTE"), rows, head=head, foot=foot)


def size(count: int) -> str:
    """`0 B`, `12 kB`, `10.9 MB`: of 1000, as networks are measured."""
    for unit, length in (("GB", 10**9), ("MB", 10**6), ("kB", 1000)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count} B"


def _stage(stage: PlannedStage) -> list[str]:
    soak = [f"soak {stage['soak']}"] if stage["soak"] else []
    return [
        f"{stage['stage']} ({', '.join(stage['regions'])}) starts {stage['starts']}",
        f"  {' > '.join([*stage['steps'], *soak])}",
    ]


def _nodes(group: PlannedNodes) -> str:
    names = ", ".join(group["names"]) + (", ..." if group["count"] > len(group["names"]) else "")
    some = f"{group['count']} node{'s' * (group['count'] != 1)}, {group['online']} online"
    if group["variant"] is None:
        return f"{some}: cannot run it, {group['why']} ({names})"
    fetch = f"each fetches {size(group['download_bytes'])}" if group["download_bytes"] else "has it"
    return f"{some}: {group['variant']}, {fetch} ({names})"
