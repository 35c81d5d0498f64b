"""Tokens are good for one key, once, for a while (T44, L21); whatever is restored after a crash."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hanse.core import limits
from hanse.core.enrolment import DENIED, PENDING, SPACES, TOKENS, Enrolment, Grant
from hanse.core.errors import InvalidSpec, NotFound, NotPermitted, Rejected, TooLarge
from hanse.core.ids import MemberId
from hanse.core.step import PutLocal

NOW = 1_800_000_000_000
TTL_MS = limits.TOKEN_TTL_S * 1000
MEMBER = MemberId("ab" * 16)


def grant(
    kind: str = "edge", region: str = "eu-north", node: str = "n1", ms: int = TTL_MS
) -> Grant:
    return Grant(kind, region, node, NOW + ms, "PEM")


def opened(**how: object) -> Enrolment:
    enrolment = Enrolment()
    enrolment.issue("t", grant(**how), NOW)  # type: ignore[arg-type]  # the tests choose by name
    return enrolment


class Disk:
    """What a store keeps of the writes of each step."""

    def __init__(self) -> None:
        self.spaces: dict[str, dict[str, bytes]] = {space: {} for space in SPACES}

    def store(self, enrolment: Enrolment) -> None:
        for write in enrolment.writes():
            assert isinstance(write, PutLocal)
            if write.value is None:
                self.spaces[write.space].pop(write.key, None)
            else:
                self.spaces[write.space][write.key] = write.value

    def restored(self) -> Enrolment:
        enrolment = Enrolment()
        enrolment.restore(self.spaces)
        return enrolment


def test_a_token_is_spent_by_the_first_key_and_by_no_other() -> None:
    enrolment = opened()
    for _ in range(2):  # an answer may be lost
        assert enrolment.spend("t", "edge", "eu-north", "key 1", NOW).node == "n1"
    with pytest.raises(NotPermitted, match="another key"):
        enrolment.spend("t", "edge", "eu-north", "key 2", NOW)


@pytest.mark.parametrize(
    ("token", "kind", "region", "later_ms"),
    [
        ("other", "edge", "eu-north", 0),
        ("t", "daemon", "eu-north", 0),
        ("t", "edge", "us-east", 0),
        ("t", "edge", "eu-north", TTL_MS),
    ],
)
def test_a_token_opens_nothing_but_what_it_was_made_for(
    token: str, kind: str, region: str, later_ms: int
) -> None:
    enrolment = opened()
    enrolment.writes()
    with pytest.raises(NotPermitted):
        enrolment.spend(token, kind, region, "key", NOW + later_ms)
    assert all(write.value is None for write in enrolment.writes())  # type: ignore[union-attr]


def test_a_token_works_until_its_last_millisecond() -> None:
    enrolment = opened()
    enrolment.spend("t", "edge", "eu-north", "key", NOW + TTL_MS - 1)


def test_what_has_expired_stays_so_when_the_clock_is_set_back() -> None:
    disk, enrolment = Disk(), opened()
    enrolment.tick(NOW + TTL_MS)
    disk.store(enrolment)
    for each in (enrolment, disk.restored()):
        with pytest.raises(NotPermitted):
            each.spend("t", "edge", "eu-north", "key", NOW)


@pytest.mark.parametrize(
    ("ms", "fits"), [(0, False), (1, True), (TTL_MS, True), (TTL_MS + 1, False)]
)
def test_no_token_outlives_fifteen_minutes(ms: int, fits: bool) -> None:
    assert limits.TOKEN_TTL_S == 15 * 60
    if fits:
        opened(ms=ms)
    else:
        with pytest.raises(InvalidSpec, match="1 to 900"):
            opened(ms=ms)


def test_open_tokens_are_bounded_and_make_room_as_they_expire() -> None:
    enrolment = Enrolment()
    for number in range(limits.TOKENS_MAX):
        enrolment.issue(str(number), grant(ms=1000), NOW)
    with pytest.raises(TooLarge):
        enrolment.issue("more", grant(), NOW)
    enrolment.issue("more", grant(), NOW + 1000)
    assert list(enrolment.grants) == ["more"]


def test_a_request_is_kept_with_the_token_that_brought_it() -> None:
    disk, enrolment = Disk(), opened(kind="daemon", node="")
    enrolment.ask("t", "eu-north", MEMBER, b"request", NOW)
    disk.store(enrolment)
    again = disk.restored()
    assert again.pending == {MEMBER: b"request"}
    again.ask("t", "eu-north", MEMBER, b"request", NOW)
    with pytest.raises(NotPermitted, match="another key"):
        again.ask("t", "eu-north", MemberId("cd" * 16), b"other", NOW)
    assert again.pending == {MEMBER: b"request"}
    again.answered(MEMBER)
    disk.store(again)
    assert disk.spaces[PENDING] == {}
    with pytest.raises(NotFound):
        again.answered(MEMBER)


def test_requests_are_bounded_and_a_refused_one_spends_nothing() -> None:
    enrolment = Enrolment()
    for number in range(limits.PENDING_MAX):
        enrolment.issue(str(number), grant("daemon", node=""), NOW)
        enrolment.ask(str(number), "eu-north", MemberId(f"{number:032x}"), b"", NOW)
    enrolment.issue("t", grant("daemon", node=""), NOW)
    with pytest.raises(TooLarge):
        enrolment.ask("t", "eu-north", MEMBER, b"", NOW)
    assert enrolment.grants["t"].spent_on == ""


def test_a_revoked_node_comes_back_with_a_new_key_only() -> None:
    disk, enrolment = Disk(), opened()
    enrolment.spend("t", "edge", "eu-north", "old", NOW)
    enrolment.deny("n1", "the truck was stolen", NOW)
    enrolment.issue("t", grant(), NOW)
    with pytest.raises(NotPermitted, match="new folder"):
        enrolment.spend("t", "edge", "eu-north", "old", NOW)
    enrolment.spend("t", "edge", "eu-north", "new", NOW)
    disk.store(enrolment)
    for each in (enrolment, disk.restored()):
        assert each.why_denied("n1", "old") == "the truck was stolen"
        assert each.why_denied("n1", "new") == ""
        assert each.why_denied("n2", "old") == ""
    enrolment.deny("n1", "again", NOW)
    assert enrolment.why_denied("n1", "new") == "again"


def test_a_node_that_was_enrolled_from_files_is_known_by_its_first_renewal() -> None:
    disk, enrolment = Disk(), Enrolment()
    enrolment.seen("n1", "old")
    disk.store(enrolment)
    enrolment.seen("n1", "old")
    assert enrolment.writes() == []  # nothing new, nothing to store
    again = disk.restored()
    again.deny("n1", "stolen", NOW)
    again.issue("t", grant(), NOW)
    with pytest.raises(NotPermitted, match="new folder"):
        again.spend("t", "edge", "eu-north", "old", NOW)


def test_revoking_a_node_closes_its_open_tokens() -> None:
    enrolment = opened()
    enrolment.issue("t2", grant(node="n2"), NOW)
    enrolment.deny("n1", "stolen", NOW)
    assert list(enrolment.grants) == ["t2"]


class Tokens(RuleBasedStateMachine):
    """Any order of issuing, spending, waiting and crashing, against three plain facts."""

    @initialize()
    def begin(self) -> None:
        self.disk, self.enrolment, self.now = Disk(), Enrolment(), NOW
        self.made: dict[str, int] = {}  # token -> when it expires
        self.won: dict[str, str] = {}  # token -> the key that got in

    @rule(ttl_s=st.integers(1, limits.TOKEN_TTL_S))
    def issue(self, ttl_s: int) -> None:
        name = f"t{len(self.made)}"
        expires_ms = self.now + ttl_s * 1000
        self.enrolment.issue(name, Grant("edge", "r", "n", expires_ms, ""), self.now)
        self.disk.store(self.enrolment)
        self.made[name] = expires_ms

    @rule(number=st.integers(0, 5), key=st.sampled_from("abc"), stored=st.booleans())
    def spend(self, number: int, key: str, stored: bool) -> None:
        name = f"t{number}"
        try:
            self.enrolment.spend(name, "edge", "r", key, self.now)
        except Rejected:
            alive = self.made.get(name, 0) > self.now
            assert not alive or self.won.get(name, key) != key
            self.disk.store(self.enrolment)
            return
        if stored:
            self.disk.store(self.enrolment)
            assert self.made[name] > self.now
            assert self.won.setdefault(name, key) == key
        else:  # the process dies in the step: nothing was issued
            self.enrolment = self.disk.restored()

    @rule(seconds=st.integers(0, 600))
    def wait(self, seconds: int) -> None:
        self.now += seconds * 1000
        self.enrolment.tick(self.now)
        self.disk.store(self.enrolment)

    @rule()
    def crash(self) -> None:
        self.enrolment = self.disk.restored()

    @invariant()
    def what_is_stored_is_what_holds(self) -> None:
        assert self.disk.restored().grants == self.enrolment.grants
        assert self.disk.spaces[DENIED] == {}
        assert set(self.disk.spaces[TOKENS]) <= set(self.made)


Tokens.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestTokens = Tokens.TestCase
