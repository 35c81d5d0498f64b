"""One region's daemon, without the outside: stimulus in, `Step` out.

The node joins the log book, the catalog, sync, the fleet and the region's own rollouts. It
has no clock and no randomness but what it is handed, never waits and never writes. A driver
feeds it any number of stimuli and then takes one step: everything that was proposed in
between becomes one group commit with one signature, and nothing leaves before it is stored.

    node.link_up(...); node.frame(...); node.propose(...); step = node.take(now)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from hanse.core import limits, testimony
from hanse.core.agreement import Attest
from hanse.core.bulletin import Bulletin
from hanse.core.catalog.catalog import Catalog, latest_views
from hanse.core.counters import zeros
from hanse.core.damage import Damage
from hanse.core.effects import Log, Restart, Send
from hanse.core.enrolment import Enrolment
from hanse.core.errors import NotPermitted, Rejected, Unavailable
from hanse.core.events import (
    Body,
    Codec,
    Event,
    Hold,
    HoldLift,
    Kill,
    LogOpen,
    Rollback,
    RolloutControl,
)
from hanse.core.finality import Finality
from hanse.core.fleet import Fleet
from hanse.core.freeze import Freezer
from hanse.core.gossip.frames import Frame, Timestamp
from hanse.core.gossip.links import heard_by_region
from hanse.core.gossip.overlay import Overlay
from hanse.core.gossip.sync import Sync
from hanse.core.ids import EventId, MemberId, Origin
from hanse.core.log.merkle import SIZE_MAX
from hanse.core.log.witness import Seen
from hanse.core.logbook import Entry, Logbook, header
from hanse.core.own_log import OwnLog
from hanse.core.recovery import Phase
from hanse.core.region import Region
from hanse.core.rollout.stimuli import Cause
from hanse.core.room import Level, Room, check_intake, check_room
from hanse.core.signing import SigningKey
from hanse.core.step import Head, PutTrust, Step, Write
from hanse.core.transfer.wanted import Shown
from hanse.core.trust.authority import judge
from hanse.core.trust.chain import Chain

SAFER = (Hold, HoldLift, Kill, Rollback, RolloutControl)  # what no quota may stop


@dataclass(frozen=True, slots=True)
class Clock:
    """Two readings of one moment. Wall time is for display; only `now_s` measures durations."""

    now_s: float
    wall_ms: int


@dataclass(slots=True)
class Ticket:
    """A proposed event; `event` is set once the step that stores it has been taken."""

    body: Body
    supersedes: tuple[EventId, ...]
    attestations: tuple[bytes, ...]
    event: EventId | None = None


class Node:
    """Owns every part of the region's state; see each part for who may change what."""

    def __init__(
        self,
        me: Origin,
        key: SigningKey,
        spki: bytes,
        codec: Codec,
        chain: Chain,
        rng: Random,
        *,
        witness: SigningKey | None = None,
        witnessed: Mapping[str, tuple[int, bytes]] | None = None,
        timestamp_key: SigningKey | None = None,
    ) -> None:
        self.me = me  # the log that we write; a later incarnation of it after `restore`
        self.book = Logbook(codec, chain)
        seen = {log: Seen(*head) for log, head in (witnessed or {}).items()}
        self.finality = Finality(me, self.book, witness, seen)
        trust = chain.current
        finals = self.finality.finals({})
        places = self.book.labels_at
        self.catalog = Catalog(trust.quarantine_quorum, finals, trust.all_floors, places)
        self.fleet = Fleet()
        self.enrolment = Enrolment()
        self.counters = zeros()
        self.sync = Sync(me, key, spki, self.book, rng, self.counters)
        self.sync.trust.key = timestamp_key
        self.region = Region(me, key, self.catalog, self.fleet)
        self.room: Room | None = None  # on our disk; None until somebody has looked
        self.damage: tuple[Damage, ...] = ()  # the same: what was not what it had been
        self.fetching: Sequence[Shown] = ()  # files that are on their way here
        self.region.waiting = self.finality.waiting
        self.bulletin = Bulletin(me, key, self.fleet, rng, self.counters)
        self.bulletin.measured = lambda: testimony.say(self.region.shares())
        self.freezer = Freezer(self.book, self.catalog, self.finality, self.sync)
        self.own = OwnLog(me, self.book, self.sync, rng)
        self.recovery = self.own.recovery
        self.started_ms: int | None = None  # wall time of the first step, for display
        self._key, self._rng, self._codec = key, rng, codec
        self._pending: list[Ticket] = []
        self._ticked = False
        self._trust_weighed = len(chain.files)
        self._cuts = frozenset(chain.current.cuts)  # those that every log here was judged by
        self._overlay = Overlay(me.member, rng)

    # -- boot ------------------------------------------------------------------

    def restore(self, head: Head, events: Iterable[bytes]) -> None:
        """Take one stored log back, in any order of logs. Raises `Broken` if it was altered."""
        raws = list(events)
        entries = self.book.restore(head, raws)
        self.finality.restored(head, raws, entries)
        self.catalog.finalise({head.origin: head.final_size})
        for entry in entries:
            self.catalog.add(self.book.judged(entry))
        if self.book.cut_of(head.origin) is not None:
            self.freezer.ask(head.origin)  # it may be another branch than the one that was meant

    def restore_trust(self, kept: Mapping[str, bytes], clock: Clock) -> None:
        """Take back what is stored of timestamps, of the clock, and of another line of trust."""
        self.sync.trust.restore(kept)
        self.sync.trust.freshness.see(clock.wall_ms)

    def open(self, boot_reason: str, ask_until_s: float | None = None) -> None:
        """Everything is restored. Without `ask_until_s` our log is taken to be all there ever was.

        That holds for a first start, and where an operator says so. Otherwise peers are asked
        before anything is written, until that time of the monotonic clock at the latest.
        """
        self.catalog.refold()
        self._boot_reason = boot_reason
        if ask_until_s is not None:
            self.recovery.ask(len(self.book.chain.current.members) - 1, ask_until_s)
        self.own.choose()
        self._follow()

    def _follow(self) -> None:
        """Write on in the log that was chosen, and begin it if nothing is in it."""
        self.me = self.region.duty.me = self.region.healing.me = self.finality.me = self.own.log
        self.bulletin.statuses.me = self.me
        if self.own.is_empty:
            self.propose(LogOpen(self.me.incarnation, boot_reason=self._boot_reason))

    def claim(self) -> None:
        """An operator picks this daemon among those that speak with its key."""
        self.recovery.claim()

    # -- stimuli ---------------------------------------------------------------

    def link_up(self, peer: MemberId, spki: bytes, clock: Clock) -> None:
        self.sync.trust.freshness.see(clock.wall_ms)
        self.recovery.linked(peer)
        self.sync.link_up(peer, spki, clock.now_s)

    def link_refused(self, peer: MemberId, clock: Clock) -> None:
        """A peer says that it has a link with us, and we have none with it."""
        if peer not in self.sync.links:
            self.recovery.refused(peer, clock.now_s)

    def second_link(self, peer: MemberId, boot_nonce: bytes, clock: Clock) -> None:
        """A member that we have a link with dials us again, from the start with this nonce."""
        self.sync.second(peer, boot_nonce, clock.now_s)

    def link_down(self, peer: MemberId) -> None:
        self.sync.link_down(peer)

    def frame(self, peer: MemberId, frame: Frame, clock: Clock) -> None:
        self.sync.trust.freshness.see(clock.wall_ms)
        self.sync.frame(peer, frame, clock.now_s)

    def extend_trust(self, raw: bytes) -> None:
        """An operator brings the next trust version. Raises `Rejected`."""
        self.sync.trust.extend(raw, None)

    def bring_timestamp(self, raw: bytes, clock: Clock) -> None:
        """A person or a bundle brings a timestamp of trust. Raises `Rejected`."""
        self.sync.trust.freshness.see(clock.wall_ms)
        self.sync.trust.timestamp(None, Timestamp(raw))

    def resync(self, peer: MemberId) -> None:
        self.sync.resync(peer)

    def set_room(self, room: Room) -> None:
        """What was measured just now of our disk."""
        self.room = room
        self.sync.intake = room.level is not Level.FULL
        self.region.no_room = room.level is not Level.ENOUGH

    def bring(self, origin: Origin, start: int, events: tuple[bytes, ...], note: bytes) -> int:
        """Take in what a person carried here; how many events were new.

        Raises `Rejected`, or `Unavailable` while the disk is full.
        """
        check_intake(self.room)
        return self.sync.bring(origin, start, events, note)

    def propose(
        self,
        body: Body,
        *,
        supersedes: Sequence[EventId] = (),
        attestations: Sequence[bytes] = (),
    ) -> Ticket:
        """Put an event into the next group commit.

        It is judged as any peer will judge it; what would be void is refused here instead,
        with the reason. Raises `NotPermitted`, `TooLarge`, `InvalidSpec`, or `Unavailable` while
        this daemon may not write, or once a day's bytes are written or the disk is nearly full
        and `body` makes nothing safer.
        """
        if self.recovery.phase is not Phase.WRITING:
            why, fix = self.recovery.why, self.recovery.fix
            raise Unavailable(f"this daemon does not write yet: {why}", fix=fix)
        check_room(self.room, body)
        ticket = Ticket(body, tuple(supersedes), tuple(attestations))
        # Encoded here at its longest, so that nothing can be refused once it is in a group.
        draft = self._draft(ticket, SIZE_MAX, SIZE_MAX)
        self._codec.encode(draft)
        if not isinstance(body, SAFER) and self.sync.quotas.is_spent(
            self.me.member, self.sync.now_s
        ):
            self.counters["authoring_refused"] += 1
            raise Unavailable(
                f"this daemon has written {limits.AUTHOR_BYTES_PER_DAY} bytes within a day",
                fix="find out what writes so much; hold, rollback and pause still work",
            )
        verdict = judge(draft, self.me, 0, self.book.chain)
        if verdict is not None:
            raise NotPermitted(
                f"nobody would accept this: {verdict.reason}",
                fix="have people who hold this role sign it: --draft FILE, hanse statement sign",
            )
        self._pending.append(ticket)
        return ticket

    def tick(self, clock: Clock) -> None:
        self._ticked = True
        self.enrolment.tick(clock.wall_ms)
        self.sync.trust.freshness.see(clock.wall_ms)
        self.sync.trust.tick()
        self.sync.tick(clock.now_s)

    # -- the step --------------------------------------------------------------

    def take(self, clock: Clock) -> Step:
        """Everything that the stimuli since the last step caused, as one step."""
        self.started_ms = self.started_ms or clock.wall_ms
        writes: list[Write] = [*self._freeze(clock), *self._trusted()]
        for append, entries in self.sync.ingested:
            writes.append(append)
            self._add(entries)
            self.finality.grown(append.head, entries, clock.now_s)
        self.sync.ingested.clear()
        if len(self.book.chain.files) != self._trust_weighed:
            self._trust_weighed = len(self.book.chain.files)
            self.finality.trust_changed(clock.now_s)
        writes += self._finalise(clock)
        if self.own.review(clock.now_s):
            self._follow()
        writing = self.recovery.phase is Phase.WRITING
        self._listen(clock)
        writes += self._commit(clock)  # what people say now counts in what is decided now
        views = self.catalog.refold()
        self.region.barriers = tuple(self._barriers(clock))
        if writing and (views or self._ticked):
            self.region.words = self.bulletin.words(self.book.chain.current)
            for proposal in self.region.advance(
                self.heard(clock.now_s), clock.now_s, clock.wall_ms
            ):
                self._propose_own(proposal.body, proposal.supersedes, proposal.attestations)
            writes += self.fleet.counted.writes()
            attest = self.bulletin.to_log(self.book.chain.current.version)
            if attest is not None:
                self._propose_own(attest, ())
        writes += [*self._commit(clock), *self.finality.writes()]
        views = (*views, *self.catalog.refold())
        if (views or self._ticked) and self.recovery.phase is not Phase.RECOVERING:
            self.region.settle(self.book.chain.current)
        writes += self._speak(clock, changed=bool(writes))
        self._ticked = False
        links = self._overlay.changes(self.book.chain.current, self.region.must_hear, clock.now_s)
        self.sync.must_hear = self._overlay.must_hear
        effects = [*self.sync.effects, *self.region.effects(), *links]
        writes += [*latest_views(views), *self.region.writes(), *self.enrolment.writes()]
        step = Step(tuple(writes), tuple(self.sync.out), tuple(effects))
        self.sync.out.clear()
        self.sync.effects.clear()
        return step

    def _freeze(self, clock: Clock) -> list[Write]:
        """Take in proofs of forks, and go on elsewhere if one is of our own log."""
        self.freezer.listen(clock.now_s)
        if self.me in self.freezer.froze:
            self.recovery.usurped(clock.now_s)
        return self.freezer.take()

    def _trusted(self) -> list[Write]:
        trust = self.sync.trust
        writes = trust.take()
        if any(isinstance(write, PutTrust) for write in writes):
            now = self.book.chain.current
            finals = self.finality.finals(self.catalog.finals.sizes)
            self.catalog.rejudge(now.quarantine_quorum, finals, now.all_floors)
            self.enrolment.admitted(now)
            if any(cut.origin in self.book.heads for cut in set(now.cuts) - self._cuts):
                why = "a log was cut: what it says has to be judged anew"
                self.sync.effects.append(Restart(why))
            self._cuts = frozenset(now.cuts)
        self.sync.effects += trust.alarms
        trust.alarms.clear()
        if trust.replaced:
            why = "the root chose another line of trust: every event has to be judged anew"
            self.sync.effects.append(Restart(why))
        return writes

    def _listen(self, clock: Clock) -> None:
        """Take in what our peers say of themselves."""
        now_s, now_ms, members = clock.now_s, clock.wall_ms, self.book.chain.current
        for peer in self.sync.proven_now:
            self.sync.out += [Send(peer, s) for s in self.bulletin.linked(peer, now_s)]
        self.sync.proven_now.clear()
        for status, peer in self.sync.said:
            try:
                if self.bulletin.heard(status, peer, members, now_s, now_ms):
                    others = (link.peer for link in self.sync.proven() if link.peer != peer)
                    self.sync.out += [Send(other, status) for other in others]
            except Rejected as error:
                self.sync.reject(peer, status, error, now_s)
        self.sync.said.clear()

    def _barriers(self, clock: Clock) -> Iterator[tuple[str, str]]:
        """Why nothing may move forward here."""
        if stale := self.sync.trust.stale:
            yield Cause.TRUST, stale
        yield from self.bulletin.barriers(self.book.chain.current, clock.now_s, clock.wall_ms)

    def _speak(self, clock: Clock, *, changed: bool) -> list[Write]:
        """Say what is due, and compare what we made of our logs with what others did."""
        now_s, now_ms, members = clock.now_s, clock.wall_ms, self.book.chain.current
        if changed or self._ticked:
            self.bulletin.computed(Attest(self.book.digest, self.catalog.state_digest), now_s)
        if self._ticked:
            for status in self.bulletin.speak(members, now_s, now_ms):
                self.sync.out += [Send(link.peer, status) for link in self.sync.proven()]
        self.sync.effects += self.bulletin.alarms(members, now_s, now_ms)
        return self.bulletin.writes()

    def _finalise(self, clock: Clock) -> list[Write]:
        """Take in the cosignatures that have come, and give ours."""
        if self.sync.proven_now:
            self.finality.linked()
        for frame, source in self.sync.noted:
            try:
                self.finality.heard(frame.origin, frame.note, source)
            except Rejected as error:
                self.sync.reject(source, frame, error, clock.now_s)
        self.sync.noted.clear()
        self.finality.silent = not self.recovery.vouches
        self.finality.review(clock.now_s, clock.wall_ms, ticked=self._ticked)
        self.freezer.review()
        if self.finality.advanced:
            self.catalog.finalise(self.finality.advanced)
            self.finality.advanced.clear()
        for share in self.finality.shares:
            self.sync.share(share.head, share.note, share.source)
        self.finality.shares.clear()
        return self.finality.writes()

    def _commit(self, clock: Clock) -> list[Write]:
        """Write our own events in groups of at most one chunk each, one signature a group."""
        writes: list[Write] = []
        if self._pending and self.recovery.phase is not Phase.WRITING:
            return []  # proposed just before another process was heard: it waits
        if self._pending and self.recovery.reopen:
            self._pending.insert(0, Ticket(self.own.reopen(), (), ()))
            self._follow()
        while self._pending:
            tickets, events = self._next_group(clock.wall_ms)
            append, entries = self.book.author(self.me, self._key, events)
            append = self.finality.authored(append, entries, clock.now_s, clock.wall_ms)
            for ticket, entry in zip(tickets, entries, strict=True):
                ticket.event = entry.id
            writes.append(append)
            self._add(entries)
            self.sync.quotas.spend(self.me.member, sum(map(len, events)), clock.now_s)
            self.sync.news(append, None)
        return writes

    def _next_group(self, wall_ms: int) -> tuple[list[Ticket], tuple[bytes, ...]]:
        events: list[bytes] = []
        start, bytes_left = self.book.size(self.me), limits.CHUNK_BYTES_MAX
        for ticket in self._pending[: limits.COMMIT_EVENTS_MAX]:
            raw = self._codec.encode(self._draft(ticket, start + len(events), wall_ms))
            if len(raw) > bytes_left:
                break
            bytes_left -= len(raw)
            events.append(raw)
        tickets = self._pending[: len(events)]
        del self._pending[: len(events)]
        return tickets, tuple(events)

    def _propose_own(
        self, body: Body, supersedes: tuple[EventId, ...], attestations: tuple[bytes, ...] = ()
    ) -> None:
        try:
            self.propose(body, supersedes=supersedes, attestations=attestations)
        except (Rejected, Unavailable) as error:
            self.sync.effects.append(Log("error", "own_event_refused", (("why", str(error)),)))

    def _draft(self, ticket: Ticket, seq: int, wall_ms: int) -> Event:
        head = header(self.me, seq, self.book.chain, self._rng.randbytes(32), wall_ms)
        return Event(
            head._replace(supersedes=ticket.supersedes, attestations=ticket.attestations),
            ticket.body,
        )

    def _add(self, entries: Iterable[Entry]) -> None:
        for entry in map(self.book.judged, entries):
            if entry.void:
                said = (("id", str(entry.id)), ("why", entry.void))
                self.sync.effects.append(Log("warning", "event_void", said))
                continue
            self.catalog.add(entry)
            body = entry.event.body
            if isinstance(body, RolloutControl) and body.action == "resume":
                self.region.resume(body)

    def heard(self, now_s: float) -> dict[str, float]:
        return heard_by_region(self.sync.proven(), self.book.chain.current, now_s)
