"""A log that has forked ends where its branches part, or where it is final; all agree on that."""

from __future__ import annotations

import contextlib
from random import Random

import pytest
from audited import door_of
from federation import CHAIN, CODEC, MODEL, ROOT, Author, key, members, origin
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core import events
from hanse.core.audit.replay import audit
from hanse.core.effects import Compare, Log, Reread, Restart
from hanse.core.errors import Conflict, Rejected
from hanse.core.events import Event, Hold, Note
from hanse.core.freeze import SPACE
from hanse.core.gossip.frames import Chunk, Evidence, Heads, LogHead, Pull
from hanse.core.log.checkpoint import Checkpoint, sign_checkpoint
from hanse.core.log.fork import Fork, compare, prove
from hanse.core.log.merkle import leaf_hash, root_of
from hanse.core.logbook import Diverged, Logbook, Stalled, header
from hanse.core.node import Clock, Node
from hanse.core.recovery import Phase
from hanse.core.step import AppendEvents, Head, PutTrust
from hanse.core.trust import chain
from hanse.core.trust.chain import Chain
from hanse.core.trust.cuts import Cut
from hanse.daemon.queries.logs import logs
from hanse.sim.process import done
from hanse.storage.memory import MemoryEventStore

EU, US = origin("eu"), origin("us")
SHARED, LONG = 3, 8


def branch(mark: str, size: int = LONG, shared: int = SHARED, region: str = "us") -> Author:
    """A history of `us` that agrees with every other on its first `shared` events."""
    author = Author(region)
    for i in range(size):
        text = f"{i}" if i < shared else f"{i} {mark}"
        author.write(Hold(MODEL, author.origin.region, None, text))
    return author


def raws(author: Author) -> tuple[bytes, ...]:
    return tuple(raw for append in author.appends for raw in append.events)


def fork(one: Author, two: Author) -> Fork:
    copies = [(a.appends[-1].head.note, [leaf_hash(raw) for raw in raws(a)]) for a in (one, two)]
    made = prove(one.origin, key(one.region).public, copies[0], copies[1])
    assert made is not None
    return made


A, B, C = branch("a"), branch("b", 6), branch("c", shared=1)
HIGH, LOW = fork(A, B), fork(A, C)


class Holder:
    """A node with a store, which answers what the node asks of it at once."""

    def __init__(self, region: str = "eu", store: MemoryEventStore | None = None) -> None:
        self.store, self.now_s = store or MemoryEventStore(), 1000.0
        self.effects: list[object] = []
        me = origin(region)
        trust = chain.replay(tuple(done(self.store.trust())) or CHAIN.files)
        if store is None:
            done(self.store.apply([PutTrust(1, CHAIN.files[0])]))
        self.node = Node(me, key(region), region.encode(), CODEC, trust, Random(region))
        self.node.freezer.restore(done(self.store.local(SPACE)))
        for head in done(self.store.heads()):
            self.node.restore(head, done(self.store.events(head.origin, 0, 2**60, 2**60)))
        self.node.open("test")
        self.step()

    @property
    def clock(self) -> Clock:
        return Clock(self.now_s, int(self.now_s * 1000))

    def step(self) -> None:
        self.now_s += 1
        step = self.node.take(self.clock)
        done(self.store.apply(step.store))
        self.effects += step.effects
        asked = [e for e in step.effects if isinstance(e, Reread)]
        for effect in asked:
            events = done(self.store.events(effect.origin, 0, 2**60, 2**60))
            self.node.freezer.reread(effect.origin, events, self.now_s)
        if asked:
            self.step()

    def take(self, author: Author) -> None:
        """Somebody shows this whole branch; what does not fit is refused."""
        with contextlib.suppress(Diverged, Conflict):
            self.node.bring(author.origin, 0, raws(author), author.appends[-1].head.note)
        self.step()

    def told(self, proof: Fork) -> None:
        self.node.freezer.heard(proof.encode(), None)
        self.step()

    @property
    def state(self) -> tuple[bytes, bytes]:
        return self.node.book.digest, self.node.catalog.state_digest

    def counted(self, log: object = US) -> int:
        return sum(r.origin == log for r in self.node.catalog.records(MODEL))


def deliver(holder: Holder, news: Author | Fork) -> None:
    if isinstance(news, Fork):
        holder.told(news)
    else:
        holder.take(news)


NEWS = (A, B, C, HIGH, LOW)


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(len(NEWS))), st.sampled_from([1, 2, 3, 4, 5]))
def test_all_who_have_the_evidence_agree_whatever_came_first(order: list[int], n: int) -> None:
    """T07: the branch that was first, and which proof, make no difference in the end."""
    holder = Holder()
    for i in order[:n]:
        deliver(holder, NEWS[i])
    for news in (LOW, A):  # what anti-entropy brings to everybody
        deliver(holder, news)
    assert holder.counted() == LOW.index == 1
    other = Holder()
    deliver(other, A)
    deliver(other, LOW)
    assert holder.node.book.heads[US].stop == other.node.book.heads[US].stop
    assert holder.node.catalog.state_digest == other.node.catalog.state_digest


def test_a_fork_takes_back_what_counted_beyond_it_and_survives_a_restart() -> None:
    holder = Holder()
    holder.take(A)
    assert holder.counted() == LONG
    holder.told(HIGH)
    assert holder.counted() == SHARED
    assert any(isinstance(e, Log) and e.event == "log_forked" for e in holder.effects)
    again = Holder(store=holder.store)
    assert again.state == holder.state


def test_a_frozen_log_takes_no_more_than_what_counts() -> None:
    holder = Holder()
    holder.told(HIGH)
    holder.take(branch("a", 2))
    assert holder.node.book.size(US) == 2
    holder.take(A)
    assert (holder.node.book.size(US), holder.counted()) == (LONG, SHARED)
    longer = branch("a", LONG + 4)
    holder.take(longer)
    assert holder.node.book.size(US) == LONG


def test_evidence_is_told_ahead_of_everything_else_and_once() -> None:
    holder = Holder()
    holder.take(A)
    holder.told(HIGH)
    puts = [w for w in holder.effects if isinstance(w, Log) and w.event == "log_forked"]
    holder.told(HIGH)
    assert len(puts) == 1
    assert list(done(holder.store.local(SPACE))) == [str(US)]
    assert Evidence(HIGH.encode()).raw == done(holder.store.local(SPACE))[str(US)]


def test_a_stolen_key_forks_nothing_below_what_is_final() -> None:
    """T08: a branch from the second event on, of a log that is final to the sixth."""
    book = Logbook(CODEC, CHAIN)
    book.forks[US] = LOW
    stop = book.stop_of(US, LONG, 6, lambda size: bytes(31) + bytes([size]))
    assert stop is not None
    assert (stop.void_from, stop.held, stop.root[-1]) == (6, 6, 6)


def test_a_branch_that_does_not_fit_is_weighed() -> None:
    holder = Holder()
    holder.take(branch("a", 5))
    log, note = raws(B), B.appends[-1].head.note
    asked = Compare(EU.member, US, 0, log, note)
    holder.node.freezer.compared(asked, fork(branch("a", 5), B), holder.now_s)
    holder.step()
    assert holder.node.book.forks[US].index == SHARED


@pytest.mark.parametrize("final", [0, SHARED])
def test_a_branch_is_asked_for_until_it_parts_in_however_small_pieces(final: int) -> None:
    """A peer answers a pull up to what is final there, which may be before the branches part."""
    holder, peer = Holder(), origin("ap").member
    holder.take(A)
    sync = holder.node.sync
    sync.link_up(peer, b"ap", holder.now_s)
    sync.links[peer].proven = True
    holder.step()
    other = branch("d")
    head = other.appends[-1].head
    sync.frame(peer, Heads((LogHead(US, head.size, head.root[:8], final),)), holder.now_s)
    ours = (A.appends[-1].head.note, [leaf_hash(raw) for raw in raws(A)])
    while pulls := [sent.frame for sent in sync.out if isinstance(sent.frame, Pull)]:
        sync.out.clear()
        one = other.appends[pulls[0].start]
        sync.frame(peer, Chunk(US, pulls[0].start, one.events, one.head.note), holder.now_s)
        (asked,) = [effect for effect in sync.effects if isinstance(effect, Compare)]
        sync.effects.clear()
        theirs = (asked.note, asked.events)
        outcome = compare(US, key("us").public, ours, theirs, asked.start)
        holder.node.freezer.compared(asked, outcome, holder.now_s)
    holder.step()
    assert holder.node.book.forks[US].index == SHARED


def test_a_daemon_whose_own_log_has_forked_goes_on_in_a_new_incarnation() -> None:
    """T09: also after a restart, and never in the log that has ended."""
    holder = Holder("us")
    own = raws_of(holder)
    twin = Author("us")
    twin.write(Note("of a copy of the disk"))
    copies = [(holder.node.book.heads[US].note, [leaf_hash(r) for r in own])]
    copies.append((twin.appends[-1].head.note, [leaf_hash(r) for r in raws(twin)]))
    proof = prove(US, key("us").public, copies[0], copies[1])
    assert proof is not None
    holder.told(proof)
    assert holder.node.recovery.phase is Phase.RIVALLED
    again = Holder("us", holder.store)
    again.node.propose(Note("goes on"))
    again.step()
    assert again.node.me.incarnation == 2


def raws_of(holder: Holder) -> list[bytes]:
    return done(holder.store.events(US, 0, 2**60, 2**60))


# -- cuts ----------------------------------------------------------------------


def cut_at(author: Author, size: int, void_from: int) -> Chain:
    cut = Cut(US, size, author.appends[size - 1].head.root, void_from)
    after = chain.sign(members(version=2, cuts=(cut,)), (ROOT,), CHAIN)
    return chain.extend(CHAIN, after)


def restarted_under(holder: Holder, trust: Chain) -> Holder:
    """The trust version arrives; the daemon ends, because all has to be judged anew."""
    holder.node.extend_trust(trust.files[-1])
    holder.step()
    assert any(isinstance(e, Restart) for e in holder.effects)
    return Holder(store=holder.store)


def test_what_was_cut_off_counts_nowhere_even_if_it_was_written_before() -> None:
    """T14: neither what is there, nor what the revoked author adds to the old head."""
    holder = Holder()
    holder.take(A)
    after = restarted_under(holder, cut_at(A, 5, 4))
    assert after.counted() == 4
    after.take(branch("a", LONG + 3))
    assert (after.node.book.size(US), after.counted()) == (LONG, 4)


def test_a_cut_names_the_branch_and_the_other_one_is_let_go() -> None:
    holder = Holder()
    holder.take(B)
    after = restarted_under(holder, cut_at(A, 5, 5))
    assert US not in after.node.book.heads
    with pytest.raises(Rejected, match="another branch"):
        after.node.bring(US, 0, raws(B), B.appends[-1].head.note)
    after.take(A)
    assert after.counted() == 5
    assert Holder(store=after.store).state == after.state


def test_those_who_hold_more_or_less_of_a_cut_log_agree() -> None:
    more, less = Holder(), Holder()
    more.take(A)
    less.take(branch("a", 5))
    trust = cut_at(A, 5, 4)
    ends = [restarted_under(holder, trust) for holder in (more, less)]
    assert ends[0].state == ends[1].state


def test_a_cut_is_stronger_than_a_fork() -> None:
    """The region says which branch was meant, and up to where; a new incarnation goes on."""
    holder = Holder()
    holder.take(A)
    holder.told(LOW)
    assert holder.counted() == LOW.index
    after = restarted_under(holder, cut_at(A, 6, 6))
    assert after.counted() == 6


def test_evidence_of_a_stranger_is_refused() -> None:
    stranger = branch("a", region="mars")
    other = branch("b", region="mars")
    with pytest.raises(Rejected):
        Holder().node.freezer.heard(fork(stranger, other).encode(), None)


def test_an_append_of_a_frozen_log_is_stored_like_any_other() -> None:
    holder = Holder()
    holder.told(HIGH)
    holder.node.bring(US, 0, raws(A)[:2], A.appends[1].head.note)
    step = holder.node.take(holder.clock)
    assert [w.head.size for w in step.store if isinstance(w, AppendEvents)][-1] == 2


def test_an_audit_of_a_forked_log_computes_what_the_daemons_compute() -> None:
    """The evidence is exported with the logs, checked, and freezes them there too."""
    holder = Holder()
    holder.take(A)
    holder.told(HIGH)
    read = door_of(holder.store, "acme")
    found = audit(read, CHAIN.files[0], CODEC)
    assert found.forks == {US: HIGH}
    assert found.state_digest == holder.node.catalog.state_digest
    assert found.heads_digest == holder.node.book.digest
    place = f"evidence/{US}.json"
    forged = HIGH.encode().replace(b'"index":3', b'"index":2')
    with pytest.raises(Rejected, match=r"^evidence/"):
        audit(lambda path: forged if path == place else read(path), CHAIN.files[0], CODEC)


def newer(size: int = 3) -> Author:
    """A history whose last event asks for a newer reader."""
    author = branch("a", size - 1)
    head = header(US, size - 1, CHAIN, bytes(32), 0)._replace(min_reader_level=2)
    raw = CODEC.encode(Event(head, Hold(MODEL, US.region, None, "of a newer daemon")))
    whole = [leaf_hash(each) for each in (*raws(author), raw)]
    said = Checkpoint(str(US), size, root_of(whole))
    last = Head(US, size, said.root, b"", sign_checkpoint(said, key("us")))
    author.appends.append(AppendEvents(last, size - 1, (raw,)))
    return author


def test_an_event_of_a_newer_level_stalls_that_author_alone_until_the_upgrade(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """I15: it is said, nothing is skipped, others go on, and the upgrade loses nothing."""
    holder, ahead = Holder(), newer()
    holder.take(branch("a", 2))
    with pytest.raises(Stalled):
        holder.node.bring(US, 2, raws(ahead)[2:], ahead.appends[-1].head.note)
    holder.take(branch("a", 4, region="ap"))
    assert (holder.node.book.size(US), holder.counted(origin("ap"))) == (2, 4)
    (row,) = logs(holder.node, holder.clock)
    assert (row["log"], row["state"]) == (str(US), "stalled")
    assert "reader level 2" in row["reason"]
    monkeypatch.setattr(events, "READER_LEVEL", 2)
    upgraded = Holder(store=holder.store)
    upgraded.take(ahead)
    assert upgraded.counted() == 3
    assert logs(upgraded.node, upgraded.clock) == []
