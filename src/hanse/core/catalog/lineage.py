"""Descent, and the release to fall back to.

The rollback target is a pure function of the records: no clock, no local cache, no arrival
order. Whether its artifact is at hand decides only *when* a node gets there, never *what*.

The newest plan that brought a release says in `rollback` where to go back to from it:

    target    tried first: the plan's predecessor, or a release by its digest
    window    how many generations of ancestors are then tried, nearest first; by default all
    fallback  taken if none of those is fit: it was signed with the plan and needs no other proof
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from hanse.core.catalog.view import ModelView, Release
from hanse.core.ids import Digest
from hanse.core.rollout.plan import Rollback, RolloutSpec


def ancestors(view: ModelView, start: Digest, within: int | None = None) -> Iterator[Release]:
    """Recorded ancestors, nearest first, of at most `within` generations; safe against cycles and
    unknown parents."""
    seen, ring, generation = {start}, [start], 0
    while ring and (within is None or generation < within):
        generation += 1
        parents: list[Digest] = []
        for digest in ring:
            release = view.release(digest)
            parents += [p.release for p in release.manifest.parents] if release else []
        ring = [p for p in dict.fromkeys(parents) if p not in seen]
        seen.update(ring)
        for digest in ring:
            release = view.release(digest)
            if release is not None:
                yield release


def rollback_target(view: ModelView, bad: Digest, region: str) -> Release | None:
    """The first of `rollback_targets`. None means that no release is fit: the model is disabled."""
    return next(rollback_targets(view, bad, region), None)


def rollback_targets(view: ModelView, bad: Digest, region: str) -> Iterator[Release]:
    """Where a region goes back to from `bad`, in order: fit for it, not barred, not
    below the floor.

    A region that is cut off still falls back to what it recorded and proved itself. Every daemon
    with the same records names the same releases for it.
    """
    plan = brought_by(view, bad, region)
    rule = plan.rollback if plan else Rollback()
    named = rule.target if isinstance(rule.target, Digest) else None
    if plan is not None and rule.target == "predecessor":
        named = plan.predecessor
    first = view.release(named) if named else None
    said = {bad}
    nearest = ancestors(view, bad, rule.window_revisions)  # only as far as somebody asks
    for release in chain([first] if first else [], nearest):
        if release.digest not in said and release.fit(region) and _open(view, release):
            said.add(release.digest)
            yield release
    last = view.release(rule.fallback) if isinstance(rule.fallback, Digest) else None
    if last is not None and last.digest not in said and last.usable(region) and _open(view, last):
        yield last


def brought_by(view: ModelView, release: Digest, region: str) -> RolloutSpec | None:
    """The newest plan of a release that this region may act on."""
    plans = (r.plan for r in reversed(view.rollouts) if r.release == release and r.usable(region))
    return next(plans, None)


def warm_targets(view: ModelView, plan: RolloutSpec, region: str) -> tuple[Release, ...]:
    """What must be at hand before a rollout may begin: where it would go back to, in order."""
    active = view.active(region)
    standing = view.release(active.release) if active else None
    found = [standing] if standing is not None and standing.digest != plan.release else []
    found += [r for r in rollback_targets(view, plan.release, region) if r not in found]
    return tuple(found[: plan.rollback.prefetch])


def _open(view: ModelView, release: Release) -> bool:
    return not release.barred and release.counter >= view.floor
