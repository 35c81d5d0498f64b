"""The only module that knows onnxruntime: load a release, prove it, run it.

A release is refused with a reason, never half accepted: files outside its folder, a file that
onnxruntime cannot read, an execution provider that silently fell back, inputs and outputs other
than the manifest's, golden inputs that give other outputs. One thread a session: a node serves
several models, and their callers bring the parallelism.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import onnxruntime as ort

from hanse.artefacts import npz
from hanse.core.catalog.manifest import Golden, Manifest, Tensor, Variant
from hanse.core.compat import FORMATS_FACT, fit
from hanse.core.errors import InvalidSpec, Rejected, Unavailable
from hanse.core.limits import GOLDEN_BYTES_MAX
from hanse.core.serving import RawTensor, join_bytes, split_bytes
from hanse.edge.comparators import Comparator, comparator
from hanse.edge.histograms import Histogram
from hanse.edge.model_file import check_model_file
from hanse.edge.outcomes import Array, is_finite
from hanse.edge.probing import IR_VERSIONS, OPSETS, probe_model

_SOURCE_PLACE = re.compile(r"/onnxruntime_src/.*?\) (?=[A-Z])")
GOLDEN_S = 60.0
_NUMPY: dict[str, Any] = {
    "BOOL": np.bool_,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}
_ORT = {
    "tensor(bool)": "BOOL",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
    **{
        f"tensor({sign}int{n})": f"{sign.upper()}INT{n}"
        for sign in ("", "u")
        for n in (8, 16, 32, 64)
    },
}


class ModelFailed(Unavailable):
    """The model could not answer an input that its signature allows.

    `invalid`: it did answer, with NaN, an infinity or another shape than it was signed with.
    """

    def __init__(self, message: str, *, invalid: bool = False) -> None:
        super().__init__(message)
        self.invalid = invalid


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A session that matches its manifest; safe to run from several threads."""

    session: Any
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    comparator: Comparator | None
    histograms: tuple[Histogram, ...] = ()

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(each.name for each in self.outputs)

    def check(self, feeds: Mapping[str, Array]) -> None:
        """Raise `InvalidSpec` if the caller's tensors do not fit the signature."""
        for spec in self.inputs:
            if spec.name not in feeds:
                raise InvalidSpec(f"input {spec.name!r} is missing")
            found = feeds[spec.name]
            if found.dtype != _NUMPY[spec.datatype]:
                raise InvalidSpec(f"input {spec.name!r}: expected {spec.datatype}")
            if not _fits(found.shape, spec.shape):
                shape = list(found.shape)
                raise InvalidSpec(f"input {spec.name!r}: {shape} does not fit {list(spec.shape)}")
        if len(feeds) != len(self.inputs):
            known = [spec.name for spec in self.inputs]
            raise InvalidSpec(f"inputs {sorted(set(feeds) - set(known))} are unknown")

    def run(
        self,
        feeds: Mapping[str, Array],
        outputs: Sequence[str] = (),
        *,
        within_s: float | None = None,
    ) -> dict[str, Array]:
        """Run it on checked tensors. Raises `ModelFailed`, also for NaN and infinities."""
        names = list(outputs or self.output_names)
        try:
            with _ended_after(within_s) as options:
                found = dict(zip(names, self.session.run(names, feeds, options), strict=True))
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            raise ModelFailed(f"onnxruntime: {_first_line(error)}") from error
        if not is_finite(found):
            raise ModelFailed("an output is NaN or infinite", invalid=True)
        for spec in self.outputs:
            if spec.name in found and not _fits(found[spec.name].shape, spec.shape):
                shape = list(found[spec.name].shape)
                raise ModelFailed(f"output {spec.name!r} has the shape {shape}", invalid=True)
        return found


@lru_cache(maxsize=1)
def runtime_facts() -> Mapping[str, str]:
    """What this machine can do, by the names that a variant's `requires` uses."""
    ram_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    facts = {
        FORMATS_FACT: "onnx",
        "os": platform.system().lower(),
        "arch": platform.machine(),
        "mem.ram_mib": str(ram_mib),
        "ort": str(ort.__version__),
        "ort.providers": ",".join(ort.get_available_providers()),
        "onnx.ir": str(_highest(IR_VERSIONS, lambda ir: probe_model(ir_version=ir))),
        "onnx.opset.com.microsoft": "1",
    }
    for package in ("tensorrt", "torch"):
        with suppress(PackageNotFoundError):
            facts[package] = version(package)
    for domain in ("ai.onnx", "ai.onnx.ml"):
        facts[f"onnx.opset.{domain}"] = str(_highest(OPSETS[domain], partial(probe_model, domain)))
    return facts


def _highest(versions: range, model: Callable[[int], bytes]) -> int:
    """The newest that this runtime loads; each takes it about a millisecond to refuse."""
    return next((v for v in reversed(versions) if _loads(model(v))), 0)


def _loads(model: bytes) -> bool:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime's exceptions share no base class of their own
        return False
    return True


def choose_variant(manifest: Manifest, facts: Mapping[str, str]) -> Variant:
    """The first variant that a node with these facts can run. Raises `Rejected`."""
    found = fit(manifest, facts)
    if found.variant is None:
        raise Rejected(f"cannot run it: {found.why}")
    return found.variant


def load(folder: Path, manifest: Manifest, facts: Mapping[str, str] | None = None) -> LoadedModel:
    """Load the release laid out in `folder` and hold it to its manifest. Raises `Rejected`.

    `facts` are those of this machine unless its owner says more.
    """
    variant = choose_variant(manifest, runtime_facts() if facts is None else facts)
    path = folder / variant.file
    check_model_file(path)
    wanted = variant.requires.get("ort.providers", "CPUExecutionProvider").replace(",", " ").split()
    _have_providers(wanted, ort.get_available_providers())
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # By its name or its first bytes a file would be read in a form that was not walked.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        session = ort.InferenceSession(str(path), options, providers=wanted)
        metadata = dict(session.get_modelmeta().custom_metadata_map)
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        reason = _first_line(error, folder)
        raise Rejected(f"onnxruntime refuses {variant.file}: {reason}") from error
    # A provider that is installed but cannot start is replaced without an error.
    _have_providers(wanted, session.get_providers())
    _same_signature("input", session.get_inputs(), manifest.inputs)
    _same_signature("output", session.get_outputs(), manifest.outputs)
    return LoadedModel(
        session,
        manifest.inputs,
        manifest.outputs,
        comparator(manifest, metadata),
        tuple(map(Histogram.of, manifest.profile)),
    )


def selftest(model: LoadedModel, folder: Path, golden: Golden) -> None:
    """Run the golden inputs. Raises `Rejected` that names the output and how far it is off."""
    arrays = _read_golden(folder / golden.file)
    feeds = {k.removeprefix("in."): v for k, v in arrays.items() if k.startswith("in.")}
    expected = {k.removeprefix("out."): v for k, v in arrays.items() if k.startswith("out.")}
    if not expected or set(expected) - set(model.output_names):
        raise Rejected(f"golden: {golden.file} holds no outputs of this model")
    try:
        model.check(feeds)
        found = model.run(feeds, tuple(expected), within_s=GOLDEN_S)
    except (InvalidSpec, ModelFailed) as error:
        raise Rejected(f"golden: {error}") from error
    for name, want in expected.items():
        _same_values(name, found[name], want, golden)


def from_raw(tensor: RawTensor) -> Array:
    dtype = _NUMPY[tensor.datatype]
    if tensor.datatype == "BYTES":
        texts = [_text(each) for each in split_bytes(tensor.data)]
        return np.array(texts, dtype=np.object_).reshape(tensor.shape)
    array: Array = np.frombuffer(tensor.data, dtype=dtype).reshape(tensor.shape)
    return array


def to_raw(name: str, array: Array) -> RawTensor:
    if array.dtype.kind in "OSU":
        elements = [str(each).encode() for each in array.ravel().tolist()]
        return RawTensor(name, "BYTES", array.shape, join_bytes(elements))
    datatype = next(d for d, dtype in _NUMPY.items() if array.dtype == dtype)
    return RawTensor(name, datatype, array.shape, array.tobytes())


def _have_providers(wanted: Sequence[str], found: Sequence[str]) -> None:
    if missing := sorted(set(wanted) - set(found)):
        raise Rejected(
            f"onnxruntime cannot use {', '.join(missing)} here",
            fix="install the build that has it, or publish a variant without it",
        )


@contextmanager
def _ended_after(within_s: float | None) -> Iterator[Any]:
    """Options of a run that is told to end: a model may hold a loop that has none."""
    if within_s is None:
        yield None
        return
    options = ort.RunOptions()
    timer = Timer(within_s, setattr, (options, "terminate", True))
    timer.start()
    try:
        yield options
    finally:
        timer.cancel()


def _read_golden(path: Path) -> dict[str, Array]:
    try:
        with path.open("rb") as file:
            return npz.read(file, path.name, bytes_max=GOLDEN_BYTES_MAX)
    except (OSError, Rejected) as error:
        raise Rejected(f"golden: {_first_line(error)}") from error


def _same_values(name: str, found: Array, want: Array, golden: Golden) -> None:
    if found.shape != want.shape or found.dtype.kind != want.dtype.kind:
        raise Rejected(
            f"golden: output {name} is {found.dtype}{list(found.shape)}, "
            f"expected {want.dtype}{list(want.shape)}"
        )
    if want.dtype.kind != "f":
        if not np.array_equal(found, want):
            raise Rejected(f"golden: output {name} differs")
    elif not np.allclose(found, want, rtol=golden.rtol, atol=golden.atol):
        off = float(np.max(np.abs(found.astype(np.float64) - want)))
        raise Rejected(
            f"golden: output {name} is off by up to {off:.3g} "
            f"(rtol {golden.rtol:g}, atol {golden.atol:g})"
        )


def _same_signature(what: str, found: Sequence[Any], wanted: tuple[Tensor, ...]) -> None:
    names = {each.name for each in found}
    if names != {t.name for t in wanted}:
        raise Rejected(
            f"the file's {what}s are {sorted(names)}, the manifest says "
            f"{sorted(t.name for t in wanted)}"
        )
    by_name = {each.name: each for each in found}
    for tensor in wanted:
        actual = by_name[tensor.name]
        if _ORT.get(actual.type) != tensor.datatype:
            raise Rejected(f"{what} {tensor.name} is {actual.type}, not {tensor.datatype}")
        # Some exporters leave an output's shape out; then there is nothing to hold it to.
        shape = [n if isinstance(n, int) else -1 for n in actual.shape or ()]
        if actual.shape is not None and not _fits(shape, tensor.shape, known=False):
            raise Rejected(
                f"{what} {tensor.name} has shape {actual.shape}, not {list(tensor.shape)}"
            )


def _fits(found: Sequence[int], wanted: Sequence[int], *, known: bool = True) -> bool:
    return len(found) == len(wanted) and all(
        want in (-1, have) or (have == -1 and not known)
        for have, want in zip(found, wanted, strict=True)
    )


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidSpec("a BYTES element is not UTF-8, which the model takes") from error


def _first_line(error: BaseException, folder: Path | None = None) -> str:
    """The part of a message that a person can use: one line, no C++ signatures, no long path."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return _SOURCE_PLACE.sub("", text.replace(f"{folder}/", ""))[:240]
