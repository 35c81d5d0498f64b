"""A daemon that starts asks before it writes, and never writes where another may have written."""

from __future__ import annotations

import pytest
from federation import CHAIN, CODEC, Author, key, origin
from test_node import Daemon

from hanse.core import limits
from hanse.core.errors import Unavailable
from hanse.core.events import LogOpen, Note
from hanse.core.gossip.frames import Announce, Chunk, Hello, HelloProof, LogHead
from hanse.core.ids import Origin
from hanse.core.recovery import Phase, Recovery
from hanse.core.step import AppendEvents, Write

EU, US, AP = (origin(r) for r in ("eu", "us", "ap"))
WAIT_S = 30.0


class Restarted(Daemon):
    """A daemon that finds `stored` on its disk and must ask its two peers."""

    def __init__(self, stored: list[Write] | None = None, wait_s: float = WAIT_S) -> None:
        self.wait_s = wait_s
        super().__init__("eu", stored or [])

    def open(self) -> None:
        self.node.open("test", self.now_s + self.wait_s)

    def greet(self, peer: Origin, *held: LogHead) -> None:
        """A peer links, proves who it is, and says what it holds of our logs."""
        name = peer.region
        self.node.link_up(peer.member, name.encode(), self.clock)
        self.step(tick=False)
        hellos = [s.frame for s in self.sent if s.peer == peer.member]
        ours = [frame for frame in hellos if isinstance(frame, Hello)][-1]
        current = CHAIN.current
        hello = Hello("acme", peer, 1, current.digest, b"n" * 16, bytes(32), b"boot", held)
        self.node.frame(peer.member, hello, self.clock)
        text = b"hanse-hello/v1\n" + name.encode() + b"eu" + b"n" * 16 + ours.nonce
        self.node.frame(peer.member, HelloProof(key(name).sign(text)), self.clock)
        self.step(tick=False)

    def say(self, text: str = "a word") -> Origin:
        """Write a note; the log that it went to."""
        self.node.propose(Note(text))
        step = self.step(tick=False)
        return [w.head.origin for w in step.store if isinstance(w, AppendEvents)][-1]

    @property
    def phase(self) -> Phase:
        return self.node.recovery.phase


def written(count: int, region: str = "eu") -> Author:
    author = Author(region)
    for i in range(count):
        author.write(Note(f"note {i}"))
    return author


def held(author: Author, size: int) -> LogHead:
    return LogHead(author.origin, size, author.appends[size - 1].head.root[:8])


def chunk(author: Author, start: int) -> Chunk:
    events = tuple(raw for append in author.appends[start:] for raw in append.events)
    return Chunk(author.origin, start, events, author.appends[-1].head.note)


def test_a_first_start_begins_its_log_at_once() -> None:
    daemon = Daemon()
    step = daemon.step()
    (append,) = [w for w in step.store if isinstance(w, AppendEvents)]
    assert CODEC.decode(append.events[0]).body == LogOpen(1, boot_reason="test")


def test_nothing_is_written_until_enough_peers_have_answered() -> None:
    author = written(3)
    daemon = Restarted(list(author.appends))
    daemon.step()
    with pytest.raises(Unavailable, match="0 of 2 peers have answered"):
        daemon.node.propose(Note("too early"))
    daemon.greet(US, held(author, 3))
    assert daemon.phase is Phase.RECOVERING, "one of two is no majority"
    daemon.greet(AP)
    assert daemon.phase is Phase.WRITING
    assert daemon.say() == EU, "the log that it has is all there ever was"
    assert daemon.node.book.size(EU) == 4


def test_a_longer_log_is_pulled_back_before_anything_is_written() -> None:
    author = written(5)
    daemon = Restarted(list(author.appends[:2]))
    for peer in (US, AP):
        daemon.greet(peer, held(author, 5))
    assert daemon.phase is Phase.RECOVERING
    daemon.node.frame(US.member, chunk(author, 2), daemon.clock)
    daemon.step()
    assert daemon.phase is Phase.WRITING
    assert daemon.say() == EU
    assert daemon.node.book.size(EU) == 6


def test_a_peer_that_cannot_show_what_it_claims_has_not_answered() -> None:
    author = written(2)
    daemon = Restarted(list(author.appends))
    daemon.greet(US, LogHead(EU, 9, b"12345678"))
    daemon.greet(AP, held(author, 2))
    for _ in range(20):
        daemon.step()
    assert daemon.phase is Phase.RECOVERING
    daemon.now_s += WAIT_S
    daemon.step()
    assert daemon.say().incarnation == 2, "safe, whatever the liar holds"


def test_without_peers_it_goes_on_in_a_new_incarnation_after_the_deadline() -> None:
    author = written(3)
    daemon = Restarted(list(author.appends))
    for _ in range(int(WAIT_S) - 1):
        daemon.step()
    assert daemon.phase is Phase.RECOVERING
    daemon.step()
    assert daemon.phase is Phase.WRITING
    log = daemon.say()
    assert (log.incarnation, len(log.salt)) == (2, 8)
    assert daemon.node.book.size(EU) == 3
    opening = next(w for w in daemon.stored if isinstance(w, AppendEvents) and w.head.origin == log)
    body = CODEC.decode(opening.events[0]).body
    assert isinstance(body, LogOpen)
    head = author.appends[-1].head
    assert (body.prev_origin, body.prev_size, body.prev_root) == (str(EU), 3, head.root)
    assert "0 of 2 peers" in body.boot_reason
    assert daemon.say() == log, "and stays in it"


def test_peers_that_come_after_the_deadline_spare_it_the_new_incarnation() -> None:
    author = written(3)
    daemon = Restarted(list(author.appends), wait_s=2)
    for _ in range(4):
        daemon.step()
    for peer in (US, AP):
        daemon.greet(peer, held(author, 3))
    assert daemon.say() == EU


def test_a_lost_disk_takes_its_log_back_from_peers() -> None:
    author = written(4)
    daemon = Restarted()
    for peer in (US, AP):
        daemon.greet(peer, held(author, 4))
    daemon.node.frame(US.member, chunk(author, 0), daemon.clock)
    daemon.step()
    assert daemon.say() == EU
    assert daemon.node.book.size(EU) == 5


def test_an_incarnation_that_the_disk_has_forgotten_is_found_again() -> None:
    author = written(2)
    first = Restarted(list(author.appends), wait_s=0)
    first.step()
    log = first.say()
    second = [w for w in first.stored if isinstance(w, AppendEvents) and w.head.origin == log]
    daemon = Restarted(list(author.appends))
    heads = [held(author, 2), LogHead(log, 2, second[-1].head.root[:8])]
    for peer in (US, AP):
        daemon.greet(peer, *heads)
    assert daemon.phase is Phase.RECOVERING
    events = tuple(raw for append in second for raw in append.events)
    daemon.node.frame(US.member, Chunk(log, 0, events, second[-1].head.note), daemon.clock)
    daemon.step()
    assert daemon.say() == log


def test_a_restart_goes_on_in_the_newest_incarnation() -> None:
    author = written(1)
    first = Restarted(list(author.appends), wait_s=0)
    first.step()
    log = first.say()
    again = Restarted(first.stored)
    assert again.node.me == log
    for peer in (US, AP):
        again.greet(peer)
    assert again.say() == log


def test_whoever_writes_with_our_key_stops_us_until_it_is_quiet() -> None:
    author = written(3)
    daemon = Restarted(list(author.appends[:2]))
    for peer in (US, AP):
        daemon.greet(peer, held(author, 2))
    assert daemon.phase is Phase.WRITING
    theirs = author.appends[2]
    daemon.node.frame(US.member, Announce(EU, theirs.head.note, 2, theirs.events), daemon.clock)
    daemon.step()
    assert daemon.phase is Phase.RIVALLED
    with pytest.raises(Unavailable, match="another process"):
        daemon.node.propose(Note("two at once"))
    daemon.now_s += limits.RIVAL_QUIET_S
    daemon.step()
    assert daemon.say().incarnation == 2


def test_one_peers_word_of_a_clone_is_not_enough_to_silence_us() -> None:
    recovery = Recovery(needed=2)
    recovery.told(US.member, b"other", 1.0)
    recovery.review(2, 1.0)
    assert recovery.phase is Phase.WRITING
    recovery.told(AP.member, b"other", 2.0)
    recovery.review(2, 2.0)
    assert recovery.phase is Phase.RIVALLED
    recovery.review(2, 2.0 + 2 * limits.RIVAL_QUIET_S)
    assert recovery.phase is Phase.WRITING
    assert recovery.reopen


def test_an_operator_picks_a_daemon_and_the_same_rival_does_not_stop_it_again() -> None:
    recovery = Recovery(needed=1)
    recovery.told(US.member, b"other", 1.0)
    recovery.review(1, 1.0)
    assert recovery.phase is Phase.RIVALLED
    recovery.claim()
    recovery.told(US.member, b"other", 2.0)
    recovery.review(1, 2.0)
    assert recovery.phase is Phase.WRITING
    assert recovery.reopen == "an operator picked this daemon"
    recovery.told(US.member, b"a third", 3.0)
    recovery.review(1, 3.0)
    assert recovery.phase is Phase.RIVALLED


def test_while_a_peer_is_linked_with_another_of_us_the_deadline_does_not_pass() -> None:
    recovery = Recovery()
    recovery.ask(1, 30.0)
    for second in range(0, 100, 10):
        recovery.refused(US.member, float(second))
        recovery.review(0, float(second))
        assert recovery.phase is Phase.RIVALLED
    recovery.linked(US.member)
    recovery.review(1, 101.0)
    assert (recovery.phase, recovery.reopen) == (Phase.WRITING, "")


def test_a_federation_of_one_asks_nobody() -> None:
    recovery = Recovery()
    recovery.ask(0, 30.0)
    recovery.review(0, 0.0)
    assert recovery.extends


def asked(others: int = 3, until_s: float = WAIT_S) -> Recovery:
    recovery = Recovery()
    recovery.ask(others, until_s)
    return recovery


def test_those_who_have_not_answered_yet_have_a_moment_to_do_so() -> None:
    """What we wrote last may be held by one peer alone, and by the slowest of them."""
    recovery = asked()
    recovery.review(2, 1.0)
    assert recovery.phase is Phase.RECOVERING, "enough, but not all"
    recovery.review(2, 1.0 + limits.STRAGGLERS_S)
    assert (recovery.phase, recovery.reopen) == (Phase.WRITING, "")


def test_nobody_is_waited_for_when_all_have_answered() -> None:
    recovery = asked()
    recovery.review(3, 1.0)
    assert (recovery.phase, recovery.reopen) == (Phase.WRITING, "")


def test_the_moment_begins_anew_when_an_answer_is_taken_back() -> None:
    recovery = asked()
    for answered, now_s in ((2, 1.0), (1, 2.0), (2, 3.0)):
        recovery.review(answered, now_s)
    recovery.review(2, 2.0 + limits.STRAGGLERS_S)
    assert recovery.phase is Phase.RECOVERING


def test_enough_answers_are_enough_at_the_deadline() -> None:
    recovery = asked(until_s=2.0)
    recovery.review(2, 1.0)
    recovery.review(2, 2.0)
    assert (recovery.phase, recovery.reopen) == (Phase.WRITING, "")


def test_a_witness_is_silent_until_it_wrote_undisturbed_for_a_while() -> None:
    """A copy recovers within a second, and does not remember what its original cosigned."""
    recovery = asked()
    recovery.review(3, 1.0)
    assert not recovery.vouches
    recovery.usurped(1.0 + limits.RIVAL_QUIET_S / 2)
    recovery.review(3, 2.0 + limits.RIVAL_QUIET_S / 2)
    assert recovery.phase is Phase.RIVALLED
    back_s = 1.0 + 1.5 * limits.RIVAL_QUIET_S
    recovery.review(3, back_s)
    assert recovery.phase is Phase.WRITING
    recovery.review(3, back_s + limits.RIVAL_QUIET_S - 1)
    assert not recovery.vouches
    recovery.review(3, back_s + limits.RIVAL_QUIET_S)
    assert recovery.vouches


def test_a_daemon_that_is_new_vouches_from_the_start() -> None:
    """Nobody can have cosigned with a key that was never used."""
    recovery = Recovery()
    recovery.review(0, 0.0)
    assert recovery.vouches
