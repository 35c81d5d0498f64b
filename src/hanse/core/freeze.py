"""Logs that have ended: at a proven fork, or at a cut of the trust file.

A fork never reaches below what is final, and never above where the two branches part: events
before max(final size, index of the fork) count, later ones do not, on whichever branch. Every
daemon that has the proof and the same cosignatures says the same of that log, whatever came
first. Of several proofs the one with the lowest index stands, so their order does not matter.

Taking events back needs the whole log, which is on disk: the change is asked for (`Reread`)
and happens in one step, once the events are here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hanse.core import limits
from hanse.core.catalog.catalog import Catalog
from hanse.core.effects import Compare, Log, Reread, Send
from hanse.core.errors import Rejected, TooLarge
from hanse.core.finality import Finality
from hanse.core.gossip.frames import Evidence
from hanse.core.gossip.sync import Sync
from hanse.core.ids import MemberId, Origin
from hanse.core.log.checkpoint import Checkpoint
from hanse.core.log.fork import Fork, Outcome, open_fork
from hanse.core.log.merkle import Frontier, leaf_hash, root_of
from hanse.core.log.note import Note
from hanse.core.logbook import Logbook
from hanse.core.step import Head, PutLocal, TruncateLog, Write

SPACE = "evidence"


def size_of(note: bytes) -> int:
    return Checkpoint.parse(Note.parse(note).text).size


class Freezer:
    """Owned by the node; `writes` go into its next step, ahead of all others."""

    def __init__(self, book: Logbook, catalog: Catalog, finality: Finality, sync: Sync) -> None:
        self.writes: list[Write] = []
        self.froze: list[Origin] = []
        """Logs for which a proof has come in this step."""
        self._book, self._catalog, self._finality, self._sync = book, catalog, finality, sync
        self._proven: dict[Origin, tuple[Fork, MemberId | None]] = {}
        self._asked: set[Origin] = set()
        self._foreign: dict[Origin, tuple[int, int]] = {}
        """How far logs are final on a branch that is not ours, and where that one parts."""

    def restore(self, stored: Mapping[str, bytes]) -> None:
        """Take the proofs back, before the logs."""
        for raw in stored.values():
            fork = open_fork(raw, self._book.key_of)
            self._book.forks[fork.origin] = fork

    # -- evidence ----------------------------------------------------------------

    def listen(self, now_s: float) -> None:
        """Take in what peers have brought."""
        for raw, source in self._sync.proofs.heard:
            try:
                self.heard(raw, source)
            except Rejected as error:
                self._sync.reject(source, Evidence(raw), error, now_s)
        self._sync.proofs.heard.clear()

    def take(self) -> list[Write]:
        """What to store, ahead of all else in this step."""
        writes, self.writes = self.writes, []
        self.froze.clear()
        return writes

    def heard(self, raw: bytes, source: MemberId | None) -> None:
        """Somebody brings a proof. Raises `Rejected` if it proves nothing."""
        self.found(open_fork(raw, self._book.key_of), source)

    def found(self, fork: Fork, source: MemberId | None) -> None:
        origin = fork.origin
        known = self._book.forks.get(origin)
        waiting = self._proven.get(origin)
        if any(f is not None and f.index <= fork.index for f in (known, waiting and waiting[0])):
            return
        if known is None:
            self._bound(origin)
        self._proven[origin] = (fork, source)
        if origin in self._book.heads:
            self.ask(origin)
        else:
            self._keep(origin)

    def _bound(self, origin: Origin) -> None:
        of_member = sum(o.member == origin.member for o in (*self._book.forks, *self._proven))
        of_all = len(self._book.forks) + len(self._proven)
        if of_member >= limits.MEMBER_LOGS_MAX or of_all >= limits.FORKED_LOGS_MAX:
            raise TooLarge(
                f"{of_member} logs of {origin.member} have forked already",
                fix="replace the member: its key is in other hands",
            )

    def _keep(self, origin: Origin) -> None:
        fork, source = self._proven.pop(origin)
        raw = fork.encode()
        self._book.forks[origin] = fork
        self.froze.append(origin)
        self.writes.append(PutLocal(SPACE, str(origin), raw))
        ahead = [Send(k.peer, Evidence(raw)) for k in self._sync.proven() if k.peer != source]
        self._sync.out[:0] = ahead
        said = (("index", fork.index), ("log", str(origin)))
        self._sync.effects.append(Log("error", "log_forked", said))

    def compared(self, asked: Compare, outcome: Outcome, now_s: float) -> None:
        """A peer's branch was weighed against ours."""
        known = asked.origin in self._book.forks
        if known and outcome != "earlier" and self._finality.vouches(asked.origin, asked.note):
            if outcome is None:
                self._finality.vouched[asked.origin] = asked.note
            else:
                self._foreign[asked.origin] = size_of(asked.note), outcome.index
            self.ask(asked.origin)
        if isinstance(outcome, Fork):
            return self.found(outcome, None)
        link = self._sync.links.get(asked.peer)
        if link is None or not link.proven:
            return None
        proofs = self._sync.proofs
        if outcome is None:
            pull = proofs.later(link, asked, now_s)
        else:
            pull = proofs.earlier(link, asked.origin, asked.start, now_s)
        if pull is not None:
            self._sync.out.append(Send(asked.peer, pull))
        return None

    # -- taking back ---------------------------------------------------------------

    def ask(self, origin: Origin) -> None:
        """Have a whole log read, because what counts of it may have changed."""
        if origin not in self._asked:
            self._asked.add(origin)
            self._sync.effects.append(Reread(origin))

    def review(self) -> None:
        """Once a step: logs that became final beyond where they ended."""
        for origin in self._finality.vouched:
            self.ask(origin)
        for origin in self._finality.advanced:
            head = self._book.heads.get(origin)
            if head and head.stop and head.stop.fork and head.stop.void_from < head.final_size:
                self.ask(origin)

    def reread(self, origin: Origin, raws: Sequence[bytes], now_s: float) -> None:
        """The events of a log as they are stored: judge all of them again."""
        self._asked.discard(origin)
        head = self._book.heads.get(origin)
        if head is None:
            return
        if len(raws) != head.size or any(a.head.origin == origin for a, _ in self._sync.ingested):
            return self.ask(origin)  # it has grown since
        if origin in self._proven:
            self._keep(origin)
        leaves = tuple(map(leaf_hash, raws))
        entries = self._book.reread(origin, raws, leaves)
        vouched = self._finality.vouched.pop(origin, None)
        if self._book.is_misplaced(origin, leaves):
            return self._let_go(origin, raws, leaves)
        if vouched is not None and origin in self._book.forks:
            said = Checkpoint.parse(Note.parse(vouched).text)
            if said.size > len(leaves):
                self._book.elsewhere[origin] = said.size  # ours may still grow to it
            elif root_of(leaves[: said.size]) == said.root:
                trust = max(e.event.header.trust_version for e in entries[: said.size])
                self._finality.confirm(origin, vouched, trust, now_s)
            else:
                self._foreign[origin] = said.size, self._book.forks[origin].index
        # Of several branches the one that is final need not part from ours where the proof says.
        final, parts = self._foreign.pop(origin, (0, 0))
        if origin in self._book.forks and head.final_size <= parts < min(final, len(leaves)):
            self._book.elsewhere[origin] = final
            self._book.refused.add(leaves[parts])
            return self._let_go(origin, raws, leaves, head.final_size)
        return self._judge(self._book.heads[origin], raws, leaves)

    def _judge(self, head: Head, raws: Sequence[bytes], leaves: Sequence[bytes]) -> None:
        """Count of this log what counts now, and nothing else."""
        self._book.settle(head, leaves)
        self._catalog.remove(head.origin)
        for entry in self._book.reread(head.origin, raws, leaves):
            self._catalog.add(self._book.judged(entry))

    def _let_go(
        self, origin: Origin, raws: Sequence[bytes], leaves: Sequence[bytes], size: int = 0
    ) -> None:
        """Keep so much of our branch, which is final, to take in the one that counts."""
        before = self._book.heads[origin]
        frontier = Frontier.empty().append(leaves[:size])
        end = (before.final_size, before.final_note) if size else (0, b"")
        head = Head(origin, size, frontier.root(), frontier.encode(), end[1], *end)
        self._finality.drop(origin)
        self._judge(head, raws[:size], leaves[:size])
        if not size:
            del self._book.heads[origin]
        self.writes.append(TruncateLog(head))
        self._sync.effects.append(Log("warning", "branch_dropped", (("log", str(origin)),)))
