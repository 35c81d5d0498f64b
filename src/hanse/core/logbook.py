"""Every author's log as far as we hold it, and the one way in which it grows.

A suffix enters only whole: its leaves are appended to the stored frontier, the root must be
the one that the author signed for exactly that size, and every event must be readable and
judgeable. Otherwise nothing of it enters, and the author is stalled with a reason that an
operator can see; no event is ever skipped (I15).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from hanse.core import limits
from hanse.core.errors import Broken, Conflict, InvalidProof, NotPermitted, Rejected, TooLarge
from hanse.core.events import Body, Codec, Event, Header, LogOpen
from hanse.core.gossip import heads as head_map
from hanse.core.ids import EventId, MemberId, Origin
from hanse.core.log.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from hanse.core.log.fork import Fork
from hanse.core.log.merkle import EMPTY_ROOT, Frontier, leaf_hash, root_of
from hanse.core.log.note import ED25519, VerifierKey
from hanse.core.rollout.places import Labels
from hanse.core.signing import SigningKey
from hanse.core.step import AppendEvents, Head, Stop
from hanse.core.trust.authority import Stall, judge_place, judge_word
from hanse.core.trust.chain import Chain
from hanse.core.trust.cuts import Cut


class Entry(NamedTuple):
    """One event that has entered a log; `void` says why it has no effect, if it has none."""

    leaf: bytes
    origin: Origin
    event: Event
    void: str = ""

    @property
    def id(self) -> EventId:
        return EventId(self.leaf)


class Stalled(Rejected):
    """We cannot judge this author's next event yet."""


class Diverged(InvalidProof):
    """Its author signed this suffix, and it does not follow from what we hold."""


class Logbook:
    """Owned by the node. Heads are what is stored, never what a peer claims."""

    def __init__(self, codec: Codec, chain: Chain) -> None:
        self._codec = codec
        self.chain = chain
        self.heads = head_map.HeadMap()
        self.stalled: dict[Origin, str] = {}
        self.forks: dict[Origin, Fork] = {}
        """Of each log that has forked, the proof with the lowest index. Owned by `freeze`."""
        self.elsewhere: dict[Origin, int] = {}
        """How far logs that have forked are known to be final somewhere."""
        self.refused: set[bytes] = set()
        """Leaves with which branches begin that do not count."""
        self._trust_seen: dict[Origin, int] = {}

    @property
    def digest(self) -> bytes:
        return head_map.digest(self.heads, self.chain.current.digest)

    def labels_at(self, version: int) -> Labels | None:
        """As the chain has them by now; it grows."""
        return self.chain.labels_at(version)

    def size(self, origin: Origin) -> int:
        head = self.heads.get(origin)
        return head.size if head else 0

    def logs_of(self, member: MemberId) -> list[Head]:
        """Every log of one member that we hold, its incarnations in order."""
        return [self.heads[o] for o in sorted(o for o in self.heads if o.member == member)]

    def _bound_logs(self, member: MemberId) -> None:
        if len(self.logs_of(member)) >= limits.MEMBER_LOGS_MAX:
            raise TooLarge(
                f"{member} has {limits.MEMBER_LOGS_MAX} logs already",
                fix="replace the member: give the daemon a new key and cut off the old one",
            )

    def wants(self, origin: Origin) -> bool:
        """Whether more of this log is taken: one that has ended is completed, no more."""
        head, cut, fork = self.heads.get(origin), self.cut_of(origin), self.forks.get(origin)
        size, final = (head.size, head.final_size) if head else (0, 0)
        if cut is not None:
            return size < cut.size
        if fork is not None:
            return size < max(fork.index, final, self.elsewhere.get(origin, 0))
        return True

    def cut_of(self, origin: Origin) -> Cut | None:
        return next((cut for cut in self.chain.current.cuts if cut.origin == origin), None)

    def stop_of(
        self, origin: Origin, size: int, final: int, root_at: Callable[[int], bytes]
    ) -> Stop | None:
        """Where a log of that size ends, if it does. A cut is stronger than a fork."""
        if (cut := self.cut_of(origin)) is not None:
            held = min(size, cut.size)
            return Stop(cut.void_from, held, root_at(held), 0)
        if (fork := self.forks.get(origin)) is not None:
            end = max(fork.index, final)
            held = min(size, end)
            return Stop(end, held, root_at(held), fork.index + 1)
        return None

    def is_misplaced(self, origin: Origin, leaves: Sequence[bytes]) -> bool:
        """Whether these leaves are of another branch than a cut names."""
        cut = self.cut_of(origin)
        if cut is None or len(leaves) < cut.size:
            return False
        return root_of(leaves[: cut.size]) != cut.root

    def knows(self, origin: Origin) -> bool:
        """Whether some members file lists the author of this log in that region."""
        return self._author_key(origin) is not None

    def open_head(self, origin: Origin, note: bytes) -> Checkpoint:
        """What a signed head of that log says. Raises `Rejected` if its author did not sign it."""
        return open_checkpoint(note, str(origin), self.key_of(origin))

    def restore(self, head: Head, events: Iterable[bytes]) -> list[Entry]:
        """Take a log back from storage, recomputing its root from the stored events (I6)."""
        raws = list(events)
        leaves = tuple(map(leaf_hash, raws))
        frontier = Frontier.empty().append(leaves)
        # Before anything is read: bytes that have changed are our disk's fault, not the author's.
        stored = Checkpoint(str(head.origin), frontier.size, frontier.root())
        if stored.root != head.root or not self._is_signed(head.origin, head.note, stored):
            raise Broken(
                f"the stored log {head.origin} does not have the root that was signed for it",
                fix="restore the database from a backup, or let peers replay it",
            )
        entries = self._enter(head.origin, 0, raws, leaves)
        self.settle(head, leaves)
        return entries

    def settle(self, head: Head, leaves: Sequence[bytes]) -> None:
        """Hold this head, and say where its log ends; `leaves` are all of it."""
        stop = self.stop_of(
            head.origin, head.size, head.final_size, lambda size: root_of(leaves[:size])
        )
        self.heads[head.origin] = replace(head, stop=stop)

    def reread(self, origin: Origin, raws: Sequence[bytes], leaves: Sequence[bytes]) -> list[Entry]:
        """All entries of a log that we hold, anew."""
        self._trust_seen[origin] = 0
        return self._enter(origin, 0, raws, leaves)

    def _is_signed(self, origin: Origin, note: bytes, said: Checkpoint) -> bool:
        try:
            return self.open_head(origin, note) == said
        except Rejected:
            return False

    def extend(
        self, origin: Origin, start: int, events: Sequence[bytes], note: bytes
    ) -> tuple[AppendEvents, list[Entry]] | None:
        """Verify a suffix of somebody's log. None if it holds nothing new.

        Raises `Rejected`: nothing has changed then.
        """
        have = self.size(origin)
        if start > have:
            raise Conflict(f"events from {start} leave a gap: we hold {have}")
        if have == 0 and origin.incarnation > 1:
            self._bound_logs(origin.member)
        fresh = events[have - start :]
        if not fresh or not self.wants(origin):
            return None
        _bound(fresh)
        checkpoint = self.open_head(origin, note)
        leaves = tuple(map(leaf_hash, fresh))
        frontier = self._frontier(origin).append(leaves)
        if (checkpoint.size, checkpoint.root) != (frontier.size, frontier.root()):
            raise Diverged(
                f"{origin} signed size {checkpoint.size}, but these events give another log",
                fix="pull again from another peer; if it persists, the author has forked",
            )
        if not self.refused.isdisjoint(leaves):
            raise Conflict(f"another branch of {origin} is final")
        self._check_branch(origin, have, leaves)
        seen = self._trust_seen.get(origin, 0)
        try:
            entries = self._enter(origin, have, fresh, leaves)
        except Rejected as error:
            self._trust_seen[origin] = seen
            if isinstance(error, Stalled):
                self.stalled[origin] = error.message
            raise
        head = self._grown(origin, frontier, note)
        head = self.heads[origin] = replace(head, stop=self._stop_after(head, leaves))
        self.stalled.pop(origin, None)
        return AppendEvents(head, have, tuple(fresh)), entries

    def _check_branch(self, origin: Origin, have: int, leaves: Sequence[bytes]) -> None:
        """Where a cut says what stands, no other branch enters."""
        cut = self.cut_of(origin)
        if cut is None or not have < cut.size <= have + len(leaves):
            return
        if self._frontier(origin).append(leaves[: cut.size - have]).root() != cut.root:
            raise InvalidProof(f"{origin} was cut, and this is another branch of it")

    def _stop_after(self, head: Head, leaves: Sequence[bytes]) -> Stop | None:
        """The end of a log that has just grown by these leaves."""
        before = self.heads.get(head.origin)
        have = before.size if before else 0
        frontier = self._frontier(head.origin)

        def root_at(size: int) -> bytes:
            if before is not None and before.stop and size <= before.stop.held:
                return before.stop.root
            return frontier.append(leaves[: size - have]).root()

        return self.stop_of(head.origin, head.size, head.final_size, root_at)

    def author(
        self, origin: Origin, key: SigningKey, events: tuple[bytes, ...]
    ) -> tuple[AppendEvents, list[Entry]]:
        """Write our own events: one group, one root, one signature."""
        start = self.size(origin)
        _bound(events)
        leaves = tuple(map(leaf_hash, events))
        frontier = self._frontier(origin).append(leaves)
        entries = self._enter(origin, start, events, leaves)
        checkpoint = Checkpoint(str(origin), frontier.size, frontier.root())
        head = self._grown(origin, frontier, sign_checkpoint(checkpoint, key))
        self.heads[origin] = head
        return AppendEvents(head, start, events), entries

    def _enter(
        self, origin: Origin, start: int, events: Sequence[bytes], leaves: Sequence[bytes]
    ) -> list[Entry]:
        """Read events that follow one another and judge their places. Raises `Rejected`."""
        entries, place, decode = [], origin.hash, self._codec.decode
        agreed: tuple[int, bytes] | None = None  # trust under which the author's place stands
        for seq, (raw, leaf) in enumerate(zip(events, leaves, strict=True), start):
            event = decode(raw)
            head = event.header
            if head.seq != seq or head.origin_hash != place:
                raise InvalidProof(f"event {seq} of {origin} was written for another place")
            if seq == 0 and origin.incarnation > 1 and event.readable:
                check_opening(origin, event.body)
            void, trust = "", (head.trust_version, head.trust_digest)
            if trust != agreed or not event.readable:
                verdict = judge_place(event, origin, self._trust_seen.get(origin, 0), self.chain)
                if isinstance(verdict, Stall):
                    fix = "upgrade this daemon, or wait for the trust file"
                    raise Stalled(verdict.reason, fix=fix)
                void, agreed = (verdict.reason, None) if verdict else ("", trust)
                self._trust_seen[origin] = max(trust[0], self._trust_seen.get(origin, 0))
            entries.append(Entry(leaf, origin, event, void))
        return entries

    def judged(self, entry: Entry) -> Entry:
        """The entry as it counts: with the reason why it is void, if what it says is."""
        if entry.void:
            return entry
        head = self.heads.get(entry.origin)
        if head and head.stop and entry.event.header.seq >= head.stop.void_from:
            why = "its log has forked" if head.stop.fork else "its log was cut"
            return entry._replace(void=f"{why} at event {head.stop.void_from}")
        verdict = judge_word(entry.event, entry.origin, self.chain)
        return entry if verdict is None else entry._replace(void=verdict.reason)

    def _grown(self, origin: Origin, frontier: Frontier, note: bytes) -> Head:
        """The head after an append. What was final stays so."""
        head = self.heads.get(origin)
        final = (head.final_size, head.final_note) if head else (0, b"")
        return Head(origin, frontier.size, frontier.root(), frontier.encode(), note, *final)

    def verifier(self, origin: Origin) -> VerifierKey:
        """The key that signs the heads of this log. Raises `NotPermitted`."""
        return VerifierKey(str(origin), ED25519, self.key_of(origin))

    def _frontier(self, origin: Origin) -> Frontier:
        head = self.heads.get(origin)
        return Frontier.decode(head.frontier) if head else Frontier.empty()

    def key_of(self, origin: Origin) -> bytes:
        """The key that signs this log. Raises `NotPermitted` if nobody's may."""
        if origin.federation != self.chain.current.federation:
            raise NotPermitted(f"{origin} belongs to another federation")
        key = self._author_key(origin)
        if key is None:
            raise NotPermitted(f"{origin.member} is no member of {origin.region}")
        return key

    def _author_key(self, origin: Origin) -> bytes | None:
        if origin.federation != self.chain.current.federation:
            return None
        for members in reversed(self.chain.versions):
            member = members.member(origin.member)
            if member is not None and member.region == origin.region:
                return member.key
        return None


def header(origin: Origin, seq: int, chain: Chain, salt: bytes, hlc_ms: int) -> Header:
    """The header of our own next event."""
    current = chain.current
    return Header(origin.hash, seq, current.version, current.digest, hlc_ms=hlc_ms, salt=salt)


def empty_head(origin: Origin) -> Head:
    return Head(origin, 0, EMPTY_ROOT, b"", b"")


def check_opening(origin: Origin, body: Body | None) -> None:
    """A later incarnation begins by naming the one before it. Raises `InvalidProof`.

    Nothing more is asked, and nothing is closed by it: the older log stays as valid as it is,
    for a daemon that has lost its disk cannot know where it ended.
    """
    if isinstance(body, LogOpen) and body.incarnation == origin.incarnation and body.prev_origin:
        before = Origin.parse(body.prev_origin)
        if origin == before.next(bytes.fromhex(origin.salt)):
            return
    raise InvalidProof(f"{origin} does not begin with the incarnation that it follows")


def _bound(events: Sequence[bytes]) -> None:
    if len(events) > limits.CHUNK_EVENTS_MAX or sum(map(len, events)) > limits.CHUNK_BYTES_MAX:
        raise TooLarge(
            f"{len(events)} events in one chunk",
            fix=f"send at most {limits.CHUNK_EVENTS_MAX} and {limits.CHUNK_BYTES_MAX} bytes",
        )
