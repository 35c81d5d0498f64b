"""T27, T29 to T31: one model for each way out of a file, at publication and on a node."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import onnx
import pytest
from crafted import FLOAT, doubling, external, model, saved
from digit_releases import release
from fuzz.mutation import drawn
from onnx import ModelProto, NodeProto, TensorProto, helper

from hanse.artefacts import onnx_walk
from hanse.artefacts.onnx_walk import COPIES_MAX, walk
from hanse.cli.manifest_builder import Said, build
from hanse.core.catalog.manifest import Outcome
from hanse.core.errors import InvalidSpec
from hanse.core.ids import Segment, Version
from hanse.edge import inference

SAID = Said(model=Segment("m"), version=Version("1"), outcome=Outcome())


def at_publication(path: Path, _: pytest.MonkeyPatch) -> None:
    build(path, SAID)


def on_a_node(path: Path, patch: pytest.MonkeyPatch) -> None:
    """Loaded from where `path` is, with an onnxruntime that must not be reached."""

    def reached(*_: Any, **__: Any) -> None:
        raise AssertionError("onnxruntime has seen the file")

    manifest = release("v1", path.parent / "other").manifest
    variant = replace(manifest.variants[0], file=Segment(path.name))
    inference.runtime_facts()  # this probes onnxruntime
    patch.setattr(inference.ort, "InferenceSession", reached)
    inference.load(path.parent, replace(manifest, variants=(variant,)))


DOORS = [at_publication, on_a_node]


def outside(location: str, **more: str) -> Callable[[Path], ModelProto]:
    return lambda _: external(model(), location, **more)


def linked(make: Callable[[Path, Path], None]) -> Callable[[Path], ModelProto]:
    def made(folder: Path) -> ModelProto:
        make(folder.parent / "outside", folder / "weights.bin")
        return external(model(), "weights.bin")

    return made


def with_weights(**more: str) -> Callable[[Path], ModelProto]:
    def made(folder: Path) -> ModelProto:
        (folder / "weights.bin").write_bytes(bytes(16))
        return external(model(), "weights.bin", **more)

    return made


def metadata(_: Path) -> ModelProto:
    return model(metadata={"ort_config": '{"session_options": {}}'})


def compiled(_: Path) -> ModelProto:
    said = {"embed_mode": 0, "ep_cache_context": "../engine"}
    node = helper.make_node("EPContext", ["y"], ["z"], domain="com.microsoft", **said)
    made = model(extra=[node])
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return made


def sparse(_: Path) -> ModelProto:
    made = model()
    made.graph.sparse_initializer.append(
        helper.make_sparse_tensor(
            helper.make_tensor("s", FLOAT, [1], [1.0]),
            helper.make_tensor("", TensorProto.INT64, [1], [0]),
            [2**31],
        )
    )
    return made


def vast(_: Path) -> ModelProto:
    made = model()
    made.graph.initializer.append(
        TensorProto(name="v", dims=[2**60], data_type=1, raw_data=b"1234")
    )
    return made


BAD: dict[str, tuple[Callable[[Path], ModelProto], str]] = {
    "CVE-2022-25882": (outside("../../../../../etc/passwd"), "outside its own folder"),
    "CVE-2024-27318": (outside("sub/../../../outside"), "outside its own folder"),
    "CVE-2024-27318, absolute": (outside("/etc/passwd"), "outside its own folder"),
    "CVE-2025-51480": (outside("../new-file"), "outside its own folder"),
    "CVE-2026-27489": (linked(lambda there, here: here.symlink_to(there)), "does not have"),
    "a name with a drive": (outside("C:weights"), "outside its own folder"),
    "a share": (outside("\\\\host\\share"), "outside its own folder"),
    "a name that ends early": (outside("weights.bin\0.onnx"), "outside its own folder"),
    "GHSA-538c-55jv-c5g9": (with_weights(__class__="Other"), "'__class__' is nothing"),
    "CVE-2026-34445": (with_weights(basepath="/etc"), "'basepath' is nothing"),
    "a length of petabytes": (with_weights(length=str(2**60)), "no place in a file"),
    "a length beyond the file": (with_weights(length="17"), "too short"),
    "a negative offset": (with_weights(offset="-1"), "no place in a file"),
    "an offset beyond the file": (with_weights(offset="16"), "too short"),
    "onnxruntime#28709": (vast, "elements or more"),
    "a sparse bomb": (sparse, "elements or more"),
    "calls that double": (lambda _: doubling(20), f"more than {COPIES_MAX} times"),
    "a foreign operator": (lambda _: model(domain="com.acme"), r"com\.acme"),
    "compiled code": (compiled, "EPContext"),
    "settings of the runtime": (metadata, "ort_config"),
}


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
@pytest.mark.parametrize("name", BAD)
def test_a_crafted_model_is_refused(
    name: str, door: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, why = BAD[name]
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "outside").write_bytes(bytes(16))
    path = saved(make(folder), folder)
    with pytest.raises(InvalidSpec, match=why):
        door(path, monkeypatch)
    assert {each.name for each in tmp_path.iterdir()} == {"inner", "outside"}


def test_weights_that_are_a_hard_link_are_refused_where_they_are_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node links files itself, out of its own store, after it has compared their digests."""
    (tmp_path / "secret").write_bytes(bytes(16))
    os.link(tmp_path / "secret", tmp_path / "weights.bin")
    path = saved(external(model(), "weights.bin"), tmp_path)
    with pytest.raises(InvalidSpec, match="does not have"):
        at_publication(path, monkeypatch)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_a_loop_of_functions_is_refused(
    door: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = doubling(3)
    made.functions[2].node[0].op_type, made.functions[2].node[0].domain = "F0", "own"
    with pytest.raises(InvalidSpec, match="nest too deeply"):
        door(saved(made, tmp_path), monkeypatch)


def test_what_a_file_calls_of_its_own_is_no_foreign_operator() -> None:
    walked = walk(memoryview(doubling(5).SerializeToString()), "m")
    assert walked.domains == {"ai.onnx"}
    assert walked.external == {}


# -- the walk sees what a parser sees ------------------------------------------------------------


def hidden(tensor: TensorProto) -> Iterator[ModelProto]:
    """The tensor in every corner of a file where one may be."""
    graph = helper.make_graph([], "b", [], [], initializer=[tensor])
    nodes: list[NodeProto] = [
        helper.make_node("Constant", [], ["k"], value=tensor),
        helper.make_node("Constant", [], ["k"], values=[tensor]),
        helper.make_node("If", ["c"], ["k"], then_branch=graph),
        helper.make_node("If", ["c"], ["k"], branches=[graph]),
        helper.make_node(
            "If", ["c"], ["k"], then_branch=helper.make_graph(
                [helper.make_node("Constant", [], ["k"], value=tensor)], "b", [], []
            ),
        ),
    ]  # fmt: skip
    yield from (model(extra=[node]) for node in nodes)
    attribute = onnx.AttributeProto(name="s", type=onnx.AttributeProto.SPARSE_TENSOR)
    attribute.sparse_tensor.values.CopyFrom(tensor)
    several = onnx.AttributeProto(name="s", type=onnx.AttributeProto.SPARSE_TENSORS)
    several.sparse_tensors.add().indices.CopyFrom(tensor)
    for each in (attribute, several):
        node = helper.make_node("Constant", [], ["k"])
        node.attribute.append(each)
        yield model(extra=[node])
    made = model()
    made.graph.sparse_initializer.add().values.CopyFrom(tensor)
    yield made
    made = model()
    made.training_info.add().algorithm.initializer.append(tensor)
    yield made
    made = model()
    made.training_info.add().initialization.node.append(nodes[0])
    yield made
    inside = helper.make_function(
        "own", "F", ["a"], ["k"], [nodes[0]], [helper.make_opsetid("", 17)]
    )
    yield model(functions=[inside])
    inside = helper.make_function("own", "F", ["a"], ["k"], [], [helper.make_opsetid("", 17)])
    inside.attribute_proto.add(name="v", type=onnx.AttributeProto.TENSOR).t.CopyFrom(tensor)
    yield model(functions=[inside])


def test_no_corner_of_a_file_hides_a_tensor() -> None:
    tensor = external(model(), "../outside").graph.initializer[0]
    tensor.name = "hidden"
    for made in hidden(tensor):
        with pytest.raises(InvalidSpec, match="outside its own folder"):
            walk(memoryview(made.SerializeToString()), "m")


def test_the_fields_that_are_visited_are_those_of_the_format() -> None:
    """Every field of every message through which a tensor, a node or an entry can be reached."""
    kinds = {
        "model": onnx.ModelProto, "training": onnx.TrainingInfoProto, "graph": onnx.GraphProto,
        "function": onnx.FunctionProto, "node": onnx.NodeProto, "attribute": onnx.AttributeProto,
        "sparse": onnx.SparseTensorProto,
    }  # fmt: skip
    names = {
        "ModelProto": "model", "TrainingInfoProto": "training", "GraphProto": "graph",
        "FunctionProto": "function", "NodeProto": "node", "AttributeProto": "attribute",
        "SparseTensorProto": "sparse", "TensorProto": "tensor",
    }  # fmt: skip
    for kind, message in kinds.items():
        fields = {
            field.number: names[field.message_type.name]
            for field in message.DESCRIPTOR.fields
            if field.message_type is not None and field.message_type.name in names
        }
        visited = {n: k for n, k in onnx_walk._CHILDREN[kind].items() if k != "property"}
        assert visited == fields, kind
    at = {field.name: field.number for field in onnx.TensorProto.DESCRIPTOR.fields}
    assert (at["dims"], at["data_type"], at["external_data"], at["data_location"]) == (1, 2, 13, 14)
    at = {field.name: field.number for field in onnx.NodeProto.DESCRIPTOR.fields}
    assert (at["domain"], at["op_type"], at["overload"]) == (7, 4, 8)
    at = {field.name: field.number for field in onnx.FunctionProto.DESCRIPTOR.fields}
    assert (at["domain"], at["name"], at["overload"]) == (10, 1, 13)
    assert onnx.ModelProto.DESCRIPTOR.fields_by_name["metadata_props"].number == 14
    assert onnx.SparseTensorProto.DESCRIPTOR.fields_by_name["dims"].number == 3


def locations(message: Any) -> Iterator[str]:
    """What a parser finds, by its own knowledge of the format."""
    if isinstance(message, TensorProto):
        said = {entry.key: entry.value for entry in message.external_data}
        if said or message.data_location == TensorProto.EXTERNAL:
            yield said.get("location", "")
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in value if isinstance(value, list) or hasattr(value, "add") else [value]:
                yield from locations(each)


def test_whatever_a_parser_finds_in_damaged_bytes_the_walk_finds_or_refuses() -> None:
    tensor = external(model(), "weights.bin").graph.initializer[0]
    tensor.name = "hidden"
    seeds = [made.SerializeToString() for made in hidden(tensor)]
    rng, parsed = Random("walk"), 0
    for _ in range(4_000):
        raw = drawn(seeds, rng)
        try:
            found = walk(memoryview(raw), "m").external
        except InvalidSpec:
            continue
        try:
            read = onnx.load_model_from_string(raw)
        except Exception:  # protobuf's own
            continue
        parsed += 1
        assert set(locations(read)) <= set(found)
    assert parsed > 50


@pytest.mark.parametrize("width", [5, 6, 10])
def test_a_field_whose_number_parsers_cut_off_is_refused(width: int) -> None:
    """Some read 32 bits of it and find a graph where others find a field that nobody knows."""
    graph = external(model(), "../outside").graph.SerializeToString()
    tag = [0x80 | (7 << 3 | 2), *[0x80] * (width - 2), 0x10]
    raw = bytes(tag) + bytes((0x80 | len(graph) & 127, len(graph) >> 7)) + graph
    with pytest.raises(InvalidSpec):
        walk(memoryview(raw), "m")


def test_a_file_of_nothing_but_fields_is_refused_after_so_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = bytes((0x08, 0x01)) * 1001
    monkeypatch.setattr(onnx_walk, "FIELDS_MAX", 1000)
    with pytest.raises(InvalidSpec, match="more than 1000 fields"):
        walk(memoryview(raw), "m")
    walk(memoryview(raw[:2000]), "m")
