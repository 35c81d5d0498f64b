"""The rollout machine: stoppable from anywhere, never onward without evidence or fresh news."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from hanse.core.errors import Conflict, NotFound, Rejected
from hanse.core.evidence.verdict import Reason
from hanse.core.evidence.window import ArmCounts, PairCounts, Trial, Window
from hanse.core.ids import Digest
from hanse.core.rollout.actions import (
    Action,
    Attest,
    Hold,
    Prefetch,
    Promote,
    Report,
    RollBack,
    SetTraffic,
)
from hanse.core.rollout.facts import Facts, Nodes
from hanse.core.rollout.machine import advance
from hanse.core.rollout.plan import RolloutSpec
from hanse.core.rollout.progress import Progress, begin
from hanse.core.rollout.spec import parse_spec
from hanse.core.rollout.stimuli import Cause
from hanse.core.rollout.table import STEPPING, TABLE, TERMINAL, State, Stimulus

TICK_S = 30.0
ERROR_RATE = {"name": "error-rate", "test": "ratio", "event": "error", "margin": 1.25}
LATENCY = {"name": "latency", "test": "ratio", "event": "slow", "margin": 1.5}
LATENCY |= {"provenBelow": "none", "onFail": "hold"}
PAUSE = {"duration": "1m", "minSamples": 500}
STEPS: list[dict[str, Any]] = [
    {"shadow": {"sample": "10%", "duration": "1m"}},
    {"analysis": {"templates": ["safety"]}},
    {"setWeight": 10},
    {"pause": PAUSE},
    {"analysis": {"templates": ["safety"]}},
    {"approve": {"role": "approver", "count": 2}},
    {"setWeight": 100},
]


def document(**changes: object) -> dict[str, Any]:
    safety = {"alpha": 0.01, "metrics": [ERROR_RATE | {"provenBelow": 2.0}, LATENCY]}
    stages = [
        {"name": "pilot", "regions": ["north", "south", "isle"], "steps": STEPS, "soak": "2m"},
        {
            "name": "wave",
            "regions": ["west"],
            "requires": {"stage": "pilot", "healthy": "majority"},
            "steps": STEPS,
            "soak": "2m",
        },
    ]
    body: dict[str, Any] = {
        "release": "sha256:" + "9f" * 32,
        "predecessor": "sha256:" + "41" * 32,
        "stages": stages,
        "templates": {"safety": safety},
    }
    return {
        "apiVersion": "hanse.dev/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": "fraud-7", "model": "fraud-detector", "generation": 12},
        "spec": body | changes,
    }


SPEC = parse_spec(document())


def telemetry(progress: Progress, *, bad: int = 10, slow: int = 10, requests: int = 1000) -> Window:
    arm = Trial.CANARY if progress.weight_percent else Trial.SHADOW
    if progress.weight_percent == 100:
        return Window(arm, ArmCounts(requests, bad, slow))
    trial = ArmCounts(requests, bad * requests // 1000, slow * requests // 1000)
    return Window(arm, trial, ArmCounts(9 * requests, 90 * requests // 1000, 90))


def good(progress: Progress) -> Facts:
    """All is well: gates met, news fresh, nodes obedient, both arms alike."""
    back = not progress.has_traffic
    nodes = Nodes(5, progress.weight_percent, confirmed=5, ready=5, on_target=5 if back else 0)
    return Facts(
        reports=dict.fromkeys(("north", "south"), State.HEALTHY),
        heard_age_s={"north": 10.0, "south": 20.0},
        prefetched=True,
        approvals=(("pilot", 5, "approver", 2), ("wave", 5, "approver", 3)),
        nodes=nodes,
        windows=(telemetry(progress),) if progress.has_traffic else (Window(Trial.CANARY),),
    )


def facts_of(mood: str, progress: Progress) -> Facts:
    facts = good(progress)
    match mood:
        case "stale":
            return replace(facts, heard_age_s={"north": 10.0, "south": 301.0})
        case "not final":
            return replace(facts, barriers=((Cause.FINALITY, "the plan is not final"),))
        case "gate":
            return replace(facts, reports={"north": State.HEALTHY, "south": State.ROLLED_BACK})
        case "silence":
            return replace(facts, windows=())
        case "idle":
            return replace(facts, windows=(Window(Trial.CANARY),))
        case "held elsewhere":
            return replace(facts, held_elsewhere=("isle",))
        case "nobody signs":
            other = (("wave", 4, "approver", 2), ("wave", 5, "approver", 1))
            return replace(facts, approvals=(*other, ("wave", 5, "release-manager", 2)))
        case "nodes lag":
            return replace(facts, nodes=replace(facts.nodes, confirmed=4, on_target=4))
        case "nodes away":
            return replace(facts, nodes=Nodes())
        case "harm" | "slow":
            count = {"harm": "bad", "slow": "slow"}[mood]
            return replace(facts, windows=(telemetry(progress, **{count: 300}),))
        case "good":
            return facts
        case flag:
            return replace(facts, **{flag: True})  # type: ignore[arg-type]  # a bool of Facts


FORBIDS_A_RAISE: tuple[str, ...] = (
    "stale",
    "not final",
    "gate",
    "held elsewhere",
    "paused",
    "frozen",
    "no_room",
    "held_here",
)
FORBIDS_A_RAISE += ("aborted", "barred", "superseded")
MILD = [
    "stale",
    "not final",
    "gate",
    "silence",
    "idle",
    "held elsewhere",
    "nodes lag",
    "nobody signs",
    "nodes away",
]
MILD += ["paused", "frozen", "no_room", "held_here", "slow", "resumed"]
GRAVE = ["harm", "aborted", "barred", "superseded"]
moods = st.lists(st.sampled_from(["good"] * 30 + MILD + ["slow", "resumed"] + GRAVE), max_size=45)
calm_moods = st.lists(st.sampled_from(["good"] * 16 + MILD), max_size=60)


class Walk:
    """One region carried from tick to tick, with everything that was done on the way."""

    def __init__(self, region: str = "west", spec: RolloutSpec = SPEC) -> None:
        self.spec, self.region, self.now_s = spec, region, 1000.0
        self.progress = begin(spec, region, self.now_s)
        self.actions: tuple[Action, ...] = ()
        self.done: list[Action] = []

    def tick(self, facts: Facts | str = "good", after_s: float = TICK_S) -> Progress:
        self.now_s += after_s
        known = facts_of(facts, self.progress) if isinstance(facts, str) else facts
        self.progress, self.actions = advance(
            self.spec, self.region, self.progress, known, self.now_s
        )
        self.done.extend(self.actions)
        return self.progress

    def until(self, state: State, mood: str = "good", ticks: int = 60) -> Progress:
        for _ in range(ticks):
            if self.progress.state is state:
                return self.progress
            self.tick(mood)
        raise AssertionError(f"{state} not reached: {self.progress.state} {self.progress.why}")


LIVE = [state for state in State if state not in (*TERMINAL, State.ROLLING_BACK, State.HELD)]


starts = st.sampled_from(LIVE)


def walk_to(state: State, region: str = "west") -> Walk:
    walk = Walk(region)
    walk.until(state)
    return walk


# --- readable history -----------------------------------------------------------------------------


def line(action: Action) -> str:
    match action:
        case SetTraffic(weight, shadow):
            return f"traffic: weight {weight}, shadow {shadow}"
        case Report(state, _, step, verdict, reason):
            words = [f"report: {state}, step {step}", *(w for w in (verdict, reason) if w)]
            return ", ".join(words)
        case Attest(healthy, _):
            return f"attest: {'healthy' if healthy else 'harm'}"
        case Hold(reason) | RollBack(reason):
            return f"{type(action).__name__}: {reason}".lower()
        case _:
            return type(action).__name__.lower()


def history(walk: Walk, *plan: tuple[int, str]) -> str:
    """One line for each action: seconds since the start, what the world did, what was asked."""
    lines: list[str] = []
    for ticks, mood in plan:
        for _ in range(ticks):
            walk.tick(mood)
            at = f"{walk.now_s - 1000:4.0f} s {mood:<14} "
            lines.extend(at + line(action) for action in walk.actions)
    return "\n".join(lines)


def test_a_whole_rollout_reads_as_planned() -> None:
    written = history(
        Walk(),
        (2, "gate"),
        (6, "good"),
        (6, "silence"),
        (3, "good"),
        (2, "nobody signs"),
        (16, "good"),
    )
    assert written == WHOLE_ROLLOUT.strip("\n")


WHOLE_ROLLOUT = """
  30 s gate           report: gated, step -1
  90 s good           prefetch
  90 s good           report: prefetching, step -1
 120 s good           traffic: weight 0, shadow 10
 120 s good           report: shadowing, step 0
 180 s good           report: analyzing, step 1
 240 s good           traffic: weight 10, shadow 0
 240 s good           report: weighting, step 2, healthy
 270 s silence        report: paused, step 3
 390 s silence        report: held, step 3, telemetryGap
 450 s good           report: paused, step 3
 480 s good           report: analyzing, step 4
 540 s nobody signs   report: awaitingApproval, step 5, healthy
 600 s good           traffic: weight 100, shadow 0
 600 s good           report: weighting, step 6
 630 s good           report: soaking, step 7
 750 s good           promote
 750 s good           attest: healthy
 750 s good           report: healthy, step 7, proven
"""


def test_a_harmful_release_reads_as_rolled_back() -> None:
    written = history(Walk("north"), (9, "good"), (1, "harm"), (2, "nodes lag"), (3, "good"))
    assert written == ROLLED_BACK.strip("\n")


ROLLED_BACK = """
  30 s good           report: gated, step -1
  60 s good           prefetch
  60 s good           report: prefetching, step -1
  90 s good           traffic: weight 0, shadow 10
  90 s good           report: shadowing, step 0
 150 s good           report: analyzing, step 1
 210 s good           traffic: weight 10, shadow 0
 210 s good           report: weighting, step 2, healthy
 240 s good           report: paused, step 3
 300 s harm           hold: worse
 300 s harm           attest: harm
 300 s harm           traffic: weight 0, shadow 0
 300 s harm           rollback: worse
 300 s harm           report: rollingBack, step 3, harm, worse
 390 s good           report: rolledBack, step 3, worse
"""


# --- what must hold whatever happens --------------------------------------------------------------


@given(starts, moods)
@example(State.WEIGHTING, ["harm", *["good"] * 20, *MILD, "slow", "resumed", *GRAVE])
@settings(max_examples=150)
def test_no_sequence_of_facts_breaks_a_promise(start: State, sequence: list[str]) -> None:
    walk = walk_to(start)
    for mood in sequence:
        before = walk.progress
        after = walk.tick(mood)
        check_table(before, after)
        check_weight(before, after, mood)
        check_health(before, after, walk.actions)
        reports = [a for a in walk.actions if isinstance(a, Report)]
        assert len(reports) == ((after.state, after.step) != (before.state, before.step))
        if before.state in TERMINAL and mood != "barred":
            assert after.state is before.state, "no way back is known here"
            watched = before.watching and before.reason != Reason.WORSE == after.reason
            assert walk.actions == ((Hold(str(Reason.WORSE)),) if watched else ())
    event(f"ends {walk.progress.state}")


def check_table(before: Progress, after: Progress) -> None:
    if before.state is after.state:
        return
    followers = {state or before.resumes for state in TABLE[before.state].values()}
    assert after.state in followers
    assert (after.resumes is not None) == (after.state is State.HELD)


def check_weight(before: Progress, after: Progress, mood: str) -> None:
    assert after.weight_percent in (before.weight_percent, 0, 10, 100)
    if after.weight_percent > before.weight_percent or after.shadow_percent > before.shadow_percent:
        assert after.state in (State.WEIGHTING, State.SHADOWING)
        assert before.state is not State.HELD
        assert mood not in FORBIDS_A_RAISE
    if after.state in (State.ROLLING_BACK, State.SUPERSEDED, State.QUARANTINED):
        assert not after.has_traffic


def check_health(before: Progress, after: Progress, actions: tuple[Action, ...]) -> None:
    promoted = any(isinstance(a, Promote) for a in actions)
    assert promoted == (after.state is State.HEALTHY is not before.state)
    if promoted:
        assert len(after.proofs) == 2
        assert after.weight_percent == 100
        assert [type(a) for a in actions] == [Promote, Attest, Report]
    if len(after.proofs) > len(before.proofs):
        assert before.state is State.ANALYZING
        report = next(a for a in actions if isinstance(a, Report))
        assert report.verdict == "healthy"
        assert json.loads(report.evidence)["requests"] > 0
        assert Digest.of(report.evidence) == after.proofs[-1]


@given(starts, moods)
@settings(max_examples=60)
def test_abort_and_quarantine_reach_every_state_in_one_tick(
    start: State, sequence: list[str]
) -> None:
    walk = walk_to(start)
    for mood in [*sequence, "good"]:
        state = walk.progress.state
        if state not in (*TERMINAL, State.ROLLING_BACK):
            for word, end in (
                ("aborted", State.ROLLING_BACK),
                ("barred", State.QUARANTINED),
                ("superseded", State.SUPERSEDED),
            ):
                facts = facts_of(word, walk.progress)
                after, actions = advance(SPEC, "west", walk.progress, facts, walk.now_s + 1)
                assert after.state is end
                assert SetTraffic(0, 0) in actions
                assert (RollBack(after.reason) in actions) == (word != "superseded")
        walk.tick(mood)


@given(starts, calm_moods)
@settings(max_examples=60)
def test_harm_rolls_back_from_anywhere_with_traffic(start: State, sequence: list[str]) -> None:
    walk = walk_to(start)
    for mood in [*sequence, "good"]:
        before = walk.progress
        if before.has_traffic and before.weight_percent < 100 and before.state not in TERMINAL:
            event(f"harm in {before.state}")
            windows = (telemetry(before, bad=900),) * 3
            held = replace(good(before), windows=windows, paused=True, frozen=True)
            after, actions = advance(SPEC, "west", before, held, walk.now_s + 1)
            assert after.state is State.ROLLING_BACK
            assert [type(a) for a in actions] == [Hold, Attest, SetTraffic, RollBack, Report]
        walk.tick(mood)


@given(moods)
@example([*["good"] * 17, "slow"])
@settings(max_examples=60)
def test_a_dry_run_metric_never_changes_the_course(sequence: list[str]) -> None:
    changed = document()
    template = changed["spec"]["templates"]["safety"]
    template["metrics"] = [*template["metrics"], LATENCY | {"name": "dry", "onFail": "rollback"}]
    template["dryRun"] = ["dry"]
    without, beside = Walk(), Walk(spec=parse_spec(changed))
    for mood in sequence:
        one, other = without.tick(mood), beside.tick(mood)
        assert (one.state, one.step, one.reason, one.why, one.weight_percent) == (
            other.state,
            other.step,
            other.reason,
            other.why,
            other.weight_percent,
        )


@given(moods)
@settings(max_examples=60)
def test_stored_progress_goes_on_where_it_was(sequence: list[str]) -> None:
    walk = Walk()
    for mood in sequence:
        walk.tick(mood)
        stored = walk.progress.encode(walk.now_s)
        assert not any(isinstance(value, float) for value in stored.values())
        back = Progress.decode(SPEC, "west", stored, 5.0)
        assert back.elapsed_s(5.0) == walk.progress.elapsed_s(walk.now_s)
        assert back.encode(5.0) == stored


@given(calm_moods)
@settings(max_examples=40)
def test_when_the_trouble_ends_every_region_becomes_healthy(sequence: list[str]) -> None:
    walk = Walk()
    for mood in sequence:
        walk.tick(mood)
    walk.tick("resumed")
    walk.until(State.HEALTHY, ticks=80)


# --- one promise each -----------------------------------------------------------------------------


def test_the_table_has_a_row_for_every_state_and_alarms_in_every_live_row() -> None:
    assert set(TABLE) == set(State)
    alarms = {s: t for s, t in TABLE[State.HELD].items() if s is not Stimulus.RESUME}
    assert set(alarms) == {
        Stimulus.BARRED,
        Stimulus.ABORT,
        Stimulus.HARM,
        Stimulus.SUPERSEDE,
        Stimulus.OVERDUE,
    }
    for state in LIVE:
        assert alarms.items() <= TABLE[state].items()
        assert TABLE[state][Stimulus.HOLD] is State.HELD


def test_a_gate_opens_only_with_a_quorum_that_was_heard_lately() -> None:
    walk = walk_to(State.GATED)
    for mood in ("gate", "stale", "gate"):
        assert walk.tick(mood).state is State.GATED
    assert walk.progress.why == "1 of 2 regions of stage pilot are healthy"
    assert walk.tick("good").state is State.PREFETCHING
    assert Prefetch() in walk.actions


def test_the_first_stage_waits_for_nobody() -> None:
    walk = Walk("north")
    walk.tick(Facts())
    assert walk.tick(Facts()).state is State.PREFETCHING


def test_nothing_starts_before_release_and_target_are_here() -> None:
    walk = walk_to(State.PREFETCHING)
    assert walk.tick(replace(good(walk.progress), prefetched=False)).reason == Cause.PREFETCH
    assert walk.tick("good").state is State.SHADOWING


def test_old_news_allow_the_step_but_not_the_raise() -> None:
    walk = walk_to(State.PAUSED)
    assert walk.tick("stale").state is State.PAUSED
    assert walk.tick("stale").state is State.ANALYZING
    assert walk.tick("stale").state is State.AWAITING
    assert walk.tick("stale").state is State.HELD
    assert (walk.progress.reason, walk.progress.weight_percent) == (Cause.STALE, 10)
    assert walk.tick("stale").state is State.HELD
    assert walk.tick("good").state is State.AWAITING
    assert walk.tick("good").weight_percent == 100


def test_what_is_not_final_stops_every_forward_move_and_no_other() -> None:
    walk = walk_to(State.GATED)
    assert walk.tick("not final").state is State.GATED
    assert (walk.progress.reason, walk.progress.why) == (Cause.FINALITY, "the plan is not final")
    walk = walk_to(State.PAUSED)
    assert walk.tick("not final").state is State.PAUSED
    walk.until(State.HELD, "not final")
    assert (walk.progress.reason, walk.progress.weight_percent) == (Cause.FINALITY, 10)
    walk.until(State.SOAKING)
    walk.until(State.HELD, "not final")
    walk.until(State.HEALTHY)
    for mood in ("harm", "aborted", "barred"):
        walk = walk_to(State.ANALYZING)
        facts = replace(facts_of(mood, walk.progress), barriers=((Cause.FINALITY, "not final"),))
        assert walk.tick(facts).state in (State.ROLLING_BACK, State.QUARANTINED)


def test_old_news_prevent_the_promotion() -> None:
    walk = walk_to(State.SOAKING)
    walk.until(State.HELD, "stale")
    assert walk.progress.reason == Cause.STALE
    walk.until(State.HEALTHY)


@pytest.mark.parametrize(
    ("mood", "reason"),
    [
        ("paused", Cause.OPERATOR),
        ("frozen", Cause.FROZEN),
        ("no_room", Cause.NO_ROOM),
        ("held_here", Cause.HELD_HERE),
        ("held elsewhere", Cause.HELD_ELSEWHERE),
    ],
)
@pytest.mark.parametrize("state", LIVE)
def test_a_hold_lasts_as_long_as_its_cause_and_returns_to_the_same_step(
    state: State, mood: str, reason: Cause
) -> None:
    walk = walk_to(state)
    before = walk.progress
    for _ in range(20):
        held = walk.tick(mood)
        assert (held.state, held.reason) == (State.HELD, reason)
        assert not any(isinstance(a, SetTraffic | Hold) for a in walk.actions)
    back = walk.tick("good")
    assert (back.state, back.step) == (before.state, before.step)
    assert back.weight_percent == before.weight_percent


def test_time_spent_held_does_not_count_as_time_in_the_step() -> None:
    walk = walk_to(State.SOAKING)
    for _ in range(50):
        walk.tick("paused")
    walk.tick("good")
    assert walk.progress.elapsed_s(walk.now_s) == TICK_S
    assert walk.tick("good").state is State.SOAKING


@pytest.mark.parametrize(
    ("mood", "reason"), [("silence", Reason.TELEMETRY_GAP), ("idle", Reason.NO_TRAFFIC)]
)
@pytest.mark.parametrize("state", [State.WEIGHTING, State.PAUSED, State.ANALYZING, State.SOAKING])
def test_missing_telemetry_holds_and_never_aborts(state: State, mood: str, reason: Reason) -> None:
    walk = walk_to(state)
    for _ in range(30):
        facts = replace(facts_of(mood, walk.progress), nodes=Nodes(online=5))
        if walk.progress.state is not state:
            break
        walk.progress = replace(walk.progress, entered_at_s=walk.now_s + TICK_S)
        walk.tick(facts)
    assert (walk.progress.state, walk.progress.reason) == (State.HELD, reason)
    assert walk.tick("good").state is state


def test_zero_traffic_never_passes_an_analysis() -> None:
    walk = walk_to(State.ANALYZING)
    walk.progress = replace(walk.progress, evidence=begin(SPEC, "west", 0).evidence)
    assert walk.tick("idle").reason == Reason.NO_TRAFFIC
    assert walk.progress.proofs == ()


def test_a_pause_waits_for_its_samples() -> None:
    walk = walk_to(State.WEIGHTING)
    few = replace(good(walk.progress), windows=(telemetry(walk.progress, requests=100),))
    for _ in range(4):
        walk.tick(few)
    assert walk.progress.state is State.PAUSED
    assert walk.progress.reason == Reason.NOT_ENOUGH_SAMPLES
    assert walk.tick(few).state is State.ANALYZING


def test_a_weight_is_confirmed_by_every_online_node() -> None:
    walk = walk_to(State.WEIGHTING)
    for mood in ("nodes lag", "nodes away"):
        assert walk.tick(mood).state is State.WEIGHTING
    facts = good(walk.progress)
    earlier = replace(facts, nodes=replace(facts.nodes, weight_percent=0))
    assert walk.tick(earlier).reason == Cause.NODES
    assert walk.tick("good").state is State.PAUSED


def test_harm_that_asks_for_a_hold_is_signed_and_lifted_by_a_person_only() -> None:
    walk = walk_to(State.PAUSED)
    walk.until(State.HELD, "slow")
    assert walk.actions[0] == Hold(Reason.WORSE)
    for _ in range(10):
        fine = (telemetry(walk.progress, slow=0),) * 10
        assert walk.tick(replace(good(walk.progress), windows=fine)).reason == Reason.WORSE
    assert walk.progress.evidence.row("latency").harm.log_e() < 0  # receded, yet still held
    assert walk.tick("resumed").state is State.PAUSED
    assert walk.progress.evidence.requests == 1000
    walk.until(State.HEALTHY)


def test_evidence_starts_anew_when_the_arms_change_and_only_then() -> None:
    walk = walk_to(State.ANALYZING)
    assert walk.progress.evidence.requests > 0
    walk.until(State.WEIGHTING)
    assert walk.progress.evidence.requests == 0
    walk.until(State.ANALYZING)
    assert walk.progress.evidence.requests >= 3000


def test_a_mirrored_weight_gathers_pairs_beside_the_canary() -> None:
    mirrored = document()
    mirrored["spec"]["stages"][1]["steps"] = [
        {"setWeight": {"weight": 10, "shadow": "50%"}},
        *STEPS[3:5],
        STEPS[6],
    ]
    walk = Walk(spec=parse_spec(mirrored))
    walk.until(State.WEIGHTING)
    assert walk.actions[0] == SetTraffic(10, 50)
    walk.until(State.SOAKING)
    assert SetTraffic(100, 0) in walk.done


def test_late_windows_of_the_shadow_do_not_count_for_the_canary() -> None:
    walk = walk_to(State.WEIGHTING)
    late = Window(Trial.SHADOW, ArmCounts(1000, 900), ArmCounts(1000), PairCounts())
    walk.tick(replace(good(walk.progress), windows=(late,)))
    assert walk.progress.evidence.requests == 0


def test_rolled_back_is_what_the_nodes_say() -> None:
    walk = walk_to(State.PAUSED)
    walk.tick("aborted")
    for mood in ("nodes lag", "nodes away", "nodes lag"):
        assert walk.tick(mood).state is State.ROLLING_BACK
    for mood in ("aborted", "barred", "superseded"):
        lagging = replace(facts_of(mood, walk.progress), nodes=Nodes(5, on_target=4))
        assert walk.tick(lagging).state is State.ROLLING_BACK
    assert walk.tick("aborted").state is State.ROLLED_BACK
    for mood in (*GRAVE, "resumed", "good"):
        assert walk.tick(mood).state is State.ROLLED_BACK


def test_an_abort_before_any_exposure_needs_no_node() -> None:
    walk = walk_to(State.GATED)
    walk.tick("aborted")
    assert walk.tick("nodes away").state is State.ROLLED_BACK


def test_a_healthy_region_still_obeys_a_quarantine() -> None:
    walk = walk_to(State.HEALTHY)
    for mood in ("aborted", "superseded", "harm", "paused", "silence"):
        assert walk.tick(mood).state is State.HEALTHY
    assert walk.tick("barred").state is State.QUARANTINED
    assert walk.actions[:2] == (SetTraffic(0, 0), RollBack(Cause.QUARANTINED))


@pytest.mark.parametrize(
    ("on_exceeded", "state"), [("hold", State.HELD), ("rollback", State.ROLLING_BACK)]
)
def test_a_step_that_takes_too_long_is_held_or_rolled_back(on_exceeded: str, state: State) -> None:
    deadline = {"step": "5m", "onExceeded": on_exceeded}
    walk = Walk(spec=parse_spec(document(deadline=deadline)))
    walk.until(State.WEIGHTING)
    walk.until(state, "nodes lag")
    assert walk.progress.reason == Cause.DEADLINE
    if state is State.HELD:
        assert walk.tick("good").state is State.HELD
        assert walk.tick("resumed").state is State.WEIGHTING
        walk.until(State.HEALTHY)


def test_a_held_stage_meets_its_deadline_too() -> None:
    deadline = {"stage": "20m", "onExceeded": "rollback"}
    walk = Walk(spec=parse_spec(document(deadline=deadline)))
    walk.until(State.PAUSED)
    walk.until(State.ROLLING_BACK, "paused")
    assert walk.progress.reason == Cause.DEADLINE


def test_every_traffic_state_is_a_step_of_the_walk() -> None:
    walk, seen = Walk(), Counter[State]()
    while walk.progress.state is not State.HEALTHY:
        seen[walk.tick().state] += 1
    assert set(STEPPING) <= set(seen)


def test_a_region_without_a_stage_has_no_progress() -> None:
    with pytest.raises(NotFound):
        begin(SPEC, "nowhere", 0.0)
    with pytest.raises(Conflict):
        advance(SPEC, "north", begin(SPEC, "west", 0.0), Facts(), 1.0)


def test_malformed_progress_is_refused() -> None:
    stored = walk_to(State.PAUSED).progress.encode(2000.0)
    for broken in (None, {}, stored | {"step": 1.0}, stored | {"more": 1}, stored | {"why": 1}):
        with pytest.raises(Rejected):
            Progress.decode(SPEC, "west", broken, 0.0)
    for other in ({"step": 99}, {"stage": 0}):
        with pytest.raises(Rejected):
            Progress.decode(SPEC, "west", stored | other, 0.0)


# --- nodes that speak against it ------------------------------------------------------------------


def with_nodes(walk: Walk, **counts: int) -> Facts:
    facts = good(walk.progress)
    return replace(facts, nodes=replace(facts.nodes, **counts))


@pytest.mark.parametrize("counts", [{"failing": 2, "ready": 3}, {"silent": 2}])
@pytest.mark.parametrize("state", [State.PREFETCHING, *STEPPING])
def test_more_nodes_than_the_plan_bears_undo_it(state: State, counts: dict[str, int]) -> None:
    walk = walk_to(state)
    assert walk.tick(with_nodes(walk, **counts)).state is State.ROLLING_BACK
    assert walk.progress.reason == Cause.FAILING
    assert Hold(str(Cause.FAILING)) in walk.actions


@pytest.mark.parametrize("ready", [0, 1, 4])
def test_one_node_of_several_that_fails_stops_it_and_undoes_nothing(ready: int) -> None:
    walk = walk_to(State.PREFETCHING)
    facts = with_nodes(walk, failing=1, ready=ready)
    nodes = replace(facts.nodes, against=("dock-7",))
    assert walk.tick(replace(facts, nodes=nodes)).state is State.HELD
    assert (walk.progress.reason, walk.actions[0]) == (Cause.FAILING, walk.actions[-1])
    assert walk.progress.why.endswith("dock-7")
    walk.until(State.HEALTHY)


def test_of_two_nodes_one_that_fails_undoes_it() -> None:
    walk = walk_to(State.PREFETCHING)
    assert walk.tick(with_nodes(walk, online=2, failing=1, ready=1)).state is State.ROLLING_BACK


def test_a_plan_may_hold_instead_and_goes_on_when_they_have_recovered() -> None:
    walk = Walk(spec=parse_spec(document(nodes={"failing": "10%", "onExceeded": "hold"})))
    walk.until(State.PAUSED)
    assert walk.tick(with_nodes(walk, failing=2)).state is State.HELD
    walk.until(State.HEALTHY)


def test_as_many_as_the_plan_bears_keep_nobody_waiting() -> None:
    walk = Walk(spec=parse_spec(document(nodes={"failing": "20%"})))
    while walk.progress.state is not State.HEALTHY:
        walk.tick(with_nodes(walk, failing=1, ready=4, confirmed=4))
        assert walk.progress.state not in (State.ROLLING_BACK, State.HELD)


def test_a_region_that_hears_of_no_node_blames_nobody() -> None:
    walk = walk_to(State.PAUSED)
    gone = replace(good(walk.progress), nodes=Nodes(0, silent=5))
    assert walk.tick(gone).state is not State.ROLLING_BACK
