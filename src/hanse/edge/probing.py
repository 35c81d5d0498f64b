"""The smallest ONNX models there are, to learn what a runtime loads by letting it load them.

onnxruntime does not say which operator sets and file versions it knows. A model of one Identity is
written here by hand, as protobuf: a length or a number after one byte that says which field it is.
"""

from __future__ import annotations

from typing import Final

IR_VERSIONS: Final = range(3, 21)
OPSETS: Final = {"ai.onnx": range(7, 41), "ai.onnx.ml": range(1, 11)}
"""What is tried, from the oldest that anybody still meets to well above the newest of today."""
_FLOAT_OF_ONE: Final = bytes((0x0A, 8, 0x08, 1, 0x12, 4, 0x0A, 2, 0x08, 1))


def probe_model(domain: str = "ai.onnx", version: int = 7, ir_version: int = 3) -> bytes:
    """A model that imports `version` (at most 127) of one operator set, and no later one."""
    opsets = [("", 7)] if domain != "ai.onnx" else []
    opsets.append(("" if domain == "ai.onnx" else domain, version))
    graph = _text(1, _text(1, b"x") + _text(2, b"y") + _text(4, b"Identity")) + _text(2, b"g")
    graph += b"".join(_text(field, _value(name)) for field, name in ((11, b"x"), (12, b"y")))
    imports = b"".join(_text(8, _text(1, d.encode()) + bytes((0x10, v))) for d, v in opsets)
    return bytes((0x08, ir_version)) + _text(7, graph) + imports


def _value(name: bytes) -> bytes:
    return _text(1, name) + _text(2, _FLOAT_OF_ONE)


def _text(field: int, content: bytes) -> bytes:
    return bytes((field << 3 | 2, len(content))) + content
