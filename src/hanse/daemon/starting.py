"""Starting a rollout, and everything that stands against it at the moment.

`objections` is asked when a plan is started, which the first of them refuses, and when it is
planned, where a person sees all of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from hanse.core.catalog.fold import read_plan
from hanse.core.catalog.under_way import under_way
from hanse.core.catalog.view import ModelView
from hanse.core.errors import Conflict, HanseError, NotFound, Unavailable
from hanse.core.events import RolloutIntent, check_plain
from hanse.core.node import Node
from hanse.core.rollout.places import resolve
from hanse.core.rollout.plan import RolloutSpec
from hanse.daemon.commands import Answer, Args, envelope_of, event_of, model_view, text_of


def start_rollout(node: Node, args: Args) -> Answer:
    """Sign a plan into the log; each region that it names begins by itself."""
    raw, envelope = text_of(args, "spec").encode(), envelope_of(args)
    plan = placed(node, read_plan(raw))
    check_plain(raw.decode(), "the plan")
    for objection in objections(node, plan):
        raise objection
    ticket = node.propose(
        RolloutIntent(plan.model, plan.name, plan.generation, plan.release, plan.predecessor, raw),
        attestations=[envelope],
    )
    return lambda: {
        "event": event_of(ticket),
        "rollout": plan.name,
        "undo": f"hanse rollout abort {plan.model} {plan.name} --reason ...",
    }


def placed(node: Node, plan: RolloutSpec) -> RolloutSpec:
    """With the regions that its stages select. Raises `InvalidSpec`, or `NotFound` for a trust
    version that has not come here."""
    if plan.trust is None:
        return plan
    labels = node.book.chain.labels_at(plan.trust)
    if labels is None:
        raise NotFound(
            f"metadata.trustVersion: version {plan.trust} has not reached this daemon",
            fix=f"the newest here is {node.book.chain.current.version}",
        )
    return resolve(plan, labels)


def objections(node: Node, plan: RolloutSpec) -> Iterator[HanseError]:
    """Why this daemon would not start the plan now."""
    view = model_view(node, plan.model)
    release = view.release(plan.release)
    if release is None:
        yield NotFound(f"{plan.model} has no release {plan.release.short}", fix="publish it first")
    elif release.barred:
        yield Conflict(
            f"{release.version} is {release.state}: no rollout of it can start",
            fix="have its holds lifted: hanse status names them"
            if release.state == "held"
            else "publish a new release; this one stays barred for ever",
        )
    if stale := node.sync.trust.stale:
        yield Unavailable(
            f"nothing can start: {stale}",
            fix="see hanse trust show; holding, killing and rolling back go on working",
        )
    highest = view.generation
    if plan.generation <= highest:
        yield Conflict(
            f"generation {plan.generation} is not above {highest}",
            fix="prepare the rollout again: somebody else has started one",
        )
    yield from _of_regions(node, plan)
    said, decides = plan.propagation.quarantine_quorum, node.book.chain.current.quarantine_quorum
    if said not in (None, decides):
        yield Conflict(
            f"spec.propagation.quarantineQuorum: {said}, and the trust file says {decides}",
            fix=f"write {decides}, or leave it out: the trust file decides",
        )
    yield from _of_others(view, plan)
    yield from _of_lineage(view, plan)


def _of_regions(node: Node, plan: RolloutSpec) -> Iterator[HanseError]:
    known = {r.name for r in node.book.chain.current.regions}
    if plan.trust is not None:
        now = resolve(plan, node.book.chain.current.labels_of_all)
        if now.regions != plan.regions:
            yield Conflict(
                f"the labels of regions have changed since trust version {plan.trust}",
                fix="leave metadata.trustVersion out, look at the plan again, and sign that",
            )
    if unknown := sorted(set(plan.regions) - known):
        yield NotFound(
            f"no such region: {', '.join(unknown)}", fix=f"regions: {', '.join(sorted(known))}"
        )


def _of_others(view: ModelView, plan: RolloutSpec) -> Iterator[HanseError]:
    """Cancelling somebody else's rollout is said in the plan that is signed, never implied."""
    known = {r.rollout for r in view.rollouts}
    if unknown := [name for name in plan.supersedes if name not in known]:
        yield NotFound(
            f"spec.supersedes: {plan.model} has no rollout {unknown[0]}",
            fix=f"known: {', '.join(sorted(known)) or 'none yet'}",
        )
    running = under_way(view)
    if running is not None and running.rollout not in plan.supersedes:
        yield Conflict(
            f"{running.rollout} is under way, and this plan would cancel it",
            fix=f"write supersedes: [{running.rollout}], or start it with --supersede",
        )


def _of_lineage(view: ModelView, plan: RolloutSpec) -> Iterator[HanseError]:
    """Arms are compared with what serves: a plan that names another release has forked."""
    if plan.supersedes:
        return
    active = {a.release for r in plan.regions if (a := view.active(r))} - {plan.release}
    if plan.predecessor in active or not (active or plan.predecessor):
        return
    names = sorted(found.version for d in active if (found := view.release(d)))
    said = view.release(plan.predecessor) if plan.predecessor else None
    named = said.version if said else plan.predecessor.short if plan.predecessor else "nothing"
    yield Conflict(
        f"spec.predecessor: {named} does not serve in {', '.join(plan.regions)}, which run "
        f"{' and '.join(names) or 'nothing yet'}",
        fix="leave predecessor out, or say in supersedes what this plan replaces",
    )
