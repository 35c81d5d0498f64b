"""Which approve step of a plan waits for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hanse.core.catalog.view import ModelView, RolloutView
from hanse.core.errors import NotFound
from hanse.core.node import Clock, Node
from hanse.core.rollout.plan import Approve
from hanse.daemon.commands import find_rollout, model_view


def rollout_awaiting(node: Node, _: Clock, args: Mapping[str, Any]) -> dict[str, Any]:
    """What to sign next: the first approve step, in the order of the plan, that is not met.

    `stage` narrows it. Raises `NotFound` where nothing waits for anybody.
    """
    view = model_view(node, str(args.get("model")))
    rollout = find_rollout(view, args.get("rollout"))
    return _first_open(view, rollout, args.get("stage"))


def _first_open(view: ModelView, rollout: RolloutView, stage: object) -> dict[str, Any]:
    for (name, index), step in approve_steps(rollout):
        if stage in (None, "", name) and not step.met(name, index, rollout.approvals):
            return {
                "model": view.model,
                "rollout": rollout.rollout,
                "spec": str(rollout.spec_digest),
                "stage": name,
                "step": index,
                "role": step.role,
                "count": step.count,
            }
    raise NotFound(f"nothing in {rollout.rollout} waits for an approval", fix="see rollout status")


def approve_steps(rollout: RolloutView) -> list[tuple[tuple[str, int], Approve]]:
    return [
        ((stage.name, index), step)
        for stage in rollout.plan.stages
        for index, step in enumerate(stage.steps)
        if isinstance(step, Approve)
    ]
