"""What `hanse rollout plan` and `explain` show for reading."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from hanse.cli.output import Table, age, size

if TYPE_CHECKING:
    from hanse.cli.rollout_shapes import (
        ExplainedMetric,
        ExplainedRegion,
        Missing,
        PlannedNodes,
        PlannedStage,
        RolloutExplained,
        RolloutPlanned,
    )


def table(found: RolloutPlanned) -> Table:
    old = found["predecessor"]
    head = [
        f"{found['rollout']} would bring {found['release']['version']} of {found['model']}"
        + (f" in place of {old['version']}" if old else ""),
        *(line for stage in found["stages"] for line in _stage(stage)),
        *(f"nothing begins or rises {window}" for window in found["freeze"]),
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
    foot += [
        f"at weight {each['weight']} {each['count']} of {each['of']} nodes answer with it alone"
        for each in found["canaries"]
    ]
    foot += [f"would be refused: {why}" for why in found["objections"]]
    return Table(("REGION", "STAGE", "RUNS", "FETCHES UP TO", "NOTE"), rows, head=head, foot=foot)


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
    whole, travels = group["download_bytes"], group["travels_bytes"]
    fetch = f"each fetches up to {size(travels)}" if whole else "has it"
    if travels < whole:
        fetch += f" of {size(whole)}: the rest is equal in what it runs"
    return f"{some}: {group['variant']}, {fetch} ({names})"


def explained(found: RolloutExplained) -> Table:
    old = found["predecessor"]
    head = [
        f"{found['rollout']}, generation {found['generation']}: {found['release']['version']} of "
        + found["model"]
        + (f" in place of {old['version']}" if old else "")
        + (f", cancelled by {found['superseded_by']}" if found["superseded_by"] else "")
    ]
    lines = [line for region in found["regions"] for line in _explained(region)]
    return Table((), (), head=[*head, *lines])


def _explained(region: ExplainedRegion) -> list[str]:
    at = " ".join(filter(None, (region["state"], region["step"])))
    since = f" for {age(region['since_s'])}" if region["since_s"] is not None else ""
    ahead = region["next"]
    lines = [f"{region['region']} ({region['stage']}) is {at}{since}, by {region['rests_on']}"]
    lines += [f"  missing: {_missing(each)}" for each in region["missing"]]
    if not region["missing"] and region["reason"]:
        lines.append(f"  because: {region['reason']}")
    if ahead and ahead["state"]:
        when = "with the next tick" if ahead["with_next_tick"] else "once nothing is missing"
        lines.append(f"  next: {ahead['step'] or ahead['state']}, {when}")
    lines += [f"  {line}" for metric in region["metrics"] for line in _metric(metric)]
    lines += [
        f"  {each['metric']}: {each['regions']} regions together, e of harm {each['e_harm']:.3g}, "
        f"needed {each['e_needed']:.3g}"
        for each in region["together"]
    ]
    lines += [
        f"  not reached: {each['node']}, last seen {age(each['seen_s'])} ago"
        for each in region["unreached"]
    ]
    return lines


def _missing(need: Missing) -> str:
    if need["have"] is None or need["needed"] is None:
        return f"{need['text']} ({need['reason']})"
    return f"{need['text']}: {need['have']:g} of {need['needed']:g} ({need['reason']})"


def _metric(metric: ExplainedMetric) -> list[str]:
    arms = [("trial", "bad_trial", "n_trial", "interval_trial")]
    if metric["interval_stable"] is not None:
        arms.append(("stable", "bad_stable", "n_stable", "interval_stable"))
    values = dict(metric)
    rates = []
    for name, bad, n, interval in arms:
        low, high = cast("list[float]", values[interval])
        rates.append(f"{name} {values[bad]} of {values[n]} ({low:.2%} to {high:.2%})")
    proof = metric["e_proof"]
    proven = "no proof asked" if proof is None else f"e of proof {proof:.3g}"
    dry = ", a dry run" if metric["dry_run"] else ""
    needed = f"e of harm {metric['e_harm']:.3g}, {proven}, needed {metric['e_needed']:.3g}{dry}"
    return [f"{metric['metric']}: {', '.join(rates)}", f"  {needed}"]
