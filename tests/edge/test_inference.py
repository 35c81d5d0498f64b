"""A release is served only if it is whole, is what its manifest says, and answers as promised."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from crafted import looping, saved
from digit_releases import holdout, paths, release
from onnx import TensorProto, helper

from hanse.core.catalog.manifest import Golden, Outcome, Tensor, Variant
from hanse.core.errors import InvalidSpec, Rejected
from hanse.core.ids import segment
from hanse.core.serving import RawTensor
from hanse.edge import inference
from hanse.edge.inference import ModelFailed, from_raw, load, selftest, to_raw
from hanse.edge.model_file import check_model_file
from hanse.edge.outcomes import comparable, ctc_text, is_finite


def save(folder: Path, node: str, **attributes: object) -> Path:
    """A model of one node from x f32[N] to y f32[N]."""
    graph = helper.make_graph(
        [helper.make_node(node, ["x"], ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    return folder


def test_a_good_release_loads_passes_its_golden_inputs_and_answers(tmp_path: Path) -> None:
    v2 = release("v2", tmp_path, golden_of="v2")
    model = load(v2.folder, v2.manifest)
    assert v2.manifest.golden is not None
    selftest(model, v2.folder, v2.manifest.golden)
    x, y = holdout()
    found = model.run({"X": x})
    assert (found["label"] == y).mean() > 0.9
    assert model.comparator is not None
    said = model.comparator.read(model.run({"X": x[:3]})).text
    assert said == ",".join(map(str, found["label"][:3]))


@pytest.mark.parametrize(
    ("poison", "reason"),
    [
        ("f64", r"input X is tensor\(double\), not FP32"),
        ("opset99", "Opset 99"),
        ("ir99", "IR version: 99"),
        ("acme", "com.acme"),
        ("truncated", "cut off"),
    ],
)
def test_a_bad_file_is_refused_with_its_reason(poison: str, reason: str, tmp_path: Path) -> None:
    far = tmp_path / ("a-long-name-" * 15)
    far.mkdir()
    bad = release(poison, far)
    with pytest.raises(Rejected, match=reason) as caught:
        load(bad.folder, bad.manifest)
    assert str(tmp_path) not in str(caught.value)


def test_weights_beside_the_model_are_found_and_missed(tmp_path: Path) -> None:
    proto = onnx.load(paths()["v2"])
    for tensor in (t for t in proto.graph.initializer if len(t.dims) == 2):
        tensor.CopyFrom(
            onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name)
        )
    onnx.save(
        proto,
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    load(tmp_path, release("v2", tmp_path / "other").manifest)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(Rejected, match="does not have"):
        check_model_file(tmp_path / "model.onnx")


def test_a_provider_that_is_not_there_is_refused_not_replaced(tmp_path: Path) -> None:
    v1 = release("v1", tmp_path)
    needs = (
        Variant(
            segment("gpu"),
            "onnx",
            segment("model.onnx"),
            {"ort.providers": "CUDAExecutionProvider"},
        ),
    )
    with pytest.raises(Rejected, match="CUDA"):
        load(v1.folder, replace(v1.manifest, variants=needs))


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ((Tensor("Z", "FP32", (-1, 64)),), "inputs are"),
        ((Tensor("X", "FP32", (-1, 64, 1)),), "has shape"),
        ((Tensor("X", "FP32", (-1, 32)),), "has shape"),
    ],
)
def test_a_file_that_is_not_what_its_manifest_says_is_refused(
    inputs: tuple[Tensor, ...], reason: str, tmp_path: Path
) -> None:
    v1 = release("v1", tmp_path)
    with pytest.raises(Rejected, match=reason):
        load(v1.folder, replace(v1.manifest, inputs=inputs))


def test_a_release_without_a_variant_for_this_runtime_is_refused(tmp_path: Path) -> None:
    v1 = release("v1", tmp_path)
    plan = (Variant(segment("trt"), "tensorrt-plan", segment("model.onnx")),)
    with pytest.raises(Rejected, match="no runtime for"):
        load(v1.folder, replace(v1.manifest, variants=plan))


def test_golden_outputs_that_differ_refuse_the_release(tmp_path: Path) -> None:
    swapped = release("swapped", tmp_path, golden_of="v2")
    model = load(swapped.folder, swapped.manifest)
    assert swapped.manifest.golden is not None
    with pytest.raises(Rejected, match="golden: output"):
        selftest(model, swapped.folder, swapped.manifest.golden)


def test_a_golden_run_that_never_ends_refuses_the_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise nothing else could be loaded on this node any more."""
    saved(looping(3_000_000), tmp_path)  # seconds, where the defence is taken away
    spec = (Tensor("x", "FP32", (-1, 4)),), (Tensor("y", "FP32", (-1, 4)),)
    manifest = replace(
        release("v1", tmp_path / "v1").manifest,
        inputs=spec[0], outputs=spec[1], outcome=Outcome(),
    )  # fmt: skip
    x = np.zeros((1, 4), np.float32)
    y = np.array([[1, 2, 3, 4]], np.float32)
    np.savez(tmp_path / "golden.npz", **{"in.x": x, "out.y": y})
    monkeypatch.setattr(inference, "GOLDEN_S", 0.05)
    with pytest.raises(Rejected, match="terminate"):
        selftest(load(tmp_path, manifest), tmp_path, Golden(segment("golden.npz"), 0, 0))


def test_the_callers_tensors_are_checked_before_the_model_is_blamed(tmp_path: Path) -> None:
    v1 = release("v1", tmp_path)
    model = load(v1.folder, v1.manifest)
    x = holdout()[0][:2]
    for feeds in ({}, {"X": x[:, :3]}, {"X": x.astype(np.float64)}, {"X": x, "Y": x}):
        with pytest.raises(InvalidSpec):
            model.check(feeds)
    model.check({"X": x})


def test_nan_and_infinity_are_failures(tmp_path: Path) -> None:
    spec = {"inputs": (Tensor("x", "FP32", (-1,)),), "outputs": (Tensor("y", "FP32", (-1,)),)}
    manifest = replace(release("v1", tmp_path / "v1").manifest, outcome=Outcome(), **spec)
    model = load(save(tmp_path, "Log"), manifest)
    model.run({"x": np.array([1.0], np.float32)})
    for value in (-1.0, 0.0):
        with pytest.raises(ModelFailed, match="NaN or infinite"):
            model.run({"x": np.array([value], np.float32)})
    assert is_finite({"y": np.full(4, 3e38, np.float32)})  # although its sum overflows


def test_recognised_text_merges_repeats_and_drops_blanks() -> None:
    classes = ["", "a", "b", " "]
    steps = [0, 1, 1, 0, 1, 3, 2, 2]
    scores = np.eye(4, dtype=np.float32)[steps][None]
    assert ctc_text(scores, classes) == "aa b"
    assert comparable("aa b") == comparable("a ab ")
    assert ctc_text(scores[0], classes) == "aa b"


def test_recognised_text_needs_the_character_list(tmp_path: Path) -> None:
    v1 = release("v1", tmp_path)
    with pytest.raises(Rejected, match="character"):
        load(v1.folder, replace(v1.manifest, outcome=Outcome("ctc-text", "probabilities")))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.array([True, False]),
        np.array([[1, 2]], dtype=np.uint16),
        np.array(["one", "zwölf", ""], dtype=object),
        np.zeros((0, 4), dtype=np.float16),
    ],
)
def test_tensors_survive_being_bytes(array: np.ndarray) -> None:
    again = from_raw(to_raw("x", array))
    assert again.shape == array.shape
    assert (again == array).all()


def test_bytes_that_do_not_fit_their_shape_are_refused() -> None:
    for shape, data in (((2,), b"\0" * 5), ((3,), b"\0" * 8), ((-1,), b"")):
        with pytest.raises(InvalidSpec):
            RawTensor("x", "FP32", shape, data)
    with pytest.raises(InvalidSpec):
        RawTensor("x", "BYTES", (1,), b"\5\0\0\0ab")


def test_two_loads_share_nothing(tmp_path: Path) -> None:
    v1, v2 = release("v1", tmp_path / "1"), release("swapped", tmp_path / "2")
    first, second = load(v1.folder, v1.manifest), load(v2.folder, v2.manifest)
    shutil.rmtree(tmp_path / "1")
    x = holdout()[0]
    assert (first.run({"X": x})["label"] != second.run({"X": x})["label"]).any()
