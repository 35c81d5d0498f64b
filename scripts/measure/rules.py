"""When to undo a release: the shipped tests, and models of what other tools are documented to do.

A rule looks at one tick after another (bad and all requests of canary and control) and says at
which tick it would undo the release, if ever. Rows for Argo Rollouts and Flagger model the rules of
their documentation, not the products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from statistics import NormalDist
from typing import NamedTuple

from hanse.core.evidence.ratio import Arms, RatioProcess

BURN_IN = 500


class Rule(NamedTuple):
    name: str
    start: Callable[[], Callable[[Arms], bool]]


def ticks_until(rule: Rule, ticks: Iterable[Arms]) -> int | None:
    """The number of ticks seen when the rule fires; None if it never does."""
    fires = rule.start()
    return next((n for n, arms in enumerate(ticks, start=1) if fires(arms)), None)


def argo(limit: float, failures: int) -> Rule:
    """Each window is a measurement; more than `failures` failed ones abort."""

    def start() -> Callable[[Arms], bool]:
        failed = 0

        def fires(arms: Arms) -> bool:
            nonlocal failed
            failed += arms.bad_t > limit * arms.n_t
            return failed > failures

        return fires

    return Rule(f"Argo, window > {limit:.0%}, failureLimit {failures}", start)


def flagger(success: float, threshold: int) -> Rule:
    """Failed checks are counted up to `threshold`."""
    inner = argo(1 - success, threshold - 1)
    return Rule(f"Flagger, min {success:.0%}, threshold {threshold}", inner.start)


def consecutive(limit: float, times: int) -> Rule:
    def start() -> Callable[[Arms], bool]:
        run = 0

        def fires(arms: Arms) -> bool:
            nonlocal run
            run = run + 1 if arms.bad_t > limit * arms.n_t else 0
            return run >= times

        return fires

    return Rule(f"{times} windows in a row > {limit:.0%}", start)


def relative(factor: float) -> Rule:
    def start() -> Callable[[Arms], bool]:
        return lambda arms: arms.bad_t * arms.n_c > factor * arms.bad_c * arms.n_t

    return Rule(f"window > {factor:g} times control's", start)


def z_peeking(alpha: float) -> Rule:
    """A pooled two-sample z-test, looked at after every tick."""
    needed = NormalDist().inv_cdf(1 - alpha / 2)

    def start() -> Callable[[Arms], bool]:
        total = Arms(0, 0, 0, 0)

        def fires(arms: Arms) -> bool:
            nonlocal total
            total = total + arms
            pooled = (total.bad_t + total.bad_c) / (total.n_t + total.n_c)
            error = math.sqrt(pooled * (1 - pooled) * (1 / total.n_t + 1 / total.n_c))
            worse = total.bad_t / total.n_t - total.bad_c / total.n_c
            return total.n_t >= BURN_IN and error > 0 and worse / error > needed

        return fires

    return Rule(f"z-test after every tick, {alpha:g}", start)


def confidence_sequence(alpha: float, tuned_for: int = 5000) -> Rule:
    """An asymptotic confidence sequence on the pooled difference, as GrowthBook uses."""
    log_term = -2 * math.log(2 * alpha)
    rho = math.sqrt((log_term + math.log(log_term + 1)) / tuned_for)

    def start() -> Callable[[Arms], bool]:
        total = Arms(0, 0, 0, 0)

        def fires(arms: Arms) -> bool:
            nonlocal total
            total = total + arms
            n, p, q = total.n_t, total.bad_t / total.n_t, total.bad_c / total.n_c
            variance = n * (p * (1 - p) / n + q * (1 - q) / total.n_c)
            grown = n * rho**2 + 1
            width = variance * 2 * grown / (n * rho) ** 2 * math.log1p(math.sqrt(grown) / 2 / alpha)
            return n >= BURN_IN and p - q > math.sqrt(width)

        return fires

    return Rule(f"asymptotic confidence sequence, {alpha:g}", start)


def e_process(margin: float, alpha: float = 0.01) -> Rule:
    """What Hanse ships."""

    def start() -> Callable[[Arms], bool]:
        process = RatioProcess(margin)

        def fires(arms: Arms) -> bool:
            nonlocal process
            process = process.observe(arms)
            return process.rejects(alpha)

        return fires

    return Rule(f"**Hanse, ratio > {margin:g}, {alpha:g}**", start)


RULES = (
    argo(0.02, 0),
    argo(0.02, 3),
    argo(0.03, 3),
    argo(0.05, 3),
    flagger(0.98, 5),
    consecutive(0.02, 3),
    relative(2),
    z_peeking(0.05),
    z_peeking(0.01),
    z_peeking(0.001),
    confidence_sequence(0.05),
    e_process(1.0),
    e_process(1.25),
    e_process(1.5),
)
