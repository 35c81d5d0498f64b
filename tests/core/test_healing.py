"""When a region asks for a better model: from harm to a rollout that nobody started by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hand_federation import CAREFUL, MODEL, STEPS, Federation, Traffic, serving
from hypothesis import event, given, settings
from hypothesis import strategies as st

from hanse.core import healing
from hanse.core.catalog.healed import LABEL
from hanse.core.catalog.profile import Series
from hanse.core.catalog.view import HealingView, HoldView, ModelView
from hanse.core.effects import Heal
from hanse.core.events import Hold, HoldLift, RetrainResult, RolloutApprove
from hanse.core.healing import Healing, Mandated, Place, Policy, Waits, due
from hanse.core.ids import Digest, EventId, Origin, member_id, segment
from hanse.core.rollout.spec import parse_spec, to_mapping
from hanse.core.step import PutLocal
from hanse.core.telemetry import Counts, Pairs
from hanse.core.trust import statements
from hanse.core.trust.mandate import Mandate, template_of

REGION = segment("eu-north")
ME = Origin(segment("hansa"), REGION, member_id(bytes(32)), 1)
PLACE = Place(REGION, ME.member)
POLICY = Policy(cooldown_s=100.0, budget=3, window_s=1000.0)


# -- the decision alone ------------------------------------------------------------------------


def release(n: int) -> Digest:
    return Digest.of(b"%d" % n)


@dataclass
class History:
    """A log in miniature: time passes, holds come and go, hooks answer or do not."""

    now_s: float = 0.0
    holds: list[HoldView] = field(default_factory=list)
    healings: list[HealingView] = field(default_factory=list)
    at_s: list[float] = field(default_factory=list)
    count: int = 0

    @property
    def view(self) -> ModelView:
        return ModelView(MODEL, 0, (), (), tuple(self.holds), (), tuple(self.healings))

    def id(self) -> EventId:
        self.count += 1
        return EventId(Digest.of(b"event %d" % self.count).raw)

    def harm(self) -> None:
        said = ("worse: accuracy", "r-1", 1, 0, ME)
        self.holds.append(HoldView(self.id(), REGION, release(self.count), *said))

    def lift(self, pick: int) -> None:
        if self.holds:
            del self.holds[pick % len(self.holds)]

    def answer(self, outcome: str) -> None:
        if self.healings and not self.healings[-1].outcome:
            self.healings[-1] = replace(self.healings[-1], outcome=outcome, child=None)

    def decide(self) -> None:
        found = list(due(self.view, PLACE, POLICY, [self.now_s - at for at in self.at_s]))
        asked = [each for each in found if not isinstance(each, Waits)]
        assert len(asked) <= 1, "one at a time"
        for each in asked:
            self.healings.append(
                HealingView(self.id(), ME, REGION, each.release, each.hold, each.cause)
            )
            self.at_s.append(self.now_s)


OUTCOMES = ("passed", "refused", "failed", "late", "")
moves = st.lists(
    st.tuples(
        st.floats(1, 300),  # seconds that pass
        st.booleans(),  # a new occasion
        st.sampled_from(OUTCOMES),  # what the hook that runs says
        st.integers(-9, 9),  # a hold that people lift
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(moves)
def test_whatever_happens_the_loop_stays_within_cooldown_and_budget(
    script: list[tuple[float, bool, str, int]],
) -> None:
    history = History()
    for wait_s, harm, outcome, lift in script:
        history.now_s += wait_s
        if harm:
            history.harm()
        if outcome:
            history.answer(outcome)
        if lift >= 0:
            history.lift(lift)
        history.decide()
        event(f"asked {len(history.at_s)} times")
    for earlier, later in zip(history.at_s, history.at_s[1:], strict=False):
        assert later - earlier >= POLICY.cooldown_s
    for at in history.at_s:
        within = [t for t in history.at_s if at <= t < at + POLICY.window_s]
        assert len(within) <= POLICY.budget
    assert sum(not h.outcome for h in history.healings) <= 1
    for i, healed in enumerate(history.healings):
        if healed.outcome == "passed":
            later = [h.hold for h in history.healings[i + 1 :]]
            assert healed.hold not in later, "an answered occasion asks no more"


def test_a_hook_that_fails_is_called_again_until_the_budget_is_spent() -> None:
    history = History()
    history.harm()
    for _ in range(200):
        history.decide()
        history.answer("failed")
        history.now_s += 5.0
    assert history.at_s == [0.0, 100.0, 200.0]
    history.now_s = 1000.0
    history.decide()
    assert history.at_s[-1] == 1000.0, "the first has left the window"


@pytest.mark.parametrize(
    ("hold", "why"),
    [
        ({"reason": "nodesFailing: 2 of 3"}, "nodes that cannot run it are not healed by training"),
        ({"reason": "deadline: too slow"}, "nor is a rollout that took too long"),
        ({"rollout": ""}, "a person held it"),
        ({"region": segment("us-east")}, "another region's affair"),
        ({"log": replace(ME, member=member_id(b"1" * 32))}, "another daemon of ours asks"),
        ({"release": None}, "a freeze is about no release"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_occasion(hold: dict[str, Any], why: str) -> None:
    history = History()
    history.harm()
    history.holds[0] = replace(history.holds[0], **hold)
    assert list(due(history.view, PLACE, POLICY, [])) == [], why


def test_only_causes_that_the_operator_named_count() -> None:
    history = History()
    history.harm()
    assert healing.cause_of(history.view, history.holds[0]) == "trial"
    assert list(due(history.view, PLACE, replace(POLICY, causes=("serving",)), [])) == []


def ages(healing_: Healing, history: History, now_s: float) -> list[float]:
    """As a tick of the daemon sees them."""
    list(healing_.advance(history.view, now_s, may_start=True))
    return list(healing_._ages(history.view, now_s).values())


def stored(healing_: Healing) -> dict[str, bytes]:
    return {w.key: w.value for w in healing_.writes() if isinstance(w, PutLocal) and w.value}


def test_ages_survive_a_restart_and_only_grow_older_by_running() -> None:
    history = History()
    history.harm()
    history.decide()
    running = Healing(ME, {MODEL: POLICY})
    ages(running, history, 50.0)
    assert stored(running), "at once: it may end right now"
    assert ages(running, history, 80.0) == [30.0]
    assert not stored(running), "not with every tick"
    assert ages(running, history, 130.0) == [80.0]
    again = Healing(ME, {MODEL: POLICY})
    again.restore(stored(running), {})
    assert ages(again, history, 7.0) == [80.0], "the clock of another boot says 7"
    lost = Healing(ME, {MODEL: POLICY})
    assert ages(lost, history, 7.0) == [0.0], "not stored yet: asked just now"
    assert ages(lost, history, 5000.0) == [4993.0]
    stored(lost)
    assert ages(lost, history, 9000.0) == [8993.0]
    assert not stored(lost), "what counts for nothing any more is not stored again"


# -- a region with real daemons ----------------------------------------------------------------

WATCHED = {
    "stages": [
        {
            "name": "pilot",
            "regions": ["eu-north"],
            "steps": [
                *STEPS[:-1],
                {"setWeight": {"weight": 20, "shadow": "100%"}},
                {"analysis": {"templates": ["accuracy"], "minSamples": 40}},
                {"setWeight": 100},
                {"pause": {"duration": "10s"}},
            ],
        }
    ],
    "templates": CAREFUL["templates"],
}
GOOD = Traffic(Counts(requests=20, labelled=20, wrong=1), Counts(requests=20, labelled=20, wrong=1))
WORSE = Pairs(agree=10, disagree=10, both_right=5, only_old_right=10, only_new_right=1)
DRIFTED = Traffic(
    Counts(requests=20, labelled=20, wrong=12), Counts(requests=20, labelled=20, wrong=12)
)


class Region(Federation):
    """eu-north with a policy and a mandate; the rest of the federation has neither."""

    def __init__(self, **policy: Any) -> None:
        super().__init__()
        self.healing = self.node("eu-north").region.healing
        self.healing.policies = {MODEL: Policy(**{"cooldown_s": 20.0, **policy})}
        self.asked: list[Heal] = []

    def effect(self, effect: object) -> None:
        if isinstance(effect, Heal):
            self.asked.append(effect)

    def traffic(self, traffic: Traffic) -> None:
        for edge in self.edges[REGION]:
            edge.traffic = traffic

    def mandate(self, uses: int = 3, **changed: Any) -> None:
        named = {"name": "x", "model": MODEL, "generation": 1}
        spec = {"release": str(release(1)), "predecessor": str(release(2)), **WATCHED, **changed}
        head = {"apiVersion": "hanse.dev/v1alpha1", "kind": "Rollout"}
        plan = parse_spec({**head, "metadata": named, "spec": spec})
        template = template_of(to_mapping(plan))
        statement = Mandate(MODEL, Digest.of(template), uses).encode()
        envelope = statements.sign_control(statement, [self.person])
        self.healing.mandate(MODEL, Mandated(statement, envelope, template))

    @property
    def view(self) -> ModelView:
        return self.node("eu-north").catalog.views[MODEL]

    def answer(self, version: str, outcome: str = "passed", **more: Any) -> Digest:
        """What the hook and its publisher do, and what the daemon finds in the checks."""
        (asked,) = [h for h in self.view.healings if not h.outcome]
        labels = {LABEL: asked.id.raw.hex()}
        child = self.publish(version, parents=(asked.release,), labels=labels, **more)
        self.propose("eu-north", RetrainResult(MODEL, REGION, asked.id, outcome, child))
        return child

    def state(self, name: str) -> str:
        rollout = next(r for r in self.view.rollouts if r.rollout == name)
        execution = self.node("eu-north").region.execution(self.view, rollout)
        return execution.progress.state.value if execution else ""


def promoted(federation: Region) -> tuple[Digest, Digest]:
    """4.0.0 took the place of 3.0.0, by its numbers."""
    first = serving(federation)
    federation.traffic(GOOD)
    second = federation.publish("4.0.0", parents=(first,))
    federation.roll_out("r-2", 2, second, first, **WATCHED)
    federation.run(90.0)
    assert federation.state("r-2") == "healthy"
    return first, second


def test_a_promoted_release_that_becomes_worse_is_undone_retrained_and_replaced() -> None:
    federation = Region()
    federation.mandate()
    first, second = promoted(federation)
    federation.traffic(DRIFTED)
    federation.run(30.0)
    active = federation.view.active("eu-north")
    assert active is not None
    assert active.release == first
    (asked,) = federation.view.healings
    assert (asked.release, asked.cause, asked.outcome) == (second, "undone", "")
    assert federation.asked == [Heal(MODEL, asked.id)], "called once, and after it was stored"

    child = federation.answer("4.0.1")
    federation.run(2.0)
    rollout = federation.view.rollouts[-1]
    assert (rollout.rollout, rollout.release, rollout.mandated) == ("heal-3", child, True)
    federation.traffic(GOOD)
    federation.run(120.0)
    assert federation.state("heal-3") == "healthy"
    active = federation.view.active("eu-north")
    assert active is not None
    assert active.release == child
    for region in ("us-east", "ap-south"):
        other = federation.node(region).catalog
        assert other.state_digest == federation.node("eu-north").catalog.state_digest
        assert other.views[MODEL].rollouts[-1].mandated


def relapsed(federation: Region) -> Digest:
    federation.mandate()
    promoted(federation)
    federation.traffic(DRIFTED)
    federation.run(30.0)
    child = federation.answer("4.0.1")
    federation.traffic(replace(GOOD, pairs=WORSE))
    federation.run(60.0)
    assert federation.state("heal-3") == "rolledBack"
    return child


def test_an_answer_that_is_rolled_back_is_not_answered_without_a_person() -> None:
    federation = Region(cooldown_s=1.0)
    child = relapsed(federation)
    federation.run(120.0)
    assert len(federation.view.healings) == 1, "no ping-pong"
    waits = federation.healing.waiting(federation.view, federation.now_s)
    assert waits
    assert all(each.person for each in waits)
    assert "4.0.1 was to heal it" in waits[0].why

    (hold,) = [h for h in federation.view.holds if h.release == child]
    lift = federation.control("lift", hold=hold.id.raw.hex())
    federation.propose("eu-north", HoldLift(MODEL, hold.id), attestations=[lift])
    federation.run(2.0)
    assert len(federation.view.healings) == 1, "its own occasion is gone with its hold"


def test_a_plan_that_people_sign_takes_over() -> None:
    federation = Region(cooldown_s=1.0)
    federation.mandate()
    first, second = promoted(federation)
    federation.traffic(DRIFTED)
    federation.run(30.0)
    fix = federation.publish("5.0.0", parents=(first,))
    federation.roll_out("r-3", 3, fix, first, **WATCHED)
    child = federation.answer("4.0.1")
    federation.run(60.0)
    assert child not in [r.release for r in federation.view.rollouts]
    assert second in [h.release for h in federation.view.holds]


def test_what_people_have_taken_over_is_not_retrained_again() -> None:
    federation = Region(cooldown_s=1.0)
    first, _ = promoted(federation)
    federation.traffic(DRIFTED)
    federation.run(30.0)
    (asked,) = federation.view.healings
    fix = federation.publish("5.0.0", parents=(first,))
    federation.roll_out("r-3", 3, fix, first, **WATCHED)
    federation.propose("eu-north", RetrainResult(MODEL, REGION, asked.id, "failed"))
    federation.run(4.0)
    assert len(federation.view.healings) == 1
    (waits,) = federation.healing.waiting(federation.view, federation.now_s)
    assert "people have signed r-3 since" in waits.why
    federation.run(90.0)
    assert federation.state("r-3") == "healthy"
    assert len(federation.view.healings) == 1
    assert not federation.healing.waiting(federation.view, federation.now_s), "it is healed"


def test_an_answer_that_people_passed_over_does_not_keep_the_next_from_being_asked() -> None:
    federation = Region(cooldown_s=1.0)
    _, second = promoted(federation)
    federation.traffic(DRIFTED)
    federation.run(30.0)
    federation.answer("4.0.1")  # without a mandate nobody starts it
    assert not healing.settled(federation.view, federation.view.healings[0])
    bad = federation.publish("5.0.0", parents=(second,))
    federation.traffic(replace(GOOD, pairs=WORSE))
    active = federation.view.active("eu-north")
    federation.roll_out("r-3", 3, bad, active.release if active else None, **WATCHED)
    federation.run(60.0)
    assert [h.release for h in federation.view.healings] == [second, bad]


def test_nothing_is_started_while_the_model_is_frozen_or_trust_is_stale() -> None:
    federation = Region()
    federation.mandate()
    promoted(federation)
    federation.traffic(DRIFTED)
    federation.run(30.0)
    frozen = federation.propose("eu-north", Hold(MODEL, REGION, None, "audit"))
    assert frozen.event is not None
    federation.answer("4.0.1")
    federation.run(10.0)
    assert [r.rollout for r in federation.view.rollouts] == ["r-1", "r-2"]
    region = federation.node("eu-north").region
    given = federation.healing.mandates[MODEL]
    lifted = replace(federation.view, holds=tuple(h for h in federation.view.holds if h.release))
    now_s = federation.now_s
    assert list(region.healing.advance(lifted, now_s, may_start=False)) == []
    (plan,) = region.healing.advance(lifted, now_s, may_start=True)
    assert plan.attestations == (given.envelope,)
    assert list(region.healing.advance(lifted, now_s + 1, may_start=True)) == [], "refused: waits"
    assert list(region.healing.advance(lifted, now_s + 61, may_start=True)) == [plan]


def test_an_approve_step_keeps_a_person_in_the_loop() -> None:
    federation = Region()
    (stage,) = WATCHED["stages"]
    steps = [{"approve": {"role": "release-manager"}}, *stage["steps"]]
    federation.mandate(stages=[{**stage, "steps": [*stage["steps"][:1], *steps[:1], *steps[2:]]}])
    promoted(federation)
    federation.traffic(DRIFTED)
    federation.run(30.0)
    child = federation.answer("4.0.1")
    federation.traffic(GOOD)
    federation.run(60.0)
    assert federation.state("heal-3") == "awaitingApproval"
    rollout = federation.view.rollouts[-1]
    named = (MODEL, str(rollout.spec_digest), "pilot", 1)
    signed = statements.sign_control(statements.approval_statement(*named), [federation.person])
    body = RolloutApprove(
        MODEL, rollout.rollout, 3, rollout.spec_digest.raw, named[2], 1, "release-manager", 1
    )
    federation.propose("us-east", body, attestations=[signed])
    federation.run(90.0)
    active = federation.view.active("eu-north")
    assert active is not None
    assert active.release == child


def test_without_a_mandate_a_person_starts_the_rollout() -> None:
    federation = Region()
    promoted(federation)
    federation.traffic(DRIFTED)
    federation.run(30.0)
    federation.answer("4.0.1")
    federation.run(60.0)
    assert [r.rollout for r in federation.view.rollouts] == ["r-1", "r-2"]


def test_a_candidate_that_is_bad_in_its_rollout_asks_too() -> None:
    federation = Region()
    first = serving(federation)
    bad = federation.publish("4.0.0", parents=(first,))
    federation.traffic(replace(GOOD, pairs=WORSE))
    federation.roll_out("r-2", 2, bad, first, **WATCHED)
    federation.run(60.0)
    assert federation.state("r-2") == "rolledBack"
    (asked,) = federation.view.healings
    assert (asked.release, asked.cause) == (bad, "trial")


def test_what_became_worse_and_has_nothing_to_go_back_to_is_healed_while_it_serves() -> None:
    """As with drift of inputs: the release is held against nobody but the next rollout."""
    federation = Region()
    federation.mandate()
    first = serving(federation)
    federation.traffic(Traffic(Counts(requests=20, errors=5), Counts(requests=20)))
    federation.run(30.0)
    active = federation.view.active("eu-north")
    assert active is not None
    assert active.release == first, "without a way back a release in service is better than none"
    (asked,) = federation.view.healings
    assert (asked.release, asked.cause) == (first, "serving")
    child = federation.answer("3.0.1")
    federation.traffic(GOOD)
    federation.run(120.0)
    active = federation.view.active("eu-north")
    assert active is not None
    assert active.release == child
    assert healing.settled(federation.view, federation.view.healings[0])


USUAL = Counts(requests=20, series={"input:x": (5, 5, 5, 5)})
STRANGE = Counts(requests=20, series={"input:x": (0, 0, 2, 18)})
DRIFT = {"name": "inputs", "test": "drift", "series": "input:x", "delta": "5%"}


def profiled(*counts: int) -> tuple[Series, ...]:
    return (Series("x", "input", None, (-1.0, 0.0, 1.0), counts),)


def test_inputs_that_drift_are_answered_without_a_single_label() -> None:
    """The release before knows these inputs no better: it goes on serving until a child can."""
    federation = Region()
    stage, template = WATCHED["stages"][0], WATCHED["templates"]["accuracy"]
    steps = [{"setWeight": 100}, {"analysis": {"templates": ["drift"], "minSamples": 40}}]
    plan = {
        "stages": [{**stage, "steps": steps}],
        "templates": {"drift": {**template, "metrics": [DRIFT]}},
    }
    federation.mandate(**plan)
    first = federation.publish("3.0.0", profile=profiled(500, 500, 500, 500))
    federation.traffic(Traffic(USUAL, USUAL))
    federation.roll_out("r-1", 1, first, None, **plan)
    federation.run(60.0)
    assert federation.state("r-1") == "healthy"
    assert not federation.view.healings

    federation.traffic(Traffic(STRANGE, STRANGE))
    federation.run(60.0)
    active = federation.view.active("eu-north")
    assert active is not None
    assert active.release == first, "nothing is undone by drift alone"
    (asked,) = federation.view.healings
    assert (asked.release, asked.cause) == (first, "serving")
    assert "inputs" in next(h.reason for h in federation.view.holds if h.id == asked.hold)

    child = federation.answer("3.0.1", profile=profiled(10, 10, 200, 1800))
    federation.run(120.0)
    active = federation.view.active("eu-north")
    assert active is not None
    assert active.release == child
    assert federation.state("heal-2") == "healthy"
    assert len(federation.view.healings) == 1, "the same inputs are what the child was made for"


def test_a_mandate_whose_signer_left_starts_nothing_and_the_daemon_says_so() -> None:
    federation = Region()
    federation.mandate()
    given = federation.healing.mandates[MODEL]
    other = statements.sign_control(given.statement, [federation.keys[0]])
    federation.healing.mandates[MODEL] = replace(given, envelope=other)
    promoted(federation)
    federation.traffic(DRIFTED)
    federation.run(30.0)
    federation.answer("4.0.1")
    federation.run(30.0)
    assert [r.rollout for r in federation.view.rollouts] == ["r-1", "r-2"]


def test_a_plan_under_a_mandate_for_another_plan_is_void() -> None:
    federation = Region()
    federation.mandate()
    given = federation.healing.mandates[MODEL]
    plan = json.loads(given.template)
    plan["spec"]["watch"] = "none"
    federation.healing.mandates[MODEL] = replace(given, template=json.dumps(plan).encode())
    promoted(federation)
    federation.traffic(DRIFTED)
    federation.run(30.0)
    federation.answer("4.0.1")
    federation.run(30.0)
    assert [r.rollout for r in federation.view.rollouts] == ["r-1", "r-2"]
