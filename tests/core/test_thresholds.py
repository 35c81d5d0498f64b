"""A threshold counts people: not signatures, not keys, not names (T18); and floors of trust."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from federation import (
    CHAIN,
    CODEC,
    MODEL,
    ROOT,
    Author,
    Reader,
    control,
    key,
    manifest,
    members,
    origin,
    plan,
)

from hanse.core import events
from hanse.core.catalog.finals import EVERYTHING
from hanse.core.errors import InvalidSpec
from hanse.core.events import Body, Event, Header
from hanse.core.ids import Digest, EventId, segment
from hanse.core.node import Clock, Node
from hanse.core.signing import SigningKey
from hanse.core.trust import chain, statements
from hanse.core.trust.authority import judge
from hanse.core.trust.members import FloorCap, Floors, Person

EU = origin("eu")
RELEASE = Digest.of(manifest("1.0").encode())
HOLD = EventId(bytes(32))
RAW_PLAN = plan(RELEASE, 1)
ALL = ("publisher", "release-manager", "operator")
ADA, BOB, EVE = key("ada"), key("bob"), key("eve")
SECOND = key("ada's other key")


def person(name: str, held: SigningKey, *roles: str) -> Person:
    return Person(name, held.public, roles or ALL, ("*",))


PEOPLE = (person("ada", ADA), person("ada", SECOND), person("bob", BOB))
TWO = dict.fromkeys(ALL, 2)
LIFT = statements.control_statement("lift", MODEL, hold=HOLD.raw.hex())
SAYS: dict[str, tuple[Body, str, bytes]] = {
    "release": (
        events.ReleaseRecord(MODEL, manifest("1.0").version, 1, manifest("1.0").encode()),
        statements.RELEASE_TYPE,
        statements.release_statement("ocr@1.0", RELEASE, 1),
    ),
    "plan": (
        events.RolloutIntent(MODEL, segment("r-1"), 1, RELEASE, None, RAW_PLAN),
        statements.CONTROL_TYPE,
        statements.rollout_statement(MODEL, RAW_PLAN),
    ),
    "kill": (
        events.Kill(MODEL, RELEASE, "bad"),
        statements.CONTROL_TYPE,
        statements.control_statement("kill", MODEL, release=str(RELEASE)),
    ),
    "floor": (
        events.FloorRaise(MODEL, 2, "old"),
        statements.CONTROL_TYPE,
        statements.control_statement("floor", MODEL, counter=2),
    ),
    "approval": (
        events.RolloutApprove(
            MODEL, segment("r-1"), 1, RELEASE.raw, segment("pilot"), 2, "operator", 1
        ),
        statements.CONTROL_TYPE,
        statements.approval_statement(MODEL, str(RELEASE), "pilot", 2),
    ),
    "resume": (
        events.RolloutControl(MODEL, segment("r-1"), 1, "resume", "eu"),
        statements.CONTROL_TYPE,
        statements.control_statement("resume", MODEL, rollout="r-1", region="eu"),
    ),
    "lift": (events.HoldLift(MODEL, HOLD), statements.CONTROL_TYPE, LIFT),
}


def trust(people: tuple[Person, ...] = PEOPLE, **thresholds: int) -> chain.Chain:
    said = members(people=people, thresholds=thresholds or TWO)
    return chain.replay((chain.sign(said, (ROOT,)),))


def verdict(what: str, *envelopes: tuple[SigningKey, ...], under: chain.Chain | None = None) -> str:
    """What becomes of an event that carries one envelope for each group of signers."""
    now = under or trust()
    body, kind, statement = SAYS[what]
    raws = tuple(statements.sign_envelope(kind, statement, group) for group in envelopes)
    head = Header(EU.hash, 3, 1, now.current.digest, attestations=raws)
    found = judge(Event(head, body), EU, 0, now)
    return found.reason if found else "counts"


@pytest.mark.parametrize("what", SAYS)
def test_two_people_are_two_and_nothing_else_is(what: str) -> None:
    assert verdict(what, (ADA, BOB)) == "counts"
    assert verdict(what, (ADA,), (BOB,)) == "counts", "signed apart, in two envelopes"
    for short in ([(ADA,)], [(ADA, ADA, ADA)], [(ADA,)] * 3, [(ADA, SECOND)], [(ADA, EVE)], []):
        assert "of 2 people" in verdict(what, *short)


@pytest.mark.parametrize("what", SAYS)
def test_no_threshold_in_a_trust_version_means_that_nobody_signs(what: str) -> None:
    none = trust(**dict.fromkeys(ALL, 0))
    assert verdict(what, (ADA,), under=none) == "counts"
    assert "signed it" in verdict(what, under=none)


def test_a_plan_needs_as_many_approvers_as_trust_says_and_they_are_other_people() -> None:
    eve = person("eve", EVE, "approver")
    both = person("ada", ADA, "approver", "release-manager")
    asked = trust((both, person("bob", BOB), eve), approver=1)
    assert verdict("plan", (BOB, EVE), under=asked) == "counts"
    assert verdict("plan", (BOB, ADA), under=asked) == "counts", "ada may be either"
    assert "1 approver" in verdict("plan", (BOB,), under=asked)
    assert "1 approver" in verdict("plan", (ADA,), under=asked), "one person is not two"
    assert "no release-manager" in verdict("plan", (EVE,), under=asked)
    assert verdict("kill", (BOB,), under=asked) == "counts", "what makes safe waits for nobody more"


def test_a_key_under_two_names_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="the same key"):
        trust((person("ada", ADA), person("bob", ADA)))


# -- floors ------------------------------------------------------------------------------------


def floored(floors: Floors, *raised: int) -> Any:
    author = Author("eu")
    author.release(manifest("1.0"), 1)
    for counter in raised:
        author.write(
            events.FloorRaise(MODEL, counter, ""), attest=[control("floor", counter=counter)]
        )
    reader = Reader().read([author])
    reader.catalog.rejudge(2, EVERYTHING, floors)
    return reader.view.floor


def test_the_floor_is_the_highest_that_events_or_trust_say() -> None:
    assert floored(Floors()) == 0
    assert floored(Floors({MODEL: 3})) == 3
    assert floored(Floors({MODEL: 3}), 2, 5, 4) == 5
    assert floored(Floors({MODEL: 7}), 5) == 7
    assert floored(Floors({segment("other"): 9}), 5) == 5


def test_only_the_root_lowers_a_floor_and_only_what_was_said_before() -> None:
    assert floored(Floors({MODEL: 0}), 5) == 5
    assert floored(Floors({}, {MODEL: FloorCap(2, before=2)}), 5) == 2
    assert floored(Floors({}, {MODEL: FloorCap(2, before=1)}), 5) == 5, "raised again since"
    assert floored(Floors({MODEL: 3}, {MODEL: FloorCap(2, before=2)}), 5) == 3


def test_a_trust_version_brings_its_floors_to_a_running_daemon() -> None:
    node = Node(EU, key("eu"), bytes(32), CODEC, CHAIN, Random(1))
    node.open("first start")
    node.take(Clock(0.0, 0))
    raw = chain.sign(members(version=2, floors={MODEL: 4}), (ROOT,), CHAIN)
    node.extend_trust(raw)
    node.take(Clock(1.0, 1000))
    assert node.catalog.floors.of(MODEL, ()) == 4
    again = Node(EU, key("eu"), bytes(32), CODEC, chain.extend(CHAIN, raw), Random(1))
    assert again.catalog.floors.of(MODEL, ()) == 4
