"""What travels: each missing part once, in the least of the ways that the receiver can use."""

from __future__ import annotations

from random import Random

import pytest

from hanse.core.errors import InvalidProof
from hanse.core.ids import Digest
from hanse.parts.payload import Base, decode, encode
from hanse.parts.plan import Way, bases, least, unlike
from hanse.parts.rebuild import rebuild
from hanse.parts.recipe import Part, Recipe, split
from parts.models import held, onnx_model, pieces, safetensors


def recipe(*texts: bytes) -> Recipe:
    whole = b"".join(texts)
    return Recipe(
        Digest.of(whole), len(whole), tuple(Part(Digest.of(text), len(text)) for text in texts)
    )


A, B, C = (Digest.of(text) for text in (b"aaaa", b"bb", b"ccc"))


def test_what_is_held_does_not_travel_and_nothing_travels_twice() -> None:
    plan = least(recipe(b"aaaa", b"bb", b"aaaa", b"ccc", b"ccc"), {A}, {})
    assert [(f.part.digest, f.way) for f in plan] == [(B, Way(2)), (C, Way(3))]


def test_at_most_the_parts_travel_that_are_not_unchanged() -> None:
    old = recipe(b"aaaa", b"bb")
    assert unlike(recipe(b"aaaa", b"ccc", b"bb", b"ccc"), old) == 3
    assert unlike(old, old) == 0
    assert unlike(old, recipe(b"aaaabb")) == 6


def test_the_least_way_whose_base_is_held_is_taken() -> None:
    ways = {B: [Way(9), Way(4, C), Way(3, A), Way(1, Digest.of(b"who has this"))]}
    assert least(recipe(b"bb"), {A, C}, ways)[0].way == Way(3, A)
    assert least(recipe(b"bb"), {C}, ways)[0].way == Way(4, C)
    assert least(recipe(b"bb"), set(), ways)[0].way == Way(9)


def test_the_plan_does_not_depend_on_the_order_of_what_is_offered() -> None:
    ways, rng = [Way(4, C), Way(4, A), Way(4), Way(5)], Random(1)
    plans = set()
    for _ in range(20):
        rng.shuffle(ways)
        plans.add(least(recipe(b"bb", b"ccc"), [A, C], {B: ways}))
    assert {plan[0].way for plan in plans} == {Way(4)}, "of equal ways the one without a base"


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
    ways = {digest: [Way(len(payload), None)] for digest, payload in payloads.items()}
    assert {fetch.part.digest for fetch in least(target, have.keys(), ways)} == set(payloads)  # type: ignore[arg-type]
    assert b"".join(rebuild(target, have.get, payloads.get)) == new


def test_the_recipe_itself_travels_as_a_part() -> None:
    old, new = (split(onnx_model(label=label)).encode() for label in ("one", "two"))
    base = Base(Part(Digest.of(old), len(old)), old)
    target = Part(Digest.of(new), len(new))
    payload = encode(target, new, base)
    assert len(payload) < 200
    assert decode(target, payload, lambda digest: base) == new


def test_held_bytes_that_are_damaged_are_never_given_out() -> None:
    target = recipe(b"aaaa", b"bb")
    damaged = {part.digest: Base(part, b"xxxx") for part in target.parts}
    with pytest.raises(InvalidProof, match="is not"):
        list(rebuild(target, damaged.get, {}.get))


def test_a_missing_part_is_named() -> None:
    with pytest.raises(InvalidProof, match=str(A)):
        list(rebuild(recipe(b"aaaa"), {}.get, {}.get))


def test_true_parts_of_another_file_are_told_at_the_end() -> None:
    lying = Recipe(Digest.of(b"wanted"), 6, recipe(b"aaaa", b"bb").parts)
    have = {
        part.digest: Base(part, raw)
        for part, raw in zip(lying.parts, (b"aaaa", b"bb"), strict=True)
    }
    given = rebuild(lying, have.get, {}.get)
    assert [next(given), next(given)] == [b"aaaa", b"bb"]
    with pytest.raises(InvalidProof, match="do not make up"):
        list(given)
