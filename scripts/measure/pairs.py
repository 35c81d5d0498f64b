"""Models and their successors: real releases, and real weights with a tune that is drawn.

*Tuned by r*: Gaussian noise of r times its own standard deviation on each tensor. Real tunes are
less even; see `docs/performance.md`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from tour import material

from hanse.parts.tensors import Span, spans

Tensors = dict[str, tuple[str, list[int], bytes]]
Which = Callable[[Span], bool]


@dataclass(frozen=True)
class Pair:
    name: str
    old: bytes
    new: bytes
    bar: str = ""
    without: tuple[str, ...] = ()
    """Peers that would take minutes."""


def pairs() -> Iterator[Pair]:
    yield from _ocr()
    for name, one, two in (
        ("Silero 5.1.2 to 6.0.0, retrained", "silero 5", "silero 6"),
        ("Magika v3_2 to v3_3, retrained", "magika v3_2", "magika v3_3"),
    ):
        yield Pair(name, _paired(one), _paired(two))  # type: ignore[arg-type]
    yield from _minilm()


def _ocr() -> Iterator[Pair]:
    v3, v4, v6 = (material.extract(m).read_bytes() for m in material.MODELS.values())
    entry = b"\x0a\x05label\x12\x04blue"  # metadata_props of ModelProto
    yield Pair("OCR, metadata only", v4, v4 + b"\x72" + bytes([len(entry)]) + entry, "< 1 kB")
    last = tuned(v4, 1e-2, lambda span: 6625 in span.shape)
    yield Pair("OCR, last layer tuned by 1e-2", v4, last, "0.20")
    yield Pair("OCR, all layers tuned by 1e-4", v4, tuned(v4, 1e-4), "0.50")
    slow = ("bsdiff4",)
    for r in ("1e-3", "1e-2"):
        yield Pair(f"OCR, all layers tuned by {r}", v4, tuned(v4, float(r)), "", slow)
    yield Pair("OCR v3 to v4, retrained", v3, v4, "", slow)
    yield Pair("OCR v4 to v6, another architecture", v4, v6, "", slow)


def _minilm() -> Iterator[Pair]:
    old, slow = _paired("minilm"), ("zstd -19", "bsdiff4")
    tensors = _tensors(old)
    again = _file(tensors)
    yield Pair("MiniLM, reordered", again, _file(dict(reversed(tensors.items()))), "", slow)
    rng = np.random.default_rng(3)
    lora: Tensors = {
        f"lora.{layer}.{side}": ("F32", shape, _normal(rng, 384 * 8))
        for layer in range(12)
        for side, shape in (("a", [384, 8]), ("b", [8, 384]))
    }
    yield Pair("MiniLM, LoRA tensors added", again, _file(tensors | lora), "", slow)
    dense, block = "encoder.layer.5.attention.output.dense", "encoder.layer.5."
    for name, start in (("a dense layer", dense), ("the last block", block)):
        new = tuned(old, 1e-2, lambda span, start=start: start in span.name)  # type: ignore[misc]
        yield Pair(f"MiniLM, {name} tuned by 1e-2", old, new, "", slow)
    yield Pair("MiniLM, all layers tuned by 1e-4", old, tuned(old, 1e-4), "0.50", slow)
    half = _file({name: _as_half(*tensor) for name, tensor in tensors.items()})
    other = _tensors(tuned(old, 1e-3))
    new = _file({name: _as_half(*tensor) for name, tensor in other.items()})
    yield Pair("MiniLM fp16, all layers tuned by 1e-3", half, new, "", ("zstd -19",))
    for r in ("1e-3", "1e-2"):
        one, two = (
            _file({name: _as_bytes(*tensor) for name, tensor in each.items()})
            for each in (tensors, _tensors(tuned(old, float(r))))
        )
        yield Pair(f"MiniLM int8, quantised after a tune by {r}", one, two)


def _paired(name: material.PairedName) -> bytes:
    return material.extract(material.PAIRED[name]).read_bytes()


def tuned(model: bytes, r: float, which: Which = lambda span: True) -> bytes:
    out, rng = bytearray(model), np.random.default_rng(1)
    for span in spans(memoryview(model)):
        if span.dtype == "F32" and span.end > span.start and which(span):
            count = (span.end - span.start) // 4
            values = np.frombuffer(out, "<f4", count, span.start)
            noise = rng.standard_normal(count).astype("f4")
            values[:] = values + noise * np.float32(r * values.std())
    return bytes(out)


def _tensors(model: bytes) -> Tensors:
    return {
        s.name: (s.dtype, list(s.shape), model[s.start : s.end]) for s in spans(memoryview(model))
    }


def _file(tensors: Tensors) -> bytes:
    header, start = {}, 0
    for name, (dtype, shape, raw) in tensors.items():
        offsets = [start, start + len(raw)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        start += len(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(raw for _, _, raw in tensors.values())


def _as_half(dtype: str, shape: list[int], raw: bytes) -> tuple[str, list[int], bytes]:
    if dtype != "F32":
        return dtype, shape, raw
    return "F16", shape, np.frombuffer(raw, "<f4").astype("<f2").tobytes()


def _as_bytes(dtype: str, shape: list[int], raw: bytes) -> tuple[str, list[int], bytes]:
    """Matrices, evenly about zero, the largest weight being 127."""
    if dtype != "F32" or len(shape) < 2:
        return dtype, shape, raw
    values = np.frombuffer(raw, "<f4")
    return "I8", shape, np.round(values / (np.abs(values).max() / 127)).astype("i1").tobytes()


def _normal(rng: np.random.Generator, count: int) -> bytes:
    return rng.standard_normal(count).astype("<f4").tobytes()
