"""Finality: a quorum of witnesses, on the same head, of what they hold themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest
from federation import ROOT
from witnessed import Daemon, Net, members, origin, witness

from hanse.core import limits
from hanse.core.events import Note
from hanse.core.gossip.frames import Announce
from hanse.core.log import note as notes
from hanse.core.log.checkpoint import verify_cosignature
from hanse.core.recovery import Phase
from hanse.core.step import PutWitness
from hanse.core.trust import chain
from hanse.sim.process import done

THREE = ("ap", "eu", "us")
FOUR = ("ap", "eu", "sa", "us")
EU = origin("eu")


def final(net: Net, of: str = "eu") -> dict[str, int]:
    return {r: d.head(of).final_size for r, d in net.daemons.items() if r not in net.down}


def test_a_head_becomes_final_everywhere_without_waiting_for_a_clock() -> None:
    net = Net(FOUR)
    net.run()
    net.now_s += 1
    net.write("eu", Note("hello"))
    net.run()
    assert final(net) == dict.fromkeys(FOUR, 2)
    note = notes.Note.parse(net.daemons["ap"].head("eu").final_note)
    signers = [r for r in FOUR if any(s.is_by(witness(r)) for s in note.signatures)]
    assert len(signers) == 3
    for region in signers:
        verify_cosignature(note, witness(region))
    assert len({d.node.book.digest for d in net.daemons.values()}) == 1


def test_without_a_quorum_nothing_is_final_and_the_reason_is_said() -> None:
    net = Net(FOUR)
    net.down = {"sa", "us"}
    net.run()
    net.write("eu", Note("hello"))
    net.run(seconds=30)
    assert final(net) == {"ap": 0, "eu": 0}
    why = net.daemons["eu"].node.finality.waiting(EU)
    assert why == (
        "waiting for 3 of 4 witness groups, 2 have cosigned: no word from region/sa, region/us"
    )


def test_a_partition_of_two_regions_has_no_finality_until_it_heals() -> None:
    net = Net(("eu", "us"))
    net.run()
    before = final(net)
    net.cut("eu", "us")
    net.write("eu", Note("alone"))
    net.run(seconds=20)
    assert final(net) == before
    net.heal()
    net.run(seconds=2)
    assert final(net) == {"eu": 2, "us": 2}
    assert final(net, "us") == {"eu": 1, "us": 1}


def test_final_sizes_never_fall() -> None:
    net = Net(THREE)
    seen = dict.fromkeys(THREE, 0)
    for i in range(12):
        net.write("eu", Note(f"note {i}"))
        net.run(seconds=0.5 * (i % 3))
        now = final(net)
        assert all(now[r] >= seen[r] for r in THREE)
        seen = now
    net.run(seconds=1)
    assert final(net) == dict.fromkeys(THREE, 13)


def test_a_busy_log_is_final_soon_although_every_step_makes_a_head() -> None:
    """Witnesses cosign what the author proposed, not each what it happens to hold."""
    net = Net(FOUR)
    net.run()
    for i in range(60):
        net.now_s += 0.01
        net.write("eu", Note(f"note {i}"))
        if i % 3 == 0:
            net.run()
    assert min(final(net).values()) > 40
    net.run(seconds=0.25)
    assert final(net) == dict.fromkeys(FOUR, 61)


def test_a_head_whose_author_is_gone_is_cosigned_once_it_has_stood_still() -> None:
    net = Net(FOUR)
    net.run(seconds=1)
    net.write("eu", Note("proposed"))
    net.write("eu", Note("just before the power went"))  # too soon to be proposed
    net.run()
    net.down = {"eu"}
    assert final(net) == {"ap": 2, "sa": 2, "us": 2}
    net.run(seconds=limits.PATIENCE_S + 0.5)
    assert final(net) == {"ap": 3, "sa": 3, "us": 3}


def test_a_cosignature_that_was_lost_comes_again() -> None:
    net = Net(("eu", "us"))
    net.run(seconds=1)
    net.write("eu", Note("hello"))
    net.step("eu")
    net.cuts = {frozenset(("eu", "us"))}  # the link stands, and loses everything
    net.run(seconds=2)
    net.cuts.clear()
    net.run(seconds=2 * limits.ANTI_ENTROPY_S)
    assert min(final(net).values()) >= 2


def test_a_daemon_that_was_away_learns_what_is_final_with_the_events() -> None:
    net = Net(FOUR)
    net.run()
    net.down = {"sa"}
    for i in range(5):
        net.now_s += 1
        net.write("eu", Note(f"note {i}"))
        net.run()
    net.down = {"sa", "us"}  # nothing more can become final
    net.write("eu", Note("not final"))
    net.run(seconds=3)
    net.down = {"us"}
    net.daemons["sa"].node.finality.witness = None  # and it is no witness itself
    net.connect(["ap", "eu", "sa"])
    net.run(seconds=12)
    assert net.daemons["sa"].head("eu").size == 7
    assert final(net)["sa"] == final(net)["eu"] == 6


def test_finality_that_one_side_missed_is_found_by_the_next_ping() -> None:
    net = Net(FOUR)
    net.run(seconds=1)
    ap = net.daemons["ap"]
    for other in ("eu", "sa", "us"):
        net.cut("ap", other)
    net.write("eu", Note("hello"))
    net.run()
    head = net.daemons["eu"].head()
    events = done(net.daemons["eu"].store.events(EU, 0, 9, 2**20))
    plain = notes.Note.parse(head.note)
    bare = notes.Note(plain.text, plain.signatures[:1]).render()
    added = ap.node.book.extend(EU, 1, events[1:], bare)
    assert added is not None
    ap.node.sync.ingested.append(added)  # the events without the cosignatures
    net.step("ap")
    ap.node.finality.witness = None
    assert final(net)["ap"] == 1
    net.heal()
    net.run(seconds=2 * limits.ANTI_ENTROPY_S)
    assert final(net) == dict.fromkeys(FOUR, 2)


# -- what a witness stores, and when ----------------------------------------------------


def _witnessed(daemon: Daemon) -> dict[str, tuple[int, bytes]]:
    return done(daemon.store.witnessed())


def test_the_step_that_sends_a_cosignature_stores_it() -> None:
    """I16, T19: whoever crashes right after sending knows what it has vouched for."""
    net = Net(("eu", "us"))
    net.run(seconds=1)
    net.write("eu", Note("hello"))
    step = net.daemons["eu"].last
    assert PutWitness(str(EU), 2, net.daemons["eu"].head().root) in step.store
    for send in step.send:
        sent = notes.Note.parse(send.frame.note)  # type: ignore[union-attr]
        assert any(s.is_by(witness("eu")) for s in sent.signatures), "it travels with the head"
    net.run()
    for daemon in net.daemons.values():
        assert _witnessed(daemon)[str(EU)] == (2, net.daemons["eu"].head().root)


def test_after_a_restart_a_witness_goes_on_where_it_was() -> None:
    net = Net(("eu", "us"))
    net.run(seconds=1)
    us = net.daemons["us"]
    us.boot()
    assert us.head("eu").final_size == 1
    net.connect(["eu", "us"])
    net.write("eu", Note("hello"))
    net.run(seconds=3)
    assert final(net) == {"eu": 2, "us": 2}
    assert _witnessed(us)[str(EU)][0] == 2


def test_a_witness_does_not_vouch_for_a_log_that_lost_what_it_had_cosigned() -> None:
    net = Net(("eu", "us"))
    net.run(seconds=1)
    us = net.daemons["us"].node.finality.witness
    assert us is not None
    us.replaced(str(EU))
    net.write("eu", Note("hello"))
    net.run(seconds=5)
    assert final(net) == {"eu": 1, "us": 1}


# -- policies ---------------------------------------------------------------------------


def test_under_quorum_none_nobody_cosigns() -> None:
    net = Net(THREE, policy="quorum none\n")
    net.write("eu", Note("hello"))
    net.run(seconds=5)
    assert final(net) == dict.fromkeys(THREE, 0)
    assert all(_witnessed(d) == {} for d in net.daemons.values())


def adopt(net: Net, policy: str) -> None:
    known = chain.replay(tuple(net.trust))
    after = replace(known.current, version=known.current.version + 1, witness_policy=policy)
    net.trust.append(chain.sign(after, (ROOT,), known))
    net.daemons["eu"].node.extend_trust(net.trust[-1])
    net.run(seconds=2)


def one_of(region: str) -> str:
    return f"witness w {witness(region).encode()}\nquorum w\n"


def test_a_new_policy_counts_the_heads_that_are_there() -> None:
    net = Net(THREE, policy="quorum none\n")
    net.run(seconds=1)
    adopt(net, members(THREE).witness_policy)
    assert final(net) == dict.fromkeys(THREE, net.daemons["eu"].head().size)


def test_what_was_final_stays_final_when_its_witnesses_are_replaced() -> None:
    net = Net(THREE, policy=one_of("us"))
    net.run(seconds=1)
    assert final(net) == dict.fromkeys(THREE, 1)
    net.down = {"ap"}
    adopt(net, one_of("ap"))
    net.write("eu", Note("under the new policy"))
    net.run(seconds=5)
    assert final(net) == {"eu": 1, "us": 1}, "the old witness does not count for new events"
    net.down = set()
    net.connect(THREE)
    net.run(seconds=12)
    assert final(net) == dict.fromkeys(THREE, 2)
    net.daemons["us"].boot()
    assert net.daemons["us"].head("eu").final_size == 2


def test_a_region_cannot_vouch_for_itself_whatever_the_policy_says() -> None:
    net = Net(THREE, policy=one_of("eu"))
    net.run(seconds=3)
    assert final(net) == dict.fromkeys(THREE, 0)
    assert final(net, "us") == dict.fromkeys(THREE, 1)


# -- lies -------------------------------------------------------------------------------


@pytest.mark.parametrize("lie", ["stranger", "forged", "other head"])
def test_lines_that_nobody_vouches_for_change_nothing(lie: str) -> None:
    net = Net(FOUR)
    net.down = {"sa", "us"}
    net.run(seconds=2)
    eu, ap = net.daemons["eu"], net.daemons["ap"]
    raw = eu.head().note
    line = notes.NoteSignature(witness("us").name, witness("us").key_id, bytes(72))
    if lie == "stranger":
        line = notes.NoteSignature("stranger", b"1234", bytes(72))
    parsed = notes.Note.parse(raw)
    text = parsed.text if lie != "other head" else f"{EU}\n1\n{'A' * 43}=\n"
    bad = notes.Note(text, (*parsed.signatures, line)).render()
    before = ap.node.book.digest
    ap.node.sync.noted.append((Announce(EU, bad, 1), eu.id))
    net.step("ap")
    assert ap.node.book.digest == before
    rejected = [log for log in ap.said if log.event == "frame_rejected"]
    assert bool(rejected) == (lie != "stranger")


def test_a_merged_note_is_passed_on_once() -> None:
    net = Net(FOUR)
    net.run(seconds=1)
    frames = net.frames
    net.run(seconds=5)
    quiet = net.frames - frames
    assert quiet < 2 * 12, "nothing but pings"


def test_who_may_not_write_vouches_for_nothing_either() -> None:
    """Another process may have cosigned, with the same key, what this one does not remember."""
    net = Net(FOUR)
    net.run()
    net.down = {"sa"}  # so that all three others are needed
    before = final(net)["eu"]
    net.daemons["us"].node.recovery.usurped(net.now_s)
    net.write("eu", Note("hello"))
    net.run(seconds=limits.RIVAL_QUIET_S + 5)
    assert net.daemons["us"].node.recovery.phase is Phase.WRITING
    net.run(seconds=limits.RIVAL_QUIET_S - 10)
    assert final(net) == dict.fromkeys(("ap", "eu", "us"), before), "nor soon after"
    net.run(seconds=10)
    assert final(net)["eu"] > before


def test_a_witness_takes_its_memory_back_from_its_own_cosignature() -> None:
    """T19: its disk was put back; peers still hold the note that it has cosigned."""
    net = Net(FOUR)
    net.down = {"ap", "sa"}
    net.run()
    net.write("eu", Note("hello"))
    net.run(seconds=limits.ANTI_ENTROPY_S)
    finality = net.daemons["us"].node.finality
    assert finality.witness is not None
    before = dict(finality.witness.seen)
    assert before[str(EU)].size == 2
    finality.witness.seen.clear()
    cosigned = finality._open[EU].heads[2].note()
    finality._open[EU].heads[2].lines.clear()
    finality.heard(EU, cosigned, EU.member)
    assert finality.witness.seen[str(EU)] == before[str(EU)]
