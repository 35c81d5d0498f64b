"""Releases of the tour's digit models, laid out as an edge node lays them out."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import onnxruntime as ort
from tour import digits

from hanse.core.catalog.manifest import (
    File,
    Golden,
    Manifest,
    Outcome,
    Tensor,
    Variant,
)
from hanse.core.ids import Digest, Version, segment

DIGITS = segment("digits")


@dataclass(frozen=True)
class Release:
    manifest: Manifest
    folder: Path

    @property
    def raw(self) -> bytes:
        return self.manifest.encode()

    @property
    def digest(self) -> Digest:
        return Digest.of(self.raw)


@cache
def paths() -> dict[str, Path]:
    """The models and poisons, made once a test run."""
    return digits.make(Path(mkdtemp(prefix="digits-")) / "made")


@cache
def holdout() -> tuple[np.ndarray, np.ndarray]:
    with np.load(paths()["holdout"]) as arrays:
        return arrays["X"], arrays["y"]


def release(kind: str, folder: Path, *, version: str = "", golden_of: str = "") -> Release:
    """`kind` names a model or poison; the golden outputs are those of `golden_of` or its own."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(paths()[kind], folder / "model.onnx")
    files = ["model.onnx"]
    if golden_of:
        _write_golden(folder / "golden.npz", golden_of)
        files.append("golden.npz")
    manifest = Manifest(
        DIGITS,
        Version(version or kind),
        tuple(_file(folder / name) for name in files),
        (Variant(segment("onnx"), "onnx", segment("model.onnx")),),
        (Tensor("X", "FP32", (-1, 64)),),
        (Tensor("label", "INT64", (-1,)), Tensor("probabilities", "FP32", (-1, 10))),
        outcome=Outcome("label", "label"),
    )
    if golden_of:
        manifest = replace(manifest, golden=Golden(segment("golden.npz"), 1e-3, 1e-5))
    return Release(manifest, folder)


def _file(path: Path) -> File:
    data = path.read_bytes()
    return File(segment(path.name), Digest.of(data), len(data))


def _write_golden(path: Path, kind: str) -> None:
    x = holdout()[0][:8]
    label, probabilities = ort.InferenceSession(str(paths()[kind])).run(None, {"X": x})
    np.savez(path, **{"in.X": x, "out.label": label, "out.probabilities": probabilities})
