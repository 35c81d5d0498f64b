"""Parts follow the tensors, and are the file whatever its bytes are."""

from __future__ import annotations

from itertools import accumulate
from random import Random

import pytest
from fuzz.mutation import drawn
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.errors import Rejected
from hanse.core.ids import Digest
from hanse.core.limits import PART_BYTES_MAX
from hanse.parts import chunks, tensors
from hanse.parts.chunks import CHUNK_BYTES_MEAN, cuts
from hanse.parts.recipe import SLAB_BYTES, parse_recipe, split
from hanse.parts.tensors import external_spans, spans
from parts.models import external_model, onnx_model, pieces, safetensors

ONNX = onnx_model()
SAFE = safetensors({"a": ("F32", [300], bytes(range(240)) * 5), "b": ("BF16", [512], b"xy" * 512)})


def whole(data: bytes) -> None:
    recipe = split(data)
    assert b"".join(pieces(recipe, data)[part] for part in recipe.parts) == data
    assert all(Digest.of(raw) == part.digest for part, raw in pieces(recipe, data).items())
    assert all(1 <= part.size <= PART_BYTES_MAX for part in recipe.parts)
    assert parse_recipe(recipe.encode()) == recipe
    assert recipe.digest == Digest.of(data)


@given(st.one_of(st.binary(max_size=4096), st.binary(max_size=64).map(lambda raw: raw * 3000)))
@settings(max_examples=150, database=None)
def test_any_bytes_are_their_parts(data: bytes) -> None:
    whole(data)


def test_it_is_told_up_to_where_the_file_was_read() -> None:
    for data in (SAFE, ONNX, bytes(300_000)):
        told: list[int] = []
        recipe = split(data, passed=told.append)
        assert told == list(accumulate(part.size for part in recipe.parts))


def test_broken_models_are_their_parts_as_well() -> None:
    rng = Random("broken models")
    for _ in range(300):
        whole(drawn((ONNX, SAFE), rng))
    for end in range(0, len(SAFE), 97):
        whole(SAFE[:end])
    for end in range(0, len(ONNX), 997):
        whole(ONNX[:end])


def test_an_onnx_file_is_cut_at_its_tensors() -> None:
    found = {s.name: (s.dtype, s.shape, s.end - s.start) for s in spans(memoryview(ONNX))}
    assert found["w"] == ("F32", (64, 96), 64 * 96 * 4)
    assert found["h"] == ("F16", (64, 32), 64 * 32 * 2)
    assert found["q"] == ("I8", (48, 48), 48 * 48)
    assert found["c"] == ("F64", (400,), 3200), "a constant, named after what its node gives"
    assert found["deep"] == ("F32", (300,), 1200), "of a subgraph"
    parts = {p.tensor.name: p for p in split(ONNX).parts if p.tensor}
    assert set(parts) == {"w", "h", "q", "c", "deep"}, "tiny ones stay with what is around them"


def test_a_safetensors_file_is_cut_at_its_tensors() -> None:
    assert [(s.name, s.dtype, s.shape) for s in spans(memoryview(SAFE))] == [
        ("a", "F32", (300,)),
        ("b", "BF16", (512,)),
    ]


def test_external_data_are_cut_where_the_model_says() -> None:
    model, data = external_model("weights.bin", [1000, 2000]), bytes(12_000)
    found = external_spans(memoryview(model), "weights.bin", len(data))
    assert [(s.start, s.end, s.name) for s in found] == [(0, 4000, "t0"), (4000, 12_000, "t1")]
    recipe = split(data, found)
    assert [p.tensor.name for p in recipe.parts if p.tensor] == ["t0", "t1"]
    assert external_spans(memoryview(model), "other.bin", len(data)) == ()
    assert external_spans(memoryview(model), "weights.bin", len(data) - 1) == (), "beyond its end"


def test_tensors_that_overlap_make_it_bytes_like_any_other() -> None:
    header = SAFE.replace(b"[1200, 2224]", b"[1196, 2220]")
    assert len(header) == len(SAFE)
    assert header != SAFE
    assert spans(memoryview(header)) == ()


@pytest.mark.parametrize(
    "data",
    [
        b"\x38\xcd\x38" * 9,  # a number where a graph should be
        b"\x3a\x0c" + b"\x08\xcd\x01\x28\xcd\x01" * 2,  # and where nodes and tensors should be
        b"\x3a" + b"\xff" * 9 + b"\x01" + bytes(1000),  # a graph of 2^64 bytes
        b"\xff\xff\xff\xff\xff\xff\xff\x7f{}" + bytes(1000),  # a header of 2^63 bytes
    ],
    ids=["number", "numbers", "long field", "long header"],
)
def test_what_a_model_claims_costs_nothing(data: bytes) -> None:
    assert spans(memoryview(data)) == ()


def test_a_model_of_more_fields_than_models_have_is_bytes_like_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert spans(memoryview(ONNX))
    monkeypatch.setattr(tensors, "FIELDS_MAX", 50)
    assert spans(memoryview(ONNX)) == ()


def test_graphs_within_graphs_are_followed_to_a_depth() -> None:
    def field(tag: bytes, data: bytes) -> bytes:
        size = len(data)
        return tag + bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14]) + data

    tensor = field(b"\x2a", b"\x08\x64\x10\x02" + field(b"\x4a", bytes(100)))
    for depth, followed in ((0, True), (7, True), (9, False), (3000, False)):
        graph = tensor
        for _ in range(depth):  # a graph of an attribute, of a node, of a graph
            graph = field(b"\x0a", field(b"\x2a", field(b"\x32", graph)))
        assert bool(spans(memoryview(field(b"\x3a", graph)))) is followed


def test_a_large_tensor_is_several_parts() -> None:
    data = safetensors({"big": ("U8", [SLAB_BYTES + 5], bytes(SLAB_BYTES + 5))})
    assert [(p.tensor.slab, p.tensor.name) for p in split(data).parts if p.tensor] == [
        (0, "big"),
        (1, "big"),
    ]


def test_chunks_have_bounded_sizes_and_survive_an_insertion() -> None:
    data = Random(5).randbytes(6 * 1024 * 1024)
    ends = list(cuts(memoryview(data)))
    sizes = [b - a for a, b in zip([0, *ends], ends, strict=False)]
    assert ends[-1] == len(data)
    assert max(sizes) <= 2 * CHUNK_BYTES_MEAN
    assert min(sizes[:-1]) >= CHUNK_BYTES_MEAN // 4
    assert 0.6 < len(data) / len(sizes) / CHUNK_BYTES_MEAN < 1.4
    other = data[:1_000_000] + b"inserted" + data[1_000_000:]
    held = {part.digest for part in split(data).parts}
    new = [part for part in split(other).parts if part.digest not in held]
    assert len(new) <= 3


def test_chunks_do_not_depend_on_how_a_file_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Random(6).randbytes(3 * 1024 * 1024)
    ends = list(cuts(memoryview(data)))
    monkeypatch.setattr(chunks, "_BLOCK_BYTES", 70_001)
    assert list(cuts(memoryview(data))) == ends


def test_a_recipe_that_nobody_wrote_is_refused() -> None:
    raw, rng = split(ONNX).encode(), Random("recipes")
    for _ in range(1000):
        edited = drawn((raw,), rng)
        try:
            assert parse_recipe(edited).encode() == edited
        except Rejected:
            continue
