"""T23, L10, L15, L23, T49: what a peer or an author may cost, and what it costs itself."""

from __future__ import annotations

import pytest
from federation import MODEL, key, origin
from hand_federation import Federation as Hand
from test_sync import EU, US, Net, pair

from hanse.core import limits
from hanse.core.effects import HangUp
from hanse.core.errors import Conflict, InvalidProof, InvalidSignature, NotPermitted, Unavailable
from hanse.core.events import Hold, Note
from hanse.core.gossip.frames import Announce, Chunk, Ping, TrustFile
from hanse.core.gossip.patience import Patience, cost_s, is_in_vain
from hanse.core.gossip.quota import Quotas
from hanse.core.ids import segment
from hanse.core.log.checkpoint import Checkpoint, sign_checkpoint
from hanse.core.logbook import Stalled

PEER = US.member


# -- work in vain ------------------------------------------------------------------------------


def test_a_peer_is_ignored_once_it_has_spent_its_share() -> None:
    patience, now_s = Patience(), 100.0
    assert patience.spend(PEER, limits.FAILED_WORK_BURST_S, now_s)
    assert not patience.ignores(PEER, now_s)
    assert not patience.spend(PEER, 0.001, now_s)
    assert patience.ignores(PEER, now_s)
    assert not patience.ignores(EU.member, now_s)


def test_a_peer_is_heard_again_after_its_time() -> None:
    patience = Patience()
    patience.spend(PEER, limits.FAILED_WORK_BURST_S + 1, 100.0)
    assert patience.ignores(PEER, 100.0 + limits.PEER_IGNORED_S - 0.1)
    assert not patience.ignores(PEER, 100.0 + limits.PEER_IGNORED_S)
    assert patience.spend(PEER, limits.FAILED_WORK_BURST_S, 100.0 + limits.PEER_IGNORED_S)


def test_a_peer_may_be_wrong_for_ever_at_a_low_rate() -> None:
    patience, second_s = Patience(), limits.FAILED_WORK_SHARE
    assert all(patience.spend(PEER, second_s, float(now)) for now in range(10_000))


def test_only_work_that_was_done_counts() -> None:
    assert is_in_vain(InvalidProof("x"))
    assert is_in_vain(InvalidSignature("x"))
    for free in (Conflict("a gap"), NotPermitted("no member"), Stalled("unknown trust")):
        assert not is_in_vain(free)


def test_the_cost_grows_with_what_has_to_be_verified() -> None:
    small, large = (Chunk(EU, 0, (b"",) * n, b"") for n in (1, 256))
    assert cost_s(Ping(bytes(32))) < cost_s(small) < cost_s(large) < 0.02
    assert cost_s(TrustFile(2, 0, 1, b"")) > cost_s(small)


def forged(net: Net) -> Announce:
    """News of us that eu's key did not sign."""
    head = net["us"].book.heads[US]
    note = sign_checkpoint(Checkpoint(str(US), head.size + 1, bytes(32)), key("eu"))
    return Announce(US, note, head.size + 1)


def test_who_makes_us_verify_much_in_vain_is_hung_up_on_and_ignored() -> None:
    net = pair()
    net["us"].write()
    net.settle()
    us, eu = net["us"], net["eu"]
    lie = forged(net)
    told = 0
    while eu.id in us.sync.links:
        us.sync.frame(eu.id, lie, net.now_s)
        told += 1
        assert told < 100_000
    assert told > 1000
    assert us.sync.counters["frames_rejected"] == told
    assert us.sync.counters["peers_ignored"] == 1
    assert "peer_ignored" in us.logs()
    us.sync.effects.clear()
    us.sync.link_up(eu.id, b"eu", net.now_s)
    assert eu.id not in us.sync.links
    assert [type(e) for e in us.sync.effects] == [HangUp]
    assert us.sync.counters["links_ignored"] == 1
    assert not us.said()  # and nobody is told


def test_who_is_ignored_comes_back_and_catches_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FAILED_WORK_BURST_S", 0.1)
    net = pair()
    net["us"].write()
    net.settle()
    us, eu = net["us"], net["eu"]
    while eu.id in us.sync.links:
        us.sync.frame(eu.id, forged(net), net.now_s)
    eu.write("honest again")
    net.now_s += limits.PEER_IGNORED_S
    net.link("eu", "us")
    net.settle()
    assert net.agreed


# -- authors -----------------------------------------------------------------------------------


def test_an_author_is_slowed_after_a_day_s_bytes() -> None:
    quotas, author = Quotas(), EU.member
    quotas.spend(author, limits.AUTHOR_BYTES_PER_DAY - 1, 0.0)
    assert not quotas.is_spent(author, 0.0)
    assert quotas.may_pull(author, 0.0)
    quotas.spend(author, 1, 0.0)
    assert quotas.is_spent(author, 0.0)
    quotas.spend(author, 100_000, 0.0)  # a chunk that was under way
    quotas.pulled(author, 0.0)
    assert not quotas.may_pull(author, limits.AUTHOR_SLOW_PULL_S - 0.1)
    assert quotas.may_pull(author, limits.AUTHOR_SLOW_PULL_S)
    assert not quotas.is_spent(US.member, 0.0)
    assert not quotas.is_spent(author, 3600.0)


def test_a_slowed_author_is_still_heard_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quotas press back; they decide nothing about validity."""
    monkeypatch.setattr(limits, "AUTHOR_BYTES_PER_DAY", 1000)
    net = pair()
    for number in range(40):
        net["eu"].write(f"event {number} " + "x" * 200)
        net.settle()
    behind = net["us"].book.size(EU)
    assert behind < 10
    assert net["us"].sync.counters["authors_slowed"] > 0
    for _ in range(400):
        net.tick(limits.AUTHOR_SLOW_PULL_S)
    assert net["us"].book.size(EU) == 40
    assert net.agreed


def test_a_daemon_that_wrote_a_day_s_bytes_may_still_do_what_makes_things_safer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "AUTHOR_BYTES_PER_DAY", 2000)
    town = Hand()
    node = town.node("eu-north")
    while not node.sync.quotas.is_spent(node.me.member, node.sync.now_s):
        town.propose("eu-north", Note("x" * 200))
    with pytest.raises(Unavailable, match="2000 bytes"):
        town.propose("eu-north", Note("one more"))
    assert node.counters["authoring_refused"] == 1
    held = town.propose("eu-north", Hold(MODEL, segment("eu-north"), None, "stop"))
    assert held.event is not None


# -- news --------------------------------------------------------------------------------------


def test_news_beyond_what_all_links_may_carry_wait_for_the_next_ping() -> None:
    net = pair()
    eu = net["eu"]
    eu.sync._news.spend(limits.NEWS_BYTES_BURST, eu.sync.now_s)
    eu.write("nobody is told")
    assert eu.kinds() == []
    assert eu.sync.counters["news_withheld"] == 1
    for _ in range(3):
        net.tick(limits.ANTI_ENTROPY_S)
    assert net.agreed
    assert origin("eu") in net["us"].book.heads


def test_hints_that_were_lost_are_made_up_for_by_all_heads() -> None:
    net = pair()
    net["eu"].write()
    net["eu"].said()  # lost
    net["eu"].sync.resync(net["us"].id)
    net.settle()
    assert net.agreed
