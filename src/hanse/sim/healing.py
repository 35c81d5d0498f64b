"""A release that is bad in one region, where nobody waits for people: it is retrained by itself.

Every region has a policy and a mandate. The hook is a `Trainer`: it takes its time, it outlives the
daemon that called it, and it publishes as a hook does that remembers nothing, once for each call.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from hanse.core.catalog.healed import LABEL, answers
from hanse.core.catalog.manifest import Manifest
from hanse.core.catalog.view import HealingView, Release
from hanse.core.effects import Heal
from hanse.core.events import ReleaseRecord, RetrainResult
from hanse.core.healing import Mandated, Policy
from hanse.core.ids import Digest, EventId, Segment
from hanse.core.rollout.spec import parse_spec, to_mapping
from hanse.core.rollout.table import State
from hanse.core.trust import statements
from hanse.core.trust.mandate import Mandate, template_of
from hanse.sim.process import Process
from hanse.sim.story import (
    MODEL,
    Story,
    everywhere,
    manifest,
    plan,
    publish,
    roll_out,
    until,
    view,
)
from hanse.sim.world import World

POLICY: Final = Policy(cooldown_s=30.0, budget=3, window_s=3600.0)
TRAINS_S, CHECKS_S = (5.0, 40.0), (1.0, 5.0)


@dataclass(slots=True)
class Trainer:
    """`asked` are all calls of all regions; `made` is what answered each key."""

    world: World
    asked: list[tuple[Segment, EventId]] = field(default_factory=list)
    made: dict[EventId, Manifest] = field(default_factory=dict)

    def __call__(self, process: Process, effect: Heal) -> None:
        self.asked.append((process.name, effect.retrain))
        self.world.after(
            self.world.rng.uniform(*TRAINS_S), lambda: self._publish(process, effect.retrain)
        )

    def _publish(self, process: Process, key: EventId) -> None:
        """Whether or not the daemon that asked is still the same one."""
        healing, child = _look(process, key)
        if healing is None:
            self.world.after(2.0, lambda: self._publish(process, key))
            return
        if child is None:
            self._propose(process, healing)
        self.world.after(self.world.rng.uniform(*CHECKS_S), lambda: self._tell(process, key))

    def _propose(self, process: Process, healing: HealingView) -> None:
        seen = view(process)
        worse = seen.release(healing.release) if seen else None
        if seen is None or worse is None:
            return
        key = healing.id.raw.hex()
        made = replace(manifest(f"{worse.version}-{key[:6]}", worse.manifest), labels={LABEL: key})
        raw, counter = made.encode(), max(r.counter for r in seen.releases) + 1
        digest = Digest.of(raw)
        signed = statements.sign_release(
            f"{made.model}@{made.version}", digest, counter, [self.world.operator]
        )
        if process.propose(ReleaseRecord(made.model, made.version, counter, raw), (signed,)):
            self.made[healing.id] = made
            process.blobs[digest] = made.model
            process.do(lambda node, _: node.region.have(digest))

    def _tell(self, process: Process, key: EventId) -> None:
        """What the daemon's own task does; one that died asks again, and so gets here again."""
        healing, child = _look(process, key)
        if healing is None or child is None:
            self.world.after(2.0, lambda: self._publish(process, key))
        elif not healing.outcome:
            body = RetrainResult(MODEL, process.name, key, "passed", child.digest)
            if process.propose(body) is None:
                self.world.after(2.0, lambda: self._tell(process, key))


def _look(process: Process, key: EventId) -> tuple[HealingView | None, Release | None]:
    seen = view(process)
    healing = next((h for h in seen.healings if h.id == key), None) if seen else None
    if seen is None or healing is None:
        return None, None
    return healing, next((r for r in seen.releases if answers(healing, r.manifest)), None)


def declare(world: World, uses: int = 3) -> Trainer:
    """A hook and a mandate in every region; the disk keeps the mandate."""
    trainer = Trainer(world)
    some, other = Digest.of(b"some release"), Digest.of(b"its predecessor")
    spec = parse_spec(plan(list(world.processes), some, 1, other))
    template = template_of(to_mapping(spec))
    statement = Mandate(MODEL, Digest.of(template), uses).encode()
    envelope = statements.sign_control(statement, [world.operator])
    given = Mandated(statement, envelope, template)
    for process in world.processes.values():
        process.policies, process.hook = {MODEL: POLICY}, trainer
        process.do(lambda node, _: setattr(node.region.healing, "policies", {MODEL: POLICY}))
        process.do(lambda node, _: node.region.healing.mandate(MODEL, given))
    return trainer


def healed(world: World) -> Story:
    """From a release that is bad in one region to its answer, everywhere, with nobody asked."""
    yield from until(lambda: all(p.node is not None for p in world.processes.values()))
    trainer = declare(world)
    names = list(world.processes)
    first = manifest("1.0.0")
    yield from publish(world, names[0], first, 1)
    yield from roll_out(world, names[0], first, 1, None)
    yield from until(lambda: everywhere(world, first, State.HEALTHY))
    second = manifest("2.0.0", first)
    yield from publish(world, names[0], second, 2)
    yield from roll_out(world, names[0], second, 2, first)
    yield from until(
        lambda: any(everywhere(world, made, State.HEALTHY) for made in trainer.made.values())
    )
