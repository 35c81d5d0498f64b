"""ONNX files that are fine, and ONNX files that are bad in one way each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnx import FunctionProto, ModelProto, NodeProto, TensorProto, helper

FLOAT = TensorProto.FLOAT


def model(
    *,
    opset: int = 17,
    domain: str = "",
    extra: Sequence[NodeProto] = (),
    functions: Sequence[FunctionProto] = (),
    metadata: dict[str, str] | None = None,
) -> ModelProto:
    """y = x + w, with whatever is asked for beside it."""
    weights = helper.make_tensor("w", FLOAT, [4], [1.0, 2.0, 3.0, 4.0])
    nodes = [helper.make_node("Add", ["x", "w"], ["y"], domain=domain), *extra]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", FLOAT, ["batch", 4]),
            helper.make_tensor_value_info("w", FLOAT, [4]),
        ],
        [helper.make_tensor_value_info("y", FLOAT, ["batch", 4])],
        [weights],
    )
    domains = {domain, *(function.domain for function in functions)} - {""}
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    made = helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=9)
    helper.set_model_props(made, metadata or {})
    return made


def saved(made: ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(made.SerializeToString())
    return path


def external(made: ModelProto, location: str, **more: str) -> ModelProto:
    """The same with its weights in another file."""
    tensor = made.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    said = {"location": location, **more}
    for key, value in said.items():
        tensor.external_data.add(key=key, value=value)
    return made


def doubling(depth: int) -> ModelProto:
    """Functions of which each calls the next one twice: 2 ** depth nodes of a few bytes."""
    functions = []
    for level in range(depth):
        last = level == depth - 1
        calls: list[Any] = [helper.make_node("Neg", ["a"], ["c"])]
        if not last:
            pairs = (("a", "b"), ("b", "c"))
            calls = [helper.make_node(f"F{level + 1}", [i], [o], domain="own") for i, o in pairs]
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        functions.append(helper.make_function("own", f"F{level}", ["a"], ["c"], calls, opsets))
    call = helper.make_node("F0", ["y"], ["z"], domain="own")
    return model(extra=[call], functions=functions)


def looping(rounds: int) -> ModelProto:
    """The same as `model`, after so many rounds of a loop."""
    values = {
        name: helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (
            ("i", TensorProto.INT64, []), ("go", TensorProto.BOOL, []), ("v", FLOAT, None),
            ("on", TensorProto.BOOL, []), ("u", FLOAT, None),
        )
    }  # fmt: skip
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Abs", ["v"], ["u"])],
        "body",
        [values["i"], values["go"], values["v"]],
        [values["on"], values["u"]],
    )
    made = model()
    made.graph.node[0].output[0] = "once"
    made.graph.node.append(helper.make_node("Loop", ["rounds", "yes", "once"], ["y"], body=body))
    made.graph.initializer.append(helper.make_tensor("rounds", TensorProto.INT64, [], [rounds]))
    made.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    return made
