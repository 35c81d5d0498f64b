"""Every author's log as far as we hold it, and the one way in which it grows.

A suffix enters only whole: its leaves are appended to the stored frontier, the root must be
the one that the author signed for exactly that size, and every event must be readable and
judgeable. Otherwise nothing of it enters, and the author is stalled with a reason that an
operator can see; no event is ever skipped (I15).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hanse.core import limits
from hanse.core.errors import Broken, Conflict, InvalidProof, NotPermitted, Rejected, TooLarge
from hanse.core.events import Body, Codec, Event, Header, LogOpen
from hanse.core.gossip import heads as head_map
from hanse.core.ids import EventId, MemberId, Origin
from hanse.core.log.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from hanse.core.log.merkle import EMPTY_ROOT, Frontier, leaf_hash
from hanse.core.log.note import ED25519, VerifierKey
from hanse.core.signing import SigningKey
from hanse.core.step import AppendEvents, Head
from hanse.core.trust.authority import Stall, judge_place, judge_word
from hanse.core.trust.chain import Chain


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


class Logbook:
    """Owned by the node. Heads are what is stored, never what a peer claims."""

    def __init__(self, codec: Codec, chain: Chain) -> None:
        self._codec = codec
        self.chain = chain
        self.heads = head_map.HeadMap()
        self.stalled: dict[Origin, str] = {}
        self._trust_seen: dict[Origin, int] = {}

    @property
    def digest(self) -> bytes:
        return head_map.digest(self.heads, self.chain.current.digest)

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
        self.heads[head.origin] = head
        return entries

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
        if not fresh:
            return None
        _bound(fresh)
        checkpoint = self.open_head(origin, note)
        leaves = tuple(map(leaf_hash, fresh))
        frontier = self._frontier(origin).append(leaves)
        if (checkpoint.size, checkpoint.root) != (frontier.size, frontier.root()):
            raise InvalidProof(
                f"{origin} signed size {checkpoint.size}, but these events give another log",
                fix="pull again from another peer; if it persists, the author has forked",
            )
        seen = self._trust_seen.get(origin, 0)
        try:
            entries = self._enter(origin, have, fresh, leaves)
        except Rejected as error:
            self._trust_seen[origin] = seen
            if isinstance(error, Stalled):
                self.stalled[origin] = error.message
            raise
        head = self._grown(origin, frontier, note)
        self.heads[origin] = head
        self.stalled.pop(origin, None)
        return AppendEvents(head, have, tuple(fresh)), entries

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
