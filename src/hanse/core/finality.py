"""How far each log is final: cosignatures are made, gathered and counted here.

    author      signs a head and, as a witness, proposes it by its own cosignature
    witnesses   hold the events, recomputed the root: they cosign what the author proposed
    everybody   merges the notes that come back; once they carry a quorum, the head is final

The author proposes at most one head every `PROPOSE_S`, so that all witnesses cosign the *same*
heads: if each cosigned whatever it holds, a busy log might never see a quorum on one of them.
A head that its author never proposed (it went down) is cosigned once it has stood still.

What was final stays final (I2), also when the policy changes: see `quorum`. Under `quorum none`
nothing is ever final and nothing waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hanse.core import limits
from hanse.core.catalog.finals import Finals
from hanse.core.errors import Broken
from hanse.core.ids import MemberId, Origin, Segment
from hanse.core.log.checkpoint import Checkpoint
from hanse.core.log.cosigned import Cosigned, Witnesses, by_line
from hanse.core.log.merkle import leaf_hash, root_of
from hanse.core.log.note import Note, VerifierKey
from hanse.core.log.policy import Policy
from hanse.core.log.witness import Seen, Witness
from hanse.core.logbook import Entry, Logbook
from hanse.core.quorum import own_key, policies, quorum, read_policy, witness_keys
from hanse.core.signing import SigningKey
from hanse.core.step import AppendEvents, Head, PutWitness, Write


@dataclass(frozen=True, slots=True)
class Share:
    """A note that others may lack: for every link but the one to `source`."""

    head: Checkpoint
    note: bytes
    source: MemberId | None


@dataclass(slots=True)
class _Open:
    """One log beyond what is final of it. Times are the local monotonic clock."""

    grown_s: float
    shared_s: float
    heads: dict[int, Cosigned] = field(default_factory=dict)
    changed: set[int] = field(default_factory=set)
    """Sizes whose note gained lines that no peer was told of yet."""


class Finality:
    """Owned by the node; `shares` and `advanced` are what the current step brought."""

    def __init__(
        self, me: Origin, book: Logbook, key: SigningKey | None, seen: Mapping[str, Seen]
    ) -> None:
        self.me = me
        self.shares: list[Share] = []
        self.advanced: dict[Origin, int] = {}
        self.vouched: dict[Origin, bytes] = {}
        """Of logs that have forked, a note with a quorum; of which branch is to be seen."""
        self.silent = False
        """A former self may have cosigned what we do not remember, or another one does now."""
        self.witness: Witness | None = None
        if key is not None:
            self.witness = Witness(own_key(book.chain, me, key.public), key, seen)
        self._book = book
        self._open: dict[Origin, _Open] = {}
        self._touched: dict[Origin, None] = {}
        self._trust: dict[Origin, int] = {}
        self._writes: dict[object, Write] = {}
        self._proposed_s = float("-inf")
        self._known: dict[int, Witnesses] = {}
        self._own: dict[Segment, frozenset[bytes]] = {}
        self._authors: dict[Origin, VerifierKey | None] = {}

    @property
    def policy(self) -> Policy:
        """The one in force."""
        return read_policy(self._book.chain.current.witness_policy)

    def finals(self, sizes: Mapping[Origin, int]) -> Finals:
        """How the fold is to look at finality under the trust of now."""
        asks_nothing = tuple(
            m.version
            for m in self._book.chain.versions
            if read_policy(m.witness_policy).requires_nothing
        )
        return Finals(not self.policy.requires_nothing, sizes, asks_nothing)

    # -- what happened -----------------------------------------------------------

    def restored(self, head: Head, events: Sequence[bytes], entries: Iterable[Entry]) -> None:
        """A stored log was read again. Raises `Broken` if it is not what was final of it."""
        name = str(head.origin)
        if head.final_size:
            final = Checkpoint.parse(Note.parse(head.final_note).text)
            if final != Checkpoint(name, head.final_size, _root(events[: head.final_size])):
                raise Broken(
                    f"the stored log {name} is not the one that its witnesses have cosigned",
                    fix="restore the database from a backup, or let peers replay it",
                )
        if self.witness is not None and (seen := self.witness.seen.get(name)):
            self.witness.holds(name, seen.size, _root(events[: seen.size]))
        self.grown(head, entries, 0.0)

    def grown(self, head: Head, entries: Iterable[Entry], now_s: float) -> None:
        """A log has grown by these entries, up to this head."""
        cited = max((e.event.header.trust_version for e in entries), default=1)
        trust = self._trust[head.origin] = max(cited, self._trust.get(head.origin, 1))
        if self.policy.requires_nothing or head.size <= head.final_size:
            return
        log = self._open.setdefault(head.origin, _Open(now_s, now_s))
        log.grown_s = now_s
        self._touched[head.origin] = None
        for size in [s for s, c in log.heads.items() if not c.lines and s < head.size]:
            del log.heads[size]  # nobody has vouched for it: the newer head takes its place
        while len(log.heads) >= limits.OPEN_HEADS_MAX:
            del log.heads[min(log.heads)]
        note, author = Note.parse(head.note), self._book.verifier(head.origin)
        checkpoint = Checkpoint(str(head.origin), head.size, head.root)
        line = next(line for line in note.signatures if line.is_by(author))
        found = log.heads[head.size] = Cosigned(checkpoint, line, trust)
        if len(note.signatures) > 1 and found.merge(note, self._wanted(head.origin, found)):
            self._weigh(head.origin, found, None, passed_on=True)

    def authored(
        self, append: AppendEvents, entries: Iterable[Entry], now_s: float, wall_ms: int
    ) -> AppendEvents:
        """Our own log grew; our word as a witness travels with the head that it proposes."""
        self.grown(append.head, entries, now_s)
        log = self._open.get(self.me)
        if log is None or not self._may_propose(now_s):
            return append
        self._cosign(log.heads[append.head.size], wall_ms)
        head = replace(append.head, note=log.heads[append.head.size].note())
        self._book.heads[self.me] = head
        self._proposed_s = now_s
        return replace(append, head=head)

    def heard(self, origin: Origin, raw: bytes, source: MemberId) -> None:
        """A note without events. Raises `Rejected` if it does not fit what we hold."""
        note = Note.parse(raw)
        head = self._book.heads.get(origin)
        if head and head.stop and head.stop.fork and self.vouches(origin, raw):
            self.vouched[origin] = raw
            return
        log = self._open.get(origin)
        known = log.heads.get(Checkpoint.parse(note.text).size) if log else None
        if known is not None and known.merge(note, self._wanted(origin, known)):
            self._touched[origin] = None
            self._weigh(origin, known, source)

    def vouches(self, origin: Origin, raw: bytes) -> bool:
        """Whether this note makes more of a log final than we know, on whichever branch."""
        head, found = self._book.heads.get(origin), self._cosigned(origin, raw, 1)
        more = head is None or found.head.size > head.final_size
        return more and self._has_quorum(origin, found)

    def _cosigned(self, origin: Origin, raw: bytes, trust: int) -> Cosigned:
        head, note = self._book.open_head(origin, raw), Note.parse(raw)
        author = self._book.verifier(origin)
        line = next(line for line in note.signatures if line.is_by(author))
        found = Cosigned(head, line, trust)
        found.merge(note, self._witnesses(trust))
        return found

    def confirm(self, origin: Origin, raw: bytes, trust: int, now_s: float) -> None:
        """That note is of the branch that we hold, whose events cite trust up to `trust`."""
        self._open.setdefault(origin, _Open(now_s, now_s))
        self._weigh(origin, self._cosigned(origin, raw, trust), None)

    def drop(self, origin: Origin) -> None:
        """Our copy of that log is gone; another branch of it will come."""
        for known in (self._open, self._touched, self._trust, self._writes, self.advanced):
            known.pop(origin, None)
        if self.witness is not None:
            self.witness.replaced(str(origin))

    def trust_changed(self, now_s: float) -> None:
        """Another policy, other witnesses: what is not final is weighed anew."""
        self._known.clear()
        self._own.clear()
        self._authors.clear()
        if self.witness is not None:
            self.witness.key = own_key(self._book.chain, self.me, self.witness.key.public)
        for head in list(self._book.heads.values()):
            log = self._open.get(head.origin)
            if log is None:
                self.grown(head, (), now_s)
                continue
            for found in sorted(log.heads.values(), key=lambda c: c.head.size):
                self._weigh(head.origin, found, None)

    # -- what follows ------------------------------------------------------------

    def review(self, now_s: float, wall_ms: int, *, ticked: bool) -> None:
        """Cosign what may be cosigned now."""
        for origin in list(self._open if ticked else self._touched):
            log = self._open.get(origin)
            if log is None:
                continue
            if origin == self.me:
                self._propose(log, now_s, wall_ms)
            elif (found := self._proposed_by_author(origin, log)) is not None:
                self._vouch(origin, found, wall_ms)
            if ticked and origin in self._open:
                self._tick(origin, log, now_s, wall_ms)
        self._touched.clear()

    def writes(self) -> list[Write]:
        """What to store, in the same step, before any cosignature leaves."""
        writes, self._writes = list(self._writes.values()), {}
        return writes

    def linked(self) -> None:
        """A new link: whoever is at its other end may lack what we have gathered."""
        for log in self._open.values():
            log.shared_s = float("-inf")

    def proposed(self) -> bytes | None:
        """The newest head of our own log that is proposed and not final, signed by us alone."""
        log = self._open.get(self.me)
        found = [c for c in log.heads.values() if c.lines] if log is not None else []
        if not found:
            return None
        newest = max(found, key=lambda c: c.head.size)
        return Note(newest.head.body(), (newest.author,)).render()

    def waiting(self, origin: Origin) -> str:
        """Why the end of this log is not final, as a sentence for people."""
        needed, of = self.policy.needed
        log, head = self._open.get(origin), self._book.heads.get(origin)
        best = max(log.heads.values(), key=lambda c: len(c.lines)) if log and log.heads else None
        if head is None or best is None:
            return f"waiting for {needed} of {of} witness groups"
        missing = self.policy.missing(best.lines)
        return (
            f"waiting for {needed} of {of} witness groups, {of - len(missing)} have cosigned: "
            f"no word from {', '.join(missing)}"
        )

    # -- cosigning ---------------------------------------------------------------

    def _may_propose(self, now_s: float) -> bool:
        return self.witness is not None and now_s - self._proposed_s >= limits.PROPOSE_S

    def _propose(self, log: _Open, now_s: float, wall_ms: int) -> None:
        found = log.heads.get(self._book.size(self.me))
        if found and self._may_propose(now_s) and not self._is_ours(found):
            self._proposed_s = now_s
            self._vouch(self.me, found, wall_ms)
            # Kept, because whoever pulls these events should find the proposal with them.
            head = replace(self._book.heads[self.me], note=found.note())
            self._book.heads[self.me] = head
            self._writes[self.me] = AppendEvents(head, head.size, ())

    def _proposed_by_author(self, origin: Origin, log: _Open) -> Cosigned | None:
        """The newest head that its author cosigned and we did not, if our word counts."""
        author = self._author(origin)
        if author is None or self.witness is None:
            return None
        for size in sorted(log.heads, reverse=True):
            found = log.heads[size]
            if self._is_ours(found):
                return None
            if author in found.lines:
                return found if self._counts(found) else None
        return None

    def _vouch(self, origin: Origin, found: Cosigned, wall_ms: int) -> None:
        if self._cosign(found, wall_ms):
            self._open[origin].changed.discard(found.head.size)
            self.shares.append(Share(found.head, found.note(), None))
            self._weigh(origin, found, None, passed_on=True)

    def _cosign(self, found: Cosigned, wall_ms: int) -> bool:
        assert self.witness is not None
        if self.silent:
            return False
        line = self.witness.cosign(found.head, wall_ms // 1000)
        if line is None or not found.add(self.witness.key, line):
            return False
        put = PutWitness(found.head.origin, found.head.size, found.head.root)
        self._writes[found.head.origin] = put
        return True

    def _is_ours(self, found: Cosigned) -> bool:
        return self.witness is not None and self.witness.key in found.lines

    def _counts(self, found: Cosigned) -> bool:
        """Whether a policy that judges this head names us."""
        assert self.witness is not None
        return self.witness.key in self._witnesses(found.trust).values()

    def _tick(self, origin: Origin, log: _Open, now_s: float, wall_ms: int) -> None:
        last = log.heads.get(self._book.size(origin))
        if last is None:
            return
        still_s = now_s - log.grown_s
        waited = self.witness is not None and still_s >= limits.PATIENCE_S
        if waited and not self._is_ours(last) and self._counts(last):
            self._vouch(origin, last, wall_ms)
        if now_s - log.shared_s >= limits.ANTI_ENTROPY_S:
            log.changed |= {size for size, found in log.heads.items() if found.lines}
        for size in sorted(log.changed & set(log.heads)):
            self.shares.append(Share(log.heads[size].head, log.heads[size].note(), None))
        if log.changed:
            log.shared_s = now_s
            log.changed.clear()

    # -- counting ----------------------------------------------------------------

    def _weigh(
        self, origin: Origin, found: Cosigned, source: MemberId | None, *, passed_on: bool = False
    ) -> None:
        """Make the head final if it has a quorum; else remember that its note has grown."""
        if self.witness is not None and self.witness.key in found.lines:
            self.witness.recall(found.head)
        log, size = self._open[origin], found.head.size
        if not self._has_quorum(origin, found):
            if not passed_on:
                log.changed.add(size)
            return
        head, note = self._book.heads[origin], found.note()
        if size > head.final_size:
            whole = note if size == head.size else head.note
            final = replace(head, note=whole, final_size=size, final_note=note)
            self._book.heads[origin] = final
            self._writes[origin] = AppendEvents(final, final.size, ())
            self.advanced[origin] = size
            self.shares.append(Share(found.head, note, source))
        for old in [s for s in log.heads if s <= size]:
            del log.heads[old]
        log.changed &= set(log.heads)
        if size == head.size:
            del self._open[origin]

    def _has_quorum(self, origin: Origin, found: Cosigned) -> bool:
        asked = policies(self._book.chain, found.trust)
        return bool(quorum(asked, self._keys_of(origin.region), found.lines))

    def _witnesses(self, trust: int) -> Witnesses:
        """The keys whose cosignatures count for a head of that trust."""
        if trust not in self._known:
            keys = (key for policy in policies(self._book.chain, trust) for key in policy.keys)
            self._known[trust] = by_line(keys)
        return self._known[trust]

    def _wanted(self, origin: Origin, found: Cosigned) -> Witnesses:
        """Those, and the key by which the author proposes, whether it counts or not."""
        counting, author = self._witnesses(found.trust), self._author(origin)
        return {**counting, **by_line([author])} if author else counting

    def _author(self, origin: Origin) -> VerifierKey | None:
        if origin not in self._authors:
            member = self._book.chain.current.member(origin.member)
            key = member.witness_key if member else None
            self._authors[origin] = own_key(self._book.chain, origin, key) if key else None
        return self._authors[origin]

    def _keys_of(self, region: Segment) -> frozenset[bytes]:
        if region not in self._own:
            self._own[region] = witness_keys(self._book.chain, region)
        return self._own[region]


def _root(events: Iterable[bytes]) -> bytes:
    return root_of(map(leaf_hash, events))
