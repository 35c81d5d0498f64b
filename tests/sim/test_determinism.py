"""One seed, one trace: also in another process, whose strings hash differently."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hanse.sim.run import run


@pytest.mark.parametrize(("seed", "faults"), [(3, "default"), (4, "crashes"), (5, "storm")])
def test_a_seed_leaves_the_same_trace_twice(seed: int, faults: str) -> None:
    program = f"from hanse.sim.run import run; print(run({seed}, faults={faults!r}).trace_hash)"
    other = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": str(seed + 1)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run(seed, faults=faults).trace_hash == other.stdout.strip()


def test_another_seed_leaves_another_trace() -> None:
    assert run(1, faults="crashes").trace_hash != run(2, faults="crashes").trace_hash
