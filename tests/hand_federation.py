"""Three daemons driven by hand, with edge nodes that do what they are told: no network, no clock.

`run` lets time pass in steps of half a second. What the edge nodes count is `Traffic`, which a
test changes to make a release good or bad.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from hanse.core.catalog.manifest import DataSet, File, Manifest, Parent, Tensor, Variant
from hanse.core.catalog.profile import Series
from hanse.core.effects import FetchRelease, Send, Serve
from hanse.core.events import Body, ReleaseRecord, RolloutIntent
from hanse.core.gossip.frames import Chunk
from hanse.core.ids import Digest, MemberId, Origin, Segment, Version, member_id, segment
from hanse.core.node import Clock, Node, Ticket
from hanse.core.rollout.spec import canonical, parse_spec
from hanse.core.signing import SigningKey
from hanse.core.step import AppendEvents
from hanse.core.telemetry import Counts, ModelReport, Pairs, Report, Window
from hanse.core.trust import chain as trust
from hanse.core.trust import statements
from hanse.core.trust.members import Member, Members, Person, Region
from hanse.rpc.codec import EventCodec

MODEL = Segment("ocr-rec")
REGIONS = tuple(Segment(name) for name in ("eu-north", "us-east", "ap-south"))
ROLES = ("publisher", "release-manager", "operator")
START_MS = 1_795_000_000_000
STEP_S = 0.5
PEM = "-----BEGIN CERTIFICATE-----\nnone"

FIRST = {
    "stages": [
        {
            "name": "everywhere",
            "regions": list(REGIONS),
            "steps": [{"setWeight": 100}, {"analysis": {"templates": ["sound"]}}],
        }
    ],
    "templates": {
        "sound": {
            "alpha": 0.05,
            "metrics": [
                {
                    "name": "error-rate",
                    "test": "one-arm",
                    "event": "error",
                    "slo": 0.05,
                    "provenBelow": 0.05,
                }
            ],
        }
    },
}
STEPS = [
    {"shadow": {"sample": "50%", "duration": "2s"}},
    {"analysis": {"templates": ["accuracy"]}},
    {"setWeight": 100},
]
CAREFUL = {
    "stages": [
        {"name": "pilot", "regions": ["eu-north"], "steps": STEPS},
        {
            "name": "wave",
            "regions": ["us-east", "ap-south"],
            "requires": {"stage": "pilot", "healthy": "all"},
            "steps": STEPS,
        },
    ],
    "templates": {
        "accuracy": {
            "alpha": 0.05,
            "metrics": [{"name": "accuracy-paired", "test": "paired", "provenBelow": 3.0}],
        }
    },
}


STABLE = Counts(requests=20, errors=0, labelled=10, wrong=1)
CANARY = Counts(requests=20)
ALIKE = Pairs(agree=20, both_right=20, only_old_right=1, only_new_right=1)


@dataclass
class Traffic:
    """What one edge node counts in one step of one arm."""

    stable: Counts = STABLE
    canary: Counts = CANARY
    pairs: Pairs = ALIKE


@dataclass
class Edge:
    name: Segment
    silent: bool = False
    traffic: Traffic = field(default_factory=Traffic)
    failed: dict[Digest, str] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    seq: int = 0
    stuck: Digest | None = None


class Federation:
    def __init__(self, edges: int = 2, labels: dict[Segment, dict[str, str]] | None = None) -> None:
        self.keys = [SigningKey(bytes([i]) * 32) for i in range(1, 4)]
        self.person = SigningKey(b"o" * 32)
        root = SigningKey(b"r" * 32)
        members = Members(
            Segment("hansa"),
            1,
            (root.public,),
            1,
            "seed",
            tuple(Region(r, PEM) for r in REGIONS),
            tuple(
                Member(r, k.public, PEM, f"{r}:7420")
                for r, k in zip(REGIONS, self.keys, strict=True)
            ),
            (Person("anna", self.person.public, ROLES, ("*",)),),
            labels=labels or {},
        )
        self.members, self.root = members, root
        chain = trust.replay((trust.sign(members, (root,)),))
        self.now_s = 0.0
        self.ids = [member_id(key.public) for key in self.keys]
        self.nodes: dict[MemberId, Node] = {}
        self.edges: dict[Segment, list[Edge]] = {}
        self.cut: set[Segment] = set()
        self.appends: dict[tuple[Origin, int], AppendEvents] = {}
        for i, (region, key) in enumerate(zip(REGIONS, self.keys, strict=True)):
            me = Origin(members.federation, region, member_id(key.public), 1)
            node = Node(me, key, b"spki%d" % i, EventCodec(), chain, Random(i), timestamp_key=root)
            node.open("first")
            self.nodes[me.member] = node
            self.edges[region] = [Edge(segment(f"edge-{region}-{n + 1}")) for n in range(edges)]
        for i, a in enumerate(self.ids):
            for j, b in enumerate(self.ids):
                if i != j:
                    self.nodes[a].link_up(b, b"spki%d" % j, self.clock)
        self.run(1.0)

    @property
    def clock(self) -> Clock:
        return Clock(self.now_s, START_MS + int(self.now_s * 1000))

    def node(self, region: str) -> Node:
        return next(n for n in self.nodes.values() if n.me.region == region)

    # -- time --------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds / STEP_S)):
            self.now_s += STEP_S
            for node in self.nodes.values():
                self._report(node)
                node.tick(self.clock)
            self.settle()

    def settle(self) -> None:
        for _ in range(100):
            busy = False
            for member, node in self.nodes.items():
                step = node.take(self.clock)
                sends = [(s.peer, s.frame) for s in step.send if isinstance(s, Send)]
                for write in step.store:
                    if isinstance(write, AppendEvents):
                        self.appends[write.head.origin, write.start] = write
                for effect in step.effects:
                    if isinstance(effect, FetchRelease):
                        node.region.have(effect.release)
                    self.effect(effect)
                    if isinstance(effect, Serve):
                        found = self.appends[effect.origin, effect.start]
                        chunk = Chunk(effect.origin, effect.start, found.events, found.head.note)
                        sends.append((effect.peer, chunk))
                for peer, frame in sends:
                    to = self.nodes[peer]
                    if not {node.me.region, to.me.region} & self.cut:
                        busy = True
                        to.frame(member, frame, self.clock)
            if not busy:
                return
        raise AssertionError("the daemons do not come to rest")

    def effect(self, effect: object) -> None:
        """For whoever wants to see more of them than fetches and serves."""

    def _report(self, node: Node) -> None:
        told = node.region.duty.told(MODEL)
        for edge in self.edges[node.me.region]:
            if edge.silent:
                node.fleet.gone(edge.name)
                continue
            node.fleet.watch(edge.name, edge.facts, self.now_s)
            if told is None:
                continue
            edge.seq += 1
            window = Window(
                MODEL,
                told.rollout,
                told.generation,
                told.weight_bp,
                told.shadow_bp,
                edge.traffic.stable if told.weight_bp < 10_000 and told.active else Counts(),
                edge.traffic.canary if told.weight_bp else Counts(),
                edge.traffic.canary if told.shadow_bp else Counts(),
                edge.traffic.pairs if told.shadow_bp else Pairs(),
            )
            report = ModelReport(
                MODEL,
                edge.stuck or told.active,
                ready=told.named,
                failed=edge.failed,
                windows=(window,),
            )
            order = node.region.duty.order
            node.fleet.report(b"boot", edge.seq, Report(edge.name, *order, (report,)), self.now_s)

    # -- what people do ----------------------------------------------------------

    def propose(self, region: str, body: Body, **more: Any) -> Ticket:
        ticket = self.node(region).propose(body, **more)
        self.settle()
        return ticket

    def relabel(self, labels: dict[Segment, dict[str, str]]) -> None:
        """The next trust version, which every daemon gets."""
        known = self.nodes[self.ids[0]].book.chain
        following = replace(known.current, version=known.current.version + 1, labels=labels)
        raw = trust.sign(following, (self.root,), known)
        for node in self.nodes.values():
            node.extend_trust(raw)
        self.run(1.0)

    def control(self, action: str, **scope: str | int) -> bytes:
        statement = statements.control_statement(action, MODEL, **scope)
        return statements.sign_control(statement, [self.person])

    def publish(
        self,
        version: str,
        *,
        parents: tuple[Digest, ...] = (),
        region: str = "eu-north",
        data: tuple[DataSet, ...] = (),
        notes: str = "",
        requires: dict[str, str] | None = None,
        labels: dict[str, str] | None = None,
        profile: tuple[Series, ...] = (),
    ) -> Digest:
        file = File(segment("model.onnx"), Digest.of(f"{version}{notes}".encode()), 1000)
        manifest = Manifest(
            MODEL,
            Version(version),
            (file,),
            (Variant(segment("onnx"), "onnx", file.name, requires or {}),),
            tuple(Tensor(each.tensor, "FP32", (-1,)) for each in profile),
            (),
            parents=tuple(Parent(p, "retrained-from") for p in parents),
            training_data=data,
            labels=labels or {},
            profile=profile,
        )
        raw = manifest.encode()
        view = self.node(region).catalog.views.get(MODEL)
        counter = max((r.counter for r in view.releases), default=0) + 1 if view else 1
        name = f"{MODEL}@{version}"
        envelope = statements.sign_release(name, Digest.of(raw), counter, [self.person])
        record = ReleaseRecord(MODEL, Version(version), counter, raw)
        self.propose(region, record, attestations=[envelope])
        self.node(region).region.have(record.release)
        return record.release

    def roll_out(
        self,
        name: str,
        generation: int,
        release: Digest,
        old: Digest | None,
        trust_version: int | None = None,
        **body: Any,
    ) -> None:
        cited = {} if trust_version is None else {"trustVersion": trust_version}
        plan = parse_spec(
            {
                "apiVersion": "hanse.dev/v1alpha1",
                "kind": "Rollout",
                "metadata": {"name": name, "model": MODEL, "generation": generation} | cited,
                "spec": {
                    "release": str(release),
                    "predecessor": str(old) if old else None,
                    **body,
                },
            }
        )
        raw = canonical(plan)
        statement = statements.rollout_statement(MODEL, raw)
        self.propose(
            "eu-north",
            RolloutIntent(MODEL, Segment(name), generation, release, old, raw),
            attestations=[statements.sign_control(statement, [self.person])],
        )


def serving(federation: Federation) -> Digest:
    """3.0.0, published by anna and healthy in every region."""
    release = federation.publish("3.0.0")
    federation.roll_out("r-1", 1, release, None, **FIRST)
    federation.run(30.0)
    return release
