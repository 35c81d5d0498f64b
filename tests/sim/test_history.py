"""A long behaviour as a text that people read: who did what, when, and why.

When a change of behaviour is meant, record it again:

    hanse sim --seed 7 > tests/histories/seed-7.txt
"""

from __future__ import annotations

from pathlib import Path

from hanse.sim.run import history

RECORDED = Path(__file__).parents[1] / "histories" / "seed-7.txt"


def test_seed_seven_is_told_as_it_was_recorded() -> None:
    """All but the last line: its hashes cover every byte, also those that nobody reads."""
    assert list(history(7))[:-1] == RECORDED.read_text().splitlines()[:-1]


def test_a_history_tells_what_matters() -> None:
    """The recorded text itself, so that a new record cannot lose the point of it."""
    text = RECORDED.read_text()
    for line in (
        "ap-south  holds 2.0.0: worse",
        "goes no further with 2.0.0: heldElsewhere",
        "attests that 3.0.0 is healthy",
        "crashes right",
        "is back with",
        "cut off from the others",
        "converged on",
    ):
        assert line in text
