"""Metrics: a test, a kind of bad event, and what counts as harm and as proof.

A new kind of test is a row in `TESTS`, a new kind of event a row in `EVENTS`. Two processes run for
every metric: one against "no worse than the margin" (rejected: harm) and one against "as bad as
`proven_below`" (rejected: proven good enough).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from hanse.core.evidence.one_arm import OneArmProcess
from hanse.core.evidence.ratio import Arms, RatioProcess
from hanse.core.evidence.window import Window


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of an analysis template. Whoever parses the spec checks the combination."""

    name: str
    test: str
    """A key of `TESTS`."""
    event: str
    """A key of `EVENTS`."""
    margin: float = 1.0
    """Harm is a ratio above this (ratio and paired)."""
    proven_below: float | None = None
    """Health is a ratio, or for one-arm a rate, below this. None asks for no proof."""
    slo: float | None = None
    """Harm is a rate above this (one-arm)."""
    on_fail: str = "rollback"
    dry_run: bool = False


class Process(Protocol):
    """A frozen sequential test; see `RatioProcess` for what each method promises."""

    def observe(self, arms: Arms) -> Process: ...
    def log_e(self) -> float: ...
    def rejects(self, alpha: float) -> bool: ...
    def encode(self) -> dict[str, object]: ...
    def decoded(self, state: object) -> Process: ...


@dataclass(frozen=True, slots=True)
class Comparison:
    harm: Callable[[Metric], Process]
    proof: Callable[[float], Process]
    needs_control: bool


def _ratio_harm(metric: Metric) -> Process:
    return RatioProcess(metric.margin)


def _ratio_proof(below: float) -> Process:
    return RatioProcess(below, proof=True)


def _one_arm_harm(metric: Metric) -> Process:
    return OneArmProcess(metric.slo or 0)


def _one_arm_proof(below: float) -> Process:
    return OneArmProcess(below, proof=True)


TESTS: Final[Mapping[str, Comparison]] = {
    "ratio": Comparison(_ratio_harm, _ratio_proof, needs_control=True),
    "paired": Comparison(_ratio_harm, _ratio_proof, needs_control=True),
    "one-arm": Comparison(_one_arm_harm, _one_arm_proof, needs_control=False),
}


@dataclass(frozen=True, slots=True)
class Event:
    """Where the counts of a kind of bad event are found, and what people call the exposures."""

    arms: Callable[[Window], Arms]
    unit: str
    shadow_only: bool = False


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
}
