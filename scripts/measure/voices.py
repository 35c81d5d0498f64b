"""What it costs that no node decides alone, and what one that lies can still do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from hanse.core.evidence.metrics import Metric
from hanse.core.evidence.tally import Evidence
from hanse.core.evidence.verdict import Kind, Verdict
from hanse.core.evidence.voices import NONE
from hanse.core.evidence.window import ArmCounts, Trial, Window
from measure.streams import RUNS
from measure.table import delay, markdown, wilson

N_T, N_C, ALPHA, TICKS = 100, 900, 0.01, 240
Lie = Callable[[Window], Window]


def _errors(window: Window) -> Window:
    return replace(window, trial=ArmCounts(window.trial.requests, window.trial.requests))


def _praise(window: Window) -> Window:
    return replace(window, trial=ArmCounts(100 * N_T))


def _verdicts(
    nodes: int, p_t: float, seed: int, lie: Lie | None, below: float | None
) -> Iterator[Verdict]:
    """One verdict a tick; the nodes share `N_T` and `N_C` requests evenly."""
    rng, metric = np.random.default_rng([23, seed]), Metric("e", "ratio", "error", 1.25, below)
    n_t, n_c = N_T // nodes, N_C // nodes
    voices, evidence, seen = replace(NONE, asked=nodes), Evidence.fresh([metric]), ArmCounts()
    bad_t, bad_c = rng.binomial(n_t, p_t, (TICKS, nodes)), rng.binomial(n_c, 0.01, (TICKS, nodes))
    for tick in range(TICKS):
        windows = [
            Window(
                Trial.CANARY,
                ArmCounts(n_t, int(bad_t[tick, i])),
                ArmCounts(n_c, int(bad_c[tick, i])),
                node=f"n{i}",
            )
            for i in range(nodes)
        ]
        if lie is not None:
            windows[0] = lie(windows[0])
        voices, together = voices.hear(windows, evidence, seen, watching=False)
        assert together is not None
        evidence = evidence.observe(together)
        yield voices.judge(evidence, [metric], ALPHA, late=False)


def _until(
    asked: Callable[[Verdict], bool], nodes: int, p_t: float, runs: int, *,
    lie: Lie | None = None, below: float | None = None,
) -> list[int | None]:  # fmt: skip
    return [
        next(
            (n for n, v in enumerate(_verdicts(nodes, p_t, seed, lie, below), 1) if asked(v)), None
        )
        for seed in range(runs)
    ]


def _undone(verdict: Verdict) -> bool:
    return verdict.on_fail == "rollback"


def _stopped(verdict: Verdict) -> bool:
    return verdict.kind is Kind.HARM


def _proven(verdict: Verdict) -> bool:
    return verdict.kind is Kind.HEALTHY


def run() -> str:
    runs, rows = max(20, RUNS // 4), []
    cases: list[tuple[str, int, Lie | None]] = [
        ("one or two nodes: all together, as it was", 1, None),
        *((f"{n} nodes", n, None) for n in (3, 5, 8)),
        ("5 nodes, one says nothing but errors", 5, _errors),
        ("5 nodes, one says a hundred times as many good answers", 5, _praise),
    ]
    for name, nodes, lie in cases:
        quiet = [_until(f, nodes, 0.01, runs, lie=lie) for f in (_undone, _stopped)]
        bad = [
            delay(_until(f, nodes, p_t, runs, lie=lie), N_T)
            for p_t in (0.03, 0.10)
            for f in (_stopped, _undone)
        ]
        proof = delay(_until(_proven, nodes, 0.01, runs, lie=lie, below=2.0), N_T)
        alarms = (wilson(sum(n is not None for n in found), runs) for found in quiet)
        rows.append((name, *alarms, *bad, proof))
    header = (
        "nodes", "healthy, undone in 4 h", "healthy, held in 4 h", "1 to 3 %, held", "undone",
        "1 to 10 %, held", "undone", "healthy, proven below 2",
    )  # fmt: skip
    note = (
        f"{N_T} + {N_C} requests a tick in all, shared evenly by the nodes; ratio > 1.25 at 0.01, "
        f"{runs} runs. Delays are canary requests, median / 90 %; *never*: not in {TICKS * N_T:,}."
    )
    return f"## Decisions: without the word of any one node\n\n{note}\n\n{markdown(header, rows)}"
