"""Latest words of members: signed, ordered, bounded, never repeated."""

from __future__ import annotations

from dataclasses import replace

import pytest
from federation import key, origin
from federation import members as three

from hanse.core import limits
from hanse.core.counters import zeros
from hanse.core.errors import InvalidSignature, InvalidSpec, NotPermitted, Rejected, TooLarge
from hanse.core.gossip.frames import Status
from hanse.core.gossip.statuses import ATTEST, HEALTH, Statuses
from hanse.core.ids import Origin
from hanse.core.reading import canonical_json
from hanse.core.step import PutLocal

MEMBERS = three()
EU = origin("eu")
ATTESTED = canonical_json({"heads": "ab" * 32, "state": "cd" * 32})


def said(serial: int = 1, body: bytes = b'{"n":1}', by: str = "eu", kind: str = HEALTH) -> Status:
    text = b"hanse-status/v1\n" + f"{origin(by)}\n{kind}\n{serial}\n".encode() + body
    return Status(origin(by), kind, serial, body, key(by).sign(text))


def statuses(by: str, me: Origin | None = None) -> Statuses:
    return Statuses(me or origin(by), key(by), zeros())


def test_only_what_is_newer_is_taken() -> None:
    us = statuses("us")
    first, second = said(1), said(2, b'{"n":2}')
    assert us.take(first, MEMBERS, 1.0, 5) is not None
    assert us.take(first, MEMBERS, 1.0, 6) is None, "an echo"
    assert us.take(second, MEMBERS, 1.0, 7) is not None
    assert us.take(first, MEMBERS, 1.0, 8) is None, "a replay"
    assert us.latest[EU.member, HEALTH].said == {"n": 2}
    assert us.take(said(1, ATTESTED, kind=ATTEST), MEMBERS, 1.0, 9) is not None, (
        "each kind has its own order"
    )


def test_a_new_incarnation_begins_anew_and_an_old_one_has_nothing_to_say() -> None:
    us, second = statuses("us"), EU.next(b"salt")
    again = statuses("eu", second).say(HEALTH, {"n": 9}, 0)
    assert us.take(said(7), MEMBERS, 1.0, 0) is not None
    assert us.take(again, MEMBERS, 1.0, 0) is not None
    assert again.serial == 1
    assert us.take(said(8), MEMBERS, 1.0, 0) is None


def test_serials_go_on_after_a_restart() -> None:
    eu = statuses("eu")
    eu.say(HEALTH, {"n": 1}, 10)
    last = eu.say(HEALTH, {"n": 2}, 11)
    stored = {w.key: w.value for w in eu.writes() if isinstance(w, PutLocal) and w.value}
    assert eu.writes() == [], "each word is stored once"
    after = statuses("eu")
    after.restore(stored)
    assert after.latest[EU.member, HEALTH].status == last
    assert after.latest[EU.member, HEALTH].at_ms == 11
    assert after.say(HEALTH, {"n": 3}, 12).serial == 3


@pytest.mark.parametrize(
    ("status", "refused"),
    [
        (replace(said(), serial=2), InvalidSignature),
        (replace(said(), body=b'{"n":2}'), InvalidSignature),
        (replace(said(), kind=ATTEST), InvalidSignature),
        (replace(said(), origin=origin("us")), InvalidSignature),
        (replace(said(), origin=EU.next(b"salt")), InvalidSignature),
        (replace(said(), origin=replace(EU, region=origin("us").region)), NotPermitted),
        (replace(said(), origin=replace(EU, federation=EU.region)), NotPermitted),
        (replace(said(), origin=replace(EU, member=origin("xx").member)), NotPermitted),
        (said(body=b'{"n":"' + b"x" * limits.STATUS_BYTES_MAX + b'"}'), TooLarge),
        (said(body=b'{"n": 1}'), InvalidSpec),
        (said(body=b"[]"), InvalidSpec),
        (said(kind=ATTEST), InvalidSpec),
        (said(body=b"{"), Rejected),
        (said(body=b"\xff"), Rejected),
    ],
)
def test_what_is_not_a_members_word_changes_nothing(
    status: Status, refused: type[Rejected]
) -> None:
    us = statuses("us")
    with pytest.raises(refused):
        us.take(status, MEMBERS, 1.0, 0)
    assert us.latest == {}
    assert us.writes() == []


def test_a_kind_that_we_do_not_know_is_not_kept() -> None:
    us = statuses("us")
    assert us.take(said(kind="gossip"), MEMBERS, 1.0, 0) is None
    assert us.latest == {}


def test_former_members_are_not_shown() -> None:
    us = statuses("us")
    us.take(said(), MEMBERS, 1.0, 0)
    fewer = three(members=MEMBERS.members[1:])
    assert [h.status.origin for h in us.of(HEALTH, MEMBERS)] == [EU]
    assert list(us.of(HEALTH, fewer)) == []


def test_who_speaks_without_end_is_kept_no_more_than_its_pace() -> None:
    """T48: each word is a write on the disk of whoever hears it."""
    us = statuses("us")
    taken = [us.take(said(i), MEMBERS, 1.0, 0) for i in range(1, 1000)]
    assert sum(heard is not None for heard in taken) == limits.STATUSES_BURST
    assert us._counters["statuses_ignored"] == 999 - limits.STATUSES_BURST
    assert us.take(said(1, by="ap"), MEMBERS, 1.0, 0) is not None, "each has its own pace"
    assert us.take(said(1000), MEMBERS, 1.0 + limits.STATUS_S, 0) is not None


def test_forged_words_do_not_spend_the_pace_of_whom_they_name() -> None:
    us = statuses("us")
    for i in range(100):
        with pytest.raises(InvalidSignature):
            us.take(replace(said(i + 1), body=b"{}"), MEMBERS, 1.0, 0)
    assert us.take(said(), MEMBERS, 1.0, 0) is not None


def test_a_daemon_whose_disk_was_set_back_goes_on_after_what_its_peers_still_hold() -> None:
    us, eu = statuses("us"), statuses("eu")
    for i in range(5):
        us.take(eu.say(HEALTH, {"n": i}, 0), MEMBERS, 1.0, 0)
    restored = statuses("eu")
    for status in us.for_new_link(EU.member):
        restored.take(status, MEMBERS, 1.0, 0)
    assert us.take(restored.say(HEALTH, {"n": 9}, 0), MEMBERS, 1.0, 0) is not None
