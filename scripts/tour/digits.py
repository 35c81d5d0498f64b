"""Two small digit models, made on the spot, and the ways in which such a file can be bad.

Versions 1 and 2 share a signature: `X` f32[N,64] to `label` i64[N], `probabilities` f32[N,10].
Every poison is version 2 with one thing wrong, so that a refusal can only be about that thing.
Libraries are imported inside the functions: who does not make models need not have them.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

SWAPPED = (3, 8)
OUTSIDE = "../outside"


def make(folder: Path) -> dict[str, Path]:
    """Train, export and spoil; the same bytes on every run in one environment.

    Returns `v1`, `v2`; `swapped` (loads, but answers 3 for 8 and 8 for 3), `f64` (other input
    and output type), `opset99`, `ir99`, `acme` (needs an operator that nobody has), `truncated`,
    `external` (weights in `../outside`, which exists and is right); and `holdout`, an `.npz` of
    the rows `X` f32[719,64] and labels `y` i64[719] that neither version was trained on.
    `folder` is created; nothing is written beside it.
    """
    import numpy as np
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # no types
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]  # no types
    from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]  # no types
    from sklearn.neural_network import MLPClassifier  # type: ignore[import-untyped]  # no types

    x, y = load_digits(return_X_y=True)
    split = train_test_split(x.astype(np.float32), y, test_size=0.4, random_state=0)
    x_train, x_holdout, y_train, y_holdout = split
    first = LogisticRegression(max_iter=3000).fit(x_train, y_train)
    second = MLPClassifier((64,), max_iter=400, random_state=0).fit(x_train, y_train)

    row = x_train[:1]
    v2 = _exported(second, row)
    files = {
        "v1": _exported(first, row),
        "v2": v2,
        "swapped": _exported(_with_swapped_classes(second), row),
        "f64": _exported(second, row.astype(np.float64)),
        "opset99": _edited(v2, _claim_opset_99),
        "ir99": _edited(v2, _claim_ir_99),
        "acme": _edited(v2, _add_unknown_operator),
        "truncated": v2[: len(v2) // 2],
    }
    paths = {name: folder / f"{name}.onnx" for name in files}
    # One folder deeper, so that "../outside" is still ours to write.
    paths["external"] = folder / "inner" / "external.onnx"
    paths["external"].parent.mkdir(parents=True)
    for name, data in files.items():
        paths[name].write_bytes(data)
    paths["external"].write_bytes(_edited(v2, _move_weights_out))
    (folder / "outside").write_bytes(second.coefs_[0].astype(np.float32).tobytes())
    paths["holdout"] = folder / "holdout.npz"
    np.savez(paths["holdout"], X=x_holdout, y=y_holdout)
    return paths


def _exported(fitted: Any, row: Any) -> bytes:
    from skl2onnx import to_onnx  # type: ignore[import-untyped]  # no types

    proto = to_onnx(fitted, row, options={"zipmap": False}, target_opset=17)
    return bytes(proto.SerializeToString())


def _with_swapped_classes(fitted: Any) -> Any:
    swapped, (one, other) = deepcopy(fitted), SWAPPED
    for weights in (swapped.coefs_[-1], swapped.intercepts_[-1]):
        weights[..., [one, other]] = weights[..., [other, one]]
    return swapped


def _edited(model: bytes, edit: Callable[[Any], None]) -> bytes:
    import onnx

    proto = onnx.load_from_string(model)
    edit(proto)
    return bytes(proto.SerializeToString())


def _claim_opset_99(proto: Any) -> None:
    for entry in proto.opset_import:
        if entry.domain == "":
            entry.version = 99


def _claim_ir_99(proto: Any) -> None:
    proto.ir_version = 99


def _add_unknown_operator(proto: Any) -> None:
    proto.opset_import.add(domain="com.acme", version=1)
    first = proto.graph.node[0]
    proto.graph.node.add(op_type="Calibrate", domain="com.acme", input=["X"], output=["tuned"])
    first.input[0] = "tuned"
    # Nodes must stand in the order in which they run.
    proto.graph.node.insert(0, proto.graph.node.pop())


def _move_weights_out(proto: Any) -> None:
    from onnx import TensorProto

    tensor = next(each for each in proto.graph.initializer if each.name == "coefficient")
    tensor.ClearField("float_data")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=OUTSIDE)
