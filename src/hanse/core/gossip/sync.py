"""Sync: what to tell each peer, what to ask of it, and what to pass on.

The conversation of a link:

    both        Hello, HelloProof           who am I, which trust, one digest of all heads
    if unequal  Fingerprints <-> Heads      of the ranges that differ: see `reconcile`
    on news     Announce                    on every link but the one it came from
    to catch up Pull -> Chunk               a suffix that ends at a signed size
    every 10 s  Ping(digest)                on the two quietest links; unequal: as above

Only what is new to us is passed on, so a message cannot circle. Losing any message costs
time, never agreement: the next ping finds the difference.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from random import Random

from hanse.core import limits
from hanse.core.counters import Counters, zeros
from hanse.core.effects import Compare, HangUp, Log, Reread, Restart, Send, Serve
from hanse.core.errors import Rejected
from hanse.core.gossip import reconcile
from hanse.core.gossip.budget import Budget
from hanse.core.gossip.frames import (
    Announce,
    Chunk,
    Evidence,
    Fingerprints,
    Frame,
    Heads,
    Hello,
    HelloProof,
    Ping,
    Pull,
    Status,
    Timestamp,
    TrustFile,
)
from hanse.core.gossip.heads import EVERYTHING, differ, lacks, summary
from hanse.core.gossip.links import Link
from hanse.core.gossip.patience import Patience, cost_s, is_in_vain
from hanse.core.gossip.proofs import Proofs
from hanse.core.gossip.pulls import Pulls
from hanse.core.gossip.quota import Quotas
from hanse.core.gossip.selves import Selves
from hanse.core.gossip.trust_exchange import TrustExchange
from hanse.core.ids import MemberId, Origin
from hanse.core.log.checkpoint import Checkpoint, open_checkpoint
from hanse.core.log.note import Note
from hanse.core.logbook import Diverged, Entry, Logbook
from hanse.core.signing import SigningKey, verify
from hanse.core.step import AppendEvents

_PROOF_DOMAIN = b"hanse-hello/v1\n"
PROOF_TIMEOUT_S = 5.0


class Sync:
    """Owned by the node; `out` and `effects` are what the current stimulus caused."""

    def __init__(
        self,
        me: Origin,
        key: SigningKey,
        spki: bytes,
        book: Logbook,
        rng: Random,
        counters: Counters | None = None,
    ) -> None:
        self.links: dict[MemberId, Link] = {}
        self.out: list[Send] = []
        self.effects: list[Serve | Reread | Compare | HangUp | Restart | Log] = []
        self.ingested: list[tuple[AppendEvents, list[Entry]]] = []
        self.noted: list[tuple[Announce, MemberId]] = []  # notes of heads that we hold
        self.said: list[tuple[Status, MemberId]] = []  # latest words of members
        self.proven_now: list[MemberId] = []  # whose links were proven in this step
        self.must_hear: Collection[MemberId] = ()
        self.intake = True  # False while there is no room for anybody's events
        self.last_word_s: dict[MemberId, float] = {}  # of members, kept when their link is gone
        self.counters = zeros() if counters is None else counters
        self.quotas = Quotas()
        self.now_s = 0.0  # of the latest stimulus that came with a time
        self._patience = Patience()
        self._news = Budget(limits.NEWS_BYTES_PER_S, limits.NEWS_BYTES_BURST, 0.0)
        self.me = me
        self.selves = Selves(rng.randbytes(16))
        self._key, self._spki, self._book, self._rng = key, spki, book, rng
        self._next_ping_s = 0.0
        self._pulls = Pulls(book, self.quotas)
        self.proofs = Proofs(book)
        self.trust = TrustExchange(
            book, me.region, self._send, lambda: [link.peer for link in self.proven()]
        )

    # -- links -----------------------------------------------------------------

    def link_up(self, peer: MemberId, spki: bytes, now_s: float) -> None:
        self.now_s = now_s
        if self._patience.ignores(peer, now_s):
            self.counters["links_ignored"] += 1
            return self._hang_up(peer, "is ignored for a while: it made us verify much in vain")
        self.links[peer] = Link(peer, spki, self._rng.randbytes(16), now_s)
        return self._greet(self.links[peer])

    def resync(self, peer: MemberId) -> None:
        """Compare all heads with this peer: hints to it were lost."""
        if peer in self.links and self.links[peer].proven:
            self._compare(self.links[peer], [EVERYTHING])

    def _greet(self, link: Link, rival: bytes = b"") -> None:
        """Say under which trust we act; a peer that is ahead answers with what we lack."""
        current, digest = self._book.chain.current, self._book.digest
        hello = Hello(
            current.federation,
            self.me,
            current.version,
            current.digest,
            link.nonce,
            digest,
            self.selves.boot_nonce,
            summary(self._book.logs_of(link.peer)[-limits.MEMBER_LOGS_MAX :]),
            rival,
        )
        self._send(link.peer, hello)

    def second(self, peer: MemberId, boot_nonce: bytes, now_s: float) -> None:
        """This member dials us while we have a link with it. From another start, it is a clone."""
        known = peer in self.selves.doubles
        if self.selves.second(self.links.get(peer), boot_nonce, now_s):
            self._greet(self.links[peer], boot_nonce)
            if not known:
                self._log("error", "two_processes_one_key", peer)

    def link_down(self, peer: MemberId) -> None:
        self.links.pop(peer, None)
        self.trust.forget(peer)

    def proven(self) -> list[Link]:
        return [self.links[peer] for peer in sorted(self.links) if self.links[peer].proven]

    # -- frames ----------------------------------------------------------------

    def frame(self, peer: MemberId, frame: Frame, now_s: float) -> None:
        """Take one frame. A peer that errs is recorded, told nothing and, if need be, cut off."""
        link = self.links.get(peer)
        if link is None:
            return
        link.heard_s = self.now_s = now_s
        try:
            self._dispatch(link, frame, now_s)
            if link.proven:
                self.last_word_s[peer] = now_s
        except Rejected as error:
            self.reject(peer, frame, error, now_s)
            if isinstance(frame, Hello | HelloProof):
                self._hang_up(peer, str(error))

    def _dispatch(self, link: Link, frame: Frame, now_s: float) -> None:
        if isinstance(frame, Hello):
            return self._hello(link, frame)
        if isinstance(frame, HelloProof):
            return self._hello_proof(link, frame)
        if not link.proven:
            return None  # not yet known who speaks: as good as lost, and repaired like a loss
        match frame:
            case Heads():
                self._heads(link, frame, now_s)
            case Announce():
                self._announce(link, frame, now_s)
            case Pull():
                self._pull(link, frame)
            case Chunk():
                self._chunk(link, frame, now_s)
            case Evidence():
                self.proofs.heard.append((frame.raw, link.peer))
            case TrustFile():
                self.trust.file(link.peer, frame)
            case Timestamp():
                self.trust.timestamp(link.peer, frame)
            case Status():
                self.said.append((frame, link.peer))
            case Fingerprints():
                self._fingerprints(link, frame)
            case Ping():
                self._pinged(link, frame)
        return None

    def _hello(self, link: Link, hello: Hello) -> None:
        current = self._book.chain.current
        if hello.federation != current.federation:
            return self._hang_up(link.peer, f"belongs to federation {hello.federation[:64]}")
        if hello.origin.member != link.peer:
            return self._hang_up(link.peer, "its log is not that of its certificate")
        if any(held.origin.member != self.me.member for held in hello.yours):
            return self._hang_up(link.peer, "it takes other logs for ours")
        link.peer_nonce = hello.nonce
        self.selves.greeted(link, hello)
        for held in hello.yours:
            self._learn(link, held.origin, held.size)
        proof = self._key.sign(_proof_text(self._spki, link.spki, link.nonce, hello.nonce))
        self._send(link.peer, HelloProof(proof))
        self.trust.hello(link.peer, hello)
        if hello.head_map_digest != self._book.digest and self.me.member < link.peer:
            self._compare(link, [EVERYTHING])  # one end begins: two would do everything twice
        return None

    def _hello_proof(self, link: Link, proof: HelloProof) -> None:
        key = self._member_key(link.peer)
        text = _proof_text(link.spki, self._spki, link.peer_nonce, link.nonce)
        verify(key, proof.signature, text)
        if not link.proven:
            link.proven = True
            self.proven_now.append(link.peer)
            self.trust.greeted(link.peer)

    def _heads(self, link: Link, frame: Heads, now_s: float) -> None:
        for theirs in frame.heads:
            ours = self._book.heads.get(theirs.origin)
            if lacks(ours, theirs):
                self._learn(link, theirs.origin, theirs.size)
            if ours is not None and differ(ours, theirs):
                self._log("error", "heads_differ", link.peer, origin=str(theirs.origin))
            for said in self.proofs.answer(link, ours, theirs, now_s):
                self._send(link.peer, said)
            if ours and ours.final_size > theirs.final_size:
                link.answered += 1
                self._send(link.peer, Announce(ours.origin, ours.final_note, ours.final_size))
        self.pull_missing(now_s)
        if frame.below:
            self._answer(link, reconcile.tell(reconcile.unknown(self._book.heads, frame)))

    def _fingerprints(self, link: Link, frame: Fingerprints) -> None:
        differing = reconcile.differing(self._book.heads, frame, link.salt)
        if differing:
            self._compare(link, differing)
        else:
            self._greet(link)  # equal logs and unequal digests: the trust differs

    def _compare(self, link: Link, ranges: list[bytes]) -> None:
        self._answer(link, reconcile.describe(self._book.heads, ranges, link.salt))

    def _answer(self, link: Link, frames: Sequence[Fingerprints | Heads]) -> None:
        """Say what was asked for, but no more in a round than honest questions can cost."""
        for frame in frames:
            heads = frame.heads if isinstance(frame, Heads) else ()
            ranges = frame.ranges if isinstance(frame, Fingerprints) else ()
            link.answered += 1 + len(heads) + len(ranges)
            if link.answered > limits.ANSWERS_PER_ROUND + 2 * len(self._book.heads):
                self.counters["questions_refused"] += 1
                return self._log("warning", "asked_too_often", link.peer)
            self._send(link.peer, frame)
            for head in heads:
                link.told[head.origin] = head.size
        return None

    def _announce(self, link: Link, frame: Announce, now_s: float) -> None:
        size = frame.start + len(frame.events)
        if not frame.events:
            # Only a hint until it is verified: here, or where it meets the head that we hold.
            size = Checkpoint.parse(Note.parse(frame.note).text).size
            if size <= self._book.size(frame.origin) or not self._book.wants(frame.origin):
                return self.noted.append((frame, link.peer))
            open_checkpoint(frame.note, str(frame.origin), self._member_key(frame.origin.member))
        self._learn(link, frame.origin, size)
        author = frame.origin.member
        if frame.events and frame.start <= self._book.size(frame.origin):
            if self.quotas.is_spent(author, now_s):
                self.counters["authors_slowed"] += 1
                return self.pull_missing(now_s)
            self._ingest(link.peer, frame)
        return self.pull_missing(now_s)

    def _learn(self, link: Link, origin: Origin, size: int) -> None:
        if not self._pulls.learn(link, origin, size):
            self.counters["claims_ignored"] += 1

    def _pull(self, link: Link, frame: Pull) -> None:
        head = self._book.heads.get(frame.origin)
        if head is not None and frame.start < head.size:
            # Not beyond what is final, so that its proof reaches whoever passes over it.
            end = head.final_size if frame.start < head.final_size else head.size
            self.effects.append(Serve(link.peer, frame.origin, frame.start, end))

    def _chunk(self, link: Link, frame: Chunk, now_s: float) -> None:
        asked = link.pulls.pop(frame.origin, None) is not None
        if not asked and self.quotas.is_spent(frame.origin.member, now_s):
            self.counters["authors_slowed"] += 1
            return
        if (weigh := self.proofs.answered(link.peer, frame)) is not None:
            return self.effects.append(weigh)
        before = self._book.size(frame.origin)
        try:
            self._ingest(link.peer, frame)
        finally:
            if self._book.size(frame.origin) == before:
                # Nothing gained: do not ask this peer again before it speaks of that log again.
                link.theirs.pop(frame.origin, None)
            self.pull_missing(now_s)

    def _ingest(self, source: MemberId, frame: Announce | Chunk) -> None:
        if not self.intake:
            return
        try:
            added = self._book.extend(frame.origin, frame.start, frame.events, frame.note)
        except Diverged:
            self.effects.append(self.proofs.weigh(source, frame))
            raise
        if added is None:
            return
        self.selves.extended(frame.origin, self.me)
        self.ingested.append(added)
        self.quotas.spend(frame.origin.member, sum(map(len, added[0].events)), self.now_s)
        self.news(added[0], source)

    def bring(self, origin: Origin, start: int, events: tuple[bytes, ...], note: bytes) -> int:
        """Take in what a person carried here; how many events were new. Raises `Rejected`."""
        if origin == self.me and self.selves.extends:
            return 0
        if not events:
            self.noted.append((Announce(origin, note, start), self.me.member))
            return 0
        added = self._book.extend(origin, start, events, note)
        if added is None:
            return 0
        self.ingested.append(added)
        self.news(added[0], None)
        return len(added[0].events)

    # -- news ------------------------------------------------------------------

    def news(self, append: AppendEvents, source: MemberId | None) -> None:
        """Pass on what is new to us, to everybody who does not have it."""
        head = append.head
        inline = append.events if sum(map(len, append.events)) <= limits.INLINE_BYTES_MAX else ()
        for link in self.proven():
            if link.peer == source or link.knows(head.origin) >= head.size:
                continue
            start = append.start if inline else head.size
            if not self._news.take(len(head.note) + sum(map(len, inline)), self.now_s):
                self.counters["news_withheld"] += 1  # the next ping finds the difference
                continue
            self._send(link.peer, Announce(head.origin, head.note, start, inline))
            link.told[head.origin] = head.size

    def share(self, head: Checkpoint, note: bytes, source: MemberId | None) -> None:
        """Pass on cosignatures, to everybody but whoever brought them."""
        origin = Origin.parse(head.origin)
        for link in self.proven():
            if link.peer != source:
                self._send(link.peer, Announce(origin, note, head.size))

    def reject(self, peer: MemberId, frame: Frame, error: Rejected, now_s: float) -> None:
        """Record that a peer erred, and ignore it if it costs us too much."""
        self.counters["frames_rejected"] += 1
        self._log("warning", "frame_rejected", peer, kind=type(frame).__name__, why=str(error))
        if is_in_vain(error) and not self._patience.spend(peer, cost_s(frame), now_s):
            self.counters["peers_ignored"] += 1
            self._log("warning", "peer_ignored", peer, seconds=int(limits.PEER_IGNORED_S))
            self._hang_up(peer, "made us verify much in vain")

    def pull_missing(self, now_s: float) -> None:
        """Ask for every suffix that somebody claims to hold and we do not."""
        if self.intake:
            self.out += self._pulls.next(self.proven(), now_s)

    def tick(self, now_s: float) -> None:
        self.now_s = now_s
        for link in list(self.links.values()):
            self.counters["pulls_late"] += len(link.expire(now_s))
            if not link.proven and now_s - link.opened_at_s > PROOF_TIMEOUT_S:
                self.counters["links_unproven"] += 1
                self._hang_up(link.peer, "did not prove who it is in time")
        self.pull_missing(now_s)
        if now_s >= self._next_ping_s:
            spread = limits.ANTI_ENTROPY_S * limits.ANTI_ENTROPY_JITTER
            self._next_ping_s = now_s + limits.ANTI_ENTROPY_S + self._rng.uniform(-spread, spread)
            self._ping()

    def _ping(self) -> None:
        """A few links each round, those first that were quiet longest: all get their turn.

        One ping serves both ends. Whom a rollout waits for is asked each time, and answers.
        """
        for link in self.links.values():
            link.answered = 0
        quiet = sorted(self.proven(), key=lambda link: (link.pinged_s, link.peer))
        for i, link in enumerate(quiet):
            if i < limits.PINGS_PER_ROUND or link.peer in self.must_hear:
                self._send_ping(link, answer=link.peer in self.must_hear)

    def _send_ping(self, link: Link, *, answer: bool) -> None:
        link.pinged_s = self.now_s
        current, stamp = self._book.chain.current, self.trust.freshness.stamp
        stamped_s = stamp.signed_s if stamp else 0
        prefix = current.digest[:8]
        ping = Ping(self._book.digest, current.version, answer, stamped_s, prefix)
        self._send(link.peer, ping)

    def _pinged(self, link: Link, ping: Ping) -> None:
        link.pinged_s = self.now_s
        self.trust.ping(link.peer, ping)
        if ping.head_map_digest == self._book.digest:
            if ping.answer:
                self._send_ping(link, answer=False)
            return
        current = self._book.chain.current
        if (ping.trust_version, ping.trust_prefix) != (current.version, current.digest[:8]):
            self._greet(link)
        self._compare(link, [EVERYTHING])

    # -- small helpers ---------------------------------------------------------

    def _member_key(self, member: MemberId) -> bytes:
        for members in reversed(self._book.chain.versions):
            found = members.member(member)
            if found is not None:
                return found.key
        raise Rejected(f"{member} is no member", fix="wait for the members file that adds it")

    def _send(self, peer: MemberId, frame: Frame) -> None:
        self.out.append(Send(peer, frame))

    def _hang_up(self, peer: MemberId, reason: str) -> None:
        self.effects.append(HangUp(peer, reason))
        self.link_down(peer)

    def _log(self, level: str, event: str, peer: MemberId, **fields: str | int) -> None:
        self.effects.append(Log(level, event, (("peer", peer), *sorted(fields.items()))))


def _proof_text(spki_a: bytes, spki_b: bytes, nonce_a: bytes, nonce_b: bytes) -> bytes:
    """What the prover a signs for b: it binds the key to both TLS ends of this connection."""
    return _PROOF_DOMAIN + spki_a + spki_b + nonce_a + nonce_b
