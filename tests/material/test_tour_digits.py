"""The digits models are what unit tests believe them to be: each poison bad in one way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from tour import digits


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return digits.make(tmp_path_factory.mktemp("digits") / "made")


def answers(path: Path, dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray]:
    rows = np.load(path.parent / "holdout.npz")["X"].astype(dtype)
    label, probabilities = ort.InferenceSession(path).run(None, {"X": rows})
    return label, probabilities


def accuracy(made: dict[str, Path], name: str) -> float:
    return float((answers(made[name])[0] == np.load(made["holdout"])["y"]).mean())


def test_version_2_is_the_better_one(made: dict[str, Path]) -> None:
    assert accuracy(made, "v1") == pytest.approx(0.957, abs=0.005)
    assert accuracy(made, "v2") == pytest.approx(0.968, abs=0.005)


def test_making_twice_gives_the_same_bytes(made: dict[str, Path], tmp_path: Path) -> None:
    again = digits.make(tmp_path)
    assert {name: path.read_bytes() for name, path in again.items()} == {
        name: path.read_bytes() for name, path in made.items()
    }


def test_swapped_classes_answer_each_other(made: dict[str, Path]) -> None:
    one, other = digits.SWAPPED
    right, wrong = answers(made["v2"]), answers(made["swapped"])
    assert np.array_equal(wrong[0] == one, right[0] == other)
    assert np.array_equal(wrong[0] == other, right[0] == one)
    assert np.allclose(wrong[1][:, [one, other]], right[1][:, [other, one]], atol=1e-6)


def test_the_wider_type_gives_the_same_answers(made: dict[str, Path]) -> None:
    label, probabilities = answers(made["f64"], np.float64)
    assert probabilities.dtype == np.float64
    assert np.array_equal(label, answers(made["v2"])[0])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("opset99", "opset"),
        ("ir99", "IR version|ir_version"),
        ("acme", "com.acme:Calibrate"),
        ("truncated", "Protobuf parsing failed"),
        ("external", "escapes model directory"),
    ],
)
def test_a_poison_is_refused_for_its_own_reason(
    made: dict[str, Path], name: str, reason: str
) -> None:
    with pytest.raises(Exception, match=reason):
        ort.InferenceSession(made[name])


def test_external_weights_are_right_and_only_in_the_wrong_place(
    made: dict[str, Path], tmp_path: Path
) -> None:
    proto = onnx.load(made["external"], load_external_data=False)
    moved = next(each for each in proto.graph.initializer if each.external_data)
    assert moved.external_data[0].value == digits.OUTSIDE
    data = (made["external"].parent / digits.OUTSIDE).read_bytes()
    moved.ClearField("external_data")
    moved.data_location = onnx.TensorProto.DEFAULT
    moved.raw_data = data
    healed = tmp_path / "healed.onnx"
    healed.write_bytes(proto.SerializeToString())
    (tmp_path / "holdout.npz").write_bytes(made["holdout"].read_bytes())
    assert np.array_equal(answers(healed)[0], answers(made["v2"])[0])
