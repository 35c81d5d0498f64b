"""What a release sees and says is counted into the bins that it was signed with."""

from __future__ import annotations

import numpy as np

from hanse.core.catalog.profile import Series
from hanse.edge.histograms import VALUES_MAX, Histogram, count_all

Y = Histogram.of(Series("y", "output", None, (0.0, 1.0), (1, 1, 1)))
X3 = Histogram.of(Series("x", "input", 3, (0.5,), (1, 1)))


def test_a_value_on_an_edge_belongs_below_it() -> None:
    found = count_all([Y], {}, {"y": np.array([-1.0, 0.0, 0.5, 1.0, 2.0], np.float32)})
    assert found["output:y"].tolist() == [2, 2, 1]


def test_one_index_of_the_last_axis_is_counted() -> None:
    rows = np.array([[0, 0, 0, 0.4], [9, 9, 9, 0.6]])
    assert count_all([X3], {"x": rows}, {})["input:x[3]"].tolist() == [1, 1]


def test_what_cannot_be_counted_is_left_out() -> None:
    texts, short = np.array(["a", "b"], object), np.zeros((2, 2))
    assert count_all([Y, X3], {"x": short}, {"y": texts}) == {}
    assert count_all([Y], {}, {}) == {}


def test_a_large_tensor_is_counted_in_part() -> None:
    found = count_all([Y], {}, {"y": np.linspace(-1, 2, 100_000)})["output:y"]
    assert found.sum() <= VALUES_MAX
    assert (abs(found / found.sum() - 1 / 3) < 0.01).all()
