"""Which rollout a new one would cancel."""

from __future__ import annotations

from hanse.core.catalog.view import ModelView, RolloutView
from hanse.core.rollout.table import TERMINAL


def under_way(view: ModelView) -> RolloutView | None:
    """The newest, unless every region is done with it or nobody can go on with it."""
    rollout = view.current_rollout()
    if rollout is None or "*" in rollout.aborted:
        return None
    release = view.release(rollout.release)
    ended = {r.region for r in rollout.reports if r.state in TERMINAL}
    left = set(rollout.plan.regions) - ended - {*rollout.healthy, *rollout.aborted}
    return rollout if left and release is not None and not release.barred else None
