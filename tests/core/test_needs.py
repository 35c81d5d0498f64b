"""What is missing is said completely: a rollout waits exactly as long as something is."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import event, given, settings
from hypothesis import strategies as st
from test_rollout_machine import SPEC, TICK_S, Walk, facts_of, moods, starts, walk_to

from hanse.core.evidence.interval import rate_interval
from hanse.core.rollout.needs import ahead, needs
from hanse.core.rollout.table import TERMINAL, State
from hanse.core.rollout.tick import View


def seen(walk: Walk, mood: str, after_s: float = TICK_S) -> View:
    """What the next tick in this mood would find."""
    progress = walk.progress
    now = facts_of(mood, progress)
    return View(
        SPEC, SPEC.stages[progress.stage], progress, replace(now, windows=()), walk.now_s + after_s
    )


@given(starts, moods)
@settings(max_examples=150)
def test_whoever_waits_is_told_what_for_and_whoever_lacks_nothing_goes_on(
    start: State, sequence: list[str]
) -> None:
    """Windows of the tick are not known before it, so only ticks without news are compared."""
    walk = walk_to(start)
    for mood in sequence:
        walk.tick(mood)
        view = seen(walk, mood)
        wanting, (state, _, now) = needs(view), ahead(view)
        before, unmoved = walk.progress, Walk(walk.region)
        unmoved.progress, unmoved.now_s = before, walk.now_s
        after = unmoved.tick(view.facts)
        moved = after.state is not before.state or after.step != before.step
        event(f"{before.state} {'moves' if moved else 'waits'}")
        assert moved == now
        if moved:
            assert after.state is state
        elif before.state not in TERMINAL:
            assert wanting
        if not wanting and before.state not in TERMINAL:
            assert moved


def unseen(state: State, mood: str) -> View:
    """Just entered, before anything was counted."""
    walk = walk_to(state)
    view = seen(walk, mood, after_s=0.0)
    return replace(view, progress=replace(walk.progress, evidence=Walk().progress.evidence))


def test_everything_that_is_missing_is_named_at_once_with_its_quantity() -> None:
    view = unseen(State.PAUSED, "gate")
    view = replace(view, facts=replace(view.facts, frozen=True))
    found = {need.reason: need for need in needs(view)}
    assert list(found) == ["frozen", "duration", "notEnoughSamples"]
    assert (found["duration"].have, found["duration"].needed) == (0.0, 60.0)
    assert (found["notEnoughSamples"].have, found["notEnoughSamples"].needed) == (0.0, 500.0)


def test_a_missing_proof_says_how_much_of_it_is_there() -> None:
    needed = {need.reason: need for need in needs(unseen(State.ANALYZING, "good"))}
    proof = needed["undecided"]
    assert (proof.text, proof.have) == ("proof of error-rate", 0.0)
    assert proof.needed is not None
    assert proof.needed > 4  # ln(1 / alpha) at the least


def test_a_missing_signature_says_how_many_people_have_signed() -> None:
    view = seen(walk_to(State.AWAITING), "nobody signs")
    (need,) = [need for need in needs(view) if need.reason == "approval"]
    assert (need.have, need.needed) == (1, 2)
    assert "hanse rollout approve" in need.text


def test_the_next_transition_is_named_with_its_step() -> None:
    for state, next_state, step in (
        (State.GATED, State.PREFETCHING, None),
        (State.SHADOWING, State.ANALYZING, 1),
        (State.WEIGHTING, State.PAUSED, 3),
        (State.AWAITING, State.WEIGHTING, 6),
        (State.SOAKING, State.HEALTHY, None),
    ):
        walk = walk_to(state)
        found, which, _ = ahead(seen(walk, "nodes away", after_s=0.0))
        assert found is next_state
        assert which == (None if step is None else SPEC.stages[1].steps[step])


@given(st.integers(0, 2000), st.integers(0, 20_000), st.sampled_from([0.05, 0.01]))
def test_an_interval_holds_what_was_seen_and_narrows(bad: int, more: int, alpha: float) -> None:
    n = bad + more
    low, high = rate_interval(bad, n, alpha)
    assert 0 <= low <= (bad / n if n else 0.5) <= high <= 1
    wide_low, wide_high = rate_interval(bad, n, alpha / 10)
    assert wide_low <= low
    assert wide_high >= high
    if 0 < bad < n:
        narrow = rate_interval(10 * bad, 10 * n, alpha)
        assert narrow[1] - narrow[0] < high - low


def test_an_interval_holds_the_true_rate_at_every_look() -> None:
    """At most one run in twenty may ever leave it: 40 runs of 2,000 looks at 5 %."""
    from random import Random

    missed = 0
    for seed in range(40):
        dice, bad = Random(seed), 0
        for n in range(1, 2001):
            bad += dice.random() < 0.05
            if n % 10 == 0:
                low, high = rate_interval(bad, n)
                if not low <= 0.05 <= high:
                    missed += 1
                    break
    assert missed <= 4
