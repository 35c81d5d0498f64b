"""Bytes in turns: no faster than allowed, nobody left out, nobody ahead by having more streams."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from hanse.core.transfer.turns import BURST_S, QUANTUM_BYTES, Turns

MIB = 1024**2
SIZES = st.integers(1, MIB)


def run(turns: Turns, until_s: float, asked: dict[int, tuple[str, int]]) -> list[tuple[float, int]]:
    """Everything that goes until then, and when."""
    now_s, gone = 0.0, []
    while now_s <= until_s:
        gone += [(now_s, number) for number in turns.due(now_s)]
        wait_s = turns.wait_s(now_s)
        if wait_s is None:
            break
        now_s += max(wait_s, 1e-6)
    assert len({number for _, number in gone}) == len(gone)
    assert {number for _, number in gone} <= set(asked)
    return gone


@given(
    st.lists(st.tuples(st.sampled_from("abc"), SIZES), min_size=1, max_size=60),
    st.integers(100_000, 50 * MIB),
)
def test_all_go_in_the_end_and_never_faster_than_allowed(
    asks: list[tuple[str, int]], bytes_per_s: int
) -> None:
    turns = Turns(bytes_per_s, 0.0)
    asked = {turns.ask(caller, size): (caller, size) for caller, size in asks}
    gone = run(turns, 1e9, asked)
    assert len(gone) == len(asked)
    sent = 0
    for at_s, number in gone:
        assert sent <= bytes_per_s * (BURST_S + at_s) * (1 + 1e-9) + 1
        sent += asked[number][1]
    for caller in "abc":  # within a caller in the order of asking
        own = [n for _, n in gone if asked[n][0] == caller]
        assert own == sorted(own)


@given(st.integers(2, 12), st.lists(SIZES, min_size=40, max_size=40))
def test_who_has_many_streams_gets_no_more_than_who_has_one(streams: int, sizes: list[int]) -> None:
    turns = Turns(MIB, 0.0)
    asked = {turns.ask("one", size): ("one", size) for size in sizes}
    for _ in range(streams):
        asked |= {turns.ask("many", size): ("many", size) for size in sizes}
    sent: Counter[str] = Counter()
    for _, number in run(turns, 1e9, asked):
        caller, size = asked[number]
        sent[caller] += size
        if sent["one"] == sum(sizes):
            break
        assert abs(sent["one"] - sent["many"]) <= 2 * (MIB + QUANTUM_BYTES)


def test_who_has_gone_takes_no_turn_and_leaves_no_trace() -> None:
    turns = Turns(MIB, 0.0)
    first, second = turns.ask("a", MIB), turns.ask("b", MIB)
    turns.drop("a", first)
    turns.drop("a", first)
    assert turns.due(0.0) == [second]
    assert turns.wait_s(0.0) is None
