"""A real daemon is killed under write load, at random moments: nothing acknowledged is lost."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from kill_loop import KillLoop

KILLS_A_FEDERATION = 50
PAUSE_S = 60.0


def rounds(seed: int) -> Iterator[Mapping[str, int]]:
    for number in count(seed):
        with TemporaryDirectory(prefix="hanse-kills-") as folder:
            loop = KillLoop(Path(folder), number)
            try:
                yield from _one_federation(loop, random.Random(number))
            finally:
                loop.close()


def _one_federation(loop: KillLoop, rng: random.Random) -> Iterator[Mapping[str, int]]:
    done = restarts = 0
    for _ in range(KILLS_A_FEDERATION):
        loop.kill_under_load()
        new, started = loop.acknowledged - done, loop.restarts - restarts
        done, restarts = loop.acknowledged, loop.restarts
        yield {"kills": 1, "restarts": started, "acknowledged": new, "lost": 0}
    assert loop.stop_under_load() == 0
    loop.pause_under_load(rng.uniform(1.0, PAUSE_S))
    loop.finish()
    yield {"stops": 1, "pauses": 1, "acknowledged": loop.acknowledged - done}
