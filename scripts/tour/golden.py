"""Golden inputs for a release: two lines, and what the model said to them here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort

from tour import render


def write(model: Path, target: Path) -> str:
    """Write `target` (.npz of `in.x` and `out.<name>`); returns the name of the output."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    output: str = session.get_outputs()[0].name
    line = next(render.lines(7, "Sans", "clean", 1))
    np.savez(
        target,
        **{"in.x": line.tensor, f"out.{output}": session.run([output], {"x": line.tensor})[0]},
    )
    return output
