"""Builds a manifest from files: what can be measured is measured, the author says the rest.

Digests, sizes, signature and runtime needs come from the files themselves. An author may
tighten the needs (`--framework`, `--require`), never loosen them.
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePath

from hanse.artefacts import npz
from hanse.artefacts.onnx_walk import check_beside
from hanse.cli.release_file import SaidVariant, format_of
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
from hanse.core.catalog.profile import Series
from hanse.core.compat import check_format, looser
from hanse.core.errors import InvalidSpec, NotFound
from hanse.core.ids import Digest, Segment, Version, segment
from hanse.core.limits import GOLDEN_BYTES_MAX
from hanse.daemon.inspection import inspect_files
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
    variants: tuple[SaidVariant, ...] = ()
    """In order of preference; none: every model file of the folder, by name."""
    written: Path | None = None
    """The file that says all this: no part of the release, though it may lie beside it."""
    profile: tuple[Series, ...] = ()
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class Built:
    """A checked manifest, and where the bytes of each file are on this machine."""

    manifest: Manifest
    sources: dict[Segment, Path]


def build(path: Path, said: Said) -> Built:
    """Inspect, hash and describe. Raises `InvalidSpec`, `InvalidName`, `NotFound`, `TooLarge`."""
    wanted = _variants(path, said)
    models = {variant.file: path / variant.file if path.is_dir() else path for variant in wanted}
    found = inspect_files(models, {variant.file: variant.format for variant in wanted})
    for name, each in found.items():
        check_beside(name, each.external, partial(_size, models[name].parent))
    inputs, outputs = _signature(found, said)
    paths = [each for each in _files(path, found) if each.absolute() != said.written]
    inspect_files({each.name: each for each in paths if each.name not in models}, {})
    if said.golden is not None:
        check_golden(said.golden, inputs, outputs)
        paths.append(said.golden)
    exact = {name for each in found.values() for name in each.external}
    sources = _named(dict.fromkeys(p.absolute() for p in paths), exact)
    names = {source: name for name, source in sources.items()}
    labels = {file: names[source.absolute()] for file, source in models.items()}
    for key in said.requires:
        if ":" in key and key.rpartition(":")[0] not in labels.values():
            raise InvalidSpec(
                f"no model file is called {key.rpartition(':')[0][:80]}",
                fix=f"before the colon write one of {', '.join(labels.values())}",
            )
    variants = tuple(_variant(labels[v.file], v, found.get(v.file), said) for v in wanted)
    if len({variant.id for variant in variants}) != len(variants):
        raise InvalidSpec("two variants have one id", fix="give them an id each, with --from")
    manifest = Manifest(
        model=said.model,
        version=said.version,
        files=tuple(_described(name, source) for name, source in sorted(sources.items())),
        variants=variants,
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
        profile=said.profile,
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


def _variants(path: Path, said: Said) -> tuple[SaidVariant, ...]:
    """As the author orders them; else by name, every file of the folder that is a model."""
    if not path.exists():
        raise NotFound(f"there is no {path}", fix="name a model file or its folder")
    if not path.is_dir():
        named = said.variants or (SaidVariant(path.name, format_of(path.name) or "onnx"),)
        if any(variant.file != path.name for variant in named):
            raise InvalidSpec(f"there are variants beside {path.name}", fix="name their folder")
        return named
    if said.variants:
        for variant in said.variants:
            if not _is_plain(path, variant.file):
                raise NotFound(f"there is no file {variant.file} in {path}", fix="see variants")
        return said.variants
    found = [(each.name, format_of(each.name)) for each in sorted(path.iterdir())]
    if not any(form for _, form in found):
        raise NotFound(f"there is no model file in {path}", fix="name the file or its folder")
    return tuple(SaidVariant(name, form) for name, form in found if form)


def _files(path: Path, found: Mapping[str, Inspection]) -> list[Path]:
    """The whole folder, or one model with the weights that it keeps beside it."""
    if not path.is_dir():
        beside = found[path.name].external if path.name in found else ()
        return [path, *(path.parent / name for name in beside)]
    files = sorted(each for each in path.iterdir() if not each.name.startswith("."))
    for each in files:
        if not _is_plain(path, each.name):
            raise InvalidSpec(
                f"{each} is not a plain file", fix="a release is one folder of plain files"
            )
    return files


def _is_plain(folder: Path, name: str) -> bool:
    path = folder / name
    return path.parent == folder and path.is_file() and not path.is_symlink()


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
    found: Mapping[str, Inspection], said: Said
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """One for all variants: of the ONNX files, or as the author says it of others."""
    of_files = [(name, (each.inputs, each.outputs)) for name, each in found.items()]
    if said.inputs or said.outputs:
        of_files.insert(0, ("signature", (said.inputs, said.outputs)))
    if not of_files:
        raise InvalidSpec(
            "no file says what goes in and comes out", fix="write signature: into --from"
        )
    (first, one), *others = of_files
    for name, other in others:
        if other != one:
            raise InvalidSpec(
                f"{name} and {first} have different inputs or outputs",
                fix="variants of one release are interchangeable: publish them as two models",
            )
    return one


def _described(name: Segment, path: Path) -> File:
    size = path.stat().st_size
    if size == 0:
        raise InvalidSpec(f"{path.name} is empty", fix="copy it again, or leave it out")
    return File(name, digest_of(path), size)


def _variant(name: Segment, asked: SaidVariant, found: Inspection | None, said: Said) -> Variant:
    read = found.requires if found else {}
    needs = dict(read)
    if found and "onnxruntime" in said.frameworks:
        needs["ort"] = said.frameworks["onnxruntime"]
    needs |= {key: wanted for key, wanted in said.requires.items() if ":" not in key}
    files = (key.rpartition(":") for key in said.requires)
    needs |= {key: said.requires[f"{file}:{key}"] for file, _, key in files if file == name}
    needs |= asked.requires
    for key, least in read.items():
        if needs[key] != least and looser(needs[key], least):
            raise InvalidSpec(
                f"{name} needs {key} {least}, as the file says", fix="leave it out, or tighten it"
            )
    check_format(asked.format, needs, name)
    called = asked.id or PurePath(name).stem
    return Variant(segment(called, "variant"), asked.format, name, needs)


def _golden(names: dict[Path, Segment], said: Said) -> Golden | None:
    if said.golden is None:
        return None
    return Golden(names[said.golden.absolute()], said.rtol, said.atol)
