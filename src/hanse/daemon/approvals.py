"""Recording that people approved a step of a plan."""

from __future__ import annotations

from hanse.core.errors import Conflict, InvalidSpec, NotFound
from hanse.core.events import RolloutApprove
from hanse.core.ids import Digest, segment
from hanse.core.node import Node
from hanse.daemon.commands import Answer, Args, event_of, model_view
from hanse.daemon.queries.approvals import approve_steps


def approve(node: Node, args: Args) -> Answer:
    """Record the approval of exactly one step of one plan."""
    view = model_view(node, str(args.get("model")))
    spec, step = Digest.parse(str(args.get("spec"))), args.get("step")
    rollout = next((r for r in view.rollouts if r.spec_digest == spec), None)
    if rollout is None:
        raise NotFound(f"{view.model} has no plan {spec.short}", fix="ask again what waits")
    if not rollout.current:
        raise Conflict(f"{rollout.rollout} is not current any more", fix="approve the newer one")
    stage = segment(str(args.get("stage")), "stage")
    asked = dict(approve_steps(rollout)).get((stage, step if type(step) is int else -1))
    if asked is None:
        raise InvalidSpec(
            f"step {step!r} of stage {stage} is no approve step of this plan",
            fix="ask again what waits",
        )
    body = RolloutApprove(
        view.model,
        rollout.rollout,
        rollout.generation,
        spec.raw,
        stage,
        step if type(step) is int else 0,
        asked.role,
        asked.count,
    )
    ticket = node.propose(body, attestations=[str(args.get("envelope") or "").encode()])
    undo = f"hanse rollout abort {view.model} {rollout.rollout} --reason ..."
    return lambda: {"event": event_of(ticket), "undo": undo}
