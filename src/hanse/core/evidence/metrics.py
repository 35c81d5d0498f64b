"""Metrics: a test, a kind of bad event, and what counts as harm and as proof.

A new kind of test is a row in `TESTS`, a new kind of event a row in `EVENTS`. Two processes run for
every metric: one against "no worse than the margin" (rejected: harm) and one against "as bad as
`proven_below`" (rejected: proven good enough). Shares of traffic and drift from a profile have no
proof: they can only stop a release.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol, Self

from hanse.core.errors import Rejected
from hanse.core.evidence.cusum import Cusum
from hanse.core.evidence.difference import LEVELS, DifferenceProcess
from hanse.core.evidence.drift import DriftProcess, Reference
from hanse.core.evidence.one_arm import OneArmProcess
from hanse.core.evidence.ratio import Arms, RatioProcess
from hanse.core.evidence.sample_ratio import SampleRatio
from hanse.core.evidence.window import Trial, Window

DECLARED: Final = "declared"


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of an analysis template. Whoever parses the spec checks the combination."""

    name: str
    test: str
    """A key of `TESTS`."""
    event: str
    """A key of `EVENTS`; for drift the name of a series of the release's profile."""
    margin: float = 1.0
    """Harm is a ratio above this (ratio and paired), or a mean difference above it."""
    proven_below: float | None = None
    """Health is a ratio, a mean difference or a rate below this. None asks for no proof."""
    slo: float | None = None
    """Harm is a rate above this (one-arm)."""
    on_fail: str = "rollback"
    dry_run: bool = False
    delta: float = 0.0
    """Drift is a share that is further than this from the profile's."""
    bad: str = ""
    total: str = ""
    """Queries for the counts of a declared metric; see `declared`."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What the tests of one step need to know beside the plan."""

    share: float = 0.0
    """The trial's share of requests: of all for a canary, of the stable arm's for a shadow."""
    references: Mapping[str, Reference] = field(default_factory=dict)
    """The profile that the release was signed with."""


class Process(Protocol):
    """A frozen sequential test; see `RatioProcess` for what each method promises.

    What it observes is what the `sample` of its row in `TESTS` finds in a window.
    """

    def observe(self, sample: Any, /) -> Process: ...
    def log_e(self) -> float: ...
    def rejects(self, alpha: float) -> bool: ...
    def encode(self) -> dict[str, object]: ...
    def decoded(self, state: object) -> Process: ...


@dataclass(frozen=True, slots=True)
class Silent:
    """A test that has nothing to test here: all traffic has one arm, or there is no profile."""

    def observe(self, _: object) -> Self:
        return self

    def log_e(self) -> float:
        return 0.0

    def rejects(self, _: float) -> bool:
        return False

    def encode(self) -> dict[str, object]:
        return {}

    def decoded(self, state: object) -> Self:
        if state != {}:
            raise Rejected("there is stored evidence of a metric that has nothing to test")
        return self


@dataclass(frozen=True, slots=True)
class Comparison:
    harm: Callable[[Metric, Setting], Process]
    proof: Callable[[float], Process]
    needs_control: bool
    sample: Callable[[Metric, Window], object]


def _arms(metric: Metric, window: Window) -> Arms:
    return EVENTS[metric.event].arms(window)


def _ratio_harm(metric: Metric, _: Setting) -> Process:
    return RatioProcess(metric.margin)


def _one_arm_harm(metric: Metric, _: Setting) -> Process:
    return OneArmProcess(metric.slo or 0)


def _difference_harm(metric: Metric, _: Setting) -> Process:
    return DifferenceProcess(metric.margin)


def _share_harm(_: Metric, setting: Setting) -> Process:
    return SampleRatio(setting.share) if 0 < setting.share < 1 else Silent()


def _drift_harm(
    metric: Metric, setting: Setting, begin: Callable[[Reference], Process] = DriftProcess
) -> Process:
    reference = setting.references.get(metric.event)
    return begin(reference.within(metric.delta)) if reference else Silent()


def _watch_harm(metric: Metric, _: Setting) -> Process:
    return Cusum(OneArmProcess(metric.slo or 0))


def _no_proof(_: float) -> Process:
    return Silent()


def _differences(_: Metric, window: Window) -> Mapping[int, int]:
    return window.differences


def _series(metric: Metric, window: Window) -> tuple[int, ...]:
    return window.series.get(metric.event, ())


_RATIO: Final = Comparison(_ratio_harm, partial(RatioProcess, proof=True), True, _arms)
TESTS: Final[Mapping[str, Comparison]] = {
    "ratio": _RATIO,
    "paired": _RATIO,
    "one-arm": Comparison(_one_arm_harm, partial(OneArmProcess, proof=True), False, _arms),
    "difference": Comparison(
        _difference_harm, partial(DifferenceProcess, proof=True), True, _differences
    ),
    "sample-ratio": Comparison(_share_harm, _no_proof, False, _arms),
    "drift": Comparison(_drift_harm, _no_proof, False, _series),
    # What `watch.watched` makes of them after a promotion; no plan names these.
    "watch": Comparison(_watch_harm, _no_proof, False, _arms),
    "drift-watch": Comparison(
        partial(_drift_harm, begin=DriftProcess.lately), _no_proof, False, _series
    ),
}
_OF_SERIES: Final = ("drift", "drift-watch")


@dataclass(frozen=True, slots=True)
class Event:
    """Where the counts of a kind of bad event are found, and what people call the exposures."""

    arms: Callable[[Window], Arms]
    unit: str
    shadow_only: bool = False
    users_only: bool = False


def _split(window: Window) -> Arms:
    """Requests by arm. A shadow sees part of the stable arm: those that it missed are the rest."""
    trial, stable = window.trial.requests, window.stable.requests
    rest = stable if window.arm is Trial.CANARY else max(0, stable - trial)
    return Arms(0, 0, trial, rest)


def _worse(window: Window) -> Arms:
    """Pairs in which the trial, and in which the stable release, scored worse."""
    middle = (LEVELS - 1) // 2
    pairs = sum(window.differences.values())
    worse = sum(n for cell, n in window.differences.items() if cell > middle)
    better = sum(n for cell, n in window.differences.items() if cell < middle)
    return Arms(worse, better, pairs, pairs)


EVENTS: Final[Mapping[str, Event]] = {
    "error": Event(
        lambda w: Arms(w.trial.errors, w.stable.errors, w.trial.requests, w.stable.requests),
        "requests",
    ),
    "slow": Event(
        lambda w: Arms(w.trial.slow, w.stable.slow, w.trial.requests, w.stable.requests),
        "requests",
    ),
    "wrong": Event(
        lambda w: Arms(w.trial.wrong, w.stable.wrong, w.trial.labelled, w.stable.labelled),
        "labelled answers",
    ),
    "wrong-pair": Event(
        lambda w: Arms(
            w.pairs.only_trial_wrong,
            w.pairs.only_stable_wrong,
            w.pairs.labelled,
            w.pairs.labelled,
        ),
        "labelled pairs",
        shadow_only=True,
    ),
    "disagree": Event(
        lambda w: Arms(w.pairs.disagree, 0, w.pairs.compared, 0),
        "compared answers",
        shadow_only=True,
    ),
    "worse-pair": Event(_worse, "compared answers", shadow_only=True),
    "share": Event(_split, "requests"),
    # Not in the reports of nodes: see `tally.Evidence.declare`.
    DECLARED: Event(lambda _: Arms(0, 0, 0, 0), "events", users_only=True),
}


def totals(metric: Metric, window: Window) -> Arms:
    """The plain counts of a window that people are shown for this metric."""
    if metric.test in _OF_SERIES:
        return Arms(0, 0, sum(_series(metric, window)), 0)
    return EVENTS[metric.event].arms(window)


def unit(metric: Metric) -> str:
    return "values" if metric.test in _OF_SERIES else EVENTS[metric.event].unit
