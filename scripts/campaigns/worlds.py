"""Federations of the simulator on disks whose power fails: each plays as it does in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from power.world import REGIONS, play_on_disks

from hanse.sim.run import run


def rounds(seed: int) -> Iterator[Mapping[str, int]]:
    for number in count(seed):
        with TemporaryDirectory() as folder:
            outcome = play_on_disks(number, Path(folder))
        assert outcome == run(number, REGIONS, "crashes"), f"seed {number} differs from memory"
        yield {"federations": 1, "publishes acknowledged": outcome.acknowledged}
