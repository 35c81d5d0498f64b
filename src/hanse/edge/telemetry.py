"""Counting on the node: integers without locks, and the memory that late labels are joined in.

Everything here belongs to one thread, the event loop's. Counts are kept per window key (model,
rollout, generation, weights), so an answer, its shadow and its label are counted together even
if the route has changed between them. Predictions are remembered as comparable texts, at most
`memory_max` of them, the oldest forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from hanse.core.device_step import Route
from hanse.core.ids import Segment
from hanse.core.telemetry import (
    PAIR_COUNTS,
    PLAIN,
    Counts,
    Pairs,
    Window,
    latency_bucket,
)
from hanse.edge.outcomes import comparable

MEMORY_MAX = 20_000
Key = tuple[Segment, str, int, int, int]


class Arm:
    """One arm's counters."""

    __slots__ = ("errors", "invalid", "labelled", "latency", "requests", "slow", "wrong")

    def __init__(self) -> None:
        self.requests = self.errors = self.slow = self.labelled = self.wrong = self.invalid = 0
        self.latency: dict[int, int] = {}

    def answered(self, latency_s: float, slow_s: float | None, *, failed: bool) -> None:
        self.requests += 1
        self.errors += failed
        self.slow += slow_s is not None and latency_s > slow_s
        bucket = latency_bucket(latency_s)
        self.latency[bucket] = self.latency.get(bucket, 0) + 1

    def met(self, *, right: bool) -> None:
        self.labelled += 1
        self.wrong += not right

    def counts(self) -> Counts:
        return replace(Counts(latency=self.latency), **{n: getattr(self, n) for n in PLAIN})


class Tally:
    """The counters of one window key."""

    __slots__ = ("canary", "pairs", "shadow", "stable")

    def __init__(self) -> None:
        self.stable, self.canary, self.shadow = Arm(), Arm(), Arm()
        self.pairs = dict.fromkeys(PAIR_COUNTS, 0)

    def arm(self, role: str) -> Arm:
        return self.canary if role == "canary" else self.stable

    def window(self, key: Key) -> Window:
        arms = (self.stable.counts(), self.canary.counts(), self.shadow.counts())
        pairs: Any = self.pairs
        return Window(*key, *arms, Pairs(**pairs))


@dataclass(slots=True)
class Prediction:
    """What was answered; `shadow` and `label` are filled in as they arrive, in any order."""

    key: Key
    role: str
    text: str
    shadow: str | None = None
    label: str | None = None


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

    def remember(self, request_id: str, key: Key, role: str, text: str) -> None:
        """Keep an answer for its shadow and its label; a repeated id replaces the older answer."""
        name = (key[0], request_id)
        self._memory.pop(name, None)
        self._memory[name] = Prediction(key, role, comparable(text))
        if len(self._memory) > self._memory_max:
            self._memory.popitem(last=False)

    def shadowed(self, key: Key, request_id: str, old: str, new: str) -> None:
        """A shadow answered. Its label may have come already: then the pair is counted now."""
        old, new = comparable(old), comparable(new)
        self.tally(key).pairs["agree" if old == new else "disagree"] += 1
        prediction = self._memory.get((key[0], request_id))
        if prediction and prediction.key == key and prediction.shadow is None:
            prediction.shadow = new
            if prediction.label is not None:
                self._pair(prediction, prediction.label)

    def dropped(self, key: Key) -> None:
        self.tally(key).pairs["dropped"] += 1

    def label(self, model: str, labels: Iterable[tuple[str, str]]) -> tuple[int, int]:
        """Join (request id, outcome) pairs; returns how many were joined and how many unknown.

        The first label of an answer counts; the same one again is joined and not counted.
        """
        joined = unknown = 0
        for request_id, outcome in labels:
            prediction = self._memory.get((model, request_id))
            if prediction is None:
                unknown += 1
                continue
            joined += 1
            if prediction.label is None:
                prediction.label = truth = comparable(outcome)
                arm = self.tally(prediction.key).arm(prediction.role)
                arm.met(right=prediction.text == truth)
                if prediction.shadow is not None:
                    self._pair(prediction, truth)
        return joined, unknown

    def _pair(self, prediction: Prediction, truth: str) -> None:
        tally = self.tally(prediction.key)
        old, new = prediction.text == truth, prediction.shadow == truth
        tally.shadow.met(right=new)
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
