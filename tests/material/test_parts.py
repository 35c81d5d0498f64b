"""Real models: what a tune costs to send, bit for bit, and with what memory."""

from __future__ import annotations

import tracemalloc

import digit_releases
import pytest
from measure.bytes import update
from measure.pairs import tuned
from parts.models import held, onnx_model, safetensors
from tour import material

from hanse.parts.payload import decode, encode
from hanse.parts.recipe import split
from hanse.parts.tensors import spans
from tests.material.test_material import fetch_or_skip


@pytest.fixture(scope="module")
def ocr() -> dict[str, bytes]:
    fetch_or_skip()
    return {name: material.extract(each).read_bytes() for name, each in material.MODELS.items()}


@pytest.mark.material
def test_a_tuned_last_layer_is_a_fifth_and_all_layers_are_half(ocr: dict[str, bytes]) -> None:
    v4 = ocr["v4"]
    assert update(v4, v4).size < 100
    assert update(v4, v4 + b"\x72\x06\x0a\x01a\x12\x01b").size < 1000
    assert update(v4, tuned(v4, 1e-2, lambda span: 6625 in span.shape)).size <= 0.20 * len(v4)
    assert update(v4, tuned(v4, 1e-4)).size <= 0.45 * len(v4)


@pytest.mark.material
def test_another_model_costs_no_more_than_itself(ocr: dict[str, bytes]) -> None:
    for old, new in (("v3", "v4"), ("v4", "v6")):
        assert update(ocr[old], ocr[new]).size < 0.85 * len(ocr[new])


@pytest.mark.material
def test_nearly_all_of_a_real_model_is_tensors(ocr: dict[str, bytes]) -> None:
    for model in ocr.values():
        assert sum(s.end - s.start for s in spans(memoryview(model))) > 0.97 * len(model)


def test_small_models_from_another_tool() -> None:
    files = [path.read_bytes() for path in digit_releases.paths().values()]
    for old in files:
        for new in files:
            update(old, new)


def test_a_part_takes_a_few_times_its_size_in_memory() -> None:
    """The largest part of the costliest kind: one byte an element, each of them changed."""
    size = 4 * 1024 * 1024
    old, new = (
        safetensors({"w": ("I8", [size], bytes(range(k, k + 64)) * (size // 64))}) for k in (0, 9)
    )
    base = next(b for b in held(split(old), old).values() if b.part.tensor)
    part = next(b for b in held(split(new), new).values() if b.part.tensor)
    tracemalloc.start()
    payload = encode(part.part, part.data, base)
    assert decode(part.part, payload, lambda digest: base) == part.data
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * size


def test_an_unchanged_model_with_another_label_is_a_few_hundred_bytes() -> None:
    assert update(onnx_model(label="one"), onnx_model(label="two")).size < 500
