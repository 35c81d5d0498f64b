"""A whole federation in one process, on one seed, in virtual time.

The nodes, the codec, the signatures and the devices are the real ones; time, network, disk
and nature are not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from random import Random

from hanse.core.catalog.manifest import Manifest
from hanse.core.effects import Log, PublishAssignment
from hanse.core.gossip.frames import Frame
from hanse.core.ids import Digest, MemberId, Origin, Segment, member_id, segment
from hanse.core.log.policy import default_policy
from hanse.core.node import Ticket
from hanse.core.signing import SigningKey
from hanse.core.step import (
    AppendEvents,
    DropTrust,
    PutIndex,
    PutLocal,
    PutTrust,
    PutView,
    PutWitness,
    Step,
    TruncateLog,
    Write,
)
from hanse.core.trust import chain
from hanse.core.trust.freshness import SPACE as TRUST_SPACE
from hanse.core.trust.members import Keys, Member, Members, Person, Region
from hanse.core.trust.timestamp import sign_stamp
from hanse.sim.answers import Nature
from hanse.sim.byzantine import Misdeeds
from hanse.sim.edge import EdgeNode
from hanse.sim.faults import Crash, Cut, FaultPlan, Skew
from hanse.sim.history import History
from hanse.sim.links import Links
from hanse.sim.network import CLEAR, Network
from hanse.sim.oracle import Oracle
from hanse.sim.process import EPOCH_MS, Process, Surroundings
from hanse.storage.memory import Disk

FEDERATION = segment("league")
NAMES = ("eu-north", "us-east", "ap-south", "eu-west", "us-west", "ap-east", "sa-east", "af-south")
_PEM = "-----BEGIN CERTIFICATE-----\nsimulated\n-----END CERTIFICATE-----\n"


def key_of(seed: int, name: str) -> SigningKey:
    return SigningKey(hashlib.sha256(f"{seed}/{name}".encode()).digest())


class World(Surroundings):
    """Joins everything. `operator` is the one person who may sign everything."""

    def __init__(
        self, seed: int, regions: int, plan: FaultPlan, nature: Nature, edge_nodes: int
    ) -> None:
        super().__init__(seed)
        self.plan = plan
        self.operator = key_of(seed, "operator")
        self.network = Network(Random(f"network/{seed}"), plan.weather)  # noqa: S311  # repeatable
        names = [region_name(i) for i in range(regions)]
        self.trust = chain.start(chain.sign(_members(seed, names), (key_of(seed, "root"),)))
        self.processes = {name: self._process(name) for name in names}
        self.links = Links(self, self.network, self._answers)
        self.misdeeds = Misdeeds(self, self.links, self.processes, plan.vices)
        self.history = History(self)
        self.oracle = Oracle(self, plan, self.processes, self.history, self.misdeeds.honest)
        self.edges = [
            EdgeNode(self, process, f"{name}-node-{i}", nature)
            for name, process in self.processes.items()
            for i in range(1, edge_nodes + 1)
        ]
        self._schedule()

    def _process(self, name: Segment) -> Process:
        key = key_of(self.seed, name)
        origin = Origin(FEDERATION, name, member_id(key.public), 1)
        skew = self.plan.skews.get(name, Skew())
        # Fresh by every clock of this world, however wrong: so they differ in nothing but time.
        ahead_ms = max((abs(s.offset_ms) for s in self.plan.skews.values()), default=0)
        stamping = key_of(self.seed, "timestamp")
        stamp = sign_stamp(self.trust.current, stamping, (EPOCH_MS + ahead_ms) // 1000)
        disk: list[Write] = [PutLocal(TRUST_SPACE, "timestamp", stamp.raw)]
        disk += [PutTrust(i, raw) for i, raw in enumerate(self.trust.files, start=1)]
        return Process(self, origin, key, witness_of(self.seed, name), disk, skew)

    # -- what processes do to each other -----------------------------------------

    def stored(self, process: Process, step: Step, acknowledged: Sequence[Ticket]) -> None:
        if step.store:
            self.record("store", process.label, b"".join(map(_bytes_of, step.store)))
        self.oracle.stored(process, step, acknowledged)
        self.history.stored(process, step)

    def send(self, process: Process, peer: MemberId, frame: Frame) -> None:
        self.oracle.sending(process, peer, frame)
        for sent in self.misdeeds.sends(process, peer, frame):
            self.links.send(process, peer, sent)

    def _answers(self, dialler: Process, member: MemberId) -> Process | None:
        return self.misdeeds.answers(dialler, member)

    def dial(self, process: Process, peer: MemberId) -> None:
        self.links.want(process, peer)

    def undial(self, process: Process, peer: MemberId) -> None:
        self.links.unwant(process, peer)

    def hang_up(self, process: Process, peer: MemberId) -> None:
        self.links.close(process, peer, "hung up")

    def tell_edge(self, process: Process, effect: PublishAssignment) -> None:
        self.oracle.assigning(process, effect)
        self.record("assign", process.name, effect.assignment)
        boot = process.boots
        for edge in self.edges:
            if edge.name.startswith(f"{process.name}-node-"):
                self.after(
                    self.rng.uniform(0.01, 0.1),
                    partial(self._assigned, process, boot, edge, effect),
                )

    def _assigned(
        self, process: Process, boot: int, edge: EdgeNode, effect: PublishAssignment
    ) -> None:
        if process.node is not None and process.boots == boot:
            edge.assigned(effect.assignment, effect.signature)

    def serves(self, release: Digest, manifest: Manifest, asker: Process) -> bool:
        if "*" not in manifest.residency and asker.name not in manifest.residency:
            return False
        return any(
            release in holder.blobs
            and holder.node is not None
            and self.network.joined(holder.name, asker.name)
            for holder in self.processes.values()
        )

    # -- faults ----------------------------------------------------------------

    def _schedule(self) -> None:
        for process in self.processes.values():
            self.after(self.rng.uniform(0, 1), process.boot)
        for cut in self.plan.cuts:
            self.after(cut.at_s, partial(self._cut, cut))
            self.after(cut.until_s, partial(self._heal, cut))
        for crash in self.plan.crashes:
            self.after(crash.at_s, partial(self._arm, crash))
        self.after(self.plan.calm_s, self._calm)

    def cut_now(self, cut: Cut) -> None:
        """A cut that a test times by what it sees; `at_s` is now."""
        self._cut(cut)
        self.after(cut.until_s - self.now_s, partial(self._heal, cut))

    def _crossings(self, cut: Cut) -> list[tuple[str, str]]:
        outside = [str(name) for name in self.processes if name not in cut.inside]
        ways = [(i, o) for i in cut.inside for o in outside]
        return ways if cut.one_way else ways + [(o, i) for i, o in ways]

    def _cut(self, cut: Cut) -> None:
        for source, target in self._crossings(cut):
            self.network.block(source, target)
        self.record("cut", ",".join(cut.inside))
        self.history.cut(cut)
        self.links.check_alive()

    def _heal(self, cut: Cut) -> None:
        for source, target in self._crossings(cut):
            self.network.unblock(source, target)
        self.record("heal", ",".join(cut.inside))
        self.history.healed(cut)

    def _arm(self, crash: Crash) -> None:
        if crash.region in self.processes:
            self.processes[Segment(crash.region)].crashes.append(crash)

    def _calm(self) -> None:
        self.network.weather = CLEAR
        for process in self.processes.values():
            process.crashes.clear()
        self.history.say("weather", "all faults are over" if self.plan.name != "none" else "")

    def crash(self, process: Process, crash: Crash, disk: Disk | None) -> None:
        self.record("crash", process.name, crash.moment.encode())
        self.history.crashed(process, crash)
        process.crash(process.store.crash(disk))
        self.after(crash.down_s, lambda: self._recover(process))

    def alarmed(self, process: Process, alarm: Log) -> None:
        self.oracle.alarmed(process, alarm)

    def set_back(self, process: Process) -> None:
        self.oracle.set_back(process)

    def died(self, process: Process) -> None:
        self.links.died(process)

    def _recover(self, process: Process) -> None:
        process.boot()
        self.record("boot", process.name)
        self.history.recovered(process)


def _bytes_of(write: Write) -> bytes:
    """What a write leaves on the disk, however the value that carries it is built."""
    match write:
        case AppendEvents(head, _, events):
            return b"".join((head.origin.hash, head.root, head.note, *events))
        case TruncateLog():
            return write.head.origin.hash + write.head.root
        case PutTrust():
            return write.raw
        case DropTrust():
            return b"%d" % write.after
        case PutWitness():
            return write.origin.encode() + write.root
        case PutView():
            return write.document
        case PutIndex():
            return "/".join((write.model, write.release, *write.parents)).encode()
        case PutLocal():
            return write.key.encode() + (write.value or b"")


def region_name(i: int) -> Segment:
    return segment(NAMES[i] if i < len(NAMES) else f"region-{i}")


def next_trust(world: World) -> bytes:
    """The trust version that follows, signed by the root: the same people, another ring."""
    version = world.trust.current.version + 1
    after = replace(world.trust.current, version=version, ring_seed=f"ring-{world.seed}-{version}")
    raw = chain.sign(after, (key_of(world.seed, "root"),), world.trust)
    world.trust = chain.extend(world.trust, raw)
    return raw


def witness_of(seed: int, name: str) -> SigningKey:
    return key_of(seed, f"witness of {name}")


def _member(seed: int, name: Segment) -> Member:
    keys = key_of(seed, name).public, witness_of(seed, name).public
    return Member(name, keys[0], _PEM, f"{name}:7421", keys[1])


def _members(seed: int, names: Sequence[Segment]) -> Members:
    operator = key_of(seed, "operator").public
    roles = ("publisher", "release-manager", "operator")
    witnesses = {
        name: {member_id(key_of(seed, name).public): witness_of(seed, name).public}
        for name in names
    }
    return Members(
        federation=FEDERATION,
        version=1,
        root_keys=(key_of(seed, "root").public,),
        root_threshold=1,
        ring_seed=f"ring-{seed}",
        regions=tuple(Region(name, _PEM) for name in names),
        members=tuple(_member(seed, name) for name in names),
        witness_policy=default_policy(FEDERATION, witnesses),
        people=(Person("operator", operator, roles, ("*",)),),
        timestamp=Keys((key_of(seed, "timestamp").public,)),
    )
