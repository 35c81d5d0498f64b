"""A loaded release that answers, and what one run of it brought."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from hanse.core.ids import Digest
from hanse.core.watchdog import Watchdog
from hanse.edge.comparators import Answer
from hanse.edge.histograms import Bins, count_all
from hanse.edge.inference import LoadedModel, ModelFailed
from hanse.edge.outcomes import Array

Feeds = Mapping[str, Array]
QUICK_AFTER = 50
QUICK_NS = 100_000


@dataclass(slots=True)
class Served:
    """A loaded release. The event loop owns the counters."""

    release: Digest
    version: str
    model: LoadedModel
    watchdog: Watchdog = field(default_factory=Watchdog)
    answers: int = 0
    failures: int = 0
    computed_ns: int = 0

    @property
    def is_quick(self) -> bool:
        """True if it took under 100 µs on average, over enough answers to know."""
        return self.answers >= QUICK_AFTER and self.computed_ns < QUICK_NS * self.answers


@dataclass(frozen=True, slots=True)
class Run:
    """Outputs or the failure, what is compared and counted of them, the time of computing alone."""

    outputs: dict[str, Array]
    answer: Answer | None
    failure: ModelFailed | None
    latency_s: float
    series: Mapping[str, Bins] = field(default_factory=dict)


def run_model(model: LoadedModel, feeds: Feeds) -> Run:
    """Run it in the calling thread."""
    begin = time.perf_counter()
    try:
        outputs = model.run(feeds)
    except ModelFailed as failure:
        return Run({}, None, failure, time.perf_counter() - begin)
    latency_s = time.perf_counter() - begin
    try:
        answer = model.comparator.read(outputs) if model.comparator else None
    except (ValueError, IndexError):
        answer = None  # an output of unforeseen shape answers, but cannot be compared
    series = count_all(model.histograms, feeds, outputs) if model.histograms else {}
    return Run(outputs, answer, None, latency_s, series)
