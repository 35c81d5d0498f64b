"""The retrain hook of `scripts/demo --heal`: a better model from the region's own data.

The daemon runs it with `HANSE_RETRAIN` and the rest, see docs/operating.md. It trains on what the
first models knew and on what this region saw lately, sets labelled examples aside that it did
not train on, and publishes with a key that may publish and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from tour import handwriting

LATEST, HELD_OUT = 1500, 300
ENOUGH, WAIT_S = 400, 30.0


def main() -> int:
    from sklearn.neural_network import MLPClassifier  # type: ignore[import-untyped]  # no types

    data, key = Path.cwd(), os.environ["HANSE_RETRAIN"]
    rows, labels = _since_it_became_worse(data)
    known, _, truth, _ = handwriting.scans()
    x, y = np.concatenate([known, rows]), np.concatenate([truth, labels])
    fitted = MLPClassifier((64,), max_iter=150, random_state=int(key[:6], 16)).fit(x, y)
    model = handwriting.write(fitted, data / key[:12], rows[:16])
    _set_aside(data)
    digest = hashlib.sha256(rows.tobytes() + labels.tobytes()).hexdigest()
    ran = subprocess.run(
        [
            *(os.environ["HANSE"], "release", "publish", str(model)),
            *("-n", os.environ["HANSE_MODEL"], "-v", f"{os.environ['HANSE_VERSION']}-{key[:6]}"),
            *("--parent", os.environ["HANSE_RELEASE"], "--relation", "retrained-from"),
            *("--golden", str(model.with_name("golden.npz")), "--outcome", "label:label"),
            *("--label", f"hanse.retrain={key}", "--licence", "Apache-2.0"),
            *("--training-data", "uci-optdigits"),
            *("--training-data", f"{os.environ['HANSE_REGION']}-lately=sha256:{digest}"),
            *("--hyperparameter", f"rows={len(x)}", "--framework", "onnxruntime=>=1.17"),
        ],
        check=False,
    )
    print(f"trained on {len(x)} rows, {len(rows)} of them this region's own")
    return ran.returncode


def _since_it_became_worse(data: Path) -> tuple[handwriting.Rows, handwriting.Labels]:
    """What was labelled last; at night the drift may have begun a moment ago."""
    path, deadline = data / "labelled.f32", time.monotonic() + WAIT_S
    begun = path.stat().st_size if path.exists() else 0
    while path.stat().st_size - begun < ENOUGH * 65 * 4 and time.monotonic() < deadline:
        time.sleep(0.2)
    return handwriting.kept(data, path.name, LATEST)


def _set_aside(data: Path) -> None:
    rows, labels = handwriting.kept(data, "heldout.f32", HELD_OUT)
    examples: dict[str, Any] = {"in.X": rows, "label": labels}
    np.savez(data / "heldout.tmp.npz", **examples)
    (data / "heldout.tmp.npz").replace(data / "heldout.npz")


if __name__ == "__main__":
    sys.exit(main())
