"""Seeds of the simulator with members who lie; every tenth runs twice, to the same end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count

from hanse.sim.run import run
from hanse.sim.vices import liars


def rounds(seed: int) -> Iterator[Mapping[str, int]]:
    for number in count(seed):
        regions = 7 if number % 10 == 9 else 4
        outcome = run(number, regions, "byzantine")
        if number % 10 == 0:
            assert outcome == run(number, regions, "byzantine"), f"seed {number} has two histories"
        yield {"seeds": 1, "liars": liars(regions), "events": outcome.events}
