"""Counting on the node: integers without locks, and the memory that late labels are joined in.

Everything here belongs to one thread, the event loop's. Counts are kept per window key (model,
rollout, generation, weights), so an answer, its shadow and its label are counted together even
if the route has changed between them. Answers are remembered as their comparator reads them, at
most `memory_max` of them, the oldest forgotten first.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from hanse.core.device_step import Route
from hanse.core.evidence.difference import level
from hanse.core.ids import Segment
from hanse.core.telemetry import (
    PAIR_COUNTS,
    PLAIN,
    Counts,
    Pairs,
    Window,
    distance_level,
    latency_bucket,
)
from hanse.edge.comparators import Answer, Comparator
from hanse.edge.histograms import Bins
from hanse.edge.served import Run

MEMORY_MAX = 20_000
Key = tuple[Segment, str, int, int, int]


class Arm:
    """One arm's counters."""

    __slots__ = (*PLAIN, "latency", "series")

    def __init__(self) -> None:
        self.requests = self.errors = self.slow = self.labelled = self.wrong = self.invalid = 0
        self.latency: dict[int, int] = {}
        self.series: dict[str, Bins] = {}

    def answered(self, run: Run, slow_s: float | None) -> None:
        failure = run.failure
        self.requests += 1
        self.errors += failure is not None
        self.invalid += failure is not None and failure.invalid
        self.slow += slow_s is not None and run.latency_s > slow_s
        bucket = latency_bucket(run.latency_s)
        self.latency[bucket] = self.latency.get(bucket, 0) + 1
        for name, bins in run.series.items():
            held = self.series.get(name)
            if held is None or len(held) != len(bins):
                self.series[name] = bins
            else:
                held += bins

    def met(self, *, right: bool) -> None:
        self.labelled += 1
        self.wrong += not right

    def counts(self) -> Counts:
        series = {name: tuple(bins.tolist()) for name, bins in self.series.items()}
        plain = {name: getattr(self, name) for name in PLAIN}
        return replace(Counts(latency=self.latency, series=series), **plain)


class Tally:
    """The counters of one window key."""

    __slots__ = ("canary", "confusion", "differences", "distances", "pairs", "shadow", "stable")

    def __init__(self) -> None:
        self.stable, self.canary, self.shadow = Arm(), Arm(), Arm()
        self.pairs = dict.fromkeys(PAIR_COUNTS, 0)
        self.differences: Counter[int] = Counter()
        self.distances: Counter[int] = Counter()
        self.confusion: Counter[str] = Counter()

    def arm(self, role: str) -> Arm:
        return self.canary if role == "canary" else self.stable

    def window(self, key: Key) -> Window:
        arms = (self.stable.counts(), self.canary.counts(), self.shadow.counts())
        plain: Any = self.pairs
        pairs = Pairs(
            **plain,
            differences=dict(self.differences),
            distances=dict(self.distances),
            confusion=dict(self.confusion),
        )
        return Window(*key, *arms, pairs)


@dataclass(slots=True)
class Prediction:
    """What was answered; `shadow` and `label` are filled in as they arrive, in any order."""

    key: Key
    role: str
    comparator: Comparator
    answer: Answer
    shadow: Answer | None = None
    label: Answer | None = None


def key_of(route: Route) -> Key:
    return (route.model, route.rollout, route.generation, route.weight_bp, route.shadow_bp)


class Telemetry:
    def __init__(self, memory_max: int = MEMORY_MAX) -> None:
        self._memory_max = memory_max
        self._tallies: dict[Key, Tally] = {}
        self._memory: OrderedDict[tuple[str, str], Prediction] = OrderedDict()

    def tally(self, key: Key) -> Tally:
        found = self._tallies.get(key)
        if found is None:
            found = self._tallies[key] = Tally()
        return found

    def remember(
        self, request_id: str, key: Key, role: str, compare: Comparator, answer: Answer
    ) -> None:
        """Keep an answer for its shadow and its label; a repeated id replaces the older answer."""
        name = (key[0], request_id)
        self._memory.pop(name, None)
        self._memory[name] = Prediction(key, role, compare, answer)
        if len(self._memory) > self._memory_max:
            self._memory.popitem(last=False)

    def shadowed(
        self, key: Key, request_id: str, compare: Comparator, old: Answer, new: Answer
    ) -> None:
        """A shadow answered. Its label may have come already: then the pair is counted now."""
        tally = self.tally(key)
        tally.pairs["agree" if compare.agrees(old, new) else "disagree"] += 1
        tally.distances[distance_level(compare.distance(old, new))] += 1
        if (cell := compare.cell(old, new)) is not None:
            tally.confusion[cell] += 1
        prediction = self._memory.get((key[0], request_id))
        if prediction and prediction.key == key and prediction.shadow is None:
            prediction.shadow = new
            if prediction.label is not None:
                self._pair(prediction, prediction.label)

    def dropped(self, key: Key) -> None:
        self.tally(key).pairs["dropped"] += 1

    def label(self, model: str, labels: Iterable[tuple[str, str]]) -> tuple[int, int]:
        """Join (request id, outcome) pairs; returns how many were joined and how many unknown.

        The first label of an answer counts; the same one again is joined and not counted. Raises
        `Rejected` for an outcome that cannot be read; those before it are counted by then, and
        sending all of them again counts none twice.
        """
        joined = unknown = 0
        for request_id, outcome in labels:
            prediction = self._memory.get((model, request_id))
            if prediction is None:
                unknown += 1
                continue
            joined += 1
            if prediction.label is None:
                prediction.label = truth = prediction.comparator.truth(outcome)
                arm = self.tally(prediction.key).arm(prediction.role)
                arm.met(right=prediction.comparator.agrees(truth, prediction.answer))
                if prediction.shadow is not None:
                    self._pair(prediction, truth)
        return joined, unknown

    def _pair(self, prediction: Prediction, truth: Answer) -> None:
        compare, said, shadow = prediction.comparator, prediction.answer, prediction.shadow
        assert shadow is not None
        tally = self.tally(prediction.key)
        old, new = compare.agrees(truth, said), compare.agrees(truth, shadow)
        tally.shadow.met(right=new)
        worse = compare.distance(truth, shadow) - compare.distance(truth, said)
        tally.differences[level(worse)] += 1
        if old and new:
            tally.pairs["both_right"] += 1
        elif old:
            tally.pairs["only_old_right"] += 1
        elif new:
            tally.pairs["only_new_right"] += 1
        else:
            tally.pairs["both_wrong"] += 1

    def drain(self) -> tuple[Window, ...]:
        """What was counted since the last call."""
        windows = tuple(tally.window(key) for key, tally in self._tallies.items())
        self._tallies = {}
        return windows
