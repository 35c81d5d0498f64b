"""Builds a manifest from files: what can be measured is measured, the author says the rest.

Digests, sizes, signature and runtime needs come from the files themselves. An author may
tighten the needs (`--framework`, `--require`), never loosen them.
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from hanse.artefacts import npz
from hanse.artefacts.onnx_walk import check_beside
from hanse.core.catalog.manifest import (
    DataSet,
    File,
    Golden,
    Manifest,
    Outcome,
    Parent,
    Tensor,
    Variant,
    parse_manifest,
)
from hanse.core.errors import InvalidSpec, NotFound
from hanse.core.ids import Digest, Segment, Version, segment
from hanse.core.limits import GOLDEN_BYTES_MAX
from hanse.daemon.inspection import ONNX, inspect_files
from hanse.daemon.onnx_file import Inspection


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What only the author knows."""

    model: Segment
    version: Version
    outcome: Outcome
    golden: Path | None = None
    rtol: float = 1e-3
    atol: float = 1e-4
    parents: tuple[Parent, ...] = ()
    training_data: tuple[DataSet, ...] = ()
    hyperparameters: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)
    frameworks: dict[str, str] = field(default_factory=dict)
    requires: dict[str, str] = field(default_factory=dict)
    """Needs that no file shows; `FILE:KEY` is a need of one variant only."""
    labels: dict[str, str] = field(default_factory=dict)
    licence: str = ""
    code: str = ""
    residency: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True)
class Built:
    """A checked manifest, and where the bytes of each file are on this machine."""

    manifest: Manifest
    sources: dict[Segment, Path]


def build(path: Path, said: Said) -> Built:
    """Inspect, hash and describe. Raises `InvalidSpec`, `InvalidName`, `NotFound`, `TooLarge`."""
    models = _models(path)
    inspected = inspect_files({m.name: m for m in models}, {m.name: ONNX for m in models})
    found = {model: inspected[model.name] for model in models}
    for model, each in found.items():
        check_beside(model.name, each.external, partial(_size, model.parent))
    inputs, outputs = _signature(found)
    paths = _files(path, found)
    others = {each.name: each for each in paths if each not in found}
    inspect_files(others, {})
    if said.golden is not None:
        check_golden(said.golden, inputs, outputs)
        paths.append(said.golden)
    exact = {name for each in found.values() for name in each.external}
    sources = _named(dict.fromkeys(p.absolute() for p in paths), exact)
    names = {source: name for name, source in sources.items()}
    listed = {names[onnx.absolute()] for onnx in found}
    for key in said.requires:
        if ":" in key and key.rpartition(":")[0] not in listed:
            raise InvalidSpec(f"no model file is called {key.rpartition(':')[0][:80]}")
    manifest = Manifest(
        model=said.model,
        version=said.version,
        files=tuple(_described(name, source) for name, source in sorted(sources.items())),
        variants=tuple(
            _variant(names[onnx.absolute()], each, said) for onnx, each in found.items()
        ),
        inputs=inputs,
        outputs=outputs,
        golden=_golden(names, said),
        outcome=said.outcome,
        parents=said.parents,
        training_data=said.training_data,
        hyperparameters=said.hyperparameters,
        metrics=said.metrics,
        frameworks=said.frameworks,
        labels=said.labels,
        licence=said.licence,
        code=said.code,
        residency=said.residency,
    )
    return Built(parse_manifest(manifest.encode()), sources)


def file_name(path: Path) -> Segment:
    """The name under which a file is listed: a label, so it need not be spelt as on disk."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", path.name.lower()).lstrip("._-")[-64:]
    return segment(plain.lstrip("._-"), f"file name {path.name!r}:")


def digest_of(path: Path) -> Digest:
    with path.open("rb") as file:
        return Digest(hashlib.file_digest(file, "sha256").hexdigest())


def check_golden(path: Path, inputs: Iterable[Tensor], outputs: Iterable[Tensor]) -> None:
    """An `.npz` with `in.<name>` for every input and `out.<name>` for some output, and no more."""
    try:
        with path.open("rb") as file:
            arrays = npz.listed(file, path.name, bytes_max=GOLDEN_BYTES_MAX)
    except OSError:
        raise NotFound(f"there is no file {path}", fix="check the path of --golden") from None
    held = {array.name for array in arrays}
    needed = {f"in.{tensor.name}" for tensor in inputs}
    possible = {f"out.{tensor.name}" for tensor in outputs}
    if not needed <= held or not held & possible or held - needed - possible:
        raise InvalidSpec(
            f"{path.name} holds {', '.join(sorted(held))[:200] or 'nothing'}",
            fix=f"it needs {', '.join(sorted(needed))} and one or more of "
            f"{', '.join(sorted(possible))}",
        )


def _models(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(path.glob("*.onnx"))
        if not found:
            raise NotFound(f"there is no .onnx file in {path}", fix="name the file or its folder")
        return found
    if not path.exists():
        raise NotFound(f"there is no {path}", fix="name a model file or its folder")
    return [path]


def _files(path: Path, found: dict[Path, Inspection]) -> list[Path]:
    """The whole folder, or one model with the weights that it keeps beside it."""
    if not path.is_dir():
        return [path, *(path.parent / name for name in found[path].external)]
    files = sorted(each for each in path.iterdir() if not each.name.startswith("."))
    for each in files:
        if each.is_symlink() or not each.is_file():
            raise InvalidSpec(
                f"{each} is not a plain file", fix="a release is one folder of plain files"
            )
    return files


def _size(folder: Path, name: str) -> int | None:
    """Of a file that is this folder's alone: a link may lead to somebody else's (T29)."""
    try:
        facts = (folder / name).lstat()
    except OSError:
        return None
    return facts.st_size if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1 else None


def _named(paths: Iterable[Path], exact: set[str]) -> dict[Segment, Path]:
    sources: dict[Segment, Path] = {}
    for path in paths:
        # A model names its weights, so their names must stay as they are.
        name = segment(path.name, "file name") if path.name in exact else file_name(path)
        if name in sources:
            raise InvalidSpec(
                f"{path.name} and {sources[name].name} would both be called {name}",
                fix="rename one of them",
            )
        sources[name] = path
    return sources


def _signature(
    found: dict[Path, Inspection],
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    (first, one), *others = found.items()
    for path, other in others:
        if (other.inputs, other.outputs) != (one.inputs, one.outputs):
            raise InvalidSpec(
                f"{path.name} and {first.name} have different inputs or outputs",
                fix="variants of one release are interchangeable: publish them as two models",
            )
    return one.inputs, one.outputs


def _described(name: Segment, path: Path) -> File:
    size = path.stat().st_size
    if size == 0:
        raise InvalidSpec(f"{path.name} is empty", fix="copy it again, or leave it out")
    return File(name, digest_of(path), size)


def _variant(name: Segment, found: Inspection, said: Said) -> Variant:
    needs = {"ort": said.frameworks["onnxruntime"]} if "onnxruntime" in said.frameworks else {}
    for key, wanted in said.requires.items():
        file, _, need = key.rpartition(":")
        if need in found.requires:
            raise InvalidSpec(f"{need} is read from the file", fix="leave it out of --require")
        if file in ("", name):
            needs[need] = wanted
    return Variant(
        segment(name.removesuffix(".onnx"), "variant"), "onnx", name, {**found.requires, **needs}
    )


def _golden(names: dict[Path, Segment], said: Said) -> Golden | None:
    if said.golden is None:
        return None
    return Golden(names[said.golden.absolute()], said.rtol, said.atol)
