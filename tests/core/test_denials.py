"""An entry for each peer and release a day, and few of all together, whatever is asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hanse.core.denials import A_DAY, DAY_S, Denials
from hanse.core.ids import Digest

RELEASE, OTHER = Digest.of(b"1"), Digest.of(b"2")


def test_the_same_denial_is_news_once_a_day() -> None:
    denials = Denials(0.0)
    assert denials.is_news("n1", RELEASE, 1.0)
    assert not denials.is_news("n1", RELEASE, DAY_S)
    assert denials.is_news("n1", OTHER, 2.0)
    assert denials.is_news("n2", RELEASE, 3.0)
    assert denials.is_news("n1", RELEASE, DAY_S + 1.0)


@given(st.lists(st.tuples(st.integers(0, 400), st.floats(0, 3000)), max_size=600))
def test_however_many_ask_a_day_has_no_more_than_its_share(asked: list[tuple[int, float]]) -> None:
    denials, now_s, told = Denials(0.0), 0.0, list[float]()
    for name, later_s in asked:
        now_s += later_s
        if denials.is_news(f"n{name}", RELEASE, now_s):
            told.append(now_s)
    for begin_s in told:
        assert sum(begin_s <= at_s < begin_s + DAY_S for at_s in told) <= 2 * A_DAY
    assert len(denials._told) <= 2 * A_DAY


def test_a_thousand_names_in_a_moment_are_not_all_told() -> None:
    denials = Denials(0.0)
    assert sum(denials.is_news(f"n{n}", RELEASE, 0.0) for n in range(1000)) == A_DAY
