"""Run one seed: the same federation, the same faults, the same history, every time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from hanse.sim import story
from hanse.sim.answers import Nature
from hanse.sim.decisions import decisions
from hanse.sim.faults import FaultPlan, draw
from hanse.sim.oracle import CONVERGENCE_S, Violated
from hanse.sim.world import World, region_name

END_S = 1500.0
QUIET_S = 2.0
EDGE_NODES = 2
TALES: Final[Mapping[str, Callable[[World], story.Story]]] = {
    "crashes": story.publishing,
    "storm": story.publishing,
    "byzantine": decisions,
}
"""What is told under which faults, where it is not the story of a release that is bad."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Two runs of one seed have equal outcomes."""

    trace_hash: str
    state_digest: str
    events: int
    acknowledged: int
    converged_after_s: float
    ended_s: float


def run(
    seed: int,
    regions: int = 3,
    faults: str | FaultPlan = "default",
    tale: Callable[[World], story.Story] | None = None,
) -> Outcome:
    """Raises `Violated`, which says how to repeat it."""
    world = build(seed, regions, faults)
    try:
        return play(world, tale)
    except Violated as error:
        said = "\n".join(world.history.lines[-12:])
        kind = world.plan.name
        raise Violated(
            f"{error}\n{said}\nrepeat it: hanse sim --seed {seed} --regions {regions}"
            f" --faults {kind}"
        ) from error


def build(
    seed: int,
    regions: int = 3,
    faults: str | FaultPlan = "default",
    nature: Nature | None = None,
    edge_nodes: int = EDGE_NODES,
) -> World:
    """A world before its first second."""
    names = [region_name(i) for i in range(regions)]
    plan = draw(faults, seed, names) if isinstance(faults, str) else faults
    edge_nodes = 0 if TALES.get(plan.name) is decisions else edge_nodes
    return World(seed, regions, plan, nature or story.nature(regions), edge_nodes)


def play(world: World, tale: Callable[[World], story.Story] | None = None) -> Outcome:
    """Tell the story under faults; then there must be agreement and nothing lost."""
    tale = tale or TALES.get(world.plan.name, story.default)
    if not story.run_story(world, tale, END_S):
        raise Violated(f"the story is not over at {world.now_s:.0f} s")
    quiet_s = max(world.now_s, world.plan.calm_s) + QUIET_S
    while world.now_s < quiet_s or not world.oracle.agreed():
        world.run_until(world.now_s + 1.0)
        world.oracle.look()
        if world.now_s > max(quiet_s, world.oracle.deadline_s) + CONVERGENCE_S:
            raise Violated(f"the story is told, but no agreement at {world.now_s:.0f} s")
    world.oracle.finish()
    nodes = [p.node for p in world.processes.values() if p.node is not None]
    return Outcome(
        trace_hash=world.trace_hash,
        state_digest=nodes[0].catalog.state_digest.hex(),
        events=sum(head.size for head in nodes[0].book.heads.values()),
        acknowledged=world.oracle.acknowledged,
        converged_after_s=(world.oracle.converged_s or 0.0) - world.plan.calm_s,
        ended_s=world.now_s,
    )


def history(seed: int, regions: int = 3, faults: str = "default") -> Iterator[str]:
    """The readable history of one seed, line by line, with its outcome at the end."""
    world = build(seed, regions, faults)
    try:
        outcome = play(world)
    except Violated as error:
        yield from world.history.lines
        yield f"VIOLATED: {error}"
        return
    yield from world.history.lines
    yield f"state {outcome.state_digest[:16]}, trace {outcome.trace_hash[:16]}"
