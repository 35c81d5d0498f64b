"""Stale or forked trust stops what moves forward, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from federation import CHAIN, ROOT, key, members
from hand_federation import FIRST, MODEL, Federation, serving
from hypothesis import given
from hypothesis import strategies as st
from tuf.api.metadata import Metadata

from hanse.core.effects import Log, Restart
from hanse.core.errors import InvalidProof, InvalidSignature, InvalidSpec, Rejected
from hanse.core.events import Hold, Kill
from hanse.core.gossip.frames import Timestamp, TrustFile
from hanse.core.gossip.trust_exchange import BACK, OFFER_AGAIN_S, TrustExchange
from hanse.core.ids import MemberId, segment
from hanse.core.logbook import Logbook
from hanse.core.node import Node
from hanse.core.reading import canonical_json
from hanse.core.rollout.table import State
from hanse.core.signing import SigningKey
from hanse.core.step import DropTrust, PutLocal, PutTrust, Write
from hanse.core.trust import chain
from hanse.core.trust.freshness import AHEAD_S, Freshness
from hanse.core.trust.instants import DAY_S
from hanse.core.trust.members import Keys
from hanse.core.trust.timestamp import LIFE_S, open_stamp, sign_stamp
from hanse.core.trust.writing import Expiry
from hanse.rpc.codec import EventCodec

ROOT_KEY = SigningKey(b"r" * 32)  # of the hand-driven federation, for timestamps too
NOW_S = 1_800_000_000


# -- timestamps ----------------------------------------------------------------------


def test_a_timestamp_is_read_as_it_was_signed() -> None:
    stamp = sign_stamp(CHAIN.current, ROOT, NOW_S)
    assert open_stamp(stamp.raw, CHAIN.current) == stamp
    assert (stamp.trust_version, stamp.expires_s) == (1, NOW_S + LIFE_S)


def test_only_the_key_that_the_root_names_signs_timestamps() -> None:
    with pytest.raises(InvalidSignature):
        open_stamp(sign_stamp(CHAIN.current, key("daemon"), NOW_S).raw, CHAIN.current)


@pytest.mark.parametrize(
    "changes",
    [
        {"expires": "2099-01-01T00:00:00Z"},
        {"version": NOW_S + 1},
        {"version": 2**60},
        {"hanse_trust": "00"},
        {"hanse_more": 1},
        {"meta": {"snapshot.json": {"version": 1, "length": 3}}},
        {"_type": "snapshot"},
    ],
)
def test_a_timestamp_says_nothing_else(changes: dict[str, Any]) -> None:
    """Also when it is rightly signed: no longer life, no version but its moment (T04)."""
    document = json.loads(sign_stamp(CHAIN.current, ROOT, NOW_S).raw)
    with pytest.raises(Rejected):
        open_stamp(canonical_json(_signed_again(document["signed"] | changes)), CHAIN.current)


def _signed_again(signed: dict[str, Any]) -> dict[str, Any]:
    raw = canonical_json({"signatures": [], "signed": signed})
    signature = ROOT.sign(Metadata.from_bytes(raw).signed_bytes).hex()
    (keyid,) = CHAIN.current.timestamp.by_id
    return {"signatures": [{"keyid": keyid, "sig": signature}], "signed": signed}


def fresh(now_s: int = NOW_S, kept: Iterable[Write] = ()) -> Freshness:
    """As after a restart over what is stored."""
    found = Freshness()
    values = {w.key: w.value for w in kept if isinstance(w, PutLocal) and w.value is not None}
    found.restore(values, CHAIN.current)
    found.see(now_s * 1000)
    return found


def test_the_newest_timestamp_counts_and_older_ones_do_not() -> None:
    clock = fresh()
    new, old = (sign_stamp(CHAIN.current, ROOT, NOW_S - back).raw for back in (10, 20))
    assert clock.offer(new, CHAIN.current)
    assert not clock.offer(new, CHAIN.current)
    assert not clock.offer(old, CHAIN.current)
    assert clock.stamp is not None
    assert clock.stamp.raw == new


def test_a_timestamp_from_the_future_is_refused() -> None:
    """The key of one daemon whose clock is mad must not end timestamps for ever (T04)."""
    clock = fresh()
    for ahead in (AHEAD_S + 1, DAY_S, 10**9):
        with pytest.raises(InvalidProof, match="ahead of this clock"):
            clock.offer(sign_stamp(CHAIN.current, ROOT, NOW_S + ahead).raw, CHAIN.current)
    assert clock.offer(sign_stamp(CHAIN.current, ROOT, NOW_S + AHEAD_S).raw, CHAIN.current)


def test_it_is_renewed_every_day_by_whoever_holds_the_key() -> None:
    clock = fresh()
    assert clock.renew(CHAIN.current, key("other")) is None
    first = clock.renew(CHAIN.current, ROOT)
    assert first is not None
    assert clock.renew(CHAIN.current, ROOT) is None
    clock.see((NOW_S + DAY_S) * 1000)
    assert clock.renew(CHAIN.current, ROOT) is not None


def test_a_new_trust_version_is_stamped_at_once() -> None:
    clock = fresh()
    clock.renew(CHAIN.current, ROOT)
    after = chain.extend(CHAIN, chain.sign(members(version=2), (ROOT,), CHAIN))
    stamp = clock.renew(after.current, ROOT)
    assert stamp is not None
    assert (stamp.trust_version, stamp.signed_s) == (2, NOW_S + 1)


def test_a_timestamp_of_a_key_that_was_rotated_out_is_dropped() -> None:
    """Otherwise a stolen key could have stamped the future once and for all (T04)."""
    clock = fresh()
    clock.renew(CHAIN.current, ROOT)
    moved = members(version=2, timestamp=Keys((key("stamps").public,)))
    after = chain.extend(CHAIN, chain.sign(moved, (ROOT,), CHAIN))
    clock.rotated(after.current)
    assert clock.stamp is None
    assert clock.renew(after.current, ROOT) is None
    assert clock.renew(after.current, key("stamps")) is not None


def test_who_is_kept_from_a_newer_version_knows_it() -> None:
    clock = fresh()
    after = chain.extend(CHAIN, chain.sign(members(version=2), (ROOT,), CHAIN))
    assert clock.offer(sign_stamp(after.current, ROOT, NOW_S).raw, CHAIN.current)
    assert clock.stale(CHAIN, "eu") == "trust version 2 is out and has not reached us"
    assert clock.stale(after, "eu") == ""


def test_a_timestamp_for_another_file_of_our_version_is_no_good() -> None:
    clock = fresh()
    other = replace(CHAIN.current, digest=bytes(32))
    assert clock.offer(sign_stamp(other, ROOT, NOW_S).raw, CHAIN.current)
    assert "another trust version 1" in clock.stale(CHAIN, "eu")


# -- expiry gates (T03, F19) -------------------------------------------------------------


@pytest.mark.parametrize("role", ["root", "other"])
def test_any_expired_file_stops_moving_forward(role: str) -> None:
    dates = Expiry(**{"root_s": NOW_S + 99, "other_s": NOW_S + 99} | {f"{role}_s": NOW_S + 9})
    old = chain.start(chain.sign(members(), (ROOT,), expiry=dates))
    clock = fresh()
    clock.renew(old.current, ROOT)
    assert clock.stale(old, "eu") == ""
    clock.see((NOW_S + 10) * 1000)
    assert clock.stale(old, "eu").count("of trust version 1 expired")


@pytest.mark.parametrize("role", ["root", "other"])
def test_key_holders_are_called_two_weeks_before_a_file_expires(role: str) -> None:
    far, ends_s = NOW_S + 400 * DAY_S, NOW_S + 14 * DAY_S
    dates = Expiry(**{"root_s": far, "other_s": far} | {f"{role}_s": ends_s})
    old = chain.start(chain.sign(members(), (ROOT,), expiry=dates))
    clock = fresh()
    clock.renew(old.current, ROOT)
    assert clock.ageing(old, "eu") == ""
    clock.see((NOW_S + 1) * 1000)
    assert "hanse trust renew" in clock.ageing(old, "eu")
    assert clock.stale(old, "eu") == "", "it still is good"


def frozen() -> tuple[Federation, Node]:
    """ap-south hears nobody from here on, and holds no key for timestamps."""
    net = Federation()
    for region in ("us-east", "ap-south"):
        net.node(region).sync.trust.key = None
    net.cut = {segment("ap-south")}
    return net, net.node("ap-south")


def alarms(node: Node) -> list[str]:
    return [e.event for e in node.sync.trust.alarms if isinstance(e, Log)]


def test_behind_a_frozen_peer_for_two_days_is_an_alarm_and_for_three_a_stop() -> None:
    net, alone = frozen()
    for days, says in ((1.9, ""), (2.1, "no new timestamp"), (3.1, "expired")):
        net.now_s = days * DAY_S
        alone.tick(net.clock)
        said = [e for e in alone.take(net.clock).effects if isinstance(e, Log)]
        assert [e.event for e in said] == (["trust_stale"] if says else [])
        assert not says or says in dict(said[0].fields)["why"]
        assert bool(alone.sync.trust.stale) == (days > 3)


def test_with_stale_trust_nothing_starts_and_everything_can_be_stopped() -> None:
    net, alone = frozen()
    net.cut = set()
    release = net.publish("1.0.0")
    net.now_s += 4 * DAY_S
    net.node("eu-north").sync.trust.key = None
    net.roll_out("r-1", 1, release, None, **FIRST)
    net.run(5)
    (execution,) = alone.region.executions.values()
    assert (execution.progress.state, execution.progress.reason) == (State.GATED, "trust")
    net.propose("ap-south", Hold(MODEL, segment("ap-south"), release, "no good"))
    signed = net.control("kill", release=str(release))
    net.propose("ap-south", Kill(MODEL, release, "bad"), attestations=[signed])
    for node in net.nodes.values():
        found = node.catalog.views[MODEL].release(release)
        assert found is not None
        assert found.killed
        assert found.held == ("ap-south",)


def test_a_rollout_goes_on_when_trust_is_fresh_again() -> None:
    net, alone = frozen()
    net.cut = set()
    net.now_s += 4 * DAY_S
    net.node("eu-north").sync.trust.key = None
    release = net.publish("1.0.0")
    net.roll_out("r-1", 1, release, None, **FIRST)
    net.run(5)
    assert alone.sync.trust.stale
    net.node("us-east").sync.trust.key = ROOT_KEY
    net.run(40)
    assert alone.sync.trust.stale == ""
    (execution,) = alone.region.executions.values()
    assert execution.progress.state is State.HEALTHY


def test_a_rollback_needs_no_fresh_trust() -> None:
    net = Federation()
    first = serving(net)
    second = net.publish("4.0.0", parents=(first,))
    net.roll_out("r-2", 2, second, first, **FIRST)
    net.run(30)
    for node in net.nodes.values():
        node.sync.trust.key = None
    net.now_s += 9 * DAY_S
    signed = net.control("kill", release=str(second))
    net.propose("eu-north", Kill(MODEL, second, "bad"), attestations=[signed])
    net.run(5)
    for node in net.nodes.values():
        told = node.region.duty.told(MODEL)
        assert node.sync.trust.stale
        assert told is not None
        assert told.active == first


def test_a_lost_timestamp_is_missed_at_a_ping() -> None:
    net, alone = frozen()
    net.run(1)
    assert alone.sync.trust.freshness.stamp is not None
    net.now_s += 1.5 * DAY_S
    net.run(1)
    older = alone.sync.trust.freshness.stamp.signed_s
    net.cut = set()
    net.now_s += OFFER_AGAIN_S
    net.run(25)
    assert alone.sync.trust.freshness.stamp.signed_s > older


# -- a clock that is set back (T11) --------------------------------------------------------


def test_a_clock_set_back_across_a_restart_revives_nothing() -> None:
    clock = fresh()
    clock.renew(CHAIN.current, ROOT)
    kept = clock.writes()
    clock.see((NOW_S + LIFE_S + 1) * 1000)
    assert clock.stale(CHAIN, "eu")
    kept += clock.writes()
    for back_s in (DAY_S, 365 * DAY_S):
        again = fresh(NOW_S + LIFE_S - back_s, kept)
        assert "expired" in again.stale(CHAIN, "eu")
    new = sign_stamp(CHAIN.current, ROOT, NOW_S + LIFE_S).raw
    again = fresh(NOW_S + LIFE_S, kept)
    assert again.offer(new, CHAIN.current)
    assert again.stale(CHAIN, "eu") == ""


def test_a_clock_set_back_while_running_revives_nothing() -> None:
    clock = fresh()
    clock.renew(CHAIN.current, ROOT)
    clock.see((NOW_S + LIFE_S + 1) * 1000)
    clock.see(NOW_S * 1000)
    assert "expired" in clock.stale(CHAIN, "eu")


def test_a_clock_that_was_wrong_once_spoils_one_timestamp_only() -> None:
    clock = fresh()
    clock.renew(CHAIN.current, ROOT)
    clock.see((NOW_S + 30 * 365 * DAY_S) * 1000)
    kept = clock.writes()
    after = fresh(NOW_S + DAY_S, kept)
    assert "expired" in after.stale(CHAIN, "eu")
    after = fresh(NOW_S + LIFE_S, kept)
    assert after.offer(sign_stamp(CHAIN.current, ROOT, NOW_S + LIFE_S).raw, CHAIN.current)
    assert after.stale(CHAIN, "eu") == ""


@given(st.lists(st.integers(0, 10 * DAY_S), max_size=30))
def test_the_clock_of_trust_never_runs_backwards(readings: list[int]) -> None:
    clock, kept, seen = fresh(), [], 0
    clock.renew(CHAIN.current, ROOT)
    for reading in readings:
        clock.see((NOW_S + reading) * 1000)
        expired = bool(clock.stale(CHAIN, "eu"))
        assert expired or not seen, "what was stale stays stale"
        seen = seen or expired
        kept += clock.writes()
        clock = fresh(NOW_S + reading, kept)


# -- two versions of one number (T15, T16) -----------------------------------------------------


class Exchange(TrustExchange):
    """One daemon's exchange, whose words to its peers are kept."""

    def __init__(self, region: str) -> None:
        self.said: list[tuple[MemberId, Any]] = []
        self.others: list[MemberId] = []
        self.book = Logbook(EventCodec(), CHAIN)
        super().__init__(self.book, region, lambda p, f: self.said.append((p, f)), self.peers)
        self.freshness.see(NOW_S * 1000)
        self.key = ROOT

    def peers(self) -> list[MemberId]:
        return self.others


PEER, THIRD = MemberId("a" * 32), MemberId("b" * 32)


def version(before: chain.Chain, by_root: bool = False, **changes: Any) -> bytes:
    number = before.current.version + 1
    if by_root:
        new = key(f"root of {number}").public
        changes |= {"root_keys": (ROOT.public, new)}
    return chain.sign(replace(before.current, version=number, **changes), (ROOT,), before)


OURS, THEIRS = version(CHAIN, ring_seed="ours"), version(CHAIN, ring_seed="theirs")
OUR_LINE, THEIR_LINE = chain.extend(CHAIN, OURS), chain.extend(CHAIN, THEIRS)


def half(raw: bytes = OURS) -> Exchange:
    exchange = Exchange("eu")
    exchange.extend(raw, None)
    exchange.tick()
    exchange.others = [PEER, THIRD]
    exchange.said.clear()
    exchange.take()
    assert exchange.stale == ""
    return exchange


def hand(exchange: Exchange, number: int, raw: bytes) -> None:
    exchange.file(PEER, TrustFile(number, 0, 1, raw))


def test_two_versions_of_one_number_stop_moving_forward_on_both_sides() -> None:
    for raw, other, line in ((OURS, THEIRS, THEIR_LINE), (THEIRS, OURS, OUR_LINE)):
        exchange = half(raw)
        hand(exchange, 2, other)
        assert exchange.stale.startswith("two trust versions 2 are signed")
        assert [a.event for a in exchange.alarms] == ["trust_fresh", "trust_forked"][-1:]
        assert exchange.book.chain.files[1] == raw, "the one that came first stays"
        assert exchange.rival is not None
        assert exchange.rival.versions == line.versions
        assert exchange.said == [
            (PEER, TrustFile(2, 0, 1, raw)),
            (THIRD, TrustFile(2, 0, 1, other)),
        ]


def test_the_alarm_outlives_a_restart() -> None:
    exchange = half()
    hand(exchange, 2, THEIRS)
    kept = {w.key: w.value for w in exchange.take() if isinstance(w, PutLocal) and w.value}
    again = Exchange("eu")
    again.book.chain = OUR_LINE
    again.restore(kept)
    assert again.stale.startswith("two trust versions 2 are signed")


def test_nobody_raises_the_alarm_without_proof() -> None:
    exchange = half()
    forged = chain.sign(replace(CHAIN.current, version=2), (key("nobody"),), CHAIN)
    with pytest.raises(Rejected):
        hand(exchange, 2, forged)
    hand(exchange, 2, OURS)
    assert exchange.stale == ""


def test_more_signatures_on_our_version_are_no_alarm() -> None:
    two = chain.start(
        chain.sign(members(snapshot=Keys((ROOT.public, key("heir").public), 1)), (ROOT,))
    )
    after = replace(two.current, version=2)
    one, both = (chain.sign(after, keys, two) for keys in ((ROOT,), (ROOT, key("heir"))))
    assert one != both
    exchange = Exchange("eu")
    exchange.book.chain = chain.extend(two, one)
    exchange.tick()
    hand(exchange, 2, both)
    assert exchange.rival is None
    assert exchange.stale == ""


def test_an_old_version_is_looked_at_a_few_times_a_minute() -> None:
    exchange = half()
    for i in range(BACK):
        with pytest.raises(InvalidSpec):
            hand(exchange, 2, canonical_json({"nothing": i}))
    with pytest.raises(InvalidProof, match="too many"):
        hand(exchange, 2, canonical_json({"nothing": BACK}))
    exchange.freshness.see((NOW_S + 61) * 1000)
    with pytest.raises(InvalidSpec):
        hand(exchange, 2, b"{}")


def test_a_version_that_the_root_signs_settles_it_for_those_who_were_right() -> None:
    exchange = half()
    hand(exchange, 2, THEIRS)
    hand(exchange, 3, version(OUR_LINE))
    assert exchange.stale, "without the root nothing is settled"
    settled = version(exchange.book.chain, by_root=True)
    exchange.take()
    hand(exchange, 4, settled)
    assert exchange.stale == ""
    assert not exchange.replaced
    gone = {w.key for w in exchange.take() if isinstance(w, PutLocal) and w.value is None}
    assert "rival/2" in gone
    hand(exchange, 2, THEIRS)
    assert exchange.stale == "", "it has been judged"


def test_whoever_holds_the_other_version_takes_the_line_that_the_root_chose() -> None:
    exchange = half(THEIRS)
    settled = version(OUR_LINE, by_root=True)
    with pytest.raises(InvalidProof, match="follows another version 2"):
        hand(exchange, 3, settled)
    hand(exchange, 2, OURS)
    exchange.take()
    hand(exchange, 3, settled)
    assert exchange.replaced
    assert exchange.book.chain.files == (*OUR_LINE.files, settled)
    writes = [w for w in exchange.take() if isinstance(w, DropTrust | PutTrust)]
    assert writes == [DropTrust(1), PutTrust(2, OURS), PutTrust(3, settled)]
    assert exchange.rival is None


def test_a_line_that_the_root_did_not_choose_replaces_nothing() -> None:
    exchange = half(THEIRS)
    hand(exchange, 2, OURS)
    third = version(OUR_LINE)
    hand(exchange, 3, third)
    assert not exchange.replaced
    assert exchange.book.chain.files[1] == THEIRS
    settled = version(chain.extend(OUR_LINE, third), by_root=True)
    hand(exchange, 3, version(THEIR_LINE))
    hand(exchange, 4, settled)
    assert exchange.replaced
    assert exchange.book.chain.current.version == 4


def test_two_halves_that_meet_stop_and_go_on_from_what_the_root_says() -> None:
    """T16 whole: each half adopts its own valid version 2 while they cannot hear each other."""
    net = Federation()
    before = net.node("eu-north").book.chain
    net.cut = {segment("ap-south")}
    ours, theirs = (
        chain.sign(replace(before.current, version=2, ring_seed=text), (ROOT_KEY,), before)
        for text in ("ours", "theirs")
    )
    net.node("eu-north").extend_trust(ours)
    net.node("ap-south").extend_trust(theirs)
    net.run(2)
    release = net.publish("1.0.0")
    net.roll_out("r-1", 1, release, None, **FIRST)
    net.cut = set()
    net.run(30)
    for node in net.nodes.values():
        assert "two trust versions 2" in node.sync.trust.stale
    line = net.node("eu-north").book.chain
    new = {"root_keys": (ROOT_KEY.public, key("second root").public)}
    settled = chain.sign(replace(line.current, version=3, **new), (ROOT_KEY,), line)
    net.node("us-east").extend_trust(settled)
    restarts = _run_and_collect(net, 30)
    assert restarts == {"ap-south"}
    assert {n.book.chain.current.digest for n in net.nodes.values()} == {
        chain.extend(line, settled).current.digest
    }
    assert not any(node.sync.trust.stale for node in net.nodes.values())


def _run_and_collect(net: Federation, seconds: int) -> set[str]:
    found = set()
    for node in net.nodes.values():
        take = node.take

        def watched(clock: Any, take: Any = take, node: Node = node) -> Any:
            step = take(clock)
            if any(isinstance(e, Restart) for e in step.effects):
                found.add(str(node.me.region))
                node.sync.trust.replaced = False
            return step

        node.take = watched  # type: ignore[method-assign]  # to see what the driver would
    net.run(seconds)
    return found


def test_a_timestamp_is_passed_on_but_not_back() -> None:
    exchange = half()
    exchange.freshness.see((NOW_S + 100) * 1000)
    stamp = sign_stamp(exchange.book.chain.current, ROOT, NOW_S + 100)
    exchange.timestamp(PEER, Timestamp(stamp.raw))
    exchange.timestamp(THIRD, Timestamp(stamp.raw))
    assert exchange.said == [(THIRD, Timestamp(stamp.raw))]
    (kept,) = [w for w in exchange.take() if isinstance(w, PutLocal) and w.key == "timestamp"]
    assert kept.value == stamp.raw
