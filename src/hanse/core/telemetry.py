"""What an edge node tells its region: counts, never data.

Everything is an integer and merges by addition, so windows of many nodes may be added in any
order and any grouping. Requests are counted per arm: what users were answered from (`stable`,
`canary`) and what was computed beside it (`shadow`). Counts under different weights are never
added: comparing arms across a change of weight invents differences (Simpson's paradox), so the
weights are part of a window's key.

Latencies go into log buckets: bucket i holds latencies up to 1.04^i microseconds and above
1.04^(i-1), which keeps every quantile within 4 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from hanse.core import limits
from hanse.core.assignment import (
    MODELS_MAX,
    WEIGHT_FULL_BP,
    read_digest,
    require_canonical,
)
from hanse.core.errors import Broken, InvalidSpec, TooLarge
from hanse.core.ids import Digest, Segment, segment
from hanse.core.reading import Reader, canonical_json, parse_json

GAMMA = 1.04
BUCKET_MAX = 640  # 1.04^640 µs is 22 hours; anything slower is as bad
WINDOWS_MAX = 64
RELEASES_MAX = 32
REASON_BYTES_MAX = 256
_LN_GAMMA = math.log(GAMMA)


def latency_bucket(latency_s: float) -> int:
    """The bucket of one latency; 0 for a microsecond and less."""
    micros = latency_s * 1e6
    if micros <= 1.0:
        return 0
    return min(BUCKET_MAX, math.ceil(math.log(micros) / _LN_GAMMA))


def latency_quantile_s(histogram: dict[int, int], q: float) -> float | None:
    """The upper edge, in seconds, of the bucket that holds quantile `q`; None without counts."""
    total = sum(histogram.values())
    if not total:
        return None
    rank, seen, bucket = max(1, math.ceil(q * total)), 0, 0
    for bucket in sorted(histogram):
        seen += histogram[bucket]
        if seen >= rank:
            break
    return math.exp(bucket * _LN_GAMMA) / 1e6


@dataclass(frozen=True, slots=True)
class Counts:
    """One arm. `labelled` answers met a late label, `wrong` of them disagreed with it."""

    requests: int = 0
    errors: int = 0
    slow: int = 0
    labelled: int = 0
    wrong: int = 0
    latency: dict[int, int] = field(default_factory=dict)

    def __add__(self, other: Counts) -> Counts:
        latency = dict(self.latency)
        for bucket, count in other.latency.items():
            latency[bucket] = latency.get(bucket, 0) + count
        return Counts(
            self.requests + other.requests,
            self.errors + other.errors,
            self.slow + other.slow,
            self.labelled + other.labelled,
            self.wrong + other.wrong,
            latency,
        )


@dataclass(frozen=True, slots=True)
class Pairs:
    """Answers of the old and the new release to the same request.

    `agree` and `disagree` need no label; the next four are those pairs that met one.
    `dropped` shadow requests were never computed, because the queue was full.
    """

    agree: int = 0
    disagree: int = 0
    both_right: int = 0
    only_old_right: int = 0
    only_new_right: int = 0
    both_wrong: int = 0
    dropped: int = 0

    def __add__(self, other: Pairs) -> Pairs:
        return Pairs(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Window:
    """What one node counted for one model under one (rollout, generation, weights)."""

    model: Segment
    rollout: str = ""
    generation: int = 0
    weight_bp: int = 0
    shadow_bp: int = 0
    stable: Counts = Counts()
    canary: Counts = Counts()
    shadow: Counts = Counts()
    pairs: Pairs = Pairs()

    @property
    def key(self) -> tuple[str, str, int, int, int]:
        return (self.model, self.rollout, self.generation, self.weight_bp, self.shadow_bp)

    def __add__(self, other: Window) -> Self:
        if self.key != other.key:
            raise Broken(f"windows of {self.key} and {other.key} must not be added")
        return replace(
            self,
            stable=self.stable + other.stable,
            canary=self.canary + other.canary,
            shadow=self.shadow + other.shadow,
            pairs=self.pairs + other.pairs,
        )


@dataclass(frozen=True, slots=True)
class ModelReport:
    """The state of one model on one node.

    `running` is what users are answered from, apart from a canary's share. `interim` says that
    it is not what the region assigned but the nearest good release that this node could serve.
    `failed` gives the reason why a release is not served here.
    """

    model: Segment
    running: Digest | None = None
    candidate_ready: bool = False
    ready: tuple[Digest, ...] = ()
    failed: dict[Digest, str] = field(default_factory=dict)
    interim: bool = False
    windows: tuple[Window, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """`epoch` and `serial` are those of the assignment that the node obeys."""

    node: Segment
    epoch: int = 0
    serial: int = 0
    models: tuple[ModelReport, ...] = ()

    def encode(self) -> bytes:
        """The canonical bytes. Raises `TooLarge`: send the windows in several reports."""
        raw = canonical_json(_mapping(self))
        if len(raw) > limits.REPORT_BYTES_MAX:
            raise TooLarge(f"a report of {len(raw)} bytes", fix="send fewer windows at once")
        return raw


def parse_report(raw: bytes) -> Report:
    """Read an untrusted report. Raises `InvalidSpec`, `InvalidName` or `TooLarge`."""
    document = parse_json(raw, "report", bytes_max=limits.REPORT_BYTES_MAX)
    require_canonical(document, raw, "report")
    with Reader(document, "report") as reader:
        reader.integer("schema", low=1, high=1)
        report = Report(
            segment(reader.text("node"), "report.node"),
            reader.integer("epoch"),
            reader.integer("serial"),
            reader.items("models", _model, count_max=MODELS_MAX),
        )
    names = [m.model for m in report.models]
    if len(set(names)) != len(names):
        raise InvalidSpec("report.models: each model once")
    return report


def _mapping(report: Report) -> dict[str, Any]:
    return {
        "schema": 1,
        "node": report.node,
        "epoch": report.epoch,
        "serial": report.serial,
        "models": [
            {
                "model": m.model,
                "running": str(m.running) if m.running else None,
                "candidate_ready": m.candidate_ready,
                "ready": [str(d) for d in m.ready],
                "failed": {str(d): reason for d, reason in m.failed.items()},
                "interim": m.interim,
                "windows": [_window_mapping(w) for w in m.windows],
            }
            for m in report.models
        ],
    }


def _window_mapping(window: Window) -> dict[str, Any]:
    return {
        "rollout": window.rollout,
        "generation": window.generation,
        "weight_bp": window.weight_bp,
        "shadow_bp": window.shadow_bp,
        "stable": _counts_mapping(window.stable),
        "canary": _counts_mapping(window.canary),
        "shadow": _counts_mapping(window.shadow),
        "pairs": {f.name: getattr(window.pairs, f.name) for f in fields(Pairs)},
    }


def _counts_mapping(counts: Counts) -> dict[str, Any]:
    out = {f.name: getattr(counts, f.name) for f in fields(Counts) if f.name != "latency"}
    return {**out, "latency": {str(bucket): n for bucket, n in counts.latency.items()}}


def _model(value: Any, path: str) -> ModelReport:
    with Reader(value, path) as reader:
        model = segment(reader.text("model"), f"{path}.model")
        running = reader.raw("running")
        failed = reader.pairs("failed", count_max=RELEASES_MAX, bytes_max=REASON_BYTES_MAX)
        return ModelReport(
            model,
            None if running is None else read_digest(running, f"{path}.running"),
            reader.flag("candidate_ready", False),
            reader.items("ready", read_digest, count_max=RELEASES_MAX),
            {Digest.parse(digest): reason for digest, reason in failed.items()},
            reader.flag("interim", False),
            reader.items("windows", lambda v, p: _window(model, v, p), count_max=WINDOWS_MAX),
        )


def _window(model: Segment, value: Any, path: str) -> Window:
    with Reader(value, path) as reader:
        return Window(
            model,
            reader.text("rollout"),
            reader.integer("generation"),
            reader.integer("weight_bp", high=WEIGHT_FULL_BP),
            reader.integer("shadow_bp", high=WEIGHT_FULL_BP),
            _counts(reader.child("stable")),
            _counts(reader.child("canary")),
            _counts(reader.child("shadow")),
            _pairs(reader.child("pairs")),
        )


def _counts(reader: Reader) -> Counts:
    with reader:
        counts = Counts(
            reader.integer("requests"),
            reader.integer("errors"),
            reader.integer("slow"),
            reader.integer("labelled"),
            reader.integer("wrong"),
            _latency(reader),
        )
    if max(counts.errors, counts.slow, sum(counts.latency.values())) > counts.requests:
        raise InvalidSpec(f"{reader.path}: more errors, slow or timed answers than requests")
    if counts.wrong > counts.labelled:
        raise InvalidSpec(f"{reader.path}: more wrong answers than labelled ones")
    return counts


def _latency(reader: Reader) -> dict[int, int]:
    with reader.child("latency") as latency:
        keys = list(reader.raw("latency"))
        if len(keys) > BUCKET_MAX + 1 or not all(_is_bucket(key) for key in keys):
            raise InvalidSpec(f"{latency.path}: buckets are written 0 to {BUCKET_MAX}")
        return {int(key): latency.integer(key, low=1) for key in sorted(keys, key=int)}


def _is_bucket(key: str) -> bool:
    return key.isascii() and key.isdigit() and str(int(key[:8])) == key and int(key) <= BUCKET_MAX


def _pairs(reader: Reader) -> Pairs:
    with reader:
        return Pairs(*(reader.integer(f.name) for f in fields(Pairs)))
