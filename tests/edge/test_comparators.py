"""Answers of every kind: what counts as the same, how far apart, and what a label may be."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core.catalog.manifest import Outcome
from hanse.core.errors import Rejected
from hanse.core.telemetry import distance_level
from hanse.edge.comparators import (
    BOXES_MAX,
    Answer,
    Argmax,
    Boxes,
    Comparator,
    Labels,
    Numbers,
    Texts,
    edit_distance,
)
from hanse.edge.outcomes import elements

ARGMAX = Argmax(Outcome("argmax", "y"))
LABELS = Labels(Outcome("label", "y"))
NUMBERS = Numbers(Outcome("number", "y", rtol=0.01, atol=0.001))
BOXES = Boxes(Outcome("boxes", "y"))
TEXTS = Texts(Outcome("text", "y"), lambda found: "\n".join(elements(found)))


def read(comparator: Comparator, *values: object) -> Answer:
    return comparator.read({"y": np.array(values)})


def test_probabilities_are_compared_class_by_class() -> None:
    old, new = read(ARGMAX, 0.7, 0.2, 0.1), read(ARGMAX, 0.4, 0.5, 0.1)
    assert not ARGMAX.agrees(old, new)
    assert ARGMAX.distance(old, new) == pytest.approx(0.3)
    assert ARGMAX.cell(old, new) == "0>1"


def test_scores_become_probabilities_first() -> None:
    logits, shifted = read(ARGMAX, 2.0, 1.0, -3.0), read(ARGMAX, 12.0, 11.0, 7.0)
    assert ARGMAX.agrees(logits, shifted)
    assert ARGMAX.distance(logits, shifted) < 0.01


def test_a_class_is_right_or_wrong_against_its_label() -> None:
    answer = read(ARGMAX, 0.7, 0.2, 0.1)
    assert ARGMAX.agrees(ARGMAX.truth("0"), answer)
    assert ARGMAX.distance(ARGMAX.truth("0"), answer) == 0
    assert ARGMAX.distance(ARGMAX.truth(" 1 "), answer) == 1


def test_several_rows_are_compared_as_one_text() -> None:
    old = ARGMAX.read({"y": np.array([[0.1, 0.9], [0.8, 0.2]])})
    assert old.text == "1,0"
    assert ARGMAX.cell(old, old) is None


def test_numbers_agree_within_what_was_declared() -> None:
    assert NUMBERS.agrees(read(NUMBERS, 100.0), read(NUMBERS, 101.0))
    assert not NUMBERS.agrees(read(NUMBERS, 100.0), read(NUMBERS, 101.1))
    assert NUMBERS.agrees(read(NUMBERS, 0.0), read(NUMBERS, 0.001))
    assert NUMBERS.distance(read(NUMBERS, 1.0, 0.0), read(NUMBERS, 3.0, 0.0)) == 0.25
    assert NUMBERS.agrees(NUMBERS.truth("99.5"), read(NUMBERS, 100.0))


def test_another_number_of_numbers_is_as_far_as_can_be() -> None:
    assert NUMBERS.distance(read(NUMBERS, 1.0), read(NUMBERS, 1.0, 2.0)) == 1
    assert not NUMBERS.agrees(read(NUMBERS, 1.0), read(NUMBERS, 1.0, 2.0))


BOX = [0.0, 0.0, 10.0, 10.0, 0.9, 3]


def test_boxes_match_by_class_and_overlap() -> None:
    near, far, other = [1.0, 0, 10, 10, 0.8, 3], [50.0, 0, 60, 10, 0.8, 3], [*BOX[:5], 4]
    one = read(BOXES, BOX)
    assert BOXES.agrees(one, read(BOXES, near))
    assert BOXES.distance(one, read(BOXES, far)) == 1
    assert BOXES.distance(one, read(BOXES, other)) == 1
    assert BOXES.distance(read(BOXES, BOX, far), one) == pytest.approx(1 / 3)
    assert BOXES.agrees(BOXES.truth(json.dumps([[0, 0, 10, 10, 3]])), one)


def test_one_box_is_the_partner_of_one() -> None:
    twice = read(BOXES, BOX, BOX)
    assert BOXES.distance(read(BOXES, BOX), twice) == pytest.approx(1 / 3)


def test_weak_rows_are_no_detections_and_nothing_equals_nothing() -> None:
    weak = read(BOXES, [*BOX[:4], 0.1, 3])
    assert weak.boxes == ()
    assert BOXES.agrees(weak, BOXES.truth("[]"))
    assert BOXES.distance(weak, weak) == 0


def test_texts_differ_by_edits_and_long_ones_by_words() -> None:
    assert TEXTS.distance(read(TEXTS, "kitten"), read(TEXTS, "sitting")) == pytest.approx(3 / 7)
    long = " ".join(f"word{i}" for i in range(40))
    other = long.replace("word7", "nothing")
    assert 0 < TEXTS.distance(read(TEXTS, long), read(TEXTS, other)) < 0.06
    assert TEXTS.agrees(read(TEXTS, "a b"), TEXTS.truth("ab "))


def test_texts_that_differ_far_behind_still_differ() -> None:
    long = "x" * 5000
    old, new = read(TEXTS, f"{long}a"), read(TEXTS, f"{long}b")
    assert not TEXTS.agrees(old, new)
    assert 0 < TEXTS.distance(old, new) < 0.01


@pytest.mark.parametrize(
    ("comparator", "label"),
    [
        (NUMBERS, "much"),
        (NUMBERS, "nan"),
        (NUMBERS, "1,inf"),
        (NUMBERS, ",".join(["1"] * 65)),
        (BOXES, "[[1, 2, 3]]"),
        (BOXES, "{"),
        (BOXES, '[["a", 1, 2, 3, 4]]'),
        (BOXES, "3"),
        (BOXES, json.dumps([[0, 0, 1, 1, 1]] * (BOXES_MAX + 1))),
        (BOXES, "[" * 5000),
    ],
)
def test_a_label_that_means_nothing_is_refused(comparator: Comparator, label: str) -> None:
    with pytest.raises(Rejected):
        comparator.truth(label)


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=80))
def test_edit_distance_is_a_distance(a: str, b: str, c: str) -> None:
    assert edit_distance(a, a) == 0
    assert 0 <= edit_distance(a, b) == edit_distance(b, a) <= 1
    if max(map(len, (a, b, c))) <= 64:
        edits = [edit_distance(x, y) * max(len(x), len(y)) for x, y in ((a, c), (a, b), (b, c))]
        assert edits[0] <= edits[1] + edits[2] + 1e-9


_BOXES = st.lists(
    st.tuples(*[st.floats(0, 20, width=32)] * 4, st.floats(0, 1, width=32), st.integers(0, 2)),
    max_size=5,
)


@given(_BOXES, _BOXES)
def test_a_distance_of_boxes_has_a_cell(a: list, b: list) -> None:  # type: ignore[type-arg]  # rows
    old, new = (BOXES.read({"y": np.array(rows).reshape(-1, 6)}) for rows in (a, b))
    assert 0 <= BOXES.distance(old, new) <= 1
    assert BOXES.distance(old, new) == BOXES.distance(new, old)
    assert 0 <= distance_level(BOXES.distance(old, new)) <= 32


def test_labels_name_classes_and_texts_do_not() -> None:
    assert LABELS.cell(read(LABELS, 3), read(LABELS, 8)) == "3>8"
    assert LABELS.cell(read(LABELS, 3), read(LABELS, 800)) == "other"
    assert LABELS.cell(read(LABELS, "cat"), read(LABELS, "8")) is None
