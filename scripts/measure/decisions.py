"""How often a healthy release is undone, and how soon a bad one: rules side by side.

Seeded simulation, so a repeated run prints the same tables. A day is 1440 ticks of a minute.
Shares of runs carry their 95 % Wilson interval; delays are median / 90 % in canary requests.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from hanse.core.evidence.cusum import Cusum
from hanse.core.evidence.difference import DifferenceProcess, level
from hanse.core.evidence.drift import DriftProcess, Reference
from hanse.core.evidence.federation import combined_log_e, discoveries
from hanse.core.evidence.one_arm import OneArmProcess
from hanse.core.evidence.ratio import Arms, RatioProcess
from hanse.core.evidence.sample_ratio import SampleRatio
from measure.rules import RULES, Rule, ticks_until
from measure.table import markdown, quantile

RUNS = int(os.environ.get("HANSE_BENCH_RUNS", "400"))
DAY = 1440
Rates = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""Error rates of canary and control, one for each tick."""


def run() -> str:
    return "\n".join((_errors(), _late(), _latency(), _accuracy(), _many(), _shares(), _drift()))


def wilson(hits: int, runs: int) -> str:
    """A share in percent with its 95 % interval."""
    p, z = hits / runs, 1.96
    mid, half = p + z * z / (2 * runs), z * math.sqrt(p * (1 - p) / runs + z * z / (4 * runs**2))
    low, high = ((mid - half) / (1 + z * z / runs), (mid + half) / (1 + z * z / runs))
    return f"{p:.1%} ({max(0.0, low):.1%} to {high:.1%})"


def delay(found: Sequence[int | None], per_tick: int) -> str:
    """Median / 90 % of the canary requests until the rule fired."""
    counts = [n * per_tick if n else 10**9 for n in found]
    shown = [quantile(counts, q) for q in (0.5, 0.9)]
    return " / ".join(f"{n:,.0f}" if n < 10**9 else "never" for n in shown)


def ticks(rng: np.random.Generator, rates: Rates, n_t: int | np.ndarray, n_c: int | np.ndarray):
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
    title = f"## Decisions: error rates\n\n100 + 900 requests a tick, base 1 %, {RUNS} runs a cell."
    return f"{title}\n\n{markdown(header, rows)}"


# -- late regressions ------------------------------------------------------------


def _watch_for(watch: Callable[[], object], healthy: int, seed: int) -> int | None:
    """Ticks from the onset until the watch fires."""
    rng, state = np.random.default_rng([11, seed]), watch()
    for n, arms in enumerate(ticks(rng, _onset(healthy), 100, 900), start=1):
        state = state.observe(arms)  # type: ignore[attr-defined]  # any of the tests
        if n > healthy and _fires(state):
            return n - healthy
    return None


def _onset(healthy: int) -> Rates:
    p_t = np.concatenate([np.full(healthy, 0.01), np.full(800, 0.03)])
    return lambda rng: (p_t, np.full(len(p_t), 0.01))


def _fires(state: object) -> bool:
    return state.alarmed if isinstance(state, Cusum) else state.rejects(0.01)  # type: ignore[attr-defined]


def _ever(watch: Callable[[], object], count: int, seed: int) -> bool:
    state = watch()
    for arms in ticks(np.random.default_rng([13, seed]), constant(0.01, 0.01, count), 100, 900):
        state = state.observe(arms)  # type: ignore[attr-defined]
        if _fires(state):
            return True
    return False


def _late() -> str:
    watches: dict[str, Callable[[], object]] = {
        "one long e-process, 0.01": lambda: RatioProcess(1.0),
        "e-CUSUM, 1e4": lambda: Cusum(RatioProcess(1.0), 1e4),
        "**e-CUSUM, 1e5 (shipped)**": lambda: Cusum(RatioProcess(1.0)),
    }
    runs = max(20, RUNS // 4)
    rows = [
        (
            name,
            wilson(sum(_ever(watch, 14 * DAY, seed) for seed in range(runs)), runs),
            *(
                delay([_watch_for(watch, healthy, seed) for seed in range(runs)], 100)
                for healthy in (0, 100, 1440, 5000)
            ),
        )
        for name, watch in watches.items()
    ]
    header = ("test", "false alarms in 14 days", *(f"onset at {n}" for n in (0, 100, 1440, 5000)))
    return f"## Decisions: late regressions, 1 to 3 %\n\n{markdown(header, rows)}"


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


def _labels_until(start: object, see: Callable, seed: int, copied: float) -> int | None:
    state = start
    for n, (old, new) in enumerate(_labels(seed, 0.95, 0.90, copied, 20_000), start=1):
        state = see(state, old, new)
        if state.rejects(0.01):  # type: ignore[attr-defined]
            return n
    return None


def _accuracy() -> str:
    runs = max(20, RUNS // 4)
    tests: dict[str, tuple[object, Callable]] = {
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
            delay([_labels_until(start, see, seed, 0.0) for seed in range(runs)], 1),
            delay([_labels_until(start, see, seed, 0.9) for seed in range(runs)], 1),
        )
        for name, (start, see) in tests.items()
    ]
    header = ("test, 0.01", "labels, independent models", "labels, nine answers of ten the same")
    return f"## Decisions: accuracy .95 to .90\n\n{markdown(header, rows)}"


# -- many streams, shares, drift ----------------------------------------------------


def _many() -> str:
    streams, bad, rng = 1000, 50, np.random.default_rng(23)
    rates = np.where(np.arange(streams) < bad, 0.02, 0.01)
    bad_t = rng.binomial(100, rates[:, None], (streams, DAY))
    bad_c = rng.binomial(900, 0.01, (streams, DAY))
    paths = np.zeros((streams, DAY))
    for i in range(streams):
        process = RatioProcess(1.0)
        for n in range(DAY):
            process = process.observe(Arms(int(bad_t[i, n]), int(bad_c[i, n]), 100, 900))
            paths[i, n] = process.log_e()
    rows = []
    for name, alpha in (("local, 0.05", 0.05), ("local, 0.01", 0.01), ("Bonferroni, 0.05", 5e-5)):
        rows.append(_found(name, (paths >= -math.log(alpha)).any(1), _first(paths, alpha), bad))
    frozen: dict[int, float] = {}
    when = np.full(streams, DAY)
    for n in range(DAY):
        found = discoveries(dict(enumerate(paths[:, n])), 0.05, frozen.items())
        for i in found.keys() - frozen.keys():
            when[i] = n + 1
        frozen = found
    chosen = np.isin(np.arange(streams), list(frozen))
    rows.append(_found("**e-BH, 0.05 (shipped)**", chosen, when, bad))
    header = ("rule", "false rollbacks", "false discovery rate", "power", "canary requests")
    text = f"## Decisions: {streams} streams for a day, {bad} of them 1 to 2 %\n\n"
    return text + markdown(header, rows) + "\n" + _regions()


def _first(paths: np.ndarray, alpha: float) -> np.ndarray:
    hit = paths >= -math.log(alpha)
    return np.where(hit.any(1), hit.argmax(1) + 1, DAY)


def _found(name: str, chosen: np.ndarray, when: np.ndarray, bad: int) -> tuple[str, ...]:
    true, false = int(chosen[:bad].sum()), int(chosen[bad:].sum())
    rate = false / max(1, true + false)
    median = np.median(when[:bad][chosen[:bad]]) if true else DAY
    return (name, str(false), f"{rate:.3f}", f"{true / bad:.2f}", f"{median * 100:,.0f}")


def _regions() -> str:
    """Twenty regions of little traffic, 10 + 90 a tick."""
    runs, rows = max(20, RUNS // 8), []
    for name, bad in (("bad in all 20", 20), ("bad in one", 1), ("bad in none", 0)):
        found: dict[str, list[int | None]] = {"own": [], "mean": [], "sum": []}
        for seed in range(runs):
            for key, value in _combine(seed, bad).items():
                found[key].append(value)
        shown = (
            wilson(sum(n is not None for n in times), runs) if not bad else delay(times, 10)
            for times in found.values()
        )
        rows.append((name, *shown))
    header = ("1 to 3 %", "the bad region alone, 0.01", "mean of e, 0.005", "sum of weights, 0.005")
    note = "Canary requests a region; the last row: false alarms in 400 ticks."
    return f"{note}\n\n{markdown(header, rows)}"


def _combine(seed: int, bad: int) -> dict[str, int | None]:
    rng = np.random.default_rng([29, seed])
    tests = [RatioProcess(1.0) for _ in range(20)]
    found: dict[str, int | None] = {"own": None, "mean": None, "sum": None}
    for n in range(1, 401):
        rates = np.where(np.arange(20) < bad, 0.03, 0.01)
        bad_t, bad_c = rng.binomial(10, rates), rng.binomial(90, 0.01, 20)
        tests = [
            test.observe(Arms(int(bad_t[i]), int(bad_c[i]), 10, 90)) for i, test in enumerate(tests)
        ]
        mean, total = combined_log_e([test.logw for test in tests])
        said = {
            "own": tests[0].rejects(0.01),
            "mean": mean >= math.log(200),
            "sum": total >= math.log(200),
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
    return f"## Decisions: drift on a frozen histogram of 32 bins\n\n{note}\n\n{markdown(header, rows)}"


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
