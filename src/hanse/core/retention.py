"""Which model files a region keeps, and why: decided from the records, for `hanse gc`.

A release stays while anything reaches it here:

    serving     it is active, or a way back from what is: the first `rollback.prefetch` of
                `rollback_targets`, at least `TARGETS_KEPT_MIN`, and what its plan names
    moving      a rollout that covers this region and is not over, with its ways back
    healing     a retraining that is not settled, both sides of it
    nodes       the assignment that they were told last, and what they say they have
    people      a pin
    origin      this daemon recorded it, and it could still be started or gone back to: the
                others fetch from here what they removed, so that no way back is lost for good
    coming      a fetch that is under way, or a file younger than the grace period

and every file that its manifest names stays with it, golden inputs too. A release that is killed,
quarantined, retired or below the floor is nobody's way back; so is, elsewhere than at its origin,
one that nothing names. The same records and files give the same plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from hanse.core.catalog.lineage import brought_by, rollback_targets, warm_targets
from hanse.core.catalog.under_way import left
from hanse.core.catalog.view import ModelView, Release
from hanse.core.healing import settled
from hanse.core.ids import Digest, MemberId, Segment, Version
from hanse.core.limits import TARGETS_KEPT_MIN
from hanse.core.rollout.plan import RolloutSpec

Reason = tuple[Digest, str]


@dataclass(frozen=True, slots=True)
class Stored:
    """A file in the blob store. `age_s`: since it came or was last asked for by a publisher."""

    digest: Digest
    size: int
    age_s: float
    pins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Beside:
    """What counts beside the shared records; only this daemon knows it."""

    region: Segment
    member: MemberId
    plans: tuple[RolloutSpec, ...] = ()
    """Whose execution here is not over, whatever others say of it."""
    pins: Mapping[Digest, str] = field(default_factory=dict)
    nodes: Mapping[Digest, str] = field(default_factory=dict)
    told: frozenset[Digest] = frozenset()
    arriving: frozenset[Digest] = frozenset()


@dataclass(frozen=True, slots=True)
class Rules:
    """`origin`: also keep what this daemon recorded and somebody could still start."""

    grace_s: float
    origin: bool = True


@dataclass(frozen=True, slots=True)
class ReleaseFate:
    """It stays if something is in `why`. Of `size` bytes that lie here `goes` go."""

    model: Segment
    version: Version
    release: Digest
    size: int
    goes: int
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BlobFate:
    digest: Digest
    size: int
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    releases: tuple[ReleaseFate, ...]
    blobs: tuple[BlobFate, ...]

    @property
    def going(self) -> tuple[BlobFate, ...]:
        return tuple(blob for blob in self.blobs if not blob.why)


def pin_of(release: Digest) -> str:
    """The name under which the files of a release are pinned in the blob store."""
    return f"release-{release.short}"


def reached(view: ModelView, region: str, plans: Sequence[RolloutSpec] = ()) -> Iterator[Reason]:
    """What the records need of one model in a region, and what for, in a few words each."""
    for head in view.heads:
        if head.region == region:
            yield head.release, "serves here"
            yield from _ways_back(view, head.release, region)
    open_ = [r.plan for r in view.rollouts if r.current and region in left(r)]
    open_ += [p for p in plans if p.model == view.model and p not in open_]
    for plan in open_:
        yield plan.release, f"rollout {plan.name} is not over"
        warm = warm_targets(view, plan, region)
        yield from ((r.digest, f"{plan.name} would go back to it") for r in warm)
        yield from _named(view, plan)
        yield from _ways_back(view, plan.release, region)
    for healing in view.healings:
        if healing.region == region and not settled(view, healing):
            yield healing.release, "its retraining is not settled"
            if healing.child is not None:
                yield healing.child, "answers a retraining that is not settled"


def _ways_back(view: ModelView, bad: Digest, region: str) -> Iterator[Reason]:
    plan, known = brought_by(view, bad, region), view.release(bad)
    depth = max(plan.rollback.prefetch if plan else 0, TARGETS_KEPT_MIN)
    for target in islice(rollback_targets(view, bad, region), depth):
        yield target.digest, f"a way back from {known.version if known else bad.short}"
    if plan is not None:
        yield from _named(view, plan)


def _named(view: ModelView, plan: RolloutSpec) -> Iterator[Reason]:
    """What a plan names stays even while it is not fit: a hold may be lifted, a kill may not."""
    for digest in (plan.predecessor, plan.rollback.target, plan.rollback.fallback):
        if isinstance(digest, Digest):
            known = view.release(digest)
            if known is None or not _ended(view, known):
                yield digest, f"the plan {plan.name} names it"


def _ended(view: ModelView, release: Release) -> bool:
    """Nobody may start it or go back to it any more, and that for ever."""
    return release.killed or release.retired == "retired" or release.counter < view.floor


def decide(
    views: Mapping[Segment, ModelView], beside: Beside, stored: Sequence[Stored], rules: Rules
) -> Plan:
    """The fate of every file in `stored` and of every release that has one of them."""
    by_digest = {blob.digest: blob for blob in stored}
    holders: dict[Digest, list[str]] = {}
    found: list[tuple[ModelView, Release, list[Stored], list[str]]] = []
    for _, view in sorted(views.items()):
        needed: dict[Digest, list[str]] = {}
        for digest, why in reached(view, beside.region, beside.plans):
            needed.setdefault(digest, []).append(why)
        for release in view.releases:
            here = [by_digest[f.digest] for f in release.manifest.files if f.digest in by_digest]
            if not here:
                continue
            reasons = [*needed.get(release.digest, ()), *_local(view, release, beside, rules)]
            if any(blob.age_s < rules.grace_s for blob in here):
                reasons.append("came less than the grace period ago")
            for blob in here if reasons else ():
                holders.setdefault(blob.digest, []).append(f"{view.model}@{release.version}")
            found.append((view, release, here, reasons))
    going = {pin_of(release.digest) for _, release, _, reasons in found if not reasons}
    blobs = tuple(
        BlobFate(b.digest, b.size, tuple(_held(b, holders.get(b.digest, ()), going, rules)))
        for b in stored
    )
    gone = {blob.digest for blob in blobs if not blob.why}
    return Plan(
        tuple(
            ReleaseFate(
                view.model,
                release.version,
                release.digest,
                sum(blob.size for blob in here),
                sum(blob.size for blob in here if blob.digest in gone),
                tuple(dict.fromkeys(reasons)),
            )
            for view, release, here, reasons in found
        ),
        blobs,
    )


def _local(view: ModelView, release: Release, beside: Beside, rules: Rules) -> Iterator[str]:
    digest = release.digest
    if digest in beside.told:
        yield "the nodes were told of it"
    if digest in beside.nodes:
        yield f"node {beside.nodes[digest]} has it"
    if digest in beside.pins:
        yield f"pinned: {beside.pins[digest]}"
    if digest in beside.arriving:
        yield "it is being fetched or copied"
    ours = beside.member in {log.member for log in release.logs}
    if rules.origin and ours and not release.quarantined and not _ended(view, release):
        yield "published here: others fetch it from here, until it is retired"


def _held(blob: Stored, holders: Sequence[str], going: set[str], rules: Rules) -> Iterator[str]:
    """Pins of releases that go are theirs; any other pin is somebody's word."""
    yield from (f"a file of {name}" for name in dict.fromkeys(holders))
    if blob.age_s < rules.grace_s:
        yield "came less than the grace period ago"
    if not holders:
        yield from (f"pinned by {name}" for name in blob.pins if name not in going)
