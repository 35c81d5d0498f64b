"""Reads one ONNX file: what it needs, what it promises, and why it is refused.

Nothing is executed and no other file is read: weights beside it are listed by name, with how many
bytes of them it needs. An operator set that is newer than we know is recorded, not refused: each
node decides for itself what it can run. Run it through `inspection`, in a process of its own: the
parser is large and the file is not ours.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from hanse.artefacts.onnx_walk import DOMAINS, walk
from hanse.core.catalog.manifest import DATATYPES, Tensor
from hanse.core.errors import InvalidSpec, TooLarge

PROTOBUF_BYTES_MAX = 2**31 - 1

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
    """What the file says of itself. `opsets` maps each known domain to the version imported,
    `external` each file beside it to the bytes of it that it needs."""

    ir_version: int
    opsets: dict[str, int]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    external: dict[str, int] = field(default_factory=dict)

    @property
    def requires(self) -> dict[str, str]:
        """What a node must offer to load the file, for `Variant.requires`."""
        opsets = {f"onnx.opset.{name}": f">={version}" for name, version in self.opsets.items()}
        return {"onnx.ir": f">={self.ir_version}", **opsets}


def examine(file: BinaryIO, name: str) -> Inspection:
    """Raises `InvalidSpec` or `TooLarge`."""
    raw = _read(file, name)
    walked = walk(memoryview(raw), name)
    model = _parsed(raw, name)
    held = {each.name for each in model.graph.initializer}
    return Inspection(
        ir_version=int(model.ir_version),
        opsets=_opsets(model, walked.domains, name),
        inputs=tuple(_tensor(v, "input") for v in model.graph.input if v.name not in held),
        outputs=_outputs(model),
        external=walked.external,
    )


def _read(file: BinaryIO, name: str) -> bytes:
    size = file.seek(0, 2)
    if size > PROTOBUF_BYTES_MAX:
        raise TooLarge(
            f"{name} has {size} bytes, and an ONNX file ends at 2 GiB",
            fix="save the weights as external data beside it",
        )
    file.seek(0)
    raw = file.read()
    for magic, what in _OTHER_FORMATS:
        if raw.startswith(magic):
            raise InvalidSpec(f"{name} is no ONNX model but {what}", fix="export the model to ONNX")
    return raw


def _parsed(raw: bytes, name: str) -> Any:
    import onnx

    try:
        model = onnx.load_model_from_string(raw)
    except Exception:  # protobuf's own class of error: only rpc/ imports protobuf
        raise InvalidSpec(
            f"{name} is no ONNX model, or it is truncated or damaged",
            fix="copy or export it again, and compare sizes",
        ) from None
    if not model.graph.node or not model.opset_import or not model.graph.output:
        raise InvalidSpec(
            f"{name} holds no graph with operators and outputs: it is empty or cut off",
            fix="copy or export it again, and compare sizes",
        )
    return model


def _opsets(model: Any, used: frozenset[str], name: str) -> dict[str, int]:
    """The operator sets that a runtime must know: all that are used, and all imports of known
    domains, because runtimes check those too.
    """
    imported = {entry.domain or "ai.onnx": int(entry.version) for entry in model.opset_import}
    absent = sorted(used - set(imported))
    if absent:
        raise InvalidSpec(
            f"{name} uses operators of {', '.join(absent)} without saying which version",
            fix="export it again",
        )
    return {domain: imported[domain] for domain in DOMAINS if domain in imported}


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
