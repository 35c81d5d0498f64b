"""Decisions over many streams: false discoveries, regions together, shares of traffic, drift."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import reduce

import numpy as np

from hanse.core.evidence.drift import DriftProcess, Reference
from hanse.core.evidence.federation import discoveries, told
from hanse.core.evidence.grid import add, log_mean
from hanse.core.evidence.ratio import Arms, RatioProcess
from hanse.core.evidence.sample_ratio import SampleRatio
from hanse.core.testimony import ALPHA
from measure.table import delay, markdown, wilson

RUNS = int(os.environ.get("HANSE_BENCH_RUNS", "400"))
DAY = 1440


def run() -> str:
    return "\n".join((_many(), _shares(), _drift()))


def _many() -> str:
    """Each repetition is a day of its own; what is shown are the means."""
    streams, bad, repeated = 1000, 50, max(1, RUNS // 100)
    found: dict[str, list[tuple[int, float, float, float]]] = {}
    for seed in range(repeated):
        for name, row in _a_day(streams, bad, np.random.default_rng([23, seed])):
            found.setdefault(name, []).append(row)
    rows = []
    for name, days in found.items():
        false, rate, power, delays = (sum(column) / repeated for column in zip(*days, strict=True))
        most = max(day[1] for day in days)
        shown = (f"{false:.1f}", f"{rate:.3f} (most {most:.3f})", f"{power:.2f}", f"{delays:,.0f}")
        rows.append((name, *shown))
    header = ("rule", "false rollbacks", "false discovery rate", "power", "canary requests")
    text = f"## Decisions: {streams} streams for a day, {bad} of them 1 to 2 %\n\n"
    text += f"Mean of {repeated} days, seeds 0 to {repeated - 1}.\n\n"
    return text + markdown(header, rows) + "\n" + _regions()


def _a_day(
    streams: int, bad: int, rng: np.random.Generator
) -> Iterator[tuple[str, tuple[int, float, float, float]]]:
    rates = np.where(np.arange(streams) < bad, 0.02, 0.01)
    bad_t = rng.binomial(100, rates[:, None], (streams, DAY))
    bad_c = rng.binomial(900, 0.01, (streams, DAY))
    paths = np.zeros((streams, DAY))
    for i in range(streams):
        process = RatioProcess(1.0)
        for n in range(DAY):
            process = process.observe(Arms(int(bad_t[i, n]), int(bad_c[i, n]), 100, 900))
            paths[i, n] = process.log_e()
    for name, alpha in (("local, 0.05", 0.05), ("local, 0.01", 0.01), ("Bonferroni, 0.05", 5e-5)):
        chosen = np.any(paths >= -math.log(alpha), axis=1)
        yield name, _found(chosen, _first(paths, alpha), bad)
    frozen: dict[int, float] = {}
    when = np.full(streams, DAY)
    for n in range(DAY):
        found = discoveries(dict(enumerate(paths[:, n])), 0.05, frozen.items())
        for i in found.keys() - frozen.keys():
            when[i] = n + 1
        frozen = found
    chosen = np.isin(np.arange(streams), list(frozen))
    yield "**e-BH, 0.05 (shipped)**", _found(chosen, when, bad)


def _first(paths: np.ndarray, alpha: float) -> np.ndarray:
    hit = paths >= -math.log(alpha)
    return np.where(hit.any(1), hit.argmax(1) + 1, DAY)


def _found(chosen: np.ndarray, when: np.ndarray, bad: int) -> tuple[int, float, float, float]:
    true, false = int(chosen[:bad].sum()), int(chosen[bad:].sum())
    rate = false / max(1, true + false)
    median = np.median(when[:bad][chosen[:bad]]) if true else DAY
    return false, rate, true / bad, float(median) * 100


def _regions() -> str:
    """Twenty regions of little traffic, 10 + 90 a tick."""
    runs, rows = max(20, RUNS // 8), []
    for name, bad in (("bad in all 20", 20), ("bad in one", 1), ("bad in none", 0)):
        found: dict[str, list[int | None]] = {key: [] for key in _WAYS}
        for seed in range(runs):
            for key, value in _combine(seed, bad).items():
                found[key].append(value)
        shown = (
            wilson(sum(n is not None for n in times), runs) if not bad else delay(times, 10)
            for times in found.values()
        )
        rows.append((name, *shown))
    note = (
        f"Twenty regions, 10 + 90 requests a tick, {runs} runs. Canary requests a region; the last "
        "row: false alarms in 400 ticks. Shipped is the last column, as one of the good regions "
        "reckons: whatever any one other region says is left out."
    )
    return f"{note}\n\n{markdown(('1 to 3 %', *_WAYS.values()), rows)}"


_WAYS = {
    "own": "the bad region alone, 0.01",
    "mean": "mean of e, 0.005",
    "sum": "sum of weights, 0.005",
    "told": f"**both, without the largest, {ALPHA} (shipped)**",
}


def _combine(seed: int, bad: int) -> dict[str, int | None]:
    rng = np.random.default_rng([29, seed])
    tests = [RatioProcess(1.0) for _ in range(20)]
    found: dict[str, int | None] = dict.fromkeys(_WAYS)
    for n in range(1, 401):
        rates = np.where(np.arange(20) < bad, 0.03, 0.01)
        bad_t, bad_c = rng.binomial(10, rates), rng.binomial(90, 0.01, 20)
        tests = [
            test.observe(Arms(int(bad_t[i]), int(bad_c[i]), 10, 90)) for i, test in enumerate(tests)
        ]
        mean = np.logaddexp.reduce([test.log_e() for test in tests]) - math.log(len(tests))
        total = log_mean(reduce(add, [test.logw for test in tests]))
        said = {
            "own": tests[0].rejects(0.01),
            "mean": mean >= math.log(200),
            "sum": total >= math.log(200),
            "told": told(tests[-1].logw, [test.logw for test in tests[:-1]], 1) >= -math.log(ALPHA),
        }
        for key, fires in said.items():
            found[key] = found[key] or (n if fires else None)
        if all(found.values()):
            break
    return found


def _shares() -> str:
    runs, rows = max(20, RUNS // 2), []
    for name in ("chi-squared, .001", "chi-squared, .01", "**Dirichlet mixture, .001 (shipped)**"):
        fair = sum(_mismatch(name, seed, 0.10) is not None for seed in range(runs))
        lost = [_mismatch(name, seed, 0.08) for seed in range(runs)]
        rows.append((name, wilson(fair, runs), delay(lost, 1000)))
    header = ("test", "false alarms in a day", "requests until 10 % become 8 %")
    return f"## Decisions: shares of traffic, 1000 requests a tick\n\n{markdown(header, rows)}"


def _mismatch(name: str, seed: int, share: float) -> int | None:
    rng = np.random.default_rng([31, seed])
    test, needed = SampleRatio(0.10), 10.828 if ".001" in name else 6.635
    for n, trial in enumerate(rng.binomial(1000, share, DAY), start=1):
        test = test.observe(Arms(0, 0, int(trial), 1000 - int(trial)))
        expected = 0.10 * test.total
        chi2 = (test.trial - expected) ** 2 / (expected * 0.90)
        if (chi2 > needed) if name.startswith("chi") else test.rejects(0.001):
            return n
    return None


def _drift() -> str:
    sample = np.random.default_rng(37).normal(0, 1, 50_000)
    edges = np.quantile(sample, np.arange(1, 32) / 32)
    reference = Reference(tuple(int(n) for n in _bins(sample, edges)), delta=0.05)
    expected = np.array(reference.counts) / sample.size
    runs, rows = max(20, RUNS // 8), []
    shapes = (
        ("none", 0.0, 1.0),
        ("mean + .25", 0.25, 1.0),
        ("mean + .5", 0.5, 1.0),
        ("scale 1.5", 0.0, 1.5),
    )
    for name, shift, scale in shapes:
        found: list[list[int | None]] = [[], [], []]
        for seed in range(runs):
            for cell, value in zip(
                found, _moved(seed, shift, scale, edges, reference, expected), strict=True
            ):
                cell.append(value)
        rows.append(
            (
                name,
                *(
                    wilson(sum(n is not None for n in c), runs) + ", " + delay(c, 200)
                    for c in found
                ),
            )
        )
    header = (
        "shift",
        "**edge average, .01 (shipped)**",
        "PSI > .1 a window",
        "chi-squared a window, .05",
    )
    note = "200 values a tick, 300 ticks; share of runs that alarm, values until then."
    title = "## Decisions: drift on a frozen histogram of 32 bins"
    return f"{title}\n\n{note}\n\n{markdown(header, rows)}"


def _bins(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)


def _moved(
    seed: int,
    shift: float,
    scale: float,
    edges: np.ndarray,
    reference: Reference,
    expected: np.ndarray,
) -> list[int | None]:
    rng, test = np.random.default_rng([41, seed]), DriftProcess(reference)
    found: list[int | None] = [None, None, None]
    for n in range(1, 301):
        counts = _bins(rng.normal(shift, scale, 200), edges)
        test = test.observe([int(c) for c in counts])
        seen = np.maximum(counts, 0.5) / 200
        psi = float(((seen - expected) * np.log(seen / expected)).sum())
        chi2 = float(((counts - 200 * expected) ** 2 / (200 * expected)).sum())
        for i, fires in enumerate((test.rejects(0.01), psi > 0.1, chi2 > 44.985)):
            found[i] = found[i] or (n if fires else None)
        if all(found):
            break
    return found
