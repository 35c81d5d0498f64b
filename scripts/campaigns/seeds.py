"""Seeds of the simulator that nobody has run before, each twice: no promise is broken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count

from hanse.sim.faults import KINDS
from hanse.sim.run import run


def rounds(seed: int) -> Iterator[Mapping[str, int]]:
    for number in count(seed):
        kind = sorted(KINDS.keys() - {"byzantine"})[number % (len(KINDS) - 1)]
        regions = 3 + number % 5
        first, second = (run(number, regions, kind) for _ in range(2))
        assert first == second, f"seed {number} has two histories"
        yield {"seeds": 1, "events": first.events, "publishes acknowledged": first.acknowledged}
