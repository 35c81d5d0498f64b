"""Small model files of every form that `hanse.parts` follows."""

from __future__ import annotations

import json
import struct

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hanse.parts.payload import Base
from hanse.parts.recipe import Part, Recipe


def safetensors(tensors: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    header, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def onnx_model(seed: int = 0, *, label: str = "one", scale: float = 1.0) -> bytes:
    """Initialisers, a constant, a subgraph with one of its own, and metadata behind it all."""
    rng = np.random.default_rng(seed)
    weights = {
        "w": rng.standard_normal((64, 96)).astype("f4") * np.float32(scale),
        "h": rng.standard_normal((64, 32)).astype("f2"),
        "q": rng.integers(-128, 128, (48, 48)).astype("i1"),
        "tiny": np.ones(3, "f4"),
    }
    initialisers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    constant = numpy_helper.from_array(rng.standard_normal(400).astype("f8"))
    inner = helper.make_graph(
        [helper.make_node("Identity", ["deep"], ["out"])], "inner", [], [],
        [numpy_helper.from_array(rng.standard_normal(300).astype("f4"), "deep")],
    )  # fmt: skip
    nodes = [
        helper.make_node("Constant", [], ["c"], value=constant),
        helper.make_node("If", ["cond"], ["y"], then_branch=inner, else_branch=inner),
    ]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 64])
    graph = helper.make_graph(nodes, "g", [value], [value], initialisers)
    model = helper.make_model(graph)
    entry = model.metadata_props.add()
    entry.key, entry.value = "label", label
    return model.SerializeToString()


def external_model(location: str, sizes: list[int]) -> bytes:
    tensors, offset = [], 0
    for number, size in enumerate(sizes):
        tensor = onnx.TensorProto(name=f"t{number}", data_type=1, dims=[size])
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", str(offset))):
            tensor.external_data.add(key=key, value=value)
        offset += size * 4
        tensors.append(tensor)
    return helper.make_model(helper.make_graph([], "g", [], [], tensors)).SerializeToString()


def pieces(recipe: Recipe, data: bytes) -> dict[Part, bytes]:
    found, at = {}, 0
    for part in recipe.parts:
        found[part] = data[at : at + part.size]
        at += part.size
    return found


def held(recipe: Recipe, data: bytes) -> dict[object, Base]:
    return {part.digest: Base(part, raw) for part, raw in pieces(recipe, data).items()}
