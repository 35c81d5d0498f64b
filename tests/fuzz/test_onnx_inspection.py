"""No bytes make the inspection of a model do anything but accept or refuse (T27, T30)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

from digit_releases import paths

from fuzz.mutation import drawn

INPUTS = 300
TESTS = Path(__file__).parents[1]


def outcomes(folder: Path, inputs: list[bytes]) -> list[str]:
    for number, raw in enumerate(inputs):
        (folder / f"{number:04d}.onnx").write_bytes(raw)
    done = subprocess.run(
        [sys.executable, "-m", "fuzz.onnx_child", folder],
        cwd=TESTS, env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    said = done.stdout.split()
    assert done.returncode == 0, f"input {len(said)}: {done.stderr[-2000:]}"
    assert len(said) == len(inputs)
    return said


def test_an_edited_model_is_accepted_or_refused_and_nothing_else(tmp_path: Path) -> None:
    seeds = [path.read_bytes() for path in paths().values()]
    rng = Random("onnx")  # the same every time
    said = outcomes(tmp_path, [seeds[0], *(drawn(seeds, rng) for _ in range(INPUTS))])
    assert said[0] == "accepted"
    assert "refused" in said
