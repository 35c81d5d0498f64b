"""Quantiles and Markdown."""

from __future__ import annotations

import math
import os
import platform
import sqlite3
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from statistics import median

PACKAGES = ("grpcio", "protobuf", "aiosqlite", "cryptography", "onnxruntime", "numpy")


def quantile(values: Iterable[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def spread(values: Sequence[float]) -> str:
    return f"{median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def surroundings() -> str:
    """What the figures depend on."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}, {packages}; "
        f"load average {os.getloadavg()[0]:.2f} at the end."
    )


def wilson(hits: int, runs: int) -> str:
    """A share in percent with its 95 % interval."""
    p, z = hits / runs, 1.96
    mid, half = p + z * z / (2 * runs), z * math.sqrt(p * (1 - p) / runs + z * z / (4 * runs**2))
    low, high = ((mid - half) / (1 + z * z / runs), (mid + half) / (1 + z * z / runs))
    return f"{p:.1%} ({max(0.0, low):.1%} to {high:.1%})"


def delay(found: Sequence[int | None], per_tick: int) -> str:
    """Median with its 95 % interval / 90 % of the canary requests until the rule fired."""
    counts = [n * per_tick if n else 10**9 for n in found]
    spread = 0.98 / math.sqrt(len(counts))  # of ranks about the median: a binomial
    low, middle, high, late = (
        f"{n:,.0f}" if n < 10**9 else "never"
        for n in (quantile(counts, max(0.0, q)) for q in (0.5 - spread, 0.5, 0.5 + spread, 0.9))
    )
    return f"{middle} ({low} to {high}) / {late}" if low != high else f"{middle} / {late}"
