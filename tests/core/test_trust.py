"""Nobody says more than the trust version that they act under allows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from federation import CHAIN, MODEL, OPERATOR, ROOT, control, manifest, members, origin, plan

from hanse.core import events
from hanse.core.events import Body, Event, Header
from hanse.core.ids import Digest, EventId, segment
from hanse.core.trust import chain, statements
from hanse.core.trust.authority import Stall, Void, judge
from hanse.core.trust.chain import Chain
from hanse.core.trust.members import Members, Person

EU = origin("eu")


def signed(**changes: Any) -> bytes:
    return chain.sign(members(**changes), (ROOT,))


RELEASE = Digest.of(manifest("1.0").encode())
HOLD = EventId(bytes(32))


def event(body: Body | None, *attest: bytes, under: Members | None = None, **header: Any) -> Event:
    current = under or CHAIN.current
    head = Header(EU.hash, 3, current.version, current.digest, attestations=attest)
    return Event(head._replace(**header), body)


def verdict(e: Event, trust: Chain = CHAIN, previous: int = 0) -> str:
    found = judge(e, EU, previous, trust)
    return f"{type(found).__name__}: {found.reason}" if found else "counts"


HERE = events.Hold(MODEL, segment("eu"), RELEASE, "worse")


def test_a_region_speaks_for_itself_without_a_person() -> None:
    for body in (
        HERE,
        events.Promote(MODEL, segment("eu"), RELEASE, 1, 1),
        events.Rollback(MODEL, segment("eu"), HOLD, RELEASE, RELEASE, "worse"),
        events.LogOpen(1),
        events.Note("hello"),
    ):
        assert verdict(event(body)) == "counts"


def test_a_region_does_not_speak_for_another() -> None:
    us = segment("us")
    for body in (
        replace(HERE, region=us),
        events.Promote(MODEL, us, RELEASE, 1, 1),
        events.Rollback(MODEL, us, HOLD, RELEASE, RELEASE, "worse"),
        events.Healthy(MODEL, RELEASE, segment("r"), 1, us, bytes(32), bytes(32)),
        events.RolloutReport(MODEL, segment("r"), 1, RELEASE, us, "held", 0, 0),
    ):
        assert verdict(event(body)) == "Void: a daemon of eu may not speak for us"


def test_what_cannot_be_judged_yet_stalls() -> None:
    assert verdict(event(None)).startswith("Stall: event 3 needs reader level")
    assert verdict(event(HERE, min_reader_level=2)).startswith("Stall: event 3 needs")
    assert verdict(event(HERE, trust_version=2)) == "Stall: trust version 2 has not reached us"


def test_what_names_the_wrong_trust_is_void() -> None:
    assert verdict(event(HERE, trust_digest=bytes(32))).startswith("Void: it names another")
    after = chain.extend(CHAIN, chain.sign(members(version=2), (ROOT,), CHAIN))
    assert verdict(event(HERE), after, previous=2).startswith("Void: its trust version is lower")
    assert verdict(event(HERE), after, previous=1) == "counts"


def test_who_is_no_member_has_no_say() -> None:
    left = members(version=2, members=members().members[1:])
    gone = chain.extend(CHAIN, chain.sign(left, (ROOT,), CHAIN))
    assert verdict(event(HERE), gone) == "counts", "what was said before stays said"
    assert verdict(event(HERE, under=gone.current), gone).startswith("Void: its author was no")
    moved = replace(EU, region=segment("us"))
    assert isinstance(judge(event(replace(HERE, region=segment("us"))), moved, 0, CHAIN), Void)


RAW_PLAN = plan(RELEASE, 1)
PERSON_SAYS: list[tuple[Body, bytes]] = [
    (
        events.ReleaseRecord(MODEL, manifest("1.0").version, 1, manifest("1.0").encode()),
        statements.sign_release("ocr@1.0", RELEASE, 1, [OPERATOR]),
    ),
    (
        events.RolloutIntent(MODEL, segment("r-1"), 1, RELEASE, None, RAW_PLAN),
        statements.sign_control(statements.rollout_statement(MODEL, RAW_PLAN), [OPERATOR]),
    ),
    (events.Kill(MODEL, RELEASE, "bad"), control("kill", release=str(RELEASE))),
    (events.FloorRaise(MODEL, 2, "old"), control("floor", counter=2)),
    (
        events.RolloutControl(MODEL, segment("r-1"), 1, "resume", "eu"),
        control("resume", rollout="r-1", region="eu"),
    ),
    (
        events.RolloutControl(MODEL, segment("r-1"), 1, "abort"),
        control("abort", rollout="r-1", region=""),
    ),
    (events.HoldLift(MODEL, HOLD), control("lift", hold=HOLD.raw.hex())),
]


@pytest.mark.parametrize(("body", "signature"), PERSON_SAYS)
def test_what_moves_forward_needs_a_person_who_signed_exactly_that(
    body: Body, signature: bytes
) -> None:
    assert verdict(event(body, signature)) == "counts"
    assert "signed it" in verdict(event(body))
    others = [other for _, other in PERSON_SAYS if other != signature]
    assert "signed it" in verdict(event(body, *others)), "another statement is no consent"


@pytest.mark.parametrize(("body", "signature"), PERSON_SAYS)
def test_a_person_without_the_role_cannot_consent(body: Body, signature: bytes) -> None:
    auditor = (Person("operator", OPERATOR.public, ("auditor",), ("*",)),)
    weak = chain.replay((signed(people=auditor),))
    assert "signed it" in verdict(event(body, signature, under=weak.current), weak)


def test_an_operator_lifts_only_where_the_role_counts() -> None:
    lift, signature = PERSON_SAYS[-1]
    for region, expected in (("eu", "counts"), ("us", "Void: no operator of eu signed it")):
        person = (Person("operator", OPERATOR.public, ("operator",), (region,)),)
        local = chain.replay((signed(people=person),))
        assert verdict(event(lift, signature, under=local.current), local) == expected


@pytest.mark.parametrize(
    ("action", "region", "said"),
    [
        ("pause", "", "counts"),
        ("pause", "us", "counts"),
        ("abort", "eu", "counts"),
        ("abort", "", "Void: no operator of * signed it"),
        ("abort", "us", "Void: no operator of us signed it"),
    ],
)
def test_a_stop_needs_nobody_unless_it_takes_another_region_back(
    action: str, region: str, said: str
) -> None:
    body = events.RolloutControl(MODEL, segment("r-1"), 1, action, region)
    assert verdict(event(body)) == said


def test_stall_and_void_are_different_answers() -> None:
    assert isinstance(judge(event(None), EU, 0, CHAIN), Stall)
