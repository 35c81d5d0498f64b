"""The fold again, naively: over the union of all events, with no caches and no batches.

Written to be obviously right rather than fast, and separately from `core.catalog`: it walks
plain lists and dictionaries and re-reads everything every time. What both say must be equal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hanse.core import events
from hanse.core.catalog.manifest import Manifest, parse_manifest
from hanse.core.events import Body, Header
from hanse.core.ids import Digest, EventId, Origin
from hanse.core.rollout.spec import parse_spec, spec_digest

Labels = Mapping[Any, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Fact:
    """One valid event, wherever it was found."""

    id: EventId
    origin: Origin
    header: Header
    body: Body
    final: bool


def agreed(
    model: str, facts: Iterable[Fact], quorum: int, region: str, labels: Labels
) -> dict[str, Any]:
    """What every daemon that has these facts must say of one model; targets as in `region`.

    `labels` are those of all regions: in simulations they never change.
    """
    mine = sorted(
        {f.id: f for f in facts if getattr(f.body, "model", None) == model and counts(f)}.values(),
        key=lambda f: (f.origin, f.header.seq),
    )
    manifests = _manifests(mine)
    plans = _plans(mine, labels)
    killed = _killed(mine, manifests)
    floor = max([f.body.counter for f in mine if isinstance(f.body, events.FloorRaise)] or [0])
    held = _held(mine)
    ever = {
        r: {
            f.body.region
            for f in mine
            if isinstance(f.body, events.Hold) and f.body.release == r and f.final
        }
        for r in manifests
    }
    proven = {r: _proven(mine, plans, r) for r in manifests}
    sure = {r: _proven([f for f in mine if f.final], plans, r) for r in manifests}
    recorded = [f for f in mine if isinstance(f.body, events.ReleaseRecord)]
    regions = {region, *(f.origin.region for f in mine)}
    fit = {
        (r, where)
        for r in manifests
        for where in regions
        if (where in proven[r] or sure[r])
        and any(
            f.body.release == r and (f.final or f.origin.region == where)
            for f in recorded
            if isinstance(f.body, events.ReleaseRecord)
        )
    }
    quarantined = {r for r in manifests if len(ever[r]) >= quorum}
    out: dict[str, Any] = {
        "killed": sorted(map(str, killed)),
        "quarantined": sorted(map(str, quarantined)),
        "held": {str(r): sorted(held.get(r, ())) for r in manifests},
        "proven": {str(r): sorted(proven[r]) for r in manifests},
        "proven_final": {str(r): sorted(sure[r]) for r in manifests},
        "final": sorted({str(f.body.release) for f in recorded if f.final}),  # type: ignore[union-attr]
        "floor": floor,
        "heads": _heads(mine, manifests, plans, killed, fit, floor),
    }
    gone = {
        f.body.release
        for f in mine
        if isinstance(f.body, events.ReleaseRetire) and f.body.phase == "retired"
    }
    out["retired"] = sorted(str(r) for r in gone & set(manifests))
    barred = killed | quarantined | gone | {r for r in manifests if held.get(r)}
    out["targets"] = {
        str(r): _target(
            r, manifests, _counters(mine), {d for d, where in fit if where == region}, barred, floor
        )
        for r in manifests
    }
    return out


SIGNED = (
    events.ReleaseRecord,
    events.RolloutIntent,
    events.Kill,
    events.FloorRaise,
    events.HoldLift,
    events.ReleaseRetire,
)


def counts(fact: Fact) -> bool:
    """Nobody who lies has a person's key: what needs a signature is void without any.

    And nobody speaks for a region but its own daemon.
    """
    if isinstance(fact.body, SIGNED) and not fact.header.attestations:
        return False
    speaks_for = getattr(fact.body, "region", fact.origin.region)
    return isinstance(fact.body, events.RolloutControl) or speaks_for == fact.origin.region


def _manifests(facts: list[Fact]) -> dict[Digest, Manifest]:
    return {
        f.body.release: parse_manifest(f.body.manifest)
        for f in facts
        if isinstance(f.body, events.ReleaseRecord)
    }


def _counters(facts: list[Fact]) -> dict[Digest, int]:
    """The first record, in the shared order, fixes the counter."""
    counters: dict[Digest, int] = {}
    for f in facts:
        if isinstance(f.body, events.ReleaseRecord):
            counters.setdefault(f.body.release, f.body.counter)
    return counters


def _plans(facts: list[Fact], labels: Labels) -> set[tuple[Any, ...]]:
    """(name, generation, release, spec digest, regions) of every signed plan."""
    plans: set[tuple[Any, ...]] = set()
    for f in facts:
        if isinstance(f.body, events.RolloutIntent) and (
            not f.body.mandate or _healed(f, f.body, facts)
        ):
            spec = parse_spec(json.loads(f.body.spec))
            regions = _regions(json.loads(f.body.spec)["spec"]["stages"], labels)
            plans.add((spec.name, spec.generation, spec.release, spec_digest(spec).raw, regions))
    return plans


def _regions(stages: list[dict[str, Any]], labels: Labels) -> tuple[str, ...]:
    """Those that stages name, and those that carry every label of a stage that names none."""
    named = {
        region
        for stage in stages
        if isinstance(stage["regions"], list)
        for region in stage["regions"]
    }
    for stage in stages:
        if isinstance(stage["regions"], dict):
            match = stage["regions"]["matchLabels"]
            named |= {
                region
                for region, pairs in labels.items()
                if all(pairs.get(key) == value for key, value in match.items())
            }
    return tuple(sorted(named))


def _healed(fact: Fact, intent: events.RolloutIntent, facts: list[Fact]) -> bool:
    """Whether what a daemon started by itself answers what that daemon asked for."""
    by_hand = [
        f.body.generation
        for f in facts
        if isinstance(f.body, events.RolloutIntent) and not f.body.mandate
    ]
    if intent.generation > max(by_hand, default=0) + json.loads(intent.mandate)["uses"]:
        return False
    made = _manifests(facts).get(intent.release)
    if made is None:
        return False
    own = [f for f in facts if f.origin.member == fact.origin.member]
    for f in own:
        if isinstance(f.body, events.Retrain):
            said = [
                g.body
                for g in own
                if isinstance(g.body, events.RetrainResult) and g.body.retrain == f.id
            ]
            if said and (said[0].outcome, said[0].release) == ("passed", intent.release):
                named = made.labels.get("hanse.retrain") == f.id.raw.hex()
                if named and f.body.release in [p.release for p in made.parents]:
                    return True
    return False


def _killed(facts: list[Fact], manifests: dict[Digest, Manifest]) -> set[Digest]:
    named = {f.body.release for f in facts if isinstance(f.body, events.Kill)}
    dead = {
        manifests[r].file(v.file).digest
        for r in named
        if r in manifests
        for v in manifests[r].variants
    }
    return {r for r, m in manifests.items() if any(file.digest in dead for file in m.files)}


def _held(facts: list[Fact]) -> dict[Digest, set[str]]:
    held: dict[Digest, set[str]] = {}
    for f in facts:
        if isinstance(f.body, events.Hold) and f.body.release is not None:
            lifts = [
                g
                for g in facts
                if isinstance(g.body, events.HoldLift)
                and g.body.hold == f.id
                and g.origin.region == f.origin.region
            ]
            if not lifts:
                held.setdefault(f.body.release, set()).add(f.body.region)
    return held


def _proven(facts: list[Fact], plans: Iterable[Any], release: Digest) -> set[str]:
    return {
        f.body.region
        for f in facts
        if isinstance(f.body, events.Healthy)
        and f.body.release == release
        and any(
            (name, generation, r, digest)
            == (f.body.rollout, f.body.generation, release, f.body.spec_digest)
            and f.body.region in regions
            for name, generation, r, digest, regions in plans
        )
    }


def _heads(
    facts: list[Fact],
    manifests: dict[Digest, Manifest],
    plans: Iterable[Any],
    killed: set[Digest],
    fit: set[tuple[Digest, str]],
    floor: int,
) -> list[tuple[str, str, str]]:
    counters = _counters(facts)
    moves: dict[EventId, tuple[str, Digest, tuple[EventId, ...]]] = {}
    while True:
        before = len(moves)
        for f in facts:
            b = f.body
            if isinstance(b, events.Promote) and any(
                (name, generation, r) == (b.rollout, b.generation, b.release)
                and b.region in regions
                and b.release in manifests
                and b.counter == counters[b.release]
                for name, generation, r, _, regions in plans
            ):
                moves[f.id] = (b.region, b.release, f.header.supersedes)
            if isinstance(b, events.Rollback) and b.from_activation in moves:
                region, release, _ = moves[b.from_activation]
                if (region, release) == (b.region, b.from_release) and (
                    b.to_release,
                    b.region,
                ) in fit:
                    moves[f.id] = (b.region, b.to_release, (b.from_activation,))
        if len(moves) == before:
            break
    alive = {i for i, (_, r, _) in moves.items() if r not in killed and counters[r] >= floor}

    def reached(start: EventId) -> set[EventId]:
        region, _, olds = moves[start]
        out: set[EventId] = set()
        for old in olds:
            if old in moves and moves[old][0] == region:
                out |= {old} | reached(old)
        return out

    gone = {old for i in alive for old in reached(i)}
    return sorted((moves[i][0], str(moves[i][1]), i.raw.hex()) for i in alive - gone)


def _target(
    start: Digest,
    manifests: dict[Digest, Manifest],
    counters: dict[Digest, int],
    fit: set[Digest],
    barred: set[Digest],
    floor: int,
) -> str | None:
    """Breadth first along the parents; the first that is fit."""
    queue, seen = [start], {start}
    while queue:
        release = queue.pop(0)
        good = release in fit and release not in barred and counters[release] >= floor
        if good and release != start:
            return str(release)
        for parent in manifests[release].parents:
            if parent.release not in seen and parent.release in manifests:
                seen.add(parent.release)
                queue.append(parent.release)
    return None
