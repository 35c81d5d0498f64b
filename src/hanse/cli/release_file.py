"""What a release is, in a file beside the model: `hanse release publish PATH --from release.yaml`.

    model: ocr-rec
    version: 4.0.0
    parents: [{release: 3.9.0, relation: fine-tuned-from}]      # a version or a digest
    variants:                                                   # in order of preference
    - {file: model.plan, requires: {os: linux, gpu.compute_capability: "8.7", tensorrt: "==10.3"}}
    - {file: model.onnx, id: cpu}
    golden: {file: golden.npz, rtol: 0.001, atol: 0.0001}
    outcome: {kind: ctc-text, output: y}
    training:
      data: [{name: docs-2026q3, digest: "sha256:…"}]
      hyperparameters: {lr: 0.0001}
      metrics: {cer: 0.031}
      code: git+https://code.example/ocr@3f2c
    labels: {region: eu-north, hardware: jetson-orin}
    residency: [eu-north]
    profile: [{tensor: y, side: output, edges: [0.5], counts: [10, 90]}]
    private: [hyperparameters.lr]

Everything may be left out. Paths are beside the file. Options of the command line come first; of
mappings they replace single entries. `signature` (inputs and outputs) is needed only where no
variant is ONNX, of which both are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hanse.cli import documents
from hanse.cli.errors import next_step
from hanse.core.catalog.manifest import (
    FORMATS,
    RELATIONS,
    DataSet,
    Outcome,
    Tensor,
    parse_outcome,
    parse_tensor,
)
from hanse.core.catalog.profile import SERIES_MAX, Series, parse_series
from hanse.core.errors import InvalidSpec
from hanse.core.ids import Digest
from hanse.core.limits import LABELS_MAX, PARENTS_MAX
from hanse.core.reading import Reader

VARIANTS_MAX: Final = 16
CORRECT: Final = "correct it there; with --dry-run nothing is published"
FORM: Final = "begin with variants:, training: or labels:"
_BY_SUFFIX: Final = {
    ".onnx": "onnx",
    ".safetensors": "safetensors",
    ".plan": "tensorrt-plan",
    ".engine": "tensorrt-plan",
    ".pt2": "torch-export",
}


@dataclass(frozen=True, slots=True)
class SaidVariant:
    """One way to run the release. `file` is as on the publisher's disk."""

    file: str
    format: str
    id: str = ""
    requires: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Written:
    """What stands in the file; nothing of it is required."""

    model: str = ""
    version: str = ""
    parents: tuple[tuple[str, str], ...] = ()
    variants: tuple[SaidVariant, ...] = ()
    golden: Path | None = None
    rtol: float | None = None
    atol: float | None = None
    outcome: Outcome | None = None
    training_data: tuple[DataSet, ...] = ()
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    code: str = ""
    frameworks: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    licence: str = ""
    residency: tuple[str, ...] = ()
    profile: tuple[Series, ...] = ()
    private: tuple[str, ...] = ()
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()


def read(path: Path | None) -> Written:
    """Nothing without a file. Raises `NotFound`, `InvalidSpec` or `InvalidName`."""
    if path is None:
        return Written()
    with next_step(CORRECT), Reader(documents.read(path, "--from", FORM), path.name) as reader:
        golden = reader.child("golden", {})
        training = reader.child("training", {})
        signature = reader.child("signature", {})
        file = golden.text("file", "")
        written = Written(
            model=reader.text("model", ""),
            version=str(reader.raw("version", "")),
            parents=reader.items("parents", _parent, count_max=PARENTS_MAX),
            variants=reader.items("variants", _variant, count_max=VARIANTS_MAX),
            golden=path.parent / file if file else None,
            rtol=golden.number("rtol", None, low=0, high=1) if golden.has("rtol") else None,
            atol=golden.number("atol", None, low=0, high=1e6) if golden.has("atol") else None,
            outcome=parse_outcome(reader) if reader.has("outcome") else None,
            training_data=training.items("data", _data, count_max=LABELS_MAX),
            hyperparameters=_texts(training, "hyperparameters"),
            metrics=_texts(training, "metrics"),
            code=training.text("code", ""),
            frameworks=_texts(reader, "frameworks"),
            labels=_texts(reader, "labels"),
            licence=reader.text("licence", ""),
            residency=reader.items("residency", _text, count_max=256),
            profile=reader.items("profile", _series, count_max=SERIES_MAX),
            private=reader.items("private", _text, count_max=LABELS_MAX),
            inputs=signature.items("inputs", parse_tensor, count_max=64),
            outputs=signature.items("outputs", parse_tensor, count_max=64),
        )
        for child in (golden, training, signature):
            child.finish()
    return written


def read_profile(path: Path) -> tuple[Series, ...]:
    """A file of `profile:` alone."""
    document = documents.read(path, "--profile", "begin with profile:")
    with next_step(CORRECT), Reader(document, path.name) as reader:
        return reader.items("profile", _series, count_max=SERIES_MAX)


def format_of(name: str) -> str | None:
    """By the end of its name; what the bytes are is found out later."""
    return _BY_SUFFIX.get(Path(name).suffix.lower())


def _variant(value: Any, path: str) -> SaidVariant:
    with Reader(value, path) as reader:
        file = reader.text("file")
        known = None if reader.has("format") else format_of(file)
        form = known or reader.one_of("format", FORMATS)
        return SaidVariant(file, form, reader.text("id", ""), _texts(reader, "requires"))


def _parent(value: Any, path: str) -> tuple[str, str]:
    with Reader(value, path) as reader:
        return str(reader.raw("release")), reader.one_of("relation", RELATIONS, "replaces")


def _data(value: Any, path: str) -> DataSet:
    with Reader(value, path) as reader:
        digest = reader.raw("digest", None)
        return DataSet(reader.text("name"), Digest.parse(str(digest)) if digest else None)


def _series(value: Any, path: str) -> Series:
    return parse_series({"element": None, **value} if isinstance(value, Mapping) else value, path)


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise InvalidSpec(f"{path}: expected a text")
    return value


def _texts(reader: Reader, key: str) -> dict[str, str]:
    """A flat mapping; numbers may be written as such."""
    value = reader.raw(key, {})
    if not isinstance(value, Mapping):
        raise InvalidSpec(f"{reader.path}.{key}: expected a mapping")
    found = {}
    for name, each in value.items():
        if isinstance(each, bool) or not isinstance(each, str | int | float):
            raise InvalidSpec(
                f"{reader.path}.{key}.{name}: expected a text or a number",
                fix="put it in quotation marks",
            )
        found[str(name)] = each if isinstance(each, str) else repr(each)
    return found
