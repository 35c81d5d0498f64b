"""Each part leaves a daemon twice; the rest of the region has it from neighbours, or insists."""

from __future__ import annotations

from collections import Counter, defaultdict
from random import Random
from typing import NamedTuple

from hypothesis import given, target
from hypothesis import strategies as st

from hanse.core.ids import Digest, Segment
from hanse.core.transfer import handed
from hanse.core.transfer.handed import COPIES, LATELY_S, NAMED_MAX, NODES_REMEMBERED, Handed

FILE, OTHER = Digest.of(b"file"), Digest.of(b"other")
NODES = [Segment(f"n{i}") for i in range(NODES_REMEMBERED)]  # of more, the oldest are forgotten


class Ask(NamedTuple):
    node: Segment
    file: Digest
    parts: list[int]
    after_s: float
    insist: bool
    gone: frozenset[Segment]
    whole: frozenset[Segment]


asks = st.builds(
    Ask,
    st.sampled_from(NODES),
    st.sampled_from([FILE, FILE, FILE, OTHER]),
    st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True),
    st.sampled_from([0.0, 0.0, 1.0, 61.0, LATELY_S]),
    st.sampled_from([False, False, False, True]),
    st.frozensets(st.sampled_from(NODES), max_size=6),
    st.frozensets(st.sampled_from(NODES), max_size=2),
)


@given(st.lists(asks, max_size=60), st.integers(0, 2**32))
def test_a_part_leaves_twice_and_whoever_asks_is_sent_to_others_or_served(
    script: list[Ask], seed: int
) -> None:
    gone: frozenset[Segment] = frozenset()
    memory = Handed(lambda node: node not in gone, Random(seed))
    now_s, pointed = 0.0, 0
    left: dict[tuple[Digest, int], list[float]] = defaultdict(list)
    have: dict[tuple[Digest, int], dict[Segment, float]] = defaultdict(dict)
    told: dict[tuple[Digest, int, Segment], tuple[Segment, ...]] = {}
    for ask in script:
        now_s, gone = now_s + ask.after_s, ask.gone
        lately_s = now_s - LATELY_S
        found = memory.elsewhere(
            ask.node, ask.file, ask.parts, now_s, insist=ask.insist, whole=ask.whole
        )
        assert set(found) <= set(ask.parts)
        for part in ask.parts:
            named, holders = found.get(part, ()), have[ask.file, part]
            copies = sum(left_s > lately_s for left_s in left[ask.file, part])
            if ask.insist:
                assert not named, "who insists is served"
                for each in told.pop((ask.file, part, ask.node), ()):
                    holders.pop(each, None)
            recent = {n for n, when_s in holders.items() if when_s > lately_s}
            possible = (recent | ask.whole) - gone - {ask.node}
            if named:
                assert copies >= COPIES
                assert len(set(named)) == len(named) <= NAMED_MAX
                assert set(named) <= possible, "who has it, can be reached and is not the asker"
                told[ask.file, part, ask.node] = named
                pointed += 1
            else:
                assert ask.insist or copies < COPIES or not possible
                left[ask.file, part].append(now_s)
            if ask.node not in gone:
                holders.pop(ask.node, None)
                holders[ask.node] = now_s
    target(float(pointed))


def region(count: int, parts: int, seed: int) -> tuple[Counter[int], Counter[int]]:
    """Everybody asks for every part in an order of its own: copies that left, and were named."""
    chance = Random(seed)
    memory = Handed(lambda _: True, chance)
    wants = [(Segment(f"n{n}"), part) for n in range(count) for part in range(parts)]
    chance.shuffle(wants)
    left: Counter[int] = Counter()
    named: Counter[int] = Counter()
    for at, (node, part) in enumerate(wants):
        found = memory.elsewhere(node, FILE, [part], at * 1e-3)
        left[part] += not found
        named.update(int(n[1:]) for n in found.get(part, ()))
    return left, named


def test_a_region_that_starts_together_costs_two_copies() -> None:
    left, named = region(50, 25, seed=1)
    assert set(left.values()) == {COPIES}
    assert max(named.values()) < 4 * 25 * NAMED_MAX, "nobody carries the others"


def test_a_part_leaves_again_once_what_was_given_is_long_ago() -> None:
    memory = Handed(lambda _: True, Random(1))
    for node in NODES[:3]:
        memory.elsewhere(node, FILE, [0], 0.0)
    assert memory.elsewhere(NODES[3], FILE, [0], LATELY_S - 1)
    assert not memory.elsewhere(NODES[4], FILE, [0], LATELY_S + 1)


def test_nodes_that_nobody_can_reach_are_served_and_never_named() -> None:
    memory = Handed(lambda node: node == NODES[7], Random(1))
    for node in NODES[:7]:
        assert not memory.elsewhere(node, FILE, [0], 0.0)
    assert not memory.elsewhere(NODES[7], FILE, [0], 0.0)
    assert memory.elsewhere(NODES[0], FILE, [0], 0.0) == {0: (NODES[7],)}


def test_who_led_nowhere_is_not_named_again_until_it_asks_again() -> None:
    memory = Handed(lambda _: True, Random(1))
    bad, good, third, fourth = NODES[:4]
    memory.elsewhere(bad, FILE, [0], 0.0)
    memory.elsewhere(good, OTHER, [0], 0.0)
    memory.elsewhere(bad, FILE, [0], 0.0)
    assert memory.elsewhere(third, FILE, [0], 1.0) == {0: (bad,)}
    assert not memory.elsewhere(third, FILE, [0], 2.0, insist=True)
    assert memory.elsewhere(fourth, FILE, [0], 3.0) == {0: (third,)}
    memory.elsewhere(bad, FILE, [0], 4.0)
    assert bad in memory.elsewhere(fourth, FILE, [0], 5.0)[0]


def test_whoever_holds_the_whole_file_is_named_though_it_came_another_way() -> None:
    memory = Handed(lambda node: node == NODES[5], Random(1))
    for node in NODES[:2]:
        memory.elsewhere(node, FILE, [0], 0.0, whole=NODES)
    assert memory.elsewhere(NODES[2], FILE, [0], 0.0, whole=NODES) == {0: (NODES[5],)}


def test_the_parts_of_a_batch_are_to_be_had_from_the_same_nodes() -> None:
    memory = Handed(lambda _: True, Random(1))
    for node in NODES[:7]:
        memory.elsewhere(node, FILE, range(60), 0.0)
    assert len(set(memory.elsewhere(NODES[7], FILE, range(60), 0.0).values())) == 1


def test_however_many_ask_so_much_is_remembered_and_no_more() -> None:
    memory = Handed(lambda _: True, Random(1))
    memory.elsewhere(NODES[0], FILE, range(2 * handed.PARTS_REMEMBERED), 0.0)
    for number in range(40):
        memory.elsewhere(Segment(f"n{number}"), OTHER, [0], 0.0)
    assert len(memory._parts) == handed.PARTS_REMEMBERED
    newest = memory._parts[OTHER, 0]
    assert len(newest.nodes) == len(newest.told) == NODES_REMEMBERED
    assert len(newest.left_s) == COPIES
