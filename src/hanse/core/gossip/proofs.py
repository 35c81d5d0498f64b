"""Evidence of forks between peers, and the questions that lead to it.

Two daemons that hold different branches of one log notice it by their heads, or because a
suffix does not fit. Whoever notices asks the other for what it holds from the last place at
which both must agree, and weighs the answer against its own copy: that gives the proof.
"""

from __future__ import annotations

from collections.abc import Iterator

from hanse.core import limits
from hanse.core.effects import Compare
from hanse.core.gossip.frames import Announce, Chunk, Evidence, LogHead, Pull
from hanse.core.gossip.heads import differ, shown
from hanse.core.gossip.links import Link
from hanse.core.ids import MemberId, Origin
from hanse.core.logbook import Logbook
from hanse.core.step import Head


class Proofs:
    """Owned by `gossip.sync`; the node takes `heard` with every step."""

    def __init__(self, book: Logbook) -> None:
        self.heard: list[tuple[bytes, MemberId]] = []
        self._book = book
        self._asked: dict[Origin, tuple[MemberId, int, float]] = {}

    def answer(
        self, link: Link, ours: Head | None, theirs: LogHead, now_s: float
    ) -> Iterator[Evidence | Pull]:
        """What follows where a peer's word of a log is not ours: a proof, or a question."""
        origin = theirs.origin
        if ours is None:
            if origin in self._book.forks:
                self._book.elsewhere[origin] = theirs.final_size
            return
        _, _, fork = shown(ours)
        if fork and (not theirs.frozen or theirs.frozen > fork):
            yield Evidence(self._book.forks[origin].encode())
        if differ(ours, theirs) or (fork and theirs.final_size > ours.final_size):
            both_final = min(ours.final_size, theirs.final_size)
            pull = self.ask(link, origin, both_final, now_s)
            if pull is not None:
                yield pull

    def ask(self, link: Link, origin: Origin, start: int, now_s: float) -> Pull | None:
        """Ask this peer for its branch from `start` on; one question about a log at a time."""
        asked = self._asked.get(origin)
        if asked is not None and now_s < asked[2]:
            return None
        self._asked[origin] = (link.peer, start, now_s + limits.PULL_TIMEOUT_S)
        return link.pull(origin, start, now_s)

    def answered(self, peer: MemberId, frame: Chunk) -> Compare | None:
        """What to weigh, if this chunk is the answer to such a question."""
        asked = self._asked.get(frame.origin)
        if asked is None or asked[:2] != (peer, frame.start):
            return None
        del self._asked[frame.origin]
        return self.weigh(peer, frame)

    def weigh(self, peer: MemberId, frame: Announce | Chunk) -> Compare:
        return Compare(peer, frame.origin, frame.start, frame.events, frame.note)

    def later(self, link: Link, asked: Compare, now_s: float) -> Pull | None:
        """Its branch is ours that far: ask on from there, as long as we hold more."""
        end = asked.start + len(asked.events)
        if end == asked.start or end >= self._book.size(asked.origin):
            return None
        return self.ask(link, asked.origin, end, now_s)

    def earlier(self, link: Link, origin: Origin, start: int, now_s: float) -> Pull | None:
        """Its branch parted before `start`: ask from what is final on, then from the beginning."""
        head = self._book.heads.get(origin)
        if head is None or start == 0:
            return None
        return self.ask(link, origin, head.final_size if start > head.final_size else 0, now_s)
