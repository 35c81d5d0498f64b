"""Does a release run on that node: yes, no or unknown, and why, in a sentence for each need.

What a variant `requires` is a closed vocabulary, so that a typing error is refused where it is
published and not found out by a fleet. Each key has one comparison with what the node reports:

    os, arch, hardware, gpu.compute_capability    one of these: "linux", "arm64,x86_64"
    ort.providers                                 all of these
    ort, onnx.ir, onnx.opset.NAME, tensorrt,      a range of versions or numbers: ">=1.17,<2"
    torch, cuda, mem.ram_mib, mem.gpu_mib

`hardware` is what the node's owner wrote as its label of that name. What a node cannot find out
itself, of its graphics processor say, its owner declares.

Unknown is no: a node that does not say what it has is not tried. The match is a prediction made
before a byte is fetched, by the daemon for its fleet and by each node for itself from the same
facts; what a node then finds when it loads the files has the last word.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hanse.core.errors import InvalidSpec

if TYPE_CHECKING:
    from hanse.core.catalog.manifest import Manifest, Variant

Facts = Mapping[str, str]
FORMATS_FACT: Final = "formats"
HARDWARE_FACT: Final = "label.hardware"
_OPSET: Final = "onnx.opset."
_CLAUSE: Final = re.compile(r"(>=|<=|==|!=|>|<)\s*([0-9]{1,9}(?:\.[0-9]{1,9}){0,3})")
_NUMBERS: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9}){0,3})")
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_COMPARE: Final[Mapping[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True, slots=True)
class Fit:
    """The variant that a node runs, the first that fits; without one, why none does."""

    variant: Variant | None
    why: str = ""


def fit(manifest: Manifest, facts: Facts) -> Fit:
    """What of a release a node with these facts would run."""
    against = []
    for variant in manifest.variants:
        lacking = list(_lacking(variant, facts))
        if not lacking:
            return Fit(variant)
        against.append(f"{variant.id} {'; '.join(lacking)}")
    return Fit(None, " / ".join(against))


def check_requires(requires: Mapping[str, str], path: str) -> None:
    """Refuse a need that no node could be held against. Raises `InvalidSpec`."""
    for key, wanted in requires.items():
        kind = _kind(key)
        if kind is None:
            known = ", ".join((*_KINDS, f"{_OPSET}NAME"))
            raise InvalidSpec(f"{path}.{key}: nothing that nodes report", fix=f"known: {known}")
        if not kind.readable(wanted):
            raise InvalidSpec(f"{path}.{key}: {wanted[:80]!r} cannot be read", fix=kind.example)


def check_declared(facts: Mapping[str, str], path: str) -> dict[str, str]:
    """What a node's owner says of it, if it is something to be said. Raises `InvalidSpec`."""
    for key, has in facts.items():
        if key not in DECLARED:
            raise InvalidSpec(
                f"{path}.{key}: nothing that an owner declares", fix=f"known: {', '.join(DECLARED)}"
            )
        if (_KINDS[key] is _RANGE and _numbers(has) is None) or not _WORD.fullmatch(has):
            raise InvalidSpec(
                f"{path}.{key}: {has[:80]!r} cannot be read", fix="write 8.7 or 10.3.0"
            )
    return dict(facts)


def _lacking(variant: Variant, facts: Facts) -> Iterator[str]:
    # A node that does not say what it runs is one of ours, and those run ONNX.
    if variant.format not in _words(facts.get(FORMATS_FACT, "onnx")):
        yield f"is {variant.format}, which the node has no runtime for"
    for key, wanted in variant.requires.items():
        kind, has = _kind(key), facts.get(HARDWARE_FACT if key == "hardware" else key)
        if has is None:
            yield f"needs {key} {wanted}, and the node does not say what it has"
        elif kind is None or not kind.met(wanted, has):
            yield f"needs {key} {wanted}, has {has}"


@dataclass(frozen=True, slots=True)
class _Kind:
    met: Callable[[str, str], bool]
    readable: Callable[[str], bool]
    example: str


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def _are_words(text: str) -> bool:
    words = _words(text)
    return bool(words) and all(_WORD.fullmatch(word) for word in words)


def _numbers(text: str) -> tuple[int, ...] | None:
    """Of `1.32.0+cu12` the first four numbers: what follows them orders nothing here."""
    found = _NUMBERS.match(text)
    parts = tuple(int(part) for part in found[1].split(".")) if found else ()
    return parts + (0,) * (4 - len(parts)) if found else None


def _clauses(text: str) -> list[re.Match[str]] | None:
    found = [_CLAUSE.fullmatch(clause.strip()) for clause in text.split(",")]
    return [each for each in found if each] if all(found) else None


def _in_range(wanted: str, has: str) -> bool:
    number, clauses = _numbers(has), _clauses(wanted)
    return (
        number is not None
        and clauses is not None
        and all(_COMPARE[c[1]](number, _numbers(c[2]) or ()) for c in clauses)
    )


def looser(wanted: str, needed: str) -> bool:
    """Whether a node could meet `wanted` and not what a file needs, which is `>=N`."""
    floor = _numbers(needed.removeprefix(">="))
    lowest = [_numbers(c[2]) for c in _clauses(wanted) or () if c[1] in (">=", "==", ">")]
    return floor is None or not any(low is not None and low >= floor for low in lowest)


def check_format(form: str, requires: Mapping[str, str], what: str) -> None:
    """Refuse a variant that leaves out what its format is bound to. Raises `InvalidSpec`."""
    if missing := [key for key in _BOUND_TO.get(form, ()) if key not in requires]:
        raise InvalidSpec(
            f"{what} is a {form}, and does not say which {' and '.join(missing)} it runs on",
            fix=f"say it: --require {missing[0]}=...",
        )


_BOUND_TO: Final[Mapping[str, tuple[str, ...]]] = {
    # It runs on the version, the system and the processor that built it, as a rule.
    "tensorrt-plan": ("os", "gpu.compute_capability", "tensorrt"),
    "torch-export": ("torch",),
}
_ONE_OF: Final = _Kind(lambda w, h: h in _words(w), _are_words, "write linux, or arm64,x86_64")
_ALL_OF: Final = _Kind(
    lambda w, h: set(_words(w)) <= set(_words(h)), _are_words, "write CPUExecutionProvider"
)
_RANGE: Final = _Kind(_in_range, lambda w: _clauses(w) is not None, "write >=1.17 or >=1.17,<2")
_KINDS: Final[Mapping[str, _Kind]] = {
    "os": _ONE_OF,
    "arch": _ONE_OF,
    "hardware": _ONE_OF,
    "gpu.compute_capability": _ONE_OF,
    "ort": _RANGE,
    "ort.providers": _ALL_OF,
    "onnx.ir": _RANGE,
    "tensorrt": _RANGE,
    "torch": _RANGE,
    "cuda": _RANGE,
    "mem.ram_mib": _RANGE,
    "mem.gpu_mib": _RANGE,
}
DECLARED: Final = ("gpu.compute_capability", "tensorrt", "torch", "cuda", "mem.gpu_mib")
"""What a node's owner may say of it; everything else it finds out itself."""


def _kind(key: str) -> _Kind | None:
    return _RANGE if key.startswith(_OPSET) and len(key) > len(_OPSET) else _KINDS.get(key)
