"""What travels: each missing part once, against the one that is most like it."""

from __future__ import annotations

from random import Random

import pytest

from hanse.core.ids import Digest
from hanse.parts.payload import Base, decode, encode
from hanse.parts.plan import bases, unlike
from hanse.parts.recipe import Part, Recipe, split
from parts.models import held, onnx_model, pieces, safetensors


def recipe(*texts: bytes) -> Recipe:
    whole = b"".join(texts)
    return Recipe(
        Digest.of(whole), len(whole), tuple(Part(Digest.of(text), len(text)) for text in texts)
    )


def test_at_most_the_parts_travel_that_are_not_unchanged() -> None:
    old = recipe(b"aaaa", b"bb")
    assert unlike(recipe(b"aaaa", b"ccc", b"bb", b"ccc"), old) == 3
    assert unlike(old, old) == 0
    assert unlike(old, recipe(b"aaaabb")) == 6


def test_a_tensor_is_compared_with_the_one_of_its_name() -> None:
    old, new = split(onnx_model(0)), split(onnx_model(1))
    for part in new.parts:
        if part.tensor:
            base = bases(new, old)[part.digest]
            assert base.tensor is not None
            assert (base.tensor.name, base.tensor.shape) == (part.tensor.name, part.tensor.shape)


def test_a_tensor_of_another_shape_is_compared_with_its_former_self() -> None:
    def table(rows: int) -> bytes:
        return safetensors({"words": ("F32", [rows, 100], Random(2).randbytes(rows * 400))})

    old, new = table(100), table(101)
    payload = updates(old, new)
    assert sum(map(len, payload.values())) < 1200, "a row of noise and little more"


def updates(old: bytes, new: bytes) -> dict[Digest, bytes]:
    before, after = split(old), split(new)
    have = held(before, old)
    found = bases(after, before)
    return {
        part.digest: encode(
            part, raw, have[found[part.digest].digest] if part.digest in found else None
        )
        for part, raw in pieces(after, new).items()
        if part.digest not in have
    }


@pytest.mark.parametrize(
    ("old", "new", "bytes_max"),
    [
        (onnx_model(), onnx_model(), 0),
        (onnx_model(label="one"), onnx_model(label="two"), 100),
        (onnx_model(), onnx_model(scale=1.001), 22_000),
        (onnx_model(), onnx_model(seed=3), 50_000),
        (onnx_model(), b"no model any more", 60),
        (b"not yet a model", onnx_model(), 50_000),
        (b"", onnx_model(), 50_000),
        (onnx_model(), b"", 0),
    ],
)
def test_the_new_file_from_the_old_one(old: bytes, new: bytes, bytes_max: int) -> None:
    payloads, have, target = updates(old, new), held(split(old), old), split(new)
    assert sum(map(len, payloads.values())) <= bytes_max
    parts = {
        part.digest: have[part.digest].data
        if part.digest in have
        else decode(part, payloads[part.digest], have.get)
        for part in target.parts
    }
    assert b"".join(parts[part.digest] for part in target.parts) == new


def test_the_recipe_itself_travels_as_a_part() -> None:
    old, new = (split(onnx_model(label=label)).encode() for label in ("one", "two"))
    base = Base(Part(Digest.of(old), len(old)), old)
    target = Part(Digest.of(new), len(new))
    payload = encode(target, new, base)
    assert len(payload) < 200
    assert decode(target, payload, lambda digest: base) == new
