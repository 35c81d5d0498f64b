"""Whom a rollout is for: a closed vocabulary, units that stick, samples that are independent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from federation import plan
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.audience import (
    EVERYBODY,
    Audience,
    Context,
    Rule,
    as_text,
    check_context,
    parse_audience,
)
from hanse.core.catalog.fold import read_plan
from hanse.core.errors import InvalidSpec
from hanse.core.ids import Digest
from hanse.core.routing import bucket, shadow_salt, threshold

DOCK: Context = {"device": "dock", "firmware": "3", "beta": "true", "id": "de-17"}


@pytest.mark.parametrize(
    ("rule", "met"),
    [
        ({"attribute": "device", "in": ["dock", "gate"]}, True),
        ({"attribute": "device", "in": ["gate"]}, False),
        ({"attribute": "device", "notIn": ["gate"]}, True),
        ({"attribute": "device", "notIn": ["dock"]}, False),
        ({"attribute": "id", "startsWith": ["at-", "de-"]}, True),
        ({"attribute": "id", "startsWith": ["at-"]}, False),
        ({"attribute": "firmware", "atLeast": 3}, True),
        ({"attribute": "firmware", "below": 3}, False),
        ({"attribute": "firmware", "below": 3.5}, True),
        ({"attribute": "device", "atLeast": 0}, False),  # no number is neither at least
        ({"attribute": "device", "below": 0}, False),  # nor below
        ({"attribute": "firmware", "in": [3]}, True),
        ({"attribute": "beta", "in": [True]}, True),
        ({"attribute": "beta", "present": True}, True),
        ({"attribute": "gone", "present": False}, True),
        # An attribute that is not there meets nothing else.
        ({"attribute": "gone", "notIn": ["x"]}, False),
        ({"attribute": "gone", "in": ["x"]}, False),
        ({"attribute": "gone", "startsWith": ["x"]}, False),
        ({"attribute": "gone", "below": 10}, False),
    ],
)
def test_each_operator(rule: dict[str, Any], met: bool) -> None:
    audience = parse_audience({"target": [rule]}, "a")
    assert audience.admits(DOCK) is met
    assert parse_audience(json.loads(json.dumps(audience.mapping())), "a") == audience


def test_every_rule_has_to_be_met() -> None:
    rules = (Rule("device", "in", ("dock",)), Rule("firmware", "atLeast", 4.0))
    assert not Audience("", rules).admits(DOCK)
    assert Audience("", rules).admits({**DOCK, "firmware": "4.0"})
    assert EVERYBODY.admits({})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"target": [{"attribute": "device", "matches": ".*"}]}, "unknown field"),
        ({"target": [{"attribute": "device"}]}, "0 operators"),
        ({"target": [{"attribute": "device", "in": ["a"], "notIn": ["b"]}]}, "2 operators"),
        ({"target": [{"attribute": "device", "in": []}]}, "is not a list"),
        ({"target": [{"attribute": "device", "in": [""]}]}, "not usable"),
        ({"target": [{"attribute": "device", "in": ["a", "a"]}]}, "named twice"),
        ({"target": [{"attribute": "device", "in": [{}]}]}, "not usable"),
        ({"target": [{"attribute": "device", "in": ["x" * 257]}]}, "not usable"),
        ({"target": [{"attribute": "device", "in": [*map(str, range(65))]}]}, "at most 64"),
        ({"target": [{"attribute": "device", "atLeast": "3"}]}, "not usable"),
        ({"target": [{"attribute": "device", "present": 1}]}, "true or false"),
        ({"target": [{"attribute": "../x", "present": True}]}, "name of an attribute"),
        ({"target": [{"attribute": "a", "present": True}] * 17}, "at most 16"),
        ({"unit": "my unit"}, "name of an attribute"),
        ({"units": "customer"}, "did you mean unit"),
    ],
)
def test_what_is_not_in_the_vocabulary_is_refused_at_entry(
    value: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_audience(value, "spec.audience")
    assert said in f"{caught.value} {caught.value.fix}"
    assert "spec.audience" in str(caught.value)


def test_a_context_is_bounded() -> None:
    assert check_context(DOCK) == DOCK
    for bad in (
        {f"a{i}": "" for i in range(33)},
        {"a b": "x"},
        {"a": "x" * 257},
        {"": "x"},
    ):
        with pytest.raises(InvalidSpec):
            check_context(bad)


def test_values_of_callers_have_one_text_each() -> None:
    found = [as_text(v) for v in (True, 3, 3.0, 2.5, "x", None, [1], float("nan"))]
    assert found == ["true", "3", "3", "2.5", "x", None, None, "nan"]


def test_an_audience_is_part_of_the_signed_plan() -> None:
    wish = {"unit": "customer", "target": [{"attribute": "device", "in": ["dock"]}]}
    signed = plan(Digest.of(b"r"), 1, audience=wish)
    assert read_plan(signed).audience == parse_audience(wish, "")
    assert json.loads(signed)["spec"]["audience"] == wish
    assert read_plan(plan(Digest.of(b"r"), 1)).audience == EVERYBODY


# -- units ------------------------------------------------------------------------------------


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_the_named_attribute_is_the_unit_whoever_asks_and_how(
    customer: str, routing: str, other: str
) -> None:
    audience = Audience("customer")
    context = {"customer": customer, "page": other}
    assert audience.unit_of(context, routing) == customer
    assert audience.unit_of({**context, "page": "other"}, routing + "x") == customer
    assert not audience.admits({"page": other}), "without it there is nothing to stick to"
    assert EVERYBODY.unit_of(context, routing) == routing


@settings(max_examples=200)
@given(st.text(max_size=30), st.text(max_size=30), st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_unit_that_is_in_stays_in_at_every_higher_weight(
    salt: str, unit: str, a: int, b: int
) -> None:
    """Invariant 13, first half."""
    low, high = sorted((a, b))
    assert (bucket(salt, unit) < threshold(low)) <= (bucket(salt, unit) < threshold(high))


@settings(max_examples=25, deadline=None)
@given(st.text(min_size=1, max_size=20), st.sampled_from([500, 1000, 2000, 5000]))
def test_canary_and_shadow_know_nothing_of_each_other_under_any_salt(salt: str, w: int) -> None:
    """Invariant 13, second half: correlation within five standard errors of none."""
    units = [f"unit-{i}" for i in range(4000)]
    canary = [bucket(salt, unit) < threshold(w) for unit in units]
    shadow = [bucket(shadow_salt(salt), unit) < threshold(w) for unit in units]
    p, q, n = sum(canary) / 4000, sum(shadow) / 4000, 4000
    both = sum(c and s for c, s in zip(canary, shadow, strict=True)) / n
    correlation = (both - p * q) / (p * (1 - p) * q * (1 - q)) ** 0.5
    assert abs(correlation) < 5 / n**0.5


@given(st.text(min_size=1, max_size=10), st.text(min_size=1, max_size=10))
def test_two_rollouts_draw_other_units(first: str, second: str) -> None:
    units = [f"unit-{i}" for i in range(400)]
    drawn = [[u for u in units if bucket(s, u) < threshold(5000)] for s in (first, second)]
    assert (first == second) == (drawn[0] == drawn[1])
