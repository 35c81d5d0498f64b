"""Reads one ONNX file: what it needs, what it promises, and why it is refused.

Nothing is executed and no external data is read: weights beside the file are listed by name,
and a name that leaves the folder is refused. An operator set that is newer than we know is
recorded, not refused: each node decides for itself what it can run. An operator domain that
we do not know is refused, because no node can. Run it through `inspection`, in a process of
its own: the parser is large and the file is not ours.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hanse.core.catalog.manifest import DATATYPES, Tensor
from hanse.core.errors import InvalidSpec, NotFound, Rejected, TooLarge
from hanse.core.ids import segment

DOMAINS = ("ai.onnx", "ai.onnx.ml", "com.microsoft")
PROTOBUF_BYTES_MAX = 2**31 - 1
DEPTH_MAX = 32

_OTHER_FORMATS = (
    (b"PK\x03\x04", "a zip archive, such as PyTorch writes: it may hold a pickle, which runs code"),
    (b"\x80\x02", "a pickle, which runs code when it is loaded"),
    (b"\x80\x03", "a pickle, which runs code when it is loaded"),
    (b"\x80\x04", "a pickle, which runs code when it is loaded"),
    (b"\x80\x05", "a pickle, which runs code when it is loaded"),
    (b"\x89HDF", "an HDF5 file, such as Keras writes"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"version https://git-lfs", "a Git LFS pointer: the model itself was not downloaded"),
    (b"<", "a web page or XML: a failed download?"),
    (b"{", "JSON text"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"GGUF", "a GGUF file"),
    (b"\x7fELF", "a program"),
)


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the file says of itself. `opsets` maps each known domain to the version imported."""

    ir_version: int
    opsets: dict[str, int]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    metadata_keys: tuple[str, ...] = ()
    external: tuple[str, ...] = ()
    producer: str = ""

    @property
    def requires(self) -> dict[str, str]:
        """What a node must offer to load the file, for `Variant.requires`."""
        opsets = {f"onnx.opset.{name}": f">={version}" for name, version in self.opsets.items()}
        return {"onnx.ir": f">={self.ir_version}", **opsets}


def examine(path: Path) -> Inspection:
    """Read the file in this process. Raises `InvalidSpec`, `NotFound` or `TooLarge`."""
    model = _parse(path)
    external = _external_files(model, path)
    opsets = _opsets(model, path.name)
    held = {each.name for each in model.graph.initializer}
    return Inspection(
        ir_version=int(model.ir_version),
        opsets=opsets,
        inputs=tuple(_tensor(v, "input") for v in model.graph.input if v.name not in held),
        outputs=_outputs(model),
        metadata_keys=tuple(sorted({entry.key for entry in model.metadata_props})),
        external=external,
        producer=f"{model.producer_name} {model.producer_version}".strip()[:200],
    )


def _parse(path: Path) -> Any:
    raw = _read(path)
    for magic, what in _OTHER_FORMATS:
        if raw.startswith(magic):
            raise InvalidSpec(
                f"{path.name} is no ONNX model but {what}", fix="export the model to ONNX"
            )
    import onnx

    try:
        model = onnx.load_model_from_string(raw)
    except Exception:  # protobuf's own class of error: only rpc/ imports protobuf
        raise InvalidSpec(
            f"{path.name} is no ONNX model, or it is truncated or damaged",
            fix="copy or export it again, and compare sizes",
        ) from None
    if not model.graph.node or not model.opset_import or not model.graph.output:
        raise InvalidSpec(
            f"{path.name} holds no graph with operators and outputs: it is empty or cut off",
            fix="copy or export it again, and compare sizes",
        )
    return model


def _read(path: Path) -> bytes:
    try:
        facts = path.stat()
    except OSError:
        raise NotFound(f"there is no file {path}", fix="check the path") from None
    if not stat.S_ISREG(facts.st_mode):
        raise InvalidSpec(f"{path} is not a file", fix="name the .onnx file")
    if facts.st_size > PROTOBUF_BYTES_MAX:
        raise TooLarge(
            f"{path.name} has {facts.st_size} bytes, and an ONNX file ends at 2 GiB",
            fix="save the weights as external data beside it",
        )
    return path.read_bytes()


def _opsets(model: Any, name: str) -> dict[str, int]:
    """The operator sets that a runtime must know: all that are used, and all imports of known
    domains, because runtimes check those too. Functions that the file itself defines need none.
    """
    imported = {entry.domain or "ai.onnx": int(entry.version) for entry in model.opset_import}
    own = {(f.domain or "ai.onnx", f.name) for f in model.functions}
    used = {
        node.domain or "ai.onnx"
        for node in _nodes(model)
        if (node.domain or "ai.onnx", node.op_type) not in own
    }
    unknown = sorted(used - set(DOMAINS))
    if unknown:
        raise InvalidSpec(
            f"{name} uses operators of {', '.join(unknown)[:200]}, which no node can run",
            fix=f"export it with operators of {', '.join(DOMAINS)} only",
        )
    absent = sorted(used - set(imported))
    if absent:
        raise InvalidSpec(
            f"{name} uses operators of {', '.join(absent)} without saying which version",
            fix="export it again",
        )
    return {domain: imported[domain] for domain in DOMAINS if domain in imported}


def _nodes(model: Any) -> Iterator[Any]:
    for graph in _graphs(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def _graphs(model: Any) -> Iterator[Any]:
    """Every graph, also those inside an `If`, `Loop` or `Scan`, of functions and for training."""
    trained = [
        graph for each in model.training_info for graph in (each.initialization, each.algorithm)
    ]
    whole = [model.graph, *trained]
    yield from whole
    for owner in (*whole, *model.functions):
        for node in owner.node:
            yield from _graphs_of(node, 0)


def _graphs_of(node: Any, depth: int) -> Iterator[Any]:
    if depth > DEPTH_MAX:
        raise InvalidSpec("its graphs are nested too deeply", fix="export the model again")
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield graph
            for inner in graph.node:
                yield from _graphs_of(inner, depth + 1)


def _tensors(model: Any) -> Iterator[Any]:
    """Every tensor that may have its data elsewhere, in whatever corner of the file."""
    for graph in _graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    attributes = [attribute for node in _nodes(model) for attribute in node.attribute]
    attributes += [each for function in model.functions for each in function.attribute_proto]
    for attribute in attributes:
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)


def _external_files(model: Any, path: Path) -> tuple[str, ...]:
    import onnx

    ends: dict[str, int] = {}
    for tensor in _tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL and not tensor.external_data:
            continue
        said = {entry.key: entry.value for entry in tensor.external_data}
        location = said.get("location", "")
        end = _whole(said.get("offset", "0"), path) + _whole(said.get("length", "0"), path)
        ends[location] = max(end, ends.get(location, 0))
    for location, end in ends.items():
        _check_external(location, end, path)
    return tuple(sorted(ends))


def _check_external(location: str, end: int, path: Path) -> None:
    """Refuse any name but that of a plain file beside the model, long enough for its tensors."""
    what = f"{path.name} keeps weights in {location[:120]!r}"
    try:
        segment(location)
    except Rejected as error:
        raise InvalidSpec(
            f"{what}, which is not the plain name of a file beside it",
            fix=f"save the weights under such a name: {error.fix}",
        ) from None
    beside = path.parent / location
    if beside.is_symlink() or not beside.is_file():
        raise InvalidSpec(f"{what}, and that is no file beside it", fix="put the file there")
    if beside.stat().st_size < end:
        raise InvalidSpec(f"{what}, which is too short for them", fix="copy that file again")


def _whole(text: str, path: Path) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise InvalidSpec(f"{path.name}: {text[:40]!r} is no place in a file", fix="export again")
    return int(text)


def _outputs(model: Any) -> tuple[Tensor, ...]:
    outputs = list(model.graph.output)
    if not all(_has_rank(value) for value in outputs):
        import onnx

        # Best effort: exporters may leave shapes out, and the operators often tell them.
        with contextlib.suppress(Exception):
            outputs = list(onnx.shape_inference.infer_shapes(model).graph.output)
    return tuple(_tensor(value, "output") for value in outputs)


def _has_rank(value: Any) -> bool:
    kind = value.type
    tensor = kind.WhichOneof("value") == "tensor_type"
    return not tensor or bool(kind.tensor_type.HasField("shape"))


def _tensor(value: Any, what: str) -> Tensor:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        found = str(kind or "nothing").removesuffix("_type")
        raise InvalidSpec(
            f"{what} {value.name[:80]!r} is a {found}, and only tensors can be served",
            fix="export without sequences and maps (for scikit-learn: zipmap off)",
        )
    described = value.type.tensor_type
    if not described.HasField("shape"):
        raise InvalidSpec(
            f"{what} {value.name[:80]!r} does not say how many dimensions it has",
            fix="run onnx.shape_inference over the model, or export it with shapes",
        )
    return Tensor(
        value.name,
        _datatype(described.elem_type, f"{what} {value.name[:80]!r}"),
        tuple(_dimension(each) for each in described.shape.dim),
    )


def _dimension(dim: Any) -> int:
    fixed = dim.WhichOneof("value") == "dim_value" and 0 < dim.dim_value < 2**31
    return int(dim.dim_value) if fixed else -1


def _datatype(elem_type: int, what: str) -> str:
    import onnx

    name = onnx.TensorProto.DataType.Name(elem_type) if 0 < elem_type < 24 else str(elem_type)
    served = {"FLOAT": "FP32", "DOUBLE": "FP64", "FLOAT16": "FP16", "STRING": "BYTES"}
    datatype = served.get(name, name)
    if datatype not in DATATYPES:
        raise InvalidSpec(
            f"{what} is of type {name}, which the inference protocol does not know",
            fix=f"cast it to one of {', '.join(DATATYPES)}",
        )
    return str(datatype)
