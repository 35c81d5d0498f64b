"""The fold: from the facts about one model to what everybody agrees on.

It reads neither clock nor arrival order (I8, I1). The rules, strongest first:

1. A kill is for ever and reaches every release that shares a model file with the killed one.
2. A hold beats a promotion. Holds of `quarantine_quorum` distinct regions, or of the region
   of the release's own publisher daemon together with them, quarantine a release for ever.
3. A promotion counts only under a signed rollout that names this release and this region.
4. An activation is replaced by those that name it, unless what replaced it has been killed:
   a kill revives the predecessor.
5. Two heads of one region are a conflict: both are shown, the lowest event key is preferred.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from hanse.core import limits
from hanse.core.catalog.facts import ModelFacts, Record
from hanse.core.catalog.manifest import parse_manifest
from hanse.core.catalog.view import (
    Activation,
    HoldView,
    ModelView,
    Release,
    ReportView,
    RolloutView,
)
from hanse.core.errors import Rejected
from hanse.core.events import (
    FloorRaise,
    Healthy,
    Hold,
    HoldLift,
    Kill,
    Promote,
    ReleaseRecord,
    Rollback,
    RolloutControl,
    RolloutIntent,
    RolloutReport,
)
from hanse.core.ids import Digest, EventId, Segment
from hanse.core.reading import parse_json
from hanse.core.rollout.plan import RolloutSpec
from hanse.core.rollout.spec import parse_spec, spec_digest


def fold(model: Segment, facts: ModelFacts, quarantine_quorum: int) -> ModelView:
    """Compute the view of one model. Pure; equal facts give equal views."""
    holds = _holds(facts)
    specs = _specs(facts)
    releases = _releases(facts, holds, specs, quarantine_quorum)
    floor = max((body.counter for _, body in facts.of(FloorRaise)), default=0)
    return ModelView(
        model=model,
        floor=floor,
        releases=tuple(sorted(releases.values(), key=lambda r: (r.counter, r.digest))),
        heads=_heads(facts, releases, specs, floor),
        holds=holds,
        rollouts=_rollouts(facts, releases, specs),
    )


def read_plan(raw: bytes) -> RolloutSpec:
    """Parse the bytes of a signed plan. Raises `InvalidSpec`, `InvalidName` or `TooLarge`."""
    return parse_spec(parse_json(raw, "plan", bytes_max=limits.SPEC_BYTES_MAX))


def covers(plan: RolloutSpec, region: str) -> bool:
    return any(region in stage.regions for stage in plan.stages)


def _holds(facts: ModelFacts) -> tuple[HoldView, ...]:
    lifted = {(record.origin.region, body.hold) for record, body in facts.of(HoldLift)}
    return tuple(
        HoldView(
            record.id,
            body.region,
            body.release,
            body.reason,
            body.rollout,
            body.generation,
            body.expires_ms,
        )
        for record, body in facts.of(Hold)
        if (record.origin.region, record.id) not in lifted
    )


def _specs(facts: ModelFacts) -> dict[EventId, RolloutSpec]:
    """The plans that can be read and that say what their intent says."""
    specs = {}
    for record, body in facts.of(RolloutIntent):
        try:
            spec = read_plan(body.spec)
        except Rejected:
            continue  # signed, yet unreadable: it starts nothing
        if (spec.model, spec.name, spec.generation, spec.release, spec.predecessor) == (
            body.model,
            body.rollout,
            body.generation,
            body.release,
            body.predecessor,
        ):
            specs[record.id] = spec
    return specs


def _releases(
    facts: ModelFacts,
    holds: tuple[HoldView, ...],
    specs: Mapping[EventId, RolloutSpec],
    quorum: int,
) -> dict[Digest, Release]:
    proven = _proven(facts, specs)
    held: dict[Digest, set[str]] = defaultdict(set)
    ever_held: dict[Digest, set[str]] = defaultdict(set)
    for hold in holds:
        if hold.release:
            held[hold.release].add(hold.region)
    for _, said in facts.of(Hold):
        if said.release:
            ever_held[said.release].add(said.region)
    dead = _dead_files(facts)
    releases: dict[Digest, Release] = {}
    for record, body in facts.of(ReleaseRecord):
        if body.release in releases:
            continue
        try:
            manifest = parse_manifest(body.manifest)
        except Rejected:
            continue
        if (manifest.model, manifest.version) != (body.model, body.version):
            continue
        releases[body.release] = Release(
            digest=body.release,
            version=body.version,
            counter=body.counter,
            manifest=manifest,
            manifest_size=len(body.manifest),
            recorded=record.id,
            recorded_by=record.origin.region,
            proven=tuple(sorted(proven[body.release])),
            held=tuple(sorted(held[body.release])),
            killed=any(file.digest in dead for file in manifest.files),
            quarantined=len(ever_held[body.release]) >= quorum,
        )
    return releases


def _proven(facts: ModelFacts, specs: Mapping[EventId, RolloutSpec]) -> dict[Digest, set[str]]:
    """Regions whose attestation names a plan that exists and that covers them."""
    plans = {(s.name, s.generation, spec_digest(s).raw): s for s in specs.values()}
    proven: dict[Digest, set[str]] = defaultdict(set)
    for _, body in facts.of(Healthy):
        plan = plans.get((body.rollout, body.generation, body.spec_digest))
        if plan and plan.release == body.release and covers(plan, body.region):
            proven[body.release].add(body.region)
    return proven


def _dead_files(facts: ModelFacts) -> set[Digest]:
    """Model files of killed releases; the golden inputs of a bad model are not bad."""
    killed = {body.release for _, body in facts.of(Kill)}
    dead: set[Digest] = set()
    for _, body in facts.of(ReleaseRecord):
        if body.release in killed:
            try:
                manifest = parse_manifest(body.manifest)
            except Rejected:
                continue
            dead |= {manifest.file(v.file).digest for v in manifest.variants}
    return dead


def _heads(
    facts: ModelFacts,
    releases: Mapping[Digest, Release],
    specs: Mapping[EventId, RolloutSpec],
    floor: int,
) -> tuple[Activation, ...]:
    valid: dict[EventId, tuple[Record, Activation]] = {}
    for record, promote in facts.of(Promote):
        if _promotable(promote, releases, specs):
            valid[record.id] = (
                record,
                Activation(
                    record.id, promote.region, promote.release, str(record.origin), "promote"
                ),
            )
    for record, rollback in facts.of(Rollback):
        if rollback.to_release in releases:
            valid[record.id] = (
                record,
                Activation(
                    record.id,
                    rollback.region,
                    rollback.to_release,
                    str(record.origin),
                    "rollback",
                    rollback.reason,
                ),
            )
    standing = {
        id_: entry
        for id_, entry in valid.items()
        if not releases[entry[1].release].killed and releases[entry[1].release].counter >= floor
    }
    replaced = {
        old
        for record, activation in standing.values()
        for old in _replaces(record)
        if old in valid and valid[old][1].region == activation.region
    }
    heads = [entry for id_, entry in standing.items() if id_ not in replaced]
    heads.sort(key=lambda entry: (entry[1].region, entry[0].key))
    return tuple(activation for _, activation in heads)


def _replaces(record: Record) -> tuple[EventId, ...]:
    body = record.event.body
    if isinstance(body, Rollback):
        return (body.from_activation,)
    return record.event.header.supersedes


def _promotable(
    body: Promote, releases: Mapping[Digest, Release], specs: Mapping[EventId, RolloutSpec]
) -> bool:
    release = releases.get(body.release)
    if release is None or (release.manifest_size, release.counter) != (
        body.manifest_size,
        body.counter,
    ):
        return False
    return any(
        (s.name, s.generation, s.release) == (body.rollout, body.generation, body.release)
        and covers(s, body.region)
        for s in specs.values()
    )


def _rollouts(
    facts: ModelFacts, releases: Mapping[Digest, Release], specs: Mapping[EventId, RolloutSpec]
) -> tuple[RolloutView, ...]:
    said = _controls(facts)
    reports: dict[tuple[str, int], dict[str, ReportView]] = defaultdict(dict)
    for _, report in facts.of(RolloutReport):
        reports[report.rollout, report.generation][report.region] = ReportView(
            report.region, report.state, report.stage, report.step, report.verdict, report.reason
        )
    ranked = sorted(
        (
            (body.generation, spec_digest(specs[record.id]), record, body)
            for record, body in facts.of(RolloutIntent)
            if record.id in specs and body.release in releases
        ),
        key=lambda entry: (entry[0], entry[1], entry[2].key),
    )
    views = []
    for i, (generation, _, record, body) in enumerate(ranked):
        key = (body.rollout, generation)
        views.append(
            RolloutView(
                id=record.id,
                rollout=body.rollout,
                generation=generation,
                release=body.release,
                predecessor=body.predecessor,
                spec=body.spec,
                current=i == len(ranked) - 1,
                paused=tuple(sorted(r for r, a in said[key].items() if a == "pause")),
                aborted=tuple(sorted(r for r, a in said[key].items() if a == "abort")),
                reports=tuple(sorted(reports[key].values(), key=lambda r: r.region)),
            )
        )
    return tuple(views)


def _controls(facts: ModelFacts) -> dict[tuple[str, int], dict[str, str]]:
    """The word that stands per (rollout, generation) and region.

    An abort stands for ever. A pause stands until a signed resume names it.
    """
    resumed = {
        pause
        for record, body in facts.of(RolloutControl)
        if body.action == "resume"
        for pause in record.event.header.supersedes
    }
    said: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
    for record, body in facts.of(RolloutControl):
        standing = said[body.rollout, body.generation]
        scope = body.region or "*"
        if body.action == "abort":
            standing[scope] = "abort"
        elif body.action == "pause" and record.id not in resumed:
            standing.setdefault(scope, "pause")
    return said
