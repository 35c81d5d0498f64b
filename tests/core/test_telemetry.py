"""Counts merge by addition in any order, and hostile reports are refused."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core.errors import Broken, Rejected, TooLarge
from hanse.core.evidence.difference import LEVELS
from hanse.core.ids import Digest, segment
from hanse.core.reading import canonical_json
from hanse.core.telemetry import (
    BUCKET_MAX,
    GAMMA,
    Counts,
    ModelReport,
    Pairs,
    Report,
    Window,
    confusion_cell,
    latency_bucket,
    latency_quantile_s,
    parse_report,
)

MODEL = segment("ocr-rec")
small = st.integers(0, 1000)
buckets = st.dictionaries(st.integers(0, BUCKET_MAX), small)
series = st.dictionaries(st.sampled_from(["output:y", "input:x[3]"]), st.tuples(small, small))
counts = st.builds(Counts, small, small, small, small, small, small, buckets, series)
cells = st.builds(confusion_cell, st.integers(-1, 70), st.integers(-1, 70))
pairs = st.builds(
    Pairs,
    *[small] * 7,
    st.dictionaries(st.integers(0, LEVELS - 1), small),
    st.dictionaries(st.integers(0, 32), small),
    st.dictionaries(cells, small),
)
windows = st.builds(
    Window,
    st.just(MODEL),
    stable=counts,
    canary=counts,
    shadow=counts,
    pairs=pairs,
)


def example() -> Report:
    window = Window(
        MODEL,
        "r-17",
        12,
        500,
        1000,
        Counts(9, 1, 2, 3, 1, 1, {0: 4, 300: 5}, {"output:y": (3, 4)}),
        pairs=Pairs(
            1, 2, differences={0: 1, 64: 2}, distances={32: 3}, confusion={"3>8": 2, "other": 1}
        ),
    )
    model = ModelReport(
        MODEL,
        Digest.of(b"1"),
        True,
        (Digest.of(b"1"), Digest.of(b"2")),
        {Digest.of(b"3"): "golden: output y differs"},
        False,
        (window,),
    )
    return Report(segment("edge-1"), 2, 17, (model,))


@given(windows, windows, windows)
def test_windows_add_in_any_order_and_grouping(a: Window, b: Window, c: Window) -> None:
    assert (a + b) + c == a + (b + c) == (c + a) + b


def test_windows_under_different_weights_are_never_added() -> None:
    with pytest.raises(Broken):
        Window(MODEL, weight_bp=100) + Window(MODEL, weight_bp=200)


@given(st.floats(1e-6, 79_000))
def test_a_bucket_holds_its_latency_within_four_percent(latency_s: float) -> None:
    upper = GAMMA ** latency_bucket(latency_s) / 1e6
    assert latency_s <= upper * (1 + 1e-9)
    assert upper <= latency_s * GAMMA * (1 + 1e-9)


def test_quantiles_come_from_counts() -> None:
    histogram = Counts(latency={latency_bucket(0.001): 99, latency_bucket(1.0): 1}).latency
    assert math.isclose(latency_quantile_s(histogram, 0.5) or 0, 0.001, rel_tol=0.04)
    assert math.isclose(latency_quantile_s(histogram, 1.0) or 0, 1.0, rel_tol=0.04)
    assert latency_quantile_s({}, 0.5) is None


def test_a_report_survives_the_wire() -> None:
    assert parse_report(example().encode()) == example()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("requests", -1),
        ("requests", 1.5),
        ("errors", 10),
        ("wrong", 4),
        ("latency", {"641": 1}),
        ("latency", {"01": 1}),
        ("latency", {"٣": 1}),
        ("latency", {"9" * 5000: 1}),
        ("latency", {"1": 0}),
        ("latency", []),
        ("invalid", 2),
        ("series", {"output:y": [1] * 65}),
        ("series", {f"output:{i}": [1] for i in range(9)}),
        ("series", {"output:y": [-1]}),
        ("surprise", 1),
    ],
)
def test_counts_that_cannot_be_are_rejected(field: str, value: object) -> None:
    document = json.loads(example().encode())
    document["models"][0]["windows"][0]["stable"][field] = value
    with pytest.raises(Rejected):
        parse_report(canonical_json(document))


def test_a_report_is_bounded_when_written_and_when_read() -> None:
    wide = Counts(10**6, latency=dict.fromkeys(range(BUCKET_MAX), 10**12))
    many = tuple(Window(MODEL, generation=i, stable=wide) for i in range(8))
    with pytest.raises(TooLarge):
        Report(segment("edge-1"), 1, 1, (ModelReport(MODEL, windows=many),)).encode()
    with pytest.raises(TooLarge):
        parse_report(b" " * 70_000)
