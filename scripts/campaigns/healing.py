"""Seeds of the simulator in which a bad release is retrained with nobody asked, whatever fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count

from hanse.core.catalog.healed import answers
from hanse.sim import healing, story
from hanse.sim.answers import BAD, Nature
from hanse.sim.run import build, play
from hanse.sim.world import NAMES


def rounds(seed: int) -> Iterator[Mapping[str, int]]:
    for number in count(seed):
        bad = NAMES[2:3] if number % 3 else NAMES[1:3]
        world = build(number, 3, "default", Nature({("2.0.0", name): BAD for name in bad}))
        play(world, healing.healed)
        view = story.view(next(iter(world.processes.values())))
        assert view is not None, f"seed {number}: a region is down at the end"
        for asked in view.healings:
            made = [r for r in view.releases if answers(asked, r.manifest)]
            assert len(made) <= 1, f"seed {number}: {asked.id} has {len(made)} answers"
        held = [h.hold for h in view.healings]
        assert len(held) == len(set(held)), f"seed {number}: one hold was answered twice"
        yield {"seeds": 1, "retrainings": len(view.healings)}
