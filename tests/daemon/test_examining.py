"""A release is what its manifest says, or no daemon records it: whoever signed it."""

from __future__ import annotations

import io
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crafted import external, model
from memory_blobs import MemoryBlobs
from onnx import ModelProto

from hanse.core.catalog.manifest import File, Golden, Manifest, Tensor, Variant
from hanse.core.errors import InvalidSpec
from hanse.core.ids import Digest, Segment, Version, segment
from hanse.daemon import examining
from hanse.daemon.examining import Examiner

NEEDS = {"onnx.ir": ">=9", "onnx.opset.ai.onnx": ">=17"}
ONNX = Variant(segment("v"), "onnx", segment("model.onnx"), NEEDS)
PLAN = {"os": "linux", "gpu.compute_capability": "8.7", "tensorrt": "==10.3"}


class World:
    """A store, and one release after another in it."""

    def __init__(self) -> None:
        self.blobs = MemoryBlobs()
        self.examiner = Examiner(self.blobs)

    def stored(self, name: str, data: bytes) -> File:
        with self.blobs.writer(len(data), Digest.of(data)) as writer:
            writer.write(data)
            writer.commit()
        return File(segment(name), Digest.of(data), len(data))

    def release(self, files: dict[str, bytes], *variants: Variant, **more: Any) -> Manifest:
        said = {
            "inputs": (Tensor("x", "FP32", (-1, 4)),),
            "outputs": (Tensor("y", "FP32", (-1, 4)),),
            **more,
        }
        stored = tuple(self.stored(name, data) for name, data in files.items())
        return Manifest(Segment("m"), Version("1"), stored, variants or (ONNX,), **said)


@pytest.fixture
def world() -> World:
    return World()


def onnx(made: ModelProto | None = None) -> dict[str, bytes]:
    return {"model.onnx": (made or model()).SerializeToString()}


def golden(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


async def refused(world: World, manifest: Manifest, why: str) -> None:
    with pytest.raises(InvalidSpec, match=why) as caught:
        await world.examiner.check(manifest)
    assert caught.value.fix


async def test_what_its_files_say_is_recorded(world: World) -> None:
    golden_file = golden(**{"in.x": np.zeros((1, 4)), "out.y": np.zeros((1, 4))})
    files = {**onnx(), "golden.npz": golden_file, "labels.txt": b"cat\n"}
    manifest = world.release(files, golden=Golden(segment("golden.npz"), 0, 0))
    await world.examiner.check(manifest)


async def test_needs_may_be_tighter_and_never_looser(world: World) -> None:
    for needs in (
        {**NEEDS, "hardware": "orin"},
        {**NEEDS, "onnx.ir": ">=10"},
        {**NEEDS, "onnx.ir": ">=9,<12"},
        {**NEEDS, "onnx.opset.ai.onnx": "==21"},
    ):
        await world.examiner.check(world.release(onnx(), replace(ONNX, requires=needs)))
    for needs in (
        {},
        {"onnx.ir": ">=9"},
        {**NEEDS, "onnx.ir": ">=8"},
        {**NEEDS, "onnx.ir": "<12"},
        {**NEEDS, "onnx.ir": "!=12"},
    ):
        await refused(world, world.release(onnx(), replace(ONNX, requires=needs)), "needs onnx")


@pytest.mark.parametrize("side", ["inputs", "outputs"])
async def test_inputs_and_outputs_are_those_of_the_file(world: World, side: str) -> None:
    for other in ((), (Tensor("x", "FP64", (-1, 4)),), (Tensor("x", "FP32", (-1, 5)),)):
        await refused(world, world.release(onnx(), **{side: other}), f"the {side} of model.onnx")


async def test_weights_are_files_of_the_release_and_long_enough(world: World) -> None:
    made = onnx(external(model(), "weights.bin"))
    await refused(world, world.release(made), "does not have that file")
    await refused(world, world.release({**made, "weights.bin": bytes(15)}), "too short")
    await world.examiner.check(world.release({**made, "weights.bin": bytes(16)}))


@pytest.mark.parametrize("name", ["model.onnx", "model.safetensors", "vocabulary.txt"])
async def test_a_pickle_is_found_behind_every_name(world: World, name: str) -> None:
    files = {**onnx(), name: pickle.dumps({"w": [1.0]})}
    await refused(world, world.release(files), "pickle")


async def test_variants_of_every_format_are_looked_at(world: World) -> None:
    for form, name in (
        ("safetensors", "m.safetensors"),
        ("torch-export", "m.pt2"),
        ("tensorrt-plan", "m.plan"),
    ):
        variant = Variant(segment("w"), form, segment(name), {**PLAN, "torch": ">=2.8"})
        files = {**onnx(), name: b"{'none of these': 1}"}
        await refused(world, world.release(files, ONNX, variant), "(?i)" + form.partition("-")[0])


@pytest.mark.parametrize("missing", PLAN)
async def test_a_plan_says_on_what_it_runs(world: World, missing: str) -> None:
    needs = {key: value for key, value in PLAN.items() if key != missing}
    files = {**onnx(), "m.plan": b"ftrt" + bytes(100)}
    for said, good in ((PLAN, True), (needs, False)):
        variant = Variant(segment("w"), "tensorrt-plan", segment("m.plan"), said)
        manifest = world.release(files, variant, ONNX)
        if good:
            await world.examiner.check(manifest)
        else:
            await refused(world, manifest, f"which {missing} it runs on")


async def test_golden_inputs_are_an_archive_of_numbers(world: World) -> None:
    made = {**onnx(), "golden.npz": golden(x=np.array([{}], dtype=object))}
    manifest = world.release(made, golden=Golden(segment("golden.npz"), 0, 0))
    await refused(world, manifest, "pickles")
    manifest = world.release(onnx(), golden=Golden(segment("model.onnx"), 0, 0))
    await refused(world, manifest, "at once")


async def test_a_file_is_looked_at_once_for_each_thing_that_it_stands_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[list[str]] = []
    real = examining.inspect_files

    def counted(files: dict[str, Path], roles: dict[str, str]) -> Any:
        looked.append(sorted(files))
        return real(files, roles)

    monkeypatch.setattr(examining, "inspect_files", counted)
    await world.examiner.check(world.release({**onnx(), "a.txt": b"a"}))
    await world.examiner.check(world.release({**onnx(), "b.txt": b"b"}))
    await world.examiner.check(world.release({**onnx(), "b.txt": b"b"}))
    assert looked == [["a.txt", "model.onnx"], ["b.txt"]]
    await refused(world, world.release(onnx(), inputs=()), "the inputs")  # from memory too


async def test_of_old_files_it_forgets(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examining, "KNOWN_MAX", 2)
    for text in (b"a", b"b", b"c"):
        await world.examiner.check(world.release({**onnx(), "a.txt": text}))
    assert len(world.examiner._known) == 2
