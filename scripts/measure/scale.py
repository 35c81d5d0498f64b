"""What comparing logs costs in federations of 500 and 5,000 daemons, one log each.

Every daemon is a real `Sync` over a real log book, with the links that the overlay gives it;
frames are encoded, verified and answered. What is not real: time, and the memory. All head maps
lie over one that they share and keep only what they have changed, and logs hold no events but
those that are written in the run.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from random import Random

from hanse.core import limits
from hanse.core.effects import Serve
from hanse.core.events import Event, Note
from hanse.core.gossip import reconcile
from hanse.core.gossip.frames import Chunk, Frame
from hanse.core.gossip.heads import DEPTH, HeadMap, place_of
from hanse.core.gossip.overlay import Overlay
from hanse.core.gossip.sync import Sync
from hanse.core.ids import MemberId, Origin, member_id
from hanse.core.log.checkpoint import Checkpoint, sign_checkpoint
from hanse.core.log.merkle import EMPTY_ROOT, Frontier, leaf_hash
from hanse.core.logbook import Logbook, header
from hanse.core.signing import SigningKey
from hanse.core.step import AppendEvents, Head
from hanse.rpc.codec import EventCodec, decode_frame, encode_frame
from measure.fleet import FEDERATION, founded, key_of
from measure.table import markdown
from measure.wire import EVENTS, GRPC_BYTES

SIZES, DIFFER = (500, 5000), (0, 1, 10, 100)
REGIONS = 50
ROUNDS = 3
CODEC = EventCodec()


def run() -> str:
    rows = [row for count in SIZES for row in _federation(count)]
    return (
        "### Comparing logs in large federations, simulated\n\nReal `Sync`, log books, signatures "
        "and frames, in virtual time; counted as above. *Idle*: all that a daemon sends and hears "
        f"in a round, the mean and the most of all over {ROUNDS} rounds. *k differ*: one daemon "
        "lacks an event of each of k authors; for each of its links, both ways. *Again linked*: it "
        "was away, and every link is new; *missed*: announcements to it were lost, and the next "
        "round of pings tells, of all links those on which something was said.\n\n"
        + markdown(["daemons", "links each", "case", "bar", "bytes", "for each author"], rows)
    )


class Shared(HeadMap):
    """A head map over one that is the same for everybody and is never changed."""

    def __init__(self, base: HeadMap) -> None:
        super().__init__()
        self._base, self._touched = base, set[bytes]()

    def __getitem__(self, origin: Origin) -> Head:
        return self.data[origin] if origin in self.data else self._base[origin]

    def __contains__(self, origin: object) -> bool:
        return origin in self.data or origin in self._base

    def __iter__(self) -> Iterator[Origin]:
        return iter(self._base)

    def __len__(self) -> int:
        return len(self._base)

    def __setitem__(self, origin: Origin, head: Head) -> None:
        self.data[origin] = head
        for length in range(DEPTH + 1):
            self._touched.add(place_of(origin)[:length])
            self._fingerprints.pop(place_of(origin)[:length], None)

    def count(self, prefix: bytes) -> int:
        return self._base.count(prefix)

    def below(self, prefix: bytes) -> list[Head]:
        return [self[head.origin] for head in self._base.below(prefix)]

    def fingerprint(self, prefix: bytes) -> bytes:
        touched = prefix in self._touched
        return super().fingerprint(prefix) if touched else self._base.fingerprint(prefix)


class Federation:
    """All daemons, linked; `said` is every frame since it was last cleared."""

    def __init__(self, count: int) -> None:
        self.chain = founded(count, REGIONS)
        self.origins = {
            m.id: Origin(FEDERATION, m.region, m.id, 1) for m in self.chain.current.members
        }
        self.keys = {member_id(key.public): key for key in map(_key, range(count))}
        self.base = HeadMap()
        for origin in self.origins.values():
            self.base[origin] = Head(origin, 0, EMPTY_ROOT, Frontier.empty().encode(), b"")
        self.written: dict[Origin, AppendEvents] = {}
        self.said: list[tuple[MemberId, MemberId, str, int]] = []
        self.now_s = 0.0
        self.books = {member: Logbook(CODEC, self.chain) for member in self.origins}
        for book in self.books.values():
            book.heads = Shared(self.base)
        self.daemons = {member: self._daemon(member) for member in self.origins}
        for member in self.origins:
            overlay = Overlay(member, Random(f"overlay {member}"))
            for change in overlay.changes(self.chain.current, (), 0.0):
                self.link(member, change.member)
        self.settle()

    def _daemon(self, member: MemberId) -> Sync:
        key, book = self.keys[member], self.books[member]
        return Sync(self.origins[member], key, _spki(member), book, Random(member))

    def link(self, a: MemberId, b: MemberId) -> None:
        if b not in self.daemons[a].links:
            self.daemons[a].link_up(b, _spki(b), self.now_s)
            self.daemons[b].link_up(a, _spki(a), self.now_s)

    def write(self, authors: Sequence[MemberId], unheard_by: MemberId) -> None:
        """An event of each, which everybody has but one."""
        for author in authors:
            origin = self.origins[author]
            self.books[unheard_by].heads[origin] = self.base[origin]
            body = Event(header(origin, 0, self.chain, bytes(32), 0), Note("news"))
            raw = CODEC.encode(body)
            frontier = Frontier.empty().append((leaf_hash(raw),))
            checkpoint = Checkpoint(str(origin), 1, frontier.root())
            note = sign_checkpoint(checkpoint, self.keys[author])
            self.base[origin] = Head(origin, 1, checkpoint.root, frontier.encode(), note)
            self.written[origin] = AppendEvents(self.base[origin], 0, (raw,))

    def settle(self) -> None:
        """Carry frames until nobody says more."""
        waiting = deque[tuple[MemberId, MemberId, Frame]]()
        for member in self.daemons:
            self._collect(member, waiting)
        while waiting:
            source, target, frame = waiting.popleft()
            raw = encode_frame(frame)
            self.said.append((source, target, type(frame).__name__, len(raw) + GRPC_BYTES))
            self.daemons[target].frame(source, decode_frame(raw), self.now_s)
            self._collect(target, waiting)

    def _collect(self, member: MemberId, waiting: deque[tuple[MemberId, MemberId, Frame]]) -> None:
        daemon = self.daemons[member]
        waiting += [(member, send.peer, send.frame) for send in daemon.out]
        for effect in daemon.effects:
            if isinstance(effect, Serve):
                append = self.written[effect.origin]
                chunk = Chunk(effect.origin, 0, append.events, append.head.note)
                waiting.append((member, effect.peer, chunk))
        for done in (daemon.out, daemon.effects, daemon.ingested, daemon.noted):
            done.clear()

    def round(self) -> None:
        self.now_s += limits.ANTI_ENTROPY_S * (1 + limits.ANTI_ENTROPY_JITTER)
        for daemon in self.daemons.values():
            daemon.tick(self.now_s)
        self.settle()

    def bytes_by_daemon(self) -> list[int]:
        spent = Counter[MemberId]()
        for source, target, _, size in self.said:
            spent[source] += size
            spent[target] += size
        return [spent[member] for member in self.origins]


def _key(number: int) -> SigningKey:
    return key_of(f"daemon {number}")


def _spki(member: MemberId) -> bytes:
    return hashlib.sha256(member.encode()).digest()


def _federation(count: int) -> Iterator[list[str]]:
    made, rng = Federation(count), Random(count)
    away, *others = rng.sample(sorted(made.origins), count)
    links = len(made.daemons[away].links)
    made.said.clear()
    for _ in range(ROUNDS):
        made.round()
    spent = [size / ROUNDS for size in made.bytes_by_daemon()]
    idle = f"{sum(spent) / count:.0f}, {max(spent):.0f}"
    degrees = [len(daemon.links) for daemon in made.daemons.values()]
    yield [str(count), f"{sum(degrees) / count:.1f}", "idle, a round", "200", idle, ""]
    whole = sum(len(encode_frame(frame)) for frame in reconcile.tell(made.base.values()))
    yield [str(count), "", "for comparison: a list of all heads", "", str(whole), ""]
    for differ, missed in (*((k, False) for k in DIFFER), *((k, True) for k in DIFFER[1:])):
        authors, others = others[:differ], others[differ:]
        made.write(authors, away)
        made.said.clear()
        if missed:
            made.round()
        else:
            _relink(made, away)
        assert made.books[away].digest == made.books[others[0]].digest
        each, case = _compared(made, away), "missed" if missed else "again linked"
        shown = f"{each / differ:.0f}" if differ else ""
        yield [str(count), str(links), f"{differ} differ, {case}", "", f"{each:.0f}", shown]


def _relink(made: Federation, member: MemberId) -> None:
    peers = list(made.daemons[member].links)
    for peer in peers:
        made.daemons[member].link_down(peer)
        made.daemons[peer].link_down(member)
    for peer in peers:
        made.link(member, peer)
    made.settle()


def _compared(made: Federation, member: MemberId) -> float:
    """Bytes a link of this daemon on which anything was compared."""
    spent = Counter[frozenset[MemberId]]()
    for source, target, kind, size in made.said:
        if member in (source, target) and kind not in EVENTS and kind != "Ping":
            spent[frozenset((source, target))] += size
    return sum(spent.values()) / len(spent)
