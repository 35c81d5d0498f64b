"""Greedy CTC decoding on scores written by hand."""

from __future__ import annotations

import numpy as np
import pytest
from tour.decode import characters, decode, same

CHARACTERS = characters("a\nb")


def scores(*classes: int) -> np.ndarray:
    return np.eye(len(CHARACTERS), dtype=np.float32)[np.newaxis, list(classes)]


def test_characters_are_blank_then_the_list_then_space() -> None:
    assert CHARACTERS == ("", "a", "b", " ")


def test_a_character_that_looks_like_a_line_end_keeps_its_class() -> None:
    assert characters("a\n\u2028\nb") == ("", "a", "\u2028", "b", " ")


@pytest.mark.parametrize(
    ("classes", "text"),
    [
        ((1, 1, 2), "ab"),
        ((1, 0, 1), "aa"),
        ((0, 0, 0), ""),
        ((2, 2, 0, 0, 2, 1, 1), "bba"),
        ((1, 3, 3, 2), "a b"),
    ],
)
def test_repeats_are_dropped_before_blanks(classes: tuple[int, ...], text: str) -> None:
    assert decode(scores(*classes), CHARACTERS) == text


def test_a_score_ignores_spaces_and_nothing_else() -> None:
    assert same("REVB 12", "REV B 12")
    assert not same("0SLO-7", "OSLO-7")
