"""rollout.plan: what a plan would do, before anything happens.

What runs where and when follows from the plan and the shared views. What each node of our own
region must fetch, and which of them no variant fits, follows from what the nodes last reported;
of the nodes of other regions nothing is known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from typing import NamedTuple

from hanse.core.catalog.fold import read_plan
from hanse.core.catalog.lineage import warm_targets
from hanse.core.catalog.manifest import File
from hanse.core.catalog.residency import may_lie
from hanse.core.catalog.view import Release
from hanse.core.errors import NotFound, Unavailable
from hanse.core.fleet import NodeStatus
from hanse.core.ids import Digest
from hanse.core.node import Clock, Node
from hanse.core.reading import Reader
from hanse.core.rollout.fields import duration_text
from hanse.core.rollout.plan import Pause, RolloutSpec, SetWeight, Shadow, Stage, Step
from hanse.core.rollout.spec import salt_of
from hanse.core.routing import takes_all
from hanse.daemon.queries.matter import Answer, Args, Matter, plain
from hanse.daemon.queries.parts import step_text
from hanse.daemon.starting import objections, placed
from hanse.parts.plan import unlike
from hanse.parts.recipe import Recipe
from hanse.transfer.fetch import STREAMED_BYTES_MAX

NODE_NAMES_MAX = 20


def rollout_plan(node: Node, clock: Clock, args: Args) -> Answer:
    """rollout.plan {spec}: the canonical text of a plan that nobody has signed yet."""
    with Reader(args, "rollout.plan") as reader:
        plan = placed(node, read_plan(str(reader.raw("spec")).encode()))
    matter = Matter.of(node, clock, plan.model)
    release = matter.release(None, str(plan.release))
    wanted = (release, *warm_targets(matter.view, plan, matter.own))
    return {
        "model": plan.model,
        "rollout": plan.name,
        "generation": plan.generation,
        "release": matter.ref(plan.release),
        "predecessor": matter.ref(plan.predecessor),
        "objections": [str(found) for found in objections(node, plan)],
        "stages": [_stage(plan, stage) for stage in plan.stages],
        "freeze": [window.text for window in plan.freeze],
        "regions": [
            _region(matter, stage, region, wanted)
            for stage in plan.stages
            for region in stage.regions
        ],
        "keeps": [matter.ref(each.digest) for each in wanted[1:]],
        "canaries": _canaries(matter, plan, release) if matter.own in plan.regions else [],
        "nodes": _groups(matter, release, wanted) if matter.own in plan.regions else [],
    }


def _stage(plan: RolloutSpec, stage: Stage) -> Answer:
    return {
        "stage": stage.name,
        "regions": list(stage.regions),
        "starts": _starts(plan, stage),
        "steps": [_step(step) for step in stage.steps],
        "soak": duration_text(stage.soak_ms) if stage.soak_ms else "",
    }


def _starts(plan: RolloutSpec, stage: Stage) -> str:
    requires, parallel = stage.requires, stage.select.parallel if stage.select else None
    turns = f", at most {parallel} at a time in this order" if parallel is not None else ""
    if requires is None:
        return f"at once{turns}"
    regions = plan.stage(requires.stage).regions
    quorum = requires.quorum(len(regions))
    age = "" if requires.age_ms is None else f" for at most {duration_text(requires.age_ms)}"
    of = f"{quorum} of {len(regions)} regions of {requires.stage}"
    return f"once {of} are healthy{age} and heard{turns}"


def _step(step: Step) -> str:
    if isinstance(step, Shadow | Pause):
        text = f"{step_text(step)} for {duration_text(step.duration_ms)}"
        return text + (f" and {step.samples_min} requests" if step.samples_min else "")
    return step_text(step)


def _region(matter: Matter, stage: Stage, region: str, wanted: tuple[Release, ...]) -> Answer:
    active, local = matter.view.active(region), matter.node.region.local
    here = region == matter.own
    held = _files(r for r in matter.view.releases if r.digest in local)
    members = matter.node.book.chain.current
    return {
        "region": region,
        "stage": stage.name,
        "active": matter.ref(active.release) if active else None,
        "admitted": may_lie(wanted[0], region, members),
        "download_bytes": sum(file.size for file in _missing(wanted, held)) if here else None,
    }


def _groups(matter: Matter, release: Release, wanted: tuple[Release, ...]) -> list[Answer]:
    """Nodes for which the same is true, together: a fleet is mostly alike."""
    fleet, now_s = matter.node.fleet, matter.clock.now_s
    groups: dict[tuple[str, str, tuple[_Fetch, ...]], list[NodeStatus]] = {}
    for name in sorted(fleet.nodes):
        status = fleet.nodes[name]
        found = fleet.fit(status, release)
        fetches = tuple(_fetches(matter, status, wanted)) if found.variant else ()
        key = found.variant.id if found.variant else "", found.why, fetches
        groups.setdefault(key, []).append(status)
    return [
        {
            "variant": variant or None,
            "why": plain(why),
            "download_bytes": (size := sum(each.file.size for each in fetches)),
            "travels_bytes": size,
            "files": [each.to_mapping() for each in fetches],
            "count": len(members),
            "online": sum(1 for status in members if status.online(now_s)),
            "names": [status.name for status in members[:NODE_NAMES_MAX]],
        }
        for (variant, why, fetches), members in sorted(groups.items(), key=lambda g: -len(g[1]))
    ]


def weigh(groups: Iterable[Answer], known: Callable[[Digest], Recipe | None]) -> None:
    """Say what travels at most: what is equal in a file that the node runs does not, where the
    recipes of both are known here. Blocks: recipes may lie on the disk."""

    @cache
    def recipe(digest: str) -> Recipe | None:
        with suppress(NotFound, Unavailable):  # removed meanwhile, or damaged
            return known(Digest.parse(digest))
        return None

    for group in groups:
        for file in group["files"]:
            new, old = (recipe(file[key]) if file["like"] else None for key in ("digest", "like"))
            if new and old:
                group["travels_bytes"] -= file["size"] - unlike(new, old)


def _canaries(matter: Matter, plan: RolloutSpec, release: Release) -> list[Answer]:
    """Where whole nodes are assigned: how many of ours are in the share of each weight."""
    if plan.nodes.assign == "request":
        return []
    fleet, salt = matter.node.fleet, salt_of(plan)
    able = [node.name for node in fleet.able(fleet.nodes.values(), release)]
    stage = next(stage for stage in plan.stages if matter.own in stage.regions)
    weights = [step.percent for step in stage.steps if isinstance(step, SetWeight)]
    return [
        {
            "weight": weight,
            "count": sum(takes_all(salt, name, weight * 100) for name in able),
            "of": len(able),
        }
        for weight in weights
    ]


def _on_disk(matter: Matter, status: NodeStatus) -> Iterator[Release]:
    """Whatever model they are of: releases may share files."""
    for digest in status.on_disk:
        for view in matter.node.catalog.views.values():
            if (found := view.release(digest)) is not None:
                yield found


def _files(releases: Iterable[Release]) -> dict[Digest, File]:
    return {file.digest: file for release in releases for file in release.manifest.files}


def _missing(wanted: Iterable[Release], held: Mapping[Digest, object]) -> list[File]:
    """Each is fetched once, whatever names it."""
    return [file for digest, file in _files(wanted).items() if digest not in held]


class _Fetch(NamedTuple):
    file: File
    like: Digest | None
    """The file of that name in what the node runs: what is equal in it does not travel."""

    def to_mapping(self) -> Answer:
        like = str(self.like) if self.like else None
        return {
            "file": self.file.name,
            "digest": str(self.file.digest),
            "size": self.file.size,
            "like": like,
        }


def _fetches(matter: Matter, status: NodeStatus, wanted: tuple[Release, ...]) -> Iterator[_Fetch]:
    report = status.models.get(matter.view.model)
    runs = matter.view.release(report.running) if report and report.running else None
    named = {file.name: file.digest for file in runs.manifest.files} if runs else {}
    for file in _missing(wanted, _files(_on_disk(matter, status))):
        by_parts = file.size > STREAMED_BYTES_MAX
        yield _Fetch(file, named.get(file.name) if by_parts else None)
