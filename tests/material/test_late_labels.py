"""Real tables: a decline is found when the labels come, and a steady model is left alone.

Requests are replayed 200 a tick. What is watched is what a region watches after a promotion: the
share of wrong answers against the reference's plus a point, and histograms of inputs and answers
against those of the reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from tour import material

from hanse.core.catalog.profile import Series, references
from hanse.core.evidence.cusum import Cusum
from hanse.core.evidence.drift import DriftProcess
from hanse.core.evidence.one_arm import OneArmProcess
from hanse.core.evidence.ratio import Arms
from hanse.edge.histograms import Histogram
from tests.material.test_material import fetch_or_skip

pytestmark = pytest.mark.material

TICK = 200
LABEL_DELAY_ROWS = 2300  # a fortnight of loans
DECLINE_FROM = 20_000  # the third fifth of the loans; before it accuracy is the reference's
POINT = 0.01
DELTA = 0.05
ALPHA = 0.01


@pytest.fixture(scope="module", autouse=True)
def fetched() -> None:
    fetch_or_skip(lambda: [material.table(name) for name in material.TABLES])


@cache
def columns(name: material.TableName) -> dict[str, Any]:
    path = material.table(name)
    read = pyarrow.csv.read_csv if path.suffix == ".csv" else pyarrow.parquet.read_table
    table = read(path)
    return {key: table[key].to_numpy(zero_copy_only=False) for key in table.column_names}


def parts(values: Any) -> Iterator[Any]:
    for start in range(0, len(values), TICK):
        yield values[start : start + TICK]


def alarm_at(wrong: Any, rate: float) -> int | None:
    """Labels seen when the watch on wrong answers alarms."""
    watch = Cusum(OneArmProcess(rate))
    for n, part in enumerate(parts(wrong), start=1):
        watch = watch.observe(Arms(int(part.sum()), 0, len(part), 0))
        if watch.rejects(1e-5):
            return n * TICK
    return None


def drift_at(reference: Any, seen: Any) -> int | None:
    """Requests seen when drift from 32 quantiles of the reference is found."""
    edges = tuple(map(float, np.unique(np.quantile(reference, np.arange(1, 32) / 32))))
    blank = Series("x", "input", None, edges, (0,) * (len(edges) + 1))
    histogram = Histogram.of(blank)
    places = np.searchsorted(histogram.edges, reference, side="left")
    counts = np.bincount(places, minlength=len(blank.counts)).tolist()
    profile = references([Series("x", "input", None, edges, tuple(counts))])
    test = DriftProcess(profile["input:x"].within(DELTA))
    for n, part in enumerate(parts(seen), start=1):
        test = test.observe(histogram.count(part).tolist())
        if test.rejects(ALPHA):
            return n * TICK
    return None


def test_the_decline_of_the_loans_is_found_when_its_labels_come() -> None:
    reference, seen = columns("loan reference"), columns("loan analysis")
    rate = float((reference["y_pred"] != reference["repaid"]).mean())
    wrong = seen["y_pred"] != columns("loan target")["repaid"]
    labels = alarm_at(wrong, rate + POINT)
    assert labels is not None
    # By then so many more requests had been answered: the verdict waits for the labels.
    requests = labels + LABEL_DELAY_ROWS
    assert DECLINE_FROM < labels < requests < 40_000


def test_nothing_is_found_before_the_loans_decline() -> None:
    reference, seen = columns("loan reference"), columns("loan analysis")
    rate = float((reference["y_pred"] != reference["repaid"]).mean())
    wrong = (seen["y_pred"] != columns("loan target")["repaid"])[:DECLINE_FROM]
    assert alarm_at(wrong, rate + POINT) is None
    for name in ("car_value", "debt_to_income_ratio", "loan_length", "driver_tenure"):
        assert drift_at(reference[name], seen[name][:DECLINE_FROM]) is None, name


def test_the_drift_of_the_loans_shows_without_any_label() -> None:
    reference, seen = columns("loan reference"), columns("loan analysis")
    found = drift_at(reference["car_value"], seen["car_value"])
    assert found is not None
    assert DECLINE_FROM < found < 40_000
    for steady in ("debt_to_income_ratio", "driver_tenure"):
        assert drift_at(reference[steady], seen[steady]) is None, steady


@cache
def employment() -> dict[str, Any]:
    """Three years in order; inside a year the table is sorted by household, so it is shuffled."""
    seen = {**columns("employment analysis"), "employed": columns("employment target")["employed"]}
    rng = np.random.default_rng(7)
    order = np.lexsort((rng.random(len(seen["year"])), seen["year"]))
    return {key: values[order] for key, values in seen.items()}


def test_no_year_of_the_employment_census_raises_an_alarm() -> None:
    """Measured: no degradation from 2015 to 2018. Any rollback would be a false one."""
    reference, seen = columns("employment reference"), employment()
    rate = float((reference["prediction"] != reference["employed"]).mean())
    assert alarm_at(seen["prediction"] != seen["employed"], rate + POINT) is None


@pytest.mark.parametrize("name", ["AGEP", "predicted_probability"])
def test_nothing_in_the_employment_census_drifts(name: str) -> None:
    assert drift_at(columns("employment reference")[name], employment()[name]) is None
