"""A federation whose regions witness each other, as nodes over stores, without a network.

Frames are handed over in order; a pair of regions that is `cut` loses what it would hand over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

from federation import CODEC, OPERATOR, PEM, ROOT, key

from hanse.core import limits
from hanse.core.effects import Log, Serve
from hanse.core.events import Body
from hanse.core.gossip.frames import Chunk, Frame
from hanse.core.ids import MemberId, Origin, member_id, segment
from hanse.core.log.checkpoint import Checkpoint
from hanse.core.log.note import Note, VerifierKey
from hanse.core.log.policy import default_policy
from hanse.core.node import Clock, Node
from hanse.core.quorum import own_key
from hanse.core.step import Head, PutTrust, Step
from hanse.core.trust import chain
from hanse.core.trust.members import Member, Members, Person, Region
from hanse.sim.process import done
from hanse.storage.memory import MemoryEventStore

FEDERATION = segment("acme")


def origin(region: str) -> Origin:
    return Origin(FEDERATION, segment(region), member_id(key(region).public), 1)


def witness(region: str) -> VerifierKey:
    """The key under which a region's daemon cosigns."""
    trust = chain.replay((chain.sign(members([region]), (ROOT,)),))
    return own_key(trust, origin(region), key(f"witness of {region}").public)


def members(regions: Sequence[str], policy: str | None = None) -> Members:
    keys = {segment(r): {member_id(key(r).public): key(f"witness of {r}").public} for r in regions}
    people = (Person("operator", OPERATOR.public, ("publisher", "release-manager"), ("*",)),)
    return Members(
        FEDERATION,
        1,
        (ROOT.public,),
        1,
        "seed",
        tuple(Region(segment(r), PEM) for r in regions),
        tuple(
            Member(segment(r), key(r).public, PEM, f"{r}:1", key(f"witness of {r}").public)
            for r in regions
        ),
        people,
        witness_policy=default_policy(FEDERATION, keys) if policy is None else policy,
    )


class Daemon:
    """One region's node; `stored` what its disk holds, `said` what it logged."""

    def __init__(self, region: str, trust: Sequence[bytes]) -> None:
        self.region, self.origin = region, origin(region)
        self.store = MemoryEventStore()
        done(self.store.apply([PutTrust(i, raw) for i, raw in enumerate(trust, 1)]))
        self.said: list[Log] = []
        self.last = Step()
        self.boot()

    @property
    def id(self) -> MemberId:
        return self.origin.member

    def boot(self) -> None:
        self.node = Node(
            self.origin,
            key(self.region),
            self.region.encode(),
            CODEC,
            chain.replay(tuple(done(self.store.trust()))),
            Random(self.region),
            witness=key(f"witness of {self.region}"),
            witnessed=done(self.store.witnessed()),
        )
        for head in done(self.store.heads()):
            self.node.restore(head, done(self.store.events(head.origin, 0, head.size, 2**60)))
        current = self.node.book.chain.current
        self.node.bulletin.restore(done(self.store.local("status")), current)
        self.node.open("test")

    def head(self, region: str | None = None) -> Head:
        return self.node.book.heads[origin(region or self.region)]

    def serve(self, effect: Serve) -> Chunk:
        run = limits.CHUNK_EVENTS_MAX, limits.CHUNK_BYTES_MAX
        events = done(self.store.events(effect.origin, effect.start, *run))
        end = min(effect.start + len(events), effect.end)
        note = done(self.store.checkpoint_at_or_before(effect.origin, effect.start, end))
        assert note is not None
        size = Checkpoint.parse(Note.parse(note).text).size
        return Chunk(effect.origin, effect.start, tuple(events[: size - effect.start]), note)


class Net:
    """All daemons, a clock, and who cannot hear whom."""

    def __init__(self, regions: Sequence[str], policy: str | None = None) -> None:
        self.now_s = 1000.0
        self.trust = [chain.sign(members(regions, policy), (ROOT,))]
        self.daemons = {r: Daemon(r, self.trust) for r in regions}
        self.cuts: set[frozenset[str]] = set()
        self.down: set[str] = set()
        self.skews: dict[str, int] = {}
        self.frames = 0
        self._queue: list[tuple[str, str, Frame]] = []
        self._by_id = {d.id: d.region for d in self.daemons.values()}
        self.connect(regions)

    def clock(self, region: str) -> Clock:
        """A region's two clocks; `skews` puts its wall clock ahead, in milliseconds."""
        wall_ms = 1_800_000_000_000 + int(self.now_s * 1000)
        return Clock(self.now_s, wall_ms + self.skews.get(region, 0))

    def connect(self, regions: Iterable[str]) -> None:
        """Open a link between each pair of these that can hear each other."""
        names = list(regions)
        for a in names:
            for b in names:
                if a != b and self.hear(a, b):
                    there = self.daemons[b]
                    self.daemons[a].node.link_up(there.id, b.encode(), self.clock(a))

    def hear(self, a: str, b: str) -> bool:
        return frozenset((a, b)) not in self.cuts and not {a, b} & self.down

    def cut(self, a: str, b: str) -> None:
        self.cuts.add(frozenset((a, b)))
        self.daemons[a].node.link_down(self.daemons[b].id)
        self.daemons[b].node.link_down(self.daemons[a].id)

    def heal(self) -> None:
        pairs, self.cuts = self.cuts, set()
        for pair in pairs:
            self.connect(sorted(pair))

    def write(self, region: str, *bodies: Body) -> None:
        """Each a group commit of its own."""
        for body in bodies:
            self.daemons[region].node.propose(body)
            self.step(region)

    def step(self, region: str) -> Step:
        daemon = self.daemons[region]
        step = daemon.last = daemon.node.take(self.clock(region))
        done(daemon.store.apply(step.store))
        self._queue += [(region, self._by_id[s.peer], s.frame) for s in step.send]
        daemon.said += [e for e in step.effects if isinstance(e, Log)]
        for effect in step.effects:
            if isinstance(effect, Serve):
                self._queue.append((region, self._by_id[effect.peer], daemon.serve(effect)))
        return step

    def run(self, seconds: float = 0.0, tick_s: float = 0.25) -> None:
        """Hand over what waits until nobody has more to say; then let time pass in ticks."""
        self._settle()
        end = self.now_s + seconds
        while self.now_s < end:
            self.now_s += tick_s
            for region in self.daemons:
                if region not in self.down:
                    self.daemons[region].node.tick(self.clock(region))
                    self.step(region)
            self._settle()

    def _settle(self) -> None:
        for region in self.daemons:
            if region not in self.down:
                self.step(region)
        while self._queue:
            source, target, frame = self._queue.pop(0)
            if self.hear(source, target):
                self.frames += 1
                node = self.daemons[target].node
                node.frame(self.daemons[source].id, frame, self.clock(target))
                self.step(target)
