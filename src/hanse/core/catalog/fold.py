"""The fold: from the facts about one model to what everybody agrees on.

It reads neither clock nor arrival order (I8, I1). The rules, strongest first:

1. A kill is for ever and reaches every release that shares a model file with the killed one.
2. A hold beats a promotion. Final holds of `quarantine_quorum` distinct regions quarantine a
   release for ever.
3. A promotion counts only under a signed rollout that names this release and this region. One
   that a daemon started under a mandate counts only for the answer to its own RETRAIN.
4. A rollback counts only from an activation of its own region to a release that is fit there:
   recorded and proven by that region itself, or final (`Release.fit`).
5. An activation is replaced by those that name it, and by what replaced those in turn, unless
   all of them have been killed: a kill revives the predecessor.
6. Two heads of one region are a conflict: both are shown, the lowest event key is preferred.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Set
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache

from hanse.core import limits
from hanse.core.catalog.facts import ModelFacts, Record
from hanse.core.catalog.finals import EVERYTHING, Finals
from hanse.core.catalog.healed import healings, mandated, retired
from hanse.core.catalog.manifest import Manifest, parse_manifest
from hanse.core.catalog.view import (
    Activation,
    HoldView,
    ModelView,
    Release,
    ReportView,
    RolloutView,
)
from hanse.core.errors import InvalidSpec, Rejected
from hanse.core.events import (
    FloorRaise,
    Healthy,
    Hold,
    HoldLift,
    Kill,
    Promote,
    ReleaseRecord,
    Rollback,
    RolloutApprove,
    RolloutControl,
    RolloutIntent,
    RolloutReport,
)
from hanse.core.ids import Digest, EventId, Origin, Segment
from hanse.core.reading import parse_json
from hanse.core.rollout.places import Places, nowhere, resolve
from hanse.core.rollout.plan import RolloutSpec
from hanse.core.rollout.spec import parse_spec, spec_digest
from hanse.core.trust.mandate import parse_mandate
from hanse.core.trust.members import Floors

NO_FLOORS = Floors()


def fold(
    model: Segment,
    facts: ModelFacts,
    quarantine_quorum: int,
    finals: Finals = EVERYTHING,
    floors: Floors = NO_FLOORS,
    places: Places = nowhere,
) -> ModelView:
    """Compute the view of one model. Pure; equal facts, finality and trust give equal views."""
    holds = _holds(facts)
    specs = _specs(facts, places)
    releases = _releases(facts, holds, specs, quarantine_quorum, finals)
    floor = floors.of(
        model,
        ((b.counter, record.event.header.trust_version) for record, b in facts.of(FloorRaise)),
    )
    return ModelView(
        model=model,
        floor=floor,
        releases=tuple(sorted(releases.values(), key=lambda r: (r.counter, r.digest))),
        heads=_heads(facts, releases, specs, floor),
        holds=holds,
        rollouts=_rollouts(facts, releases, specs, finals),
        healings=healings(facts),
    )


def activations(
    facts: ModelFacts, quarantine_quorum: int, finals: Finals, places: Places = nowhere
) -> dict[EventId, tuple[Record, Activation]]:
    """Every promotion and rollback that ever counted, for whoever asks what ran when."""
    specs = _specs(facts, places)
    releases = _releases(facts, _holds(facts), specs, quarantine_quorum, finals)
    return _moves(facts, releases, specs)


@lru_cache(maxsize=4096)
def read_plan(raw: bytes) -> RolloutSpec:
    """Parse the bytes of a signed plan. Raises `InvalidSpec`, `InvalidName` or `TooLarge`."""
    return parse_spec(parse_json(raw, "plan", bytes_max=limits.SPEC_BYTES_MAX))


@lru_cache(maxsize=16384)
def read_release(raw: bytes) -> tuple[Digest, Manifest]:
    """A release's id and manifest; cached, since every fold of the model reads all of them."""
    return Digest.of(raw), parse_manifest(raw)


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
            record.origin,
        )
        for record, body in facts.of(Hold)
        if (record.origin.region, record.id) not in lifted
    )


def _specs(facts: ModelFacts, places: Places) -> dict[EventId, RolloutSpec]:
    """The plans that can be read, that say what their intent says, and that may be started."""
    specs, mandates = {}, {}
    for record, body in facts.of(RolloutIntent):
        try:
            spec = _placed(read_plan(body.spec), record.event.header.trust_version, places)
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
            if body.mandate:
                mandates[record.id] = (record.origin.member, parse_mandate(body.mandate).uses)
    if mandates:
        permitted = mandated(healings(facts), _manifests(facts))
        signed = max((s.generation for id_, s in specs.items() if id_ not in mandates), default=0)
        for id_, (member, uses) in mandates.items():
            spec = specs[id_]
            if (member, spec.release) not in permitted or spec.generation > signed + uses:
                del specs[id_]
    return specs


def _placed(spec: RolloutSpec, author_knew: int, places: Places) -> RolloutSpec:
    """The plan with all its regions. Its author has seen the trust version that it cites, so we
    have it too. Raises `Rejected`."""
    if spec.trust is None:
        return spec
    labels = places(spec.trust) if spec.trust <= author_knew else None
    if labels is None:
        raise InvalidSpec(f"the plan cites trust version {spec.trust}, which its author had not")
    return resolve(spec, labels)


def _manifests(facts: ModelFacts) -> dict[Digest, Manifest]:
    found = {}
    for _, body in facts.of(ReleaseRecord):
        with suppress(Rejected):
            digest, manifest = read_release(body.manifest)
            found[digest] = manifest
    return found


def _releases(
    facts: ModelFacts,
    holds: tuple[HoldView, ...],
    specs: Mapping[EventId, RolloutSpec],
    quorum: int,
    finals: Finals,
) -> dict[Digest, Release]:
    proven, proven_final = _proven(facts, specs), _proven(facts, specs, finals)
    held: dict[Digest, set[str]] = defaultdict(set)
    ever_held: dict[Digest, set[str]] = defaultdict(set)
    for hold in holds:
        if hold.release:
            held[hold.release].add(hold.region)
    for record, said in facts.of(Hold):
        if said.release and finals.bars(record):
            ever_held[said.release].add(said.region)
    dead, out = _dead_files(facts), retired(facts)
    releases: dict[Digest, Release] = {}
    for record, body in facts.of(ReleaseRecord):
        try:
            digest, manifest = read_release(body.manifest)
        except Rejected:
            continue
        if (manifest.model, manifest.version) != (body.model, body.version):
            continue
        if (known := releases.get(digest)) is not None:
            releases[digest] = replace(
                known,
                final=known.final or finals.covers(record),
                logs=(*known.logs, record.origin),
            )
            continue
        releases[digest] = Release(
            digest=digest,
            version=body.version,
            counter=body.counter,
            manifest=manifest,
            manifest_size=len(body.manifest),
            recorded=record.id,
            recorded_by=record.origin.region,
            final=finals.covers(record),
            logs=(record.origin,),
            proven=tuple(sorted(proven[digest])),
            proven_final=tuple(sorted(proven_final[digest])),
            held=tuple(sorted(held[digest])),
            killed=any(file.digest in dead for file in manifest.files),
            quarantined=len(ever_held[digest]) >= quorum,
            retired=out.get(digest, ""),
        )
    return releases


def _proven(
    facts: ModelFacts, specs: Mapping[EventId, RolloutSpec], finals: Finals = EVERYTHING
) -> dict[Digest, set[str]]:
    """Regions whose (final) attestation names a plan that exists and that covers them."""
    plans = {(s.name, s.generation, spec_digest(s).raw): s for s in specs.values()}
    proven: dict[Digest, set[str]] = defaultdict(set)
    for record, body in facts.of(Healthy):
        plan = plans.get((body.rollout, body.generation, body.spec_digest))
        if plan is None or not finals.covers(record):
            continue
        if plan.release == body.release and body.region in plan.regions:
            proven[body.release].add(body.region)
    return proven


def _dead_files(facts: ModelFacts) -> set[Digest]:
    """Model files of killed releases; the golden inputs of a bad model are not bad."""
    killed = {body.release for _, body in facts.of(Kill)}
    return {
        manifest.file(variant.file).digest
        for digest, manifest in _manifests(facts).items()
        if digest in killed
        for variant in manifest.variants
    }


def _heads(
    facts: ModelFacts,
    releases: Mapping[Digest, Release],
    specs: Mapping[EventId, RolloutSpec],
    floor: int,
) -> tuple[Activation, ...]:
    moves = _moves(facts, releases, specs)
    standing = [
        id_
        for id_, (_, activation) in moves.items()
        if not releases[activation.release].killed and releases[activation.release].counter >= floor
    ]
    replaced: set[EventId] = set()
    for id_ in standing:
        # What was killed in between still handed on: a kill must not revive what is long past.
        open_ = [id_]
        while open_:
            record, activation = moves[open_.pop()]
            older = [
                old
                for old in replaces(record)
                if old in moves and moves[old][1].region == activation.region
            ]
            open_ += [old for old in older if old not in replaced]
            replaced.update(older)
    heads = [moves[id_] for id_ in standing if id_ not in replaced]
    heads.sort(key=lambda entry: (entry[1].region, entry[0].key))
    return tuple(activation for _, activation in heads)


def _moves(
    facts: ModelFacts, releases: Mapping[Digest, Release], specs: Mapping[EventId, RolloutSpec]
) -> dict[EventId, tuple[Record, Activation]]:
    """Every promotion and rollback that counts, whether or not it still stands."""
    moves: dict[EventId, tuple[Record, Activation]] = {}
    for record, promote in facts.of(Promote):
        if _promotable(promote, releases, specs):
            activation = Activation(
                record.id, promote.region, promote.release, str(record.origin), "promote"
            )
            moves[record.id] = (record, activation)
    undecided = list(facts.of(Rollback))
    declared = {(s.release, s.rollback.fallback) for s in specs.values()}
    # A rollback may undo another one, of this or of a second daemon: go on until none is added.
    while True:
        counting = [(r, body) for r, body in undecided if _undoes(body, moves, releases, declared)]
        for record, body in counting:
            activation = Activation(
                record.id, body.region, body.to_release, str(record.origin), "rollback", body.reason
            )
            moves[record.id] = (record, activation)
        if not counting:
            return moves
        undecided = [entry for entry in undecided if entry[0].id not in moves]


def _undoes(
    body: Rollback,
    moves: Mapping[EventId, tuple[Record, Activation]],
    releases: Mapping[Digest, Release],
    declared: Set[tuple[Digest, object]],
) -> bool:
    """Whether it names what was active in its region and leads to something fit for it, or to
    what a signed plan declares as the fallback.

    Without this a daemon's key alone could activate any release and call it a rollback.
    """
    undone = moves.get(body.from_activation)
    target = releases.get(body.to_release)
    return (
        undone is not None
        and target is not None
        and (
            target.fit(body.region)
            or (target.usable(body.region) and (body.from_release, target.digest) in declared)
        )
        and (undone[1].region, undone[1].release) == (body.region, body.from_release)
    )


def replaces(record: Record) -> tuple[EventId, ...]:
    """The activations that an activation takes the place of."""
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
        and body.region in s.regions
        for s in specs.values()
    )


def _rollouts(
    facts: ModelFacts,
    releases: Mapping[Digest, Release],
    specs: Mapping[EventId, RolloutSpec],
    finals: Finals,
) -> tuple[RolloutView, ...]:
    """One view a plan: recorded twice it is still one, and only another plan can replace it."""
    said = _controls(facts)
    reports: dict[tuple[str, int, Digest], dict[str, ReportView]] = defaultdict(dict)
    for _, report in facts.of(RolloutReport):
        plan = (report.rollout, report.generation, report.release)
        reports[plan][report.region] = ReportView(
            report.region, report.state, report.stage, report.step, report.verdict, report.reason
        )
    healthy: dict[tuple[str, int, bytes], set[str]] = defaultdict(set)
    waiting: dict[tuple[str, int, bytes], dict[Segment, Origin]] = defaultdict(dict)
    for record, proof in facts.of(Healthy):
        plan_named = (proof.rollout, proof.generation, proof.spec_digest)
        healthy[plan_named].add(proof.region)
        if not finals.covers(record):
            waiting[plan_named][proof.region] = record.origin
    approvals: dict[bytes, set[tuple[Segment, int, str, int]]] = defaultdict(set)
    for _, word in facts.of(RolloutApprove):
        approvals[word.spec_digest].add((word.stage, word.step, word.role, word.count))
    plans: dict[tuple[int, Digest], list[tuple[Record, RolloutIntent]]] = defaultdict(list)
    for record, body in facts.of(RolloutIntent):
        if record.id in specs and body.release in releases:
            plans[body.generation, spec_digest(specs[record.id])].append((record, body))
    views = []
    for generation, digest in sorted(plans):
        record, body = plans[generation, digest][0]
        key = (body.rollout, generation)
        standing = reports[body.rollout, generation, body.release]
        views.append(
            RolloutView(
                id=record.id,
                rollout=body.rollout,
                generation=generation,
                release=body.release,
                predecessor=body.predecessor,
                spec=body.spec,
                spec_digest=digest,
                plan=specs[record.id],
                current=(generation, digest) == max(plans),
                final=any(finals.covers(each) for each, _ in plans[generation, digest]),
                logs=tuple(each.origin for each, _ in plans[generation, digest]),
                paused=tuple(sorted(r for r, a in said[key].items() if a == "pause")),
                aborted=tuple(sorted(r for r, a in said[key].items() if a == "abort")),
                healthy=tuple(sorted(healthy[body.rollout, generation, digest.raw])),
                waiting=tuple(sorted(waiting[body.rollout, generation, digest.raw].items())),
                approvals=tuple(sorted(approvals[digest.raw])),
                reports=tuple(sorted(standing.values(), key=lambda r: r.region)),
                mandated=all(intent.mandate for _, intent in plans[generation, digest]),
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
