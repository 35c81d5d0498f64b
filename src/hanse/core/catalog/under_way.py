"""Which rollout a new one would cancel, and where it is not over."""

from __future__ import annotations

from hanse.core.catalog.view import ModelView, RolloutView
from hanse.core.ids import Segment
from hanse.core.rollout.table import TERMINAL


def under_way(view: ModelView) -> RolloutView | None:
    """The newest, unless every region is done with it or nobody can go on with it."""
    rollout = view.current_rollout()
    if rollout is None:
        return None
    release = view.release(rollout.release)
    return rollout if left(rollout) and release is not None and not release.barred else None


def left(rollout: RolloutView) -> set[Segment]:
    """The regions that are not done with it, held or not."""
    if "*" in rollout.aborted:
        return set()
    ended = {r.region for r in rollout.reports if r.state in TERMINAL}
    return set(rollout.plan.regions) - ended - {*rollout.healthy, *rollout.aborted}
