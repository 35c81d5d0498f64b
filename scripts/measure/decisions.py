"""How often a healthy release is undone, and how soon a bad one: rules side by side.

Seeded simulation, so a repeated run prints the same tables: run i of a cell has seed i. A day is
1440 ticks of a minute. Shares of runs carry their 95 % Wilson interval; delays are the median with
its 95 % interval / 90 % in canary requests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from hanse.core.evidence.cusum import Cusum
from hanse.core.evidence.difference import DifferenceProcess, level
from hanse.core.evidence.metrics import TESTS, Metric, Process, Setting
from hanse.core.evidence.one_arm import OneArmProcess
from hanse.core.evidence.ratio import Arms, RatioProcess
from hanse.core.evidence.watch import alarm_level, watched
from hanse.core.evidence.window import ArmCounts
from hanse.core.rollout.plan import WATCH_FACTOR
from measure import streams, voices
from measure.rules import RULES, Rule, ticks_until
from measure.streams import DAY, RUNS
from measure.table import delay, markdown, wilson

Rates = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""Error rates of canary and control, one for each tick."""
See = Callable[[Any, bool, bool], Process]


def run() -> str:
    return "\n".join((_errors(), voices.run(), _late(), _latency(), _accuracy(), streams.run()))


def ticks(
    rng: np.random.Generator, rates: Rates, n_t: int | np.ndarray, n_c: int | np.ndarray
) -> Iterator[Arms]:
    """The ticks of one run, drawn at once and made one by one."""
    p_t, p_c = rates(rng)
    bad_t, bad_c = rng.binomial(n_t, p_t), rng.binomial(n_c, p_c)
    all_t, all_c = np.broadcast_to(n_t, p_t.shape), np.broadcast_to(n_c, p_t.shape)
    return (
        Arms(int(a), int(b), int(c), int(d))
        for a, b, c, d in zip(bad_t, bad_c, all_t, all_c, strict=True)
    )


def constant(p_t: float, p_c: float, count: int = DAY) -> Rates:
    return lambda rng: (np.full(count, p_t), np.full(count, p_c))


def incident(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Half an hour in which both arms fail five times as often."""
    rates, at = np.full(DAY, 0.01), int(rng.integers(0, DAY - 30))
    rates[at : at + 30] *= 5
    return rates, rates


_RAMP_SHARES = np.repeat([0.01, 0.05, 0.10, 0.25, 0.50], 100)


def drifting(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    rates = np.linspace(0.005, 0.02, len(_RAMP_SHARES))
    return rates, rates


def _times(rule: Rule, rates: Rates, n_t: int, n_c: int, runs: int = RUNS) -> list[int | None]:
    return [
        ticks_until(rule, ticks(np.random.default_rng([seed, n_t]), rates, n_t, n_c))
        for seed in range(runs)
    ]


def _alarms(rule: Rule, rates: Rates, n_t: int, n_c: int) -> str:
    return wilson(sum(n is not None for n in _times(rule, rates, n_t, n_c)), RUNS)


def _ramp(rule: Rule) -> str:
    n_t = np.round(1000 * _RAMP_SHARES).astype(int)
    found = [
        ticks_until(rule, ticks(np.random.default_rng([7, seed]), drifting, n_t, 1000 - n_t))
        for seed in range(RUNS)
    ]
    return wilson(sum(n is not None for n in found), RUNS)


def _errors() -> str:
    header = (
        "rule", "false alarms in 24 h", "same at 20 + 180", "with a shared incident",
        "ramp 1 to 50 % while both drift", "1 to 3 %", "1 to 2 %", "1 to 10 %",
    )  # fmt: skip
    rows = []
    for rule in RULES:
        healthy = constant(0.01, 0.01)
        found = [_times(rule, constant(p, 0.01), 100, 900) for p in (0.03, 0.02, 0.10)]
        rows.append(
            (
                rule.name,
                _alarms(rule, healthy, 100, 900),
                _alarms(rule, healthy, 20, 180),
                _alarms(rule, incident, 100, 900),
                _ramp(rule),
                *(delay(times, 100) for times in found),
            )
        )
    title = (
        f"## Decisions: error rates\n\n100 + 900 requests a tick, base 1 %, {RUNS} runs a cell, "
        "run i with seed i. Shares and medians carry their 95 % interval; delays are median / 90 %."
    )
    return f"{title}\n\n{markdown(header, rows)}"


# -- late regressions ------------------------------------------------------------


@dataclass(frozen=True)
class Watch:
    test: Process
    alpha: float
    n_t: int = 100
    """Requests of the release in a tick: a share while there is a control, afterwards all."""

    def ticks_from(self, healthy: int, seed: int) -> int | None:
        """Ticks from the onset until it fires."""
        p_t = np.concatenate([np.full(healthy, 0.01), np.full(800, 0.03)])
        found = self._ticks(p_t, [11, seed])
        return next((n - healthy for n, fires in found if fires and n > healthy), None)

    def ever(self, count: int, seed: int) -> bool:
        return any(fires for _, fires in self._ticks(np.full(count, 0.01), [13, seed]))

    def _ticks(self, p_t: np.ndarray, seed: list[int]) -> Iterator[tuple[int, bool]]:
        state, both = self.test, (p_t, np.full(len(p_t), 0.01))
        rng = np.random.default_rng(seed)
        seen = ticks(rng, lambda _: both, self.n_t, 1000 - self.n_t)
        for n, arms in enumerate(seen, start=1):
            state = state.observe(arms)
            yield n, state.rejects(self.alpha)


def _shipped(factor: float, answers: int) -> tuple[str, Watch]:
    """The watch after the promotion, for want of another arm: against the answers of before."""
    rollout = Metric("errors", "ratio", "error", margin=1.25, proven_below=2.0)
    metric = watched(rollout, [ArmCounts(requests=answers, errors=answers // 100)], factor)
    assert metric is not None
    name = f"**watch, factor {factor:g} after {answers:,}: above {metric.slo:.1%} (shipped)**"
    return name, Watch(TESTS[metric.test].harm(metric, Setting()), alarm_level(1), 1000)


def _late() -> str:
    cusum = Cusum(RatioProcess(1.0))
    watches = {
        "one long e-process, 0.01": Watch(RatioProcess(1.0), 0.01),
        "e-CUSUM, 1e4": Watch(cusum, 1e-4),
        "e-CUSUM, 1e5": Watch(cusum, 1e-5),
        **dict(_shipped(f, n) for f in (1.0, WATCH_FACTOR or 1.5) for n in (5_000, 50_000)),
    }
    runs = max(20, RUNS // 4)
    rows = [
        (
            name,
            wilson(sum(watch.ever(14 * DAY, seed) for seed in range(runs)), runs),
            *(
                delay([watch.ticks_from(healthy, seed) for seed in range(runs)], watch.n_t)
                for healthy in (0, 100, 1440, 5000)
            ),
        )
        for name, watch in watches.items()
    ]
    header = ("test", "false alarms in 14 days", *(f"onset at {n}" for n in (0, 100, 1440, 5000)))
    note = (
        f"{runs} runs. Requests of the release from the onset on: 100 a tick beside 900 of a "
        "control, or, once it is promoted and no control is left, all 1,000."
    )
    return f"## Decisions: late regressions, 1 to 3 %\n\n{note}\n\n{markdown(header, rows)}"


# -- latency and accuracy ----------------------------------------------------------


def _slow(rng: np.random.Generator, n: int, factor: float, tail: float, mean: float = 1.0) -> int:
    times = rng.lognormal(0, 0.6, n) * factor * mean
    if tail:
        times[rng.random(n) < tail] *= 4
    return int((times > math.exp(0.6 * 2.3263)).sum())


def _slow_ticks(
    seed: int, factor: float, tail: float, count: int, shared: float = 1.0
) -> Iterator[Arms]:
    rng = np.random.default_rng([17, seed])
    for n in range(count):
        mean = shared if 100 <= n < 160 else 1.0
        yield Arms(_slow(rng, 100, factor, tail, mean), _slow(rng, 400, 1.0, 0.0, mean), 100, 400)


def _latency() -> str:
    runs = max(20, RUNS // 4)
    rows = []
    for margin in (1.0, 1.5):
        rule = next(r for r in RULES if r.name.startswith(f"**Hanse, ratio > {margin:g},"))
        cells = [
            [ticks_until(rule, _slow_ticks(seed, *shape, 300)) for seed in range(runs)]
            for shape in ((1.5, 0.0), (1.0, 0.04), (1.2, 0.0))
        ]
        quiet = sum(ticks_until(rule, _slow_ticks(s, 1, 0, 1000)) is not None for s in range(runs))
        shared = sum(
            ticks_until(rule, _slow_ticks(s, 1, 0, 300, 2.0)) is not None for s in range(runs)
        )
        rows.append(
            (
                f"{rule.name} of answers above p99",
                wilson(quiet, runs),
                wilson(shared, runs),
                *(delay(cell, 100) for cell in cells),
            )
        )
    one_arm = 0
    for seed in range(runs):
        process = OneArmProcess(0.015)
        for arms in _slow_ticks(seed, 1, 0, 300, 2.0):
            process = process.observe(arms)
        one_arm += process.rejects(0.01)
    rows.append(("one arm against 1.5 %, 0.01", "", wilson(one_arm, runs), "", "", ""))
    header = (
        "rule", "false alarms in 1000 ticks", "shared slowdown, twice as long for an hour",
        "all 1.5 times", "4 % of requests 4 times", "all 1.2 times",
    )  # fmt: skip
    return f"## Decisions: latency, 100 + 400 a tick\n\n{markdown(header, rows)}"


def _labels(
    seed: int, old: float, new: float, copied: float, count: int
) -> Iterator[tuple[bool, bool]]:
    """(old right, new right); `copied` of the new model's answers are the old one's."""
    rng = np.random.default_rng([19, seed])
    for u, v, same in zip(rng.random(count), rng.random(count), rng.random(count), strict=True):
        yield bool(u < old), bool((u if same < copied else v) < new)


def _labels_until(start: Process, see: See, seed: int, copied: float) -> int | None:
    state = start
    for n, (old, new) in enumerate(_labels(seed, 0.95, 0.90, copied, 20_000), start=1):
        state = see(state, old, new)
        if state.rejects(0.01):
            return n
    return None


def _accuracy() -> str:
    runs = max(20, RUNS // 4)
    tests: dict[str, tuple[Process, See]] = {
        "**paired (McNemar)**": (
            RatioProcess(1.0),
            lambda s, old, new: s.observe(Arms(int(old > new), int(new > old), 1, 1)),
        ),
        "**difference of scores**": (
            DifferenceProcess(0.0),
            lambda s, old, new: s.observe({level(float(old) - float(new)): 1}),
        ),
        "**unpaired, labels an arm**": (
            RatioProcess(1.0),
            lambda s, old, new: s.observe(Arms(int(not new), int(not old), 1, 1)),
        ),
    }
    rows = [
        (
            name,
            *(
                delay([_labels_until(start, see, seed, copied) for seed in range(runs)], 1)
                for copied in (0.0, 0.5, 0.9)
            ),
        )
        for name, (start, see) in tests.items()
    ]
    shares = ("independent models", "half of the answers the same", "nine of ten the same")
    header = ("test, 0.01", *(f"labels, {share}" for share in shares))
    return f"## Decisions: accuracy .95 to .90\n\n{markdown(header, rows)}"
