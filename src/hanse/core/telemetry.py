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
import re
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from hanse.core import limits
from hanse.core.assignment import (
    MODELS_MAX,
    WEIGHT_FULL_BP,
    read_digest,
    require_canonical,
)
from hanse.core.catalog.profile import SERIES_MAX
from hanse.core.errors import Broken, InvalidSpec, TooLarge
from hanse.core.evidence.difference import LEVELS, STEPS
from hanse.core.evidence.drift import BINS_MAX
from hanse.core.evidence.ratio import COUNT_MAX
from hanse.core.evidence.window import added, added_bins
from hanse.core.ids import Digest, Segment, segment
from hanse.core.reading import Reader, canonical_json, parse_json

GAMMA = 1.04
BUCKET_MAX = 640  # 1.04^640 µs is 22 hours; anything slower is as bad
WINDOWS_MAX = 64
RELEASES_MAX = 32
REASON_BYTES_MAX = 256
CLASSES_MAX = 64
DISTANCE_CELLS = STEPS + 1
OTHER = "other"
_CELL = re.compile(r"(?:[0-9]|[1-5][0-9]|6[0-3])>(?:[0-9]|[1-5][0-9]|6[0-3])|other")
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
    """One arm. `labelled` answers met a late label, `wrong` of them disagreed with it.

    `invalid` errors are answers with NaN, an infinity or another shape than was signed. `series`
    are histograms in the bins of the release's profile, by the name of the series.
    """

    requests: int = 0
    errors: int = 0
    slow: int = 0
    labelled: int = 0
    wrong: int = 0
    invalid: int = 0
    latency: dict[int, int] = field(default_factory=dict)
    series: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __add__(self, other: Counts) -> Counts:
        series = dict(self.series)
        for name, bins in other.series.items():
            series[name] = added_bins(series.get(name, ()), bins)
        plain = {name: getattr(self, name) + getattr(other, name) for name in PLAIN}
        latency = added(self.latency, other.latency)
        return replace(self, **plain, latency=latency, series=series)


PLAIN = ("requests", "errors", "slow", "labelled", "wrong", "invalid")


@dataclass(frozen=True, slots=True)
class Pairs:
    """Answers of the old and the new release to the same request.

    `agree` and `disagree` need no label; the next four are those pairs that met one.
    `dropped` shadow requests were never computed, because the queue was full. `differences` counts
    labelled pairs by how much worse the new one was, in cells of `evidence.difference.level`, and
    `distances` all pairs by how far apart they were, in 32nds: neither knows what was said;
    `confusion` counts which class the old and the new release named: `3>8`, for classes below
    `CLASSES_MAX`, and `other`.
    """

    agree: int = 0
    disagree: int = 0
    both_right: int = 0
    only_old_right: int = 0
    only_new_right: int = 0
    both_wrong: int = 0
    dropped: int = 0
    differences: dict[int, int] = field(default_factory=dict)
    distances: dict[int, int] = field(default_factory=dict)
    confusion: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: Pairs) -> Pairs:
        plain = {name: getattr(self, name) + getattr(other, name) for name in PAIR_COUNTS}
        return replace(
            self,
            **plain,
            differences=added(self.differences, other.differences),
            distances=added(self.distances, other.distances),
            confusion=added(self.confusion, other.confusion),
        )


PAIR_COUNTS = tuple(field.name for field in fields(Pairs) if field.default == 0)


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
    `stored` releases are on its disk and not loaded. `failed` gives the reason why a release is
    not served here.
    """

    model: Segment
    running: Digest | None = None
    candidate_ready: bool = False
    ready: tuple[Digest, ...] = ()
    failed: dict[Digest, str] = field(default_factory=dict)
    interim: bool = False
    windows: tuple[Window, ...] = ()
    stored: tuple[Digest, ...] = ()


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
                "stored": [str(d) for d in m.stored],
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
        "pairs": _pairs_mapping(window.pairs),
    }


def _counts_mapping(counts: Counts) -> dict[str, Any]:
    out: dict[str, Any] = {name: getattr(counts, name) for name in PLAIN}
    out["latency"] = {str(bucket): n for bucket, n in counts.latency.items()}
    if counts.series:
        out["series"] = {name: list(bins) for name, bins in counts.series.items()}
    return out


def _pairs_mapping(pairs: Pairs) -> dict[str, Any]:
    out: dict[str, Any] = {name: getattr(pairs, name) for name in PAIR_COUNTS}
    if pairs.differences:
        out["differences"] = {str(cell): n for cell, n in pairs.differences.items()}
    if pairs.distances:
        out["distances"] = {str(cell): n for cell, n in pairs.distances.items()}
    if pairs.confusion:
        out["confusion"] = pairs.confusion
    return out


def _model(value: Any, path: str) -> ModelReport:
    with Reader(value, path) as reader:
        model = segment(reader.text("model"), f"{path}.model")
        for key in ("candidate_ready", "ready", "stored", "interim", "windows"):
            reader.raw(key)  # none may be left out: a report has one spelling
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
            reader.items("stored", read_digest, count_max=RELEASES_MAX),
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
            reader.integer("invalid"),
            _buckets(reader, "latency", BUCKET_MAX),
            _series(reader),
        )
    if counts.invalid > counts.errors:
        raise InvalidSpec(f"{reader.path}: more invalid answers than errors")
    if max(counts.errors, counts.slow, sum(counts.latency.values())) > counts.requests:
        raise InvalidSpec(f"{reader.path}: more errors, slow or timed answers than requests")
    if counts.wrong > counts.labelled:
        raise InvalidSpec(f"{reader.path}: more wrong answers than labelled ones")
    return counts


def _buckets(reader: Reader, key: str, last: int) -> dict[int, int]:
    """Counts by whole number, 0 to `last`, as JSON writes them: with texts for keys."""
    with reader.child(key, {}) as buckets:
        keys = list(reader.raw(key, {}))
        if len(keys) > last + 1 or not all(_is_bucket(text, last) for text in keys):
            raise InvalidSpec(f"{buckets.path}: buckets are written 0 to {last}")
        return {int(text): buckets.integer(text, low=1) for text in sorted(keys, key=int)}


def _is_bucket(text: str, last: int) -> bool:
    return text.isascii() and text.isdigit() and str(int(text[:8])) == text and int(text) <= last


def _series(reader: Reader) -> dict[str, tuple[int, ...]]:
    with reader.child("series", {}) as series:
        names = sorted(reader.raw("series", {}))
        if len(names) > SERIES_MAX:
            raise InvalidSpec(f"{series.path}: at most {SERIES_MAX}")
        return {name: series.items(name, _bin, count_max=BINS_MAX) for name in names}


def _bin(value: Any, path: str) -> int:
    if type(value) is not int or not 0 <= value <= COUNT_MAX:
        raise InvalidSpec(f"{path}: expected a count")
    return value


def _pairs(reader: Reader) -> Pairs:
    with reader:
        plain = {name: reader.integer(name) for name in PAIR_COUNTS}
        return replace(
            Pairs(),
            **plain,
            differences=_buckets(reader, "differences", LEVELS - 1),
            distances=_buckets(reader, "distances", DISTANCE_CELLS - 1),
            confusion=_confusion(reader),
        )


def distance_level(distance: float) -> int:
    """The cell of a distance between two answers, 0 to 1."""
    return math.floor(min(1.0, max(0.0, distance)) * STEPS)


def confusion_cell(old: int, new: int) -> str:
    """The name of the cell of two classes."""
    within = 0 <= old < CLASSES_MAX and 0 <= new < CLASSES_MAX
    return f"{old}>{new}" if within else OTHER


def _confusion(reader: Reader) -> dict[str, int]:
    with reader.child("confusion", {}) as confusion:
        cells = sorted(reader.raw("confusion", {}))
        if not all(_CELL.fullmatch(cell) for cell in cells):
            raise InvalidSpec(f"{confusion.path}: cells are written 3>8, or other")
        return {cell: confusion.integer(cell, low=1) for cell in cells}
