"""What a release is: an immutable manifest whose SHA-256 *is* the release id.

The manifest is canonical JSON of at most 12 KiB. It travels inside the release record, as
the bytes that the publisher signed; weights never do. It names every file by digest and
size, so one id fixes the model, its golden inputs, its needs and its parents.

    {"schema": 1, "model": "ocr-rec", "version": "4.0.0",
     "files": [{"name": "model.onnx", "digest": "sha256:48fc…", "size": 10857958}],
     "variants": [{"id": "onnx-fp32", "format": "onnx", "file": "model.onnx",
                   "requires": {"onnx.ir": ">=8", "onnx.opset.ai.onnx": ">=12"}}],
     "signature": {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3, -1, -1]}],
                   "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, -1, 6625]}]},
     "golden": {"file": "golden.npz", "rtol": 0.001, "atol": 0.0001},
     "outcome": {"kind": "ctc-text", "output": "y"},
     "parents": [{"release": "sha256:897a…", "relation": "retrained-from"}], …}
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hanse.core import limits
from hanse.core.catalog.private_fields import check_hidden, parse_commitments
from hanse.core.catalog.profile import SERIES_MAX, Series, check_profile, parse_series
from hanse.core.compat import check_requires
from hanse.core.errors import InvalidSpec
from hanse.core.ids import Digest, Segment, Version, segment, version
from hanse.core.reading import Reader, canonical_json, parse_json

FORMATS = ("onnx", "safetensors", "tensorrt-plan", "torch-export")
RELATIONS = (
    "fine-tuned-from",
    "quantised-from",
    "regional-variant-of",
    "retrained-from",
    "exported-from",
    "replaces",
)
OUTCOMES = ("none", "argmax", "label", "ctc-text", "text", "number", "boxes")
_TOLERANCES = {"number": ("rtol", "atol"), "boxes": ("iou", "score", "within")}
"""What may be declared of each kind of outcome, beside its output."""
DATATYPES = tuple(
    "BOOL INT8 INT16 INT32 INT64 UINT8 UINT16 UINT32 UINT64 FP16 FP32 FP64 BYTES".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class File:
    name: Segment
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """`shape` uses -1 for a dimension that the caller chooses."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run the release; variants are ordered, the first eligible one is used.

    `requires` is derived from the file (opset, IR); an author may only tighten it. Its
    vocabulary is that of `core.compat`.
    """

    id: Segment
    format: str
    file: Segment
    requires: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs with expected outputs (`in.<name>`, `out.<name>` in one .npz) and tolerances."""

    file: Segment
    rtol: float
    atol: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How answers are compared with each other and with late labels.

    Numbers agree within `atol + rtol * |reference|`. Boxes match from an overlap of `iou` on, rows
    below `score` are none, and answers agree up to a distance of `within` (1 - F1).
    """

    kind: str = "none"
    output: str = ""
    rtol: float = 0.01
    atol: float = 0.0
    iou: float = 0.5
    score: float = 0.25
    within: float = 0.1

    def to_mapping(self) -> dict[str, Any]:
        declared = {key: getattr(self, key) for key in _TOLERANCES.get(self.kind, ())}
        return {"kind": self.kind, "output": self.output, **declared}


@dataclass(frozen=True, slots=True)
class Parent:
    release: Digest
    relation: str


@dataclass(frozen=True, slots=True)
class DataSet:
    name: str
    digest: Digest | None


@dataclass(frozen=True, slots=True)
class Manifest:
    model: Segment
    version: Version
    files: tuple[File, ...]
    variants: tuple[Variant, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    golden: Golden | None = None
    outcome: Outcome = Outcome()
    parents: tuple[Parent, ...] = ()
    training_data: tuple[DataSet, ...] = ()
    hyperparameters: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)
    frameworks: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    licence: str = ""
    code: str = ""
    residency: tuple[str, ...] = ("*",)
    profile: tuple[Series, ...] = ()
    private: dict[str, Digest] = field(default_factory=dict)
    """Commitments to values that are not here, by field; see `catalog.private`."""

    def file(self, name: str) -> File:
        for file in self.files:
            if file.name == name:
                return file
        raise InvalidSpec(f"manifest.files: there is no file {name!r}")

    def to_mapping(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "schema": 1,
            "model": self.model,
            "version": self.version,
            "files": [
                {"name": f.name, "digest": str(f.digest), "size": f.size} for f in self.files
            ],
            "variants": [
                {"id": v.id, "format": v.format, "file": v.file, "requires": v.requires}
                for v in self.variants
            ],
            "signature": {
                "inputs": [_tensor_mapping(t) for t in self.inputs],
                "outputs": [_tensor_mapping(t) for t in self.outputs],
            },
            "outcome": self.outcome.to_mapping(),
            "parents": [{"release": str(p.release), "relation": p.relation} for p in self.parents],
            "training": {
                "data": [
                    {"name": d.name, "digest": str(d.digest) if d.digest else None}
                    for d in self.training_data
                ],
                "hyperparameters": self.hyperparameters,
                "metrics": self.metrics,
                "code": self.code,
            },
            "frameworks": self.frameworks,
            "labels": self.labels,
            "licence": self.licence,
            "residency": list(self.residency),
        }
        if self.golden:
            golden = self.golden
            out["golden"] = {"file": golden.file, "rtol": golden.rtol, "atol": golden.atol}
        if self.profile:
            out["profile"] = [series.to_mapping() for series in self.profile]
        if self.private:
            out["private"] = {name: str(digest) for name, digest in self.private.items()}
        return out

    def encode(self) -> bytes:
        return canonical_json(self.to_mapping())


def parse_manifest(raw: bytes) -> Manifest:
    """Parse and check a manifest. Raises `InvalidSpec` or `InvalidName` naming the field.

    The bytes must be the canonical ones: two spellings of one manifest would be two
    releases that nobody could tell apart.
    """
    document = parse_json(raw, "manifest", bytes_max=limits.MANIFEST_BYTES_MAX)
    with Reader(document, "manifest") as reader:
        reader.integer("schema", low=1, high=1)
        with reader.child("signature") as signature:
            inputs = signature.items("inputs", parse_tensor, count_max=64)
            outputs = signature.items("outputs", parse_tensor, count_max=64)
        with reader.child("training", {}) as training:
            data = training.items("data", _data_set, count_max=limits.LABELS_MAX)
            hyperparameters = training.pairs("hyperparameters", count_max=limits.LABELS_MAX)
            metrics = training.pairs("metrics", count_max=limits.LABELS_MAX)
            code = training.text("code", "")
        manifest = Manifest(
            model=segment(reader.text("model"), "model"),
            version=version(reader.text("version")),
            files=reader.items("files", _file, count_max=limits.FILES_MAX),
            variants=reader.items("variants", _variant, count_max=16),
            inputs=inputs,
            outputs=outputs,
            golden=_golden(reader),
            outcome=parse_outcome(reader),
            parents=reader.items("parents", _parent, count_max=limits.PARENTS_MAX),
            training_data=data,
            hyperparameters=hyperparameters,
            metrics=metrics,
            frameworks=reader.pairs("frameworks", count_max=limits.LABELS_MAX),
            labels=reader.pairs("labels", count_max=limits.LABELS_MAX),
            licence=reader.text("licence", ""),
            code=code,
            residency=reader.items("residency", _region_or_star, count_max=256) or ("*",),
            profile=reader.items("profile", parse_series, count_max=SERIES_MAX),
            private=parse_commitments(reader),
        )
    _check(manifest)
    if manifest.encode() != raw:
        raise InvalidSpec("manifest: not in canonical form", fix="publish it with hanse")
    return manifest


def _check(manifest: Manifest) -> None:
    names = [f.name for f in manifest.files]
    if not names or len(set(names)) != len(names):
        raise InvalidSpec("manifest.files: at least one file, each name once")
    if not manifest.variants:
        raise InvalidSpec("manifest.variants: at least one variant")
    for variant in manifest.variants:
        manifest.file(variant.file)
    if manifest.golden:
        manifest.file(manifest.golden.file)
    if manifest.outcome.kind != "none" and manifest.outcome.output not in {
        t.name for t in manifest.outputs
    }:
        raise InvalidSpec(
            f"manifest.outcome.output: no output {manifest.outcome.output!r}",
            fix=f"outputs: {', '.join(t.name for t in manifest.outputs) or 'none'}",
        )
    check_hidden(manifest.private, manifest.to_mapping())
    tensors = {"input": manifest.inputs, "output": manifest.outputs}
    check_profile(
        manifest.profile, {side: [t.name for t in found] for side, found in tensors.items()}
    )


def _tensor_mapping(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def parse_tensor(value: Any, path: str) -> Tensor:
    with Reader(value, path) as reader:
        shape = reader.raw("shape")
        if (
            not isinstance(shape, list)
            or len(shape) > 16
            or not all(type(n) is int and -1 <= n < 2**31 for n in shape)
        ):
            raise InvalidSpec(f"{path}.shape: expected up to 16 whole numbers, -1 for any")
        return Tensor(reader.text("name"), reader.one_of("datatype", DATATYPES), tuple(shape))


def _file(value: Any, path: str) -> File:
    with Reader(value, path) as reader:
        return File(
            segment(reader.text("name"), f"{path}.name"),
            Digest.parse(reader.text("digest")),
            reader.integer("size", low=1, high=limits.FILE_BYTES_MAX),
        )


def _variant(value: Any, path: str) -> Variant:
    with Reader(value, path) as reader:
        variant = Variant(
            segment(reader.text("id"), f"{path}.id"),
            reader.one_of("format", FORMATS),
            segment(reader.text("file"), f"{path}.file"),
            reader.pairs("requires", count_max=limits.LABELS_MAX),
        )
    check_requires(variant.requires, f"{path}.requires")
    return variant


def _parent(value: Any, path: str) -> Parent:
    with Reader(value, path) as reader:
        return Parent(Digest.parse(reader.text("release")), reader.one_of("relation", RELATIONS))


def _data_set(value: Any, path: str) -> DataSet:
    with Reader(value, path) as reader:
        digest = reader.raw("digest", None)
        return DataSet(reader.text("name"), Digest.parse(str(digest)) if digest else None)


def _region_or_star(value: Any, path: str) -> str:
    return "*" if value == "*" else segment(str(value), path)


def _golden(reader: Reader) -> Golden | None:
    if not reader.has("golden"):
        return None
    with reader.child("golden") as golden:
        return Golden(
            segment(golden.text("file"), "golden.file"),
            golden.number("rtol", 1e-3, low=0, high=1),
            golden.number("atol", 1e-5, low=0, high=1e6),
        )


def parse_outcome(reader: Reader) -> Outcome:
    with reader.child("outcome", {"kind": "none"}) as outcome:
        kind = outcome.one_of("kind", OUTCOMES)
        default = Outcome(kind, outcome.text("output", ""))
        declared: dict[str, Any] = {
            key: outcome.number(key, getattr(default, key), low=0, high=1e6)
            for key in _TOLERANCES.get(kind, ())
        }
        return replace(default, **declared)
