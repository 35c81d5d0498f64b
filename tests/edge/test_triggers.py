"""Every trigger, from a model on a node to what its region and the others decide.

The node is a real one but for its files: device, router, telemetry and comparators decide and
count; its models answer as the case says. Authority is what rollouts.md 2 says: a node leaves a
release by itself, a region undoes its own, and one region's word makes the others hold, no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import numpy as np
import pytest
from hand_federation import MODEL, REGIONS, STEP_S, Counts, Edge, Federation

from hanse.core.catalog.manifest import File, Manifest, Outcome, Parent, Tensor, Variant
from hanse.core.catalog.profile import Series
from hanse.core.device import STARTS_MAX, Device
from hanse.core.device_step import DeviceStep, Fetch, Load, Route, Unload
from hanse.core.events import ReleaseRecord
from hanse.core.evidence.verdict import Reason
from hanse.core.ids import Digest, Version, segment
from hanse.core.node import Node
from hanse.core.rollout.progress import Progress
from hanse.core.rollout.stimuli import Cause
from hanse.core.rollout.table import State
from hanse.core.routing import bucket, threshold
from hanse.core.telemetry import Report, parse_report
from hanse.core.trust import statements
from hanse.edge import served
from hanse.edge.comparators import Argmax
from hanse.edge.histograms import Histogram
from hanse.edge.inference import LoadedModel
from hanse.edge.router import Router
from hanse.edge.served import Served
from hanse.edge.telemetry import Telemetry

EU, OTHERS = REGIONS[0], REGIONS[1:]
X, P = Tensor("x", "FP32", (-1, 1)), Tensor("p", "FP32", (-1, 2))
EDGES = tuple(i / 8 for i in range(1, 8))
PROFILE = Series("p", "output", 1, EDGES, (10_000,) * 8)
REQUESTS = 40


class Clock:
    """What models say they took; the router reads it in place of the real one."""

    now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s


@dataclass
class Session:
    """Answers the probability that x is above a half, in the manner of the case."""

    manner: str
    clock: Clock
    rng: Random

    def run(self, names: list[str], feeds: Mapping[str, Any], _: Any = None) -> list[Any]:
        x = feeds["x"][:, 0]
        self.clock.now_s += 0.020 if self.manner == "slow" and self.rng.random() < 0.5 else 0.001
        match self.manner:
            case "errors" if self.rng.random() < 0.12:  # seldom five in a row
                raise ValueError("boom")
            case "nan":
                x = x * np.nan
            case "shape":
                return [np.stack([1 - x, x, x], axis=1)]
            case "wrong" if self.rng.random() < 0.3:
                x = 1 - x
            case "drift":
                x = 0.5 + (x - 0.5) / 4  # as right as ever, and never sure
        return [np.stack([1 - x, x], axis=1)]


class Crashed(Exception):
    """The process is gone."""


@dataclass
class Machine:
    """One edge node of `EU` and its users."""

    town: Town
    manners: dict[str, str]
    telemetry: Telemetry = field(default_factory=Telemetry)
    clock: Clock = field(default_factory=Clock)
    rng: Random = field(default_factory=lambda: Random(7))
    failed_users: int = 0
    said_failed: dict[Digest, str] = field(default_factory=dict)
    stored: bytes | None = None
    silent: bool = False

    def __post_init__(self) -> None:
        self.device = Device(self.town.node(EU).me.federation, EU)
        self.router = Router(
            self.telemetry,
            on_trip=lambda m, r, why: self.carry_out(self.device.tripped(m, r, why, 0.0)),
            on_proved=lambda r: self.carry_out(self.device.proved(r, 0.0)),
        )
        self.asked = 0
        self.ready: set[Digest] = set()

    def obey(self) -> None:
        raw = self.town.node(EU).region.duty._raw
        if raw:
            self.carry_out(self.device.assign(raw, 0.0))

    def carry_out(self, step: DeviceStep) -> None:
        self.stored = step.store or self.stored
        for effect in step.effects:
            match effect:
                case Fetch(release):
                    self.carry_out(self.device.fetched(release, 0.0))
                case Load(release, manifest):
                    self.load(release, manifest)
                case Unload(release):
                    self.router.remove(release)
                case Route():
                    self.router.swap(effect)

    def load(self, release: Digest, manifest: Manifest) -> None:
        manner = self.manners.get(manifest.version, "good")
        if manner == "crash":
            return self.start_again()
        session = Session(manner, self.clock, self.rng)
        model = LoadedModel(
            session,
            manifest.inputs,
            manifest.outputs,
            Argmax(manifest.outcome),
            tuple(map(Histogram.of, manifest.profile)),
        )
        self.router.add(MODEL, Served(release, manifest.version, model))
        return self.carry_out(self.device.loaded(release, 0.0))

    def start_again(self) -> None:
        """The process died while it loaded: another one begins from what is on the disk."""
        held = self.device.held()
        self.device, step = Device.restore(
            self.town.node(EU).me.federation, EU, self.stored, held, 0.0
        )
        self.stored = step.store or self.stored
        self.carry_out(step)

    async def serve(self) -> None:
        if MODEL not in self.router.models():
            return
        for _ in range(REQUESTS):
            self.asked += 1
            x = self.rng.random()
            feeds = {"x": np.array([[x]], np.float32)}
            name = f"r{self.asked}"
            try:
                await self.router.infer(MODEL, None, name, "", feeds)
            except Exception:
                self.failed_users += 1
            self.telemetry.label(MODEL, [(name, str(int(x > 0.5)))])
        await self.router.shadows_done()

    def report(self) -> Report:
        windows = self.telemetry.drain()
        order = self.device.assignment.order if self.device.assignment else (0, 0)
        models = tuple(
            replace(m, windows=tuple(w for w in windows if w.model == m.model))
            for m in self.device.report()
        )
        for model in models:
            self.said_failed |= model.failed
        return parse_report(Report(segment("machine"), *order, models).encode())


class Town(Federation):
    """Three regions; in the first one the machine takes the place of the edges by hand."""

    def __init__(self, manners: dict[str, str]) -> None:
        self.machine: Machine | None = None
        super().__init__()
        self.edges[EU] = []
        self.node(EU).fleet.nodes.clear()  # of three nodes one alone would not be believed at once
        self.machine = Machine(self, manners)
        self.seq = 0

    def _report(self, node: Node) -> None:
        machine = self.machine
        if node.me.region != EU or machine is None:
            return super()._report(node)
        name = segment("machine")
        if machine.silent:
            return node.fleet.gone(name)
        node.fleet.watch(name, {}, self.now_s)
        self.seq += 1
        node.fleet.report(b"boot", self.seq, machine.report(), self.now_s)
        return None

    async def live(self, seconds: float) -> None:
        machine = self.machine
        assert machine is not None
        for _ in range(int(seconds / STEP_S)):
            if not machine.silent:
                machine.obey()
                await machine.serve()
            self.run(STEP_S)

    def release(self, version: str, *parents: Digest) -> Digest:
        file = File(segment("model.onnx"), Digest.of(version.encode()), 1000)
        manifest = Manifest(
            MODEL,
            Version(version),
            (file,),
            (Variant(segment("onnx"), "onnx", file.name),),
            (X,),
            (P,),
            outcome=Outcome("argmax", "p"),
            parents=tuple(Parent(p, "retrained-from") for p in parents),
            labels={"slow_ms": "10"},
            profile=(PROFILE,),
        )
        raw = manifest.encode()
        view = self.node(EU).catalog.views.get(MODEL)
        counter = len(view.releases) + 1 if view else 1
        envelope = statements.sign_release(
            f"{MODEL}@{version}", Digest.of(raw), counter, [self.person]
        )
        record = ReleaseRecord(MODEL, Version(version), counter, raw)
        self.propose(EU, record, attestations=[envelope])
        self.node(EU).region.have(record.release)
        return record.release

    def place(self, region: str, name: str = "r-2") -> Progress:
        executions = self.node(region).region.executions.values()
        return next(e.progress for e in executions if e.plan.name == name)


def plan(**more: Any) -> dict[str, Any]:
    """All regions at once, so that the others are exposed when one finds out."""
    metrics: list[dict[str, Any]] = [
        {"name": "errors", "test": "ratio", "event": "error", "margin": 1.25},
        {"name": "slowness", "test": "ratio", "event": "slow", "margin": 1.5},
        {"name": "accuracy", "test": "paired", "margin": 1.0},
    ]
    drift = {"name": "output-drift", "test": "drift", "series": "output:p[1]", "onFail": "hold"}
    steps = [
        {"setWeight": {"weight": 30, "shadow": "100%"}},
        {"pause": {"duration": "10m"}},
        {"analysis": {"templates": ["safety"], "minSamples": 100}},
        {"setWeight": 100},
    ]
    return {
        "stages": [{"name": "all", "regions": list(REGIONS), "steps": steps}],
        "templates": {
            "safety": {
                "alpha": 0.05,
                "metrics": [*({**m, "provenBelow": "none"} for m in metrics), drift],
            }
        },
        **more,
    }


FIRST = {
    "stages": [
        {
            "name": "all",
            "regions": list(REGIONS),
            "steps": [{"setWeight": 100}, {"analysis": {"templates": ["t"], "minSamples": 50}}],
        }
    ],
    "templates": {
        "t": {
            "alpha": 0.05,
            "metrics": [
                {"name": "e", "test": "one-arm", "event": "error", "slo": 0.2, "provenBelow": 0.2}
            ],
        }
    },
}


async def trial(monkeypatch: pytest.MonkeyPatch, manner: str, **more: Any) -> tuple[Town, Digest]:
    """3.0.0 serves everywhere; 4.0.0 behaves in `manner` on the machine, and well elsewhere."""
    town = Town({"4.0.0": manner})
    machine = town.machine
    assert machine is not None
    monkeypatch.setattr(served.time, "perf_counter", machine.clock.perf_counter)
    old = town.release("3.0.0")
    town.roll_out("r-1", 1, old, None, **FIRST)
    await town.live(20)
    assert all(town.place(region, "r-1").state is State.HEALTHY for region in REGIONS)
    for region in OTHERS:
        for edge in town.edges[region]:
            _alike(edge)
    new = town.release("4.0.0", old)
    town.roll_out("r-2", 2, new, old, **plan(**more))
    return town, new


def _alike(edge: Edge) -> None:
    edge.traffic.stable = edge.traffic.canary = Counts(requests=20)


@pytest.mark.parametrize(
    ("manner", "metric"), [("errors", "errors"), ("slow", "slowness"), ("wrong", "accuracy")]
)
async def test_what_the_counts_show_undoes_the_region_and_holds_the_others(
    monkeypatch: pytest.MonkeyPatch, manner: str, metric: str
) -> None:
    town, new = await trial(monkeypatch, manner)
    await town.live(60)
    here = town.place(EU)
    assert (here.state, here.reason) == (State.ROLLED_BACK, Reason.WORSE)
    assert here.why.startswith(f"{metric}: trial")
    _the_others_hold(town, new)
    assert town.machine is not None
    assert town.machine.failed_users == 0, "whatever failed, the good release answered for it"
    (said,) = town.machine.device.report()
    assert town.machine.device.manifest(said.running or new).version == "3.0.0"  # type: ignore[union-attr]


async def test_answers_that_drift_stop_the_rollout_and_undo_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    town, new = await trial(monkeypatch, "drift")
    await town.live(60)
    here = town.place(EU)
    assert (here.state, here.reason) == (State.HELD, Reason.WORSE)
    assert here.why.startswith("output-drift")
    assert here.weight_percent == 30, "users stay where they are"
    _the_others_hold(town, new)
    town.run(600)
    assert town.place(EU).state is State.HELD, "until a person has looked"


@pytest.mark.parametrize("manner", ["nan", "shape"])
async def test_answers_that_are_none_make_the_node_leave_and_then_the_region(
    monkeypatch: pytest.MonkeyPatch, manner: str
) -> None:
    """The node needs nobody for it; that a node cannot run it is what its region goes by."""
    town, new = await trial(monkeypatch, manner)
    machine = town.machine
    assert machine is not None
    await town.live(15)
    assert "errors in a row" in machine.said_failed[new]
    assert machine.device.route(MODEL).candidate is None
    here = town.place(EU)
    assert here.state is State.ROLLED_BACK
    assert here.reason in (Cause.FAILING, Reason.WORSE)
    _the_others_hold(town, new)
    assert machine.failed_users == 0


async def test_a_node_that_does_not_survive_it_leaves_it_and_the_region_undoes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    town, new = await trial(monkeypatch, "crash")
    machine = town.machine
    assert machine is not None
    await town.live(15)
    assert machine.said_failed[new] == f"this node did not survive {STARTS_MAX} starts with it"
    here = town.place(EU)
    assert (here.state, here.reason) == (State.ROLLED_BACK, Cause.FAILING)
    assert here.why.startswith("1 of 1 nodes failed to run it")
    _the_others_hold(town, new)


async def test_a_node_that_fell_silent_with_it_counts_once_the_plan_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another node is heard: with nobody at all it is the region that is cut off."""
    town, new = await trial(
        monkeypatch, "good", nodes={"silentAfterUpdate": "20s", "failing": "40%"}
    )
    machine = town.machine
    assert machine is not None
    town.edges[EU] = [Edge(segment("witness"))]
    await town.live(10)
    assert machine.device.route(MODEL).candidate == new
    machine.silent = True
    fleet = town.node(EU).fleet
    for _ in range(80):
        fleet.watch(segment("witness"), {}, town.now_s)
        order = town.node(EU).region.duty.order
        fleet.report(b"w", int(town.now_s * 2), Report(segment("witness"), *order), town.now_s)
        town.run(STEP_S)
    here = town.place(EU)
    assert here.reason == Cause.FAILING, here
    assert here.why == "0 of 1 nodes failed to run it, 1 fell silent with it: machine"
    assert here.state in (State.ROLLING_BACK, State.ROLLED_BACK)
    _the_others_hold(town, new)


async def test_a_release_that_is_well_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the above fires without a cause."""
    town, new = await trial(monkeypatch, "good")
    await town.live(60)
    assert town.place(EU).state is State.PAUSED, town.place(EU)
    assert all(town.place(region).state is State.PAUSED for region in OTHERS)
    view = town.node(EU).catalog.views[MODEL]
    assert view.release(new).held == ()  # type: ignore[union-attr]


def _the_others_hold(town: Town, new: Digest) -> None:
    for region in OTHERS:
        place = town.place(region)
        assert (place.state, place.reason) == (State.HELD, Cause.HELD_ELSEWHERE), region
        assert place.weight_percent == 30, "users stay where they are"
        release = town.node(region).catalog.views[MODEL].release(new)
        assert release is not None
        assert (release.held, release.quarantined) == ((EU,), False)


async def test_only_the_audience_meets_the_release_and_only_it_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the signed plan to the arms that a region compares."""
    audience = {"unit": "customer", "target": [{"attribute": "device", "in": ["dock"]}]}
    town, new = await trial(monkeypatch, "good", audience=audience)
    machine = town.machine
    assert machine is not None
    await town.live(10)
    assert machine.device.route(MODEL).candidate == new
    before = town.place(EU).evidence.row("errors").totals
    assert before.exposed == (0, 0), "the users so far are no docks"
    feeds = {"x": np.array([[0.9]], np.float32)}
    for i in range(200):
        context = {"device": "dock" if i % 2 else "gate", "customer": f"c{i % 20}"}
        answer = await machine.router.infer(MODEL, None, f"d{i}", f"s{i}", feeds, (), context)
        inside = i % 2 and bucket(machine.device.route(MODEL).salt, f"c{i % 20}") < threshold(3000)
        assert (answer.release == new) == bool(inside)
    town.run(1.0)
    assert sum(town.place(EU).evidence.row("errors").totals.exposed) == 100
