"""One region's daemon as a process: a `Node` over a store, which may die at its writes.

Stimuli that come close together share one step, as in the real driver. A step is carried out
in the order of its type: store, then acknowledge, then send, then the rest. A crash cuts that
order anywhere; the next boot knows only what the store holds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from random import Random
from typing import Any, TypeVar

from hanse.core import limits
from hanse.core.catalog.manifest import Manifest
from hanse.core.effects import (
    Compare,
    Dial,
    FetchRelease,
    HangUp,
    Heal,
    Log,
    PublishAssignment,
    Reread,
    Restart,
    Serve,
    Undial,
)
from hanse.core.errors import Broken, Unavailable
from hanse.core.events import Body
from hanse.core.gossip.frames import Frame
from hanse.core.healing import Policy
from hanse.core.ids import Digest, EventId, MemberId, Origin, Segment
from hanse.core.node import Clock, Node, Ticket
from hanse.core.signing import SigningKey
from hanse.core.step import Step, Write
from hanse.core.trust import chain
from hanse.rpc.codec import EventCodec
from hanse.sim.faults import Crash, Skew
from hanse.sim.timeline import Timeline
from hanse.storage.memory import Disk, MemoryEventStore
from hanse.storage.restart import restore
from hanse.storage.serving import chunk_from, weigh, whole

T = TypeVar("T")
TICK_S = 1.0
EPOCH_MS = 1_800_000_000_000
CODEC = EventCodec()


class Surroundings(Timeline, ABC):
    """What a process asks of the world around it."""

    @abstractmethod
    def stored(self, process: Process, step: Step, acknowledged: Sequence[Ticket]) -> None:
        """A step is durable; nothing of it has left yet."""

    @abstractmethod
    def send(self, process: Process, peer: MemberId, frame: Frame) -> None: ...

    @abstractmethod
    def dial(self, process: Process, peer: MemberId) -> None: ...

    @abstractmethod
    def undial(self, process: Process, peer: MemberId) -> None: ...

    @abstractmethod
    def hang_up(self, process: Process, peer: MemberId) -> None: ...

    @abstractmethod
    def tell_edge(self, process: Process, effect: PublishAssignment) -> None: ...

    @abstractmethod
    def serves(self, release: Digest, manifest: Manifest, asker: Process) -> bool:
        """Whether somebody within reach has the files and may give them to this region."""

    @abstractmethod
    def crash(self, process: Process, crash: Crash, disk: Disk | None) -> None:
        """With a disk from before the step, that step never was."""

    @abstractmethod
    def alarmed(self, process: Process, alarm: Log) -> None: ...

    @abstractmethod
    def died(self, process: Process) -> None: ...

    @abstractmethod
    def set_back(self, process: Process) -> None:
        """Its disk is what it was some time ago."""


class Process:
    """Owned by the world. `node` is None while it is down; `blobs` are on its disk."""

    def __init__(
        self,
        world: Surroundings,
        origin: Origin,
        key: SigningKey,
        witness: SigningKey,
        stored: Sequence[Write],
        skew: Skew,
    ) -> None:
        self.world, self.origin, self.skew = world, origin, skew
        self.key, self.witness = key, witness
        self.name: Segment = origin.region
        self.label = str(self.name)  # unlike the name, that of no other process
        self.faces: frozenset[str] | None = None  # labels of those it deals with; None: all
        self.member = origin.member
        self.spki = b"spki of " + origin.member.encode()
        self.node: Node | None = None
        self.store = MemoryEventStore()
        self.blobs: dict[Digest, Segment] = {}
        self.boots = 0
        self.crashes: list[Crash] = []
        self.policies: Mapping[Segment, Policy] = {}
        self.hook: Callable[[Process, Heal], None] = lambda process, effect: None
        self._booted_at_s = 0.0
        self._step_due = False
        self._tickets: list[Ticket] = []
        self._told: PublishAssignment | None = None
        done(self.store.apply(stored))
        self.new = True  # whether its first start is the first with these keys, or says so
        self.wrote = False  # whether the log grew by its own hand in the last step

    # -- life ------------------------------------------------------------------

    def boot(self) -> None:
        """Start from what is stored, in the order in which the real daemon does."""
        self.boots += 1
        self._booted_at_s, self._step_due, self._tickets = self.world.now_s, False, []
        rng = Random(f"node/{self.world.seed}/{self.label}/{self.boots}")  # noqa: S311  # repeatable
        trust = chain.replay(tuple(done(self.store.trust())))
        node = Node(
            self.origin,
            self.key,
            self.spki,
            CODEC,
            trust,
            rng,
            witness=self.witness,
            witnessed=done(self.store.witnessed()),
        )
        node.region.healing.policies = self.policies
        first = self.boots == 1 and self.new
        reason, ask_s = ("first start", None) if first else ("restart", limits.RECOVERY_S)
        done(restore(node, self.store, self.clock, reason, ask_s))
        for release in self.blobs:
            node.region.have(release)
        self.node = node
        self._tick(self.boots)

    def double(self, number: int) -> Process:
        """Another process of this member, with its keys and a copy of its disk; not started."""
        twin = Process(self.world, self.origin, self.key, self.witness, (), self.skew)
        twin.label, twin.store = f"{self.label}~{number}", self.store.copy()
        twin.blobs, twin.new = dict(self.blobs), False
        return twin

    def deals_with(self, other: Process) -> bool:
        return all(a.faces is None or b.label in a.faces for a, b in ((self, other), (other, self)))

    def crash(self, store: MemoryEventStore) -> None:
        """The process is gone; `store` is what its disk holds."""
        self.node, self.store, self._told = None, store, None
        self.world.died(self)

    def clock(self) -> Clock:
        elapsed_s = (self.world.now_s - self._booted_at_s) * (1 + self.skew.drift)
        wall_ms = EPOCH_MS + int(self.world.now_s * 1000) + self.skew.wrong_ms(self.world.now_s)
        return Clock(1000.0 * self.boots + elapsed_s, wall_ms)

    # -- stimuli ---------------------------------------------------------------

    def do(self, stimulus: Callable[[Node, Clock], T]) -> T | None:
        """Give the node a stimulus; its step follows within milliseconds. None if it is down."""
        if self.node is None:
            return None
        value = stimulus(self.node, self.clock())
        if not self._step_due:
            self._step_due = True
            boot = self.boots
            self.world.after(self.world.rng.uniform(0.001, 0.005), lambda: self._step(boot))
        return value

    def propose(
        self,
        body: Body,
        attestations: Sequence[bytes] = (),
        supersedes: Sequence[EventId] = (),
    ) -> Ticket | None:
        """An operator's word, acknowledged when the ticket has its event; None: not now."""
        try:
            ticket = self.do(
                lambda node, _: node.propose(body, attestations=attestations, supersedes=supersedes)
            )
        except Unavailable:
            return None  # it asks its peers first
        if ticket is not None:
            self._tickets.append(ticket)
        return ticket

    def _tick(self, boot: int) -> None:
        if boot == self.boots and self.node is not None:
            self.do(lambda node, clock: node.tick(clock))
            self.world.after(TICK_S, lambda: self._tick(boot))

    # -- the step --------------------------------------------------------------

    def _step(self, boot: int) -> None:
        if boot != self.boots or self.node is None:
            return
        self._step_due = False
        before = self.node.recovery.extends
        step = self.node.take(self.clock())
        self.wrote = before and self.node.recovery.extends
        crash = self._crash_now(step)
        if crash is not None and crash.moment == "before":
            return self.world.crash(self, crash, self.store.snapshot())
        if step.store:
            done(self.store.apply(step.store))
        self.world.stored(self, step, self._acknowledge())
        sends = step.send
        if crash is not None:
            sends = sends[: len(sends) // 2] if crash.moment == "between" else ()
        for send in sends:
            self.world.send(self, send.peer, send.frame)
        if crash is not None:
            return self.world.crash(self, crash, None)
        for effect in step.effects:
            self._carry_out(effect)
        return None

    def _crash_now(self, step: Step) -> Crash | None:
        for crash in self.crashes:
            if step.store and (self._tickets or not crash.at_publish):
                self.crashes.remove(crash)
                return crash
        return None

    def _acknowledge(self) -> list[Ticket]:
        acknowledged = [t for t in self._tickets if t.event is not None]
        self._tickets = [t for t in self._tickets if t.event is None]
        return acknowledged

    def _carry_out(self, effect: object) -> None:
        match effect:
            case Serve():
                self._serve(effect)
            case Reread(origin):
                raws = done(whole(self.store, origin))
                self.do(lambda node, clock: node.freezer.reread(origin, raws, clock.now_s))
            case Compare():
                self._weigh(effect)
            case Dial(member):
                self.world.dial(self, member)
            case Undial(member):
                self.world.undial(self, member)
            case HangUp(member):
                self.world.hang_up(self, member)
            case FetchRelease():
                self._fetch(effect, self.boots)
            case Heal():
                self.hook(self, effect)
            case PublishAssignment():
                self._told = effect
                self.world.tell_edge(self, effect)
            case Restart():
                self.node, self._told = None, None
                self.world.died(self)
                self.world.after(1.0, self.boot)
            case Log(level) if level == "error":
                self.world.alarmed(self, effect)
            case _:
                pass

    def tell_again(self, edge: Any) -> None:
        """A node that begins to watch hears what stands."""
        if self._told is not None:
            edge.assigned(self._told.assignment, self._told.signature)

    def _weigh(self, asked: Compare) -> None:
        assert self.node is not None
        outcome = done(weigh(self.store, asked, self.node.book.key_of(asked.origin)))
        self.do(lambda node, clock: node.freezer.compared(asked, outcome, clock.now_s))

    def _serve(self, effect: Serve) -> None:
        chunk = done(chunk_from(self.store, effect.origin, effect.start, effect.end))
        if chunk is not None:
            self.world.send(self, effect.peer, chunk)

    def _fetch(self, effect: FetchRelease, boot: int) -> None:
        """Ask until some permitted holder is within reach; the bytes take a while."""
        if boot != self.boots or self.node is None:
            return
        view = self.node.catalog.views.get(effect.model)
        release = view.release(effect.release) if view else None
        if release is not None and self.world.serves(effect.release, release.manifest, self):
            self.world.after(self.world.rng.uniform(0.5, 3), lambda: self._fetched(effect, boot))
        else:
            self.world.after(1.0, lambda: self._fetch(effect, boot))

    def _fetched(self, effect: FetchRelease, boot: int) -> None:
        if boot == self.boots:
            self.blobs[effect.release] = effect.model
            self.do(lambda node, _: node.region.have(effect.release))


def done(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, as those of the memory store do not."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    raise Broken("a store suspended in simulation", fix="simulate over the memory store")
