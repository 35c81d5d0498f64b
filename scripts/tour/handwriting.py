"""Handwritten digits that people really wrote, and what fog on a lens does to them.

scikit-learn carries the 1,797 scans of the UCI set. One part trains the first models, the other
is what users send; of that, every fifth is set aside and never trained on. `fog` is a covariate
shift: the same digits with half the contrast on a bright ground. It halves no accuracy evenly:
the newer model below suffers far more than the older one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Labels = NDArray[np.int64]
HELD_OUT_EVERY = 5


def scans() -> tuple[Rows, Rows, Labels, Labels]:
    """For training, for users, and the labels of both."""
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # no types
    from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]  # no types

    x, y = load_digits(return_X_y=True)
    found: tuple[Rows, Rows, Labels, Labels] = train_test_split(
        x.astype(np.float32), y, test_size=0.4, random_state=0
    )
    return found


def fog(rows: Rows) -> Rows:
    """Pixels go from 0 to 16; what was dark becomes grey."""
    return np.clip(rows / 2 + 8, 0, 16).astype(np.float32)


def write(fitted: Any, folder: Path, examples: Rows) -> Path:
    """The model as ONNX beside golden inputs, as `hanse release publish` takes them."""
    import onnxruntime as ort
    from skl2onnx import to_onnx  # type: ignore[import-untyped]  # no types

    folder.mkdir(parents=True, exist_ok=True)
    proto = to_onnx(fitted, examples[:1], options={"zipmap": False}, target_opset=17)
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    session = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    label, probabilities = session.run(["label", "probabilities"], {"X": examples})
    golden = {"in.X": examples, "out.label": label, "out.probabilities": probabilities}
    np.savez(folder / "golden.npz", **golden)
    return folder / "model.onnx"


# -- a region's own data: rows with their labels, as they became known -------------------------


def keep(folder: Path, row: Rows, label: int, *, held_out: bool) -> None:
    """Append one labelled example; 65 numbers, so that whoever reads sees whole rows only."""
    name = "heldout.f32" if held_out else "labelled.f32"
    with (folder / name).open("ab") as file:
        file.write(np.append(row.ravel(), np.float32(label)).astype(np.float32).tobytes())


def kept(folder: Path, name: str, latest: int) -> tuple[Rows, Labels]:
    path = folder / name
    raw = np.fromfile(path, dtype=np.float32) if path.exists() else np.empty(0, np.float32)
    rows = raw[: len(raw) // 65 * 65].reshape(-1, 65)[-latest:]
    return rows[:, :64], rows[:, 64].astype(np.int64)
