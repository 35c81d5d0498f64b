"""Where a rate lies, given all that was counted so far: for people to read, never for deciding.

A confidence sequence: with probability 1 - alpha it holds the true rate at every look at once, so
it may be shown after each report, as the verdicts may. A rate q stays in it while the bet of a
Jeffreys mixture against it has not won 1/alpha (S bad of n):

    ln B(S + 1/2, n - S + 1/2) - ln B(1/2, 1/2) - S ln q - (n - S) ln(1 - q) < ln(1/alpha)
"""

from __future__ import annotations

import math

from hanse.core.evidence.grid import log_threshold

ALPHA = 0.05
_HALVINGS = 60


def rate_interval(bad: int, n: int, alpha: float = ALPHA) -> tuple[float, float]:
    """Lowest and highest rate that are still likely; 0 to 1 before anything was counted."""
    if n <= 0:
        return 0.0, 1.0
    needed, rate = log_threshold(alpha), bad / n
    low = 0.0 if bad == 0 else _edge(bad, n, rate, 0.0, needed)
    high = 1.0 if bad == n else _edge(bad, n, rate, 1.0, needed)
    return low, high


def _edge(bad: int, n: int, inside: float, outside: float, needed: float) -> float:
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if _log_e(bad, n, middle) < needed:
            inside = middle
        else:
            outside = middle
    return outside


def _log_e(bad: int, n: int, q: float) -> float:
    if not 0 < q < 1:
        return math.inf
    mixture = math.lgamma(bad + 0.5) + math.lgamma(n - bad + 0.5) - math.lgamma(n + 1)
    return mixture - math.log(math.pi) - bad * math.log(q) - (n - bad) * math.log1p(-q)
