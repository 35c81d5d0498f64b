"""Trust is a line: nobody skips, forks or rewinds it; and nobody says more than it allows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from federation import CHAIN, MODEL, OPERATOR, ROOT, control, key, manifest, members, origin, plan

from hanse.core import events
from hanse.core.errors import InvalidProof, InvalidSignature, InvalidSpec, Rejected
from hanse.core.events import Body, Event, Header
from hanse.core.ids import Digest, EventId, segment
from hanse.core.trust import chain, statements
from hanse.core.trust.authority import Stall, Void, judge
from hanse.core.trust.chain import Chain
from hanse.core.trust.members import Members, Person

HEIR = key("heir")
THIRD = key("third")


def signed(*keys: Any, **changes: Any) -> bytes:
    return chain.sign(members(**changes), keys or (ROOT,))


def test_a_chain_is_replayed_from_its_first_file() -> None:
    files = (signed(), signed(version=2), signed(version=3))
    whole = chain.replay(files)
    assert whole.files == files
    assert [m.version for m in whole.versions] == [1, 2, 3]
    assert whole.current.version == 3
    assert whole.at(2) == whole.versions[1]
    assert whole.at(0) is None
    assert whole.at(4) is None


@pytest.mark.parametrize("version", [1, 3, 9])
def test_a_version_that_does_not_follow_is_refused(version: int) -> None:
    """Skipped, repeated or old: version 2 follows 1, and nothing else does."""
    with pytest.raises(InvalidProof):
        chain.extend(CHAIN, signed(version=version))


def test_a_chain_begins_with_version_one() -> None:
    with pytest.raises(InvalidProof):
        chain.start(signed(version=2))
    with pytest.raises(InvalidProof):
        chain.replay(())


def test_the_thresholds_of_the_old_and_of_the_new_version_must_sign() -> None:
    handed_on = {"version": 2, "root_keys": (HEIR.public,)}
    for keys in ((HEIR,), (ROOT,), (THIRD,)):
        with pytest.raises(InvalidSignature):
            chain.extend(CHAIN, signed(*keys, **handed_on))
    after = chain.extend(CHAIN, signed(ROOT, HEIR, **handed_on))
    assert (
        chain.extend(after, signed(HEIR, version=3, root_keys=(HEIR.public,))).current.version == 3
    )


def test_one_key_twice_is_one_signature() -> None:
    two_of_two = {"root_keys": (ROOT.public, HEIR.public), "root_threshold": 2}
    with pytest.raises(InvalidSignature):
        chain.start(signed(ROOT, ROOT, **two_of_two))
    assert chain.start(signed(ROOT, HEIR, **two_of_two)).current.root_threshold == 2


def test_one_key_listed_twice_cannot_fill_a_threshold() -> None:
    twice = {"root_keys": (ROOT.public, ROOT.public), "root_threshold": 2}
    with pytest.raises(InvalidSpec):
        chain.start(signed(ROOT, **twice))


def test_a_file_of_another_federation_is_refused() -> None:
    with pytest.raises(InvalidProof):
        chain.extend(CHAIN, signed(version=2, federation=segment("other")))


def test_a_file_that_was_changed_after_it_was_signed_is_refused() -> None:
    raw = signed(version=2)
    with pytest.raises(Rejected):
        chain.extend(CHAIN, raw.replace(b'"payload":"ey', b'"payload":"fy'))


def test_what_was_refused_changes_nothing() -> None:
    before = CHAIN.files
    with pytest.raises(Rejected):
        chain.extend(CHAIN, signed(HEIR, version=2))
    assert CHAIN.files == before


@pytest.mark.parametrize("version", range(1, 4))
def test_a_members_file_is_read_as_it_was_written(version: int) -> None:
    written = members(version=version)
    assert chain.decode_members(chain.encode_members(written)) == written


@pytest.mark.parametrize(
    "changes",
    [
        {"regions": members().regions[:2]},  # a member of a region that is not listed
        {"regions": members().regions * 2},
        {"members": members().members * 2},
        {"people": (Person("x", OPERATOR.public, ("emperor",), ("*",)),)},
        {"people": (Person("x", bytes(32), ("operator",), ("*",)),)},
    ],
)
def test_a_members_file_that_contradicts_itself_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Rejected):
        chain.start(signed(**changes))


# -- authority -----------------------------------------------------------------

EU = origin("eu")
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
    after = chain.extend(CHAIN, signed(version=2))
    assert verdict(event(HERE), after, previous=2).startswith("Void: its trust version is lower")
    assert verdict(event(HERE), after, previous=1) == "counts"


def test_who_is_no_member_has_no_say() -> None:
    gone = chain.replay((signed(), signed(version=2, members=members().members[1:])))
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


def test_a_stop_needs_nobody() -> None:
    for action in ("pause", "abort"):
        body = events.RolloutControl(MODEL, segment("r-1"), 1, action)
        assert verdict(event(body)) == "counts"


def test_stall_and_void_are_different_answers() -> None:
    assert isinstance(judge(event(None), EU, 0, CHAIN), Stall)
