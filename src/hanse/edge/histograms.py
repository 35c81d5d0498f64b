"""Counting what a release sees and says into the bins that it was signed with.

At most `VALUES_MAX` values of a tensor are counted for one request, evenly spread over it: enough
for a histogram, and a large image costs no more than a small one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from hanse.core.catalog.profile import Series
from hanse.edge.outcomes import Array

VALUES_MAX: Final = 1024
Bins = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Histogram:
    series: Series
    edges: Array

    @classmethod
    def of(cls, series: Series) -> Self:
        return cls(series, np.asarray(series.edges, np.float64))

    def count(self, found: Array) -> Bins:
        values = found if self.series.element is None else found[..., self.series.element]
        flat = values.ravel()
        step = -(-flat.size // VALUES_MAX)
        # Left: a value on an edge belongs to the bin below it.
        places = np.searchsorted(self.edges, flat[:: max(1, step)], side="left")
        return np.bincount(places, minlength=len(self.series.counts))


def count_all(
    histograms: Iterable[Histogram], feeds: Mapping[str, Array], outputs: Mapping[str, Array]
) -> dict[str, Bins]:
    """By the name of the series. What cannot be counted, texts or a missing index, is left out."""
    counted: dict[str, Any] = {}
    for histogram in histograms:
        series = histogram.series
        found = (feeds if series.side == "input" else outputs).get(series.tensor)
        if found is not None:
            try:
                counted[series.name] = histogram.count(found)
            except (TypeError, ValueError, IndexError):
                continue
    return counted
