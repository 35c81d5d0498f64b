"""What the people of a run do: publish, roll out, and wait for what the regions find.

    1.0.0 goes everywhere; 2.0.0 is bad in one region, which finds out; 3.0.0 is good again;
    in the end 2.0.0 is killed.

A story is a generator that yields the seconds until it looks again. A person whose daemon is
down tries again, as people do; what was acknowledged they do not repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from hanse.core.catalog.manifest import File, Manifest, Outcome, Parent, Tensor, Variant
from hanse.core.catalog.view import ModelView
from hanse.core.events import Body, Kill, ReleaseRecord, RolloutIntent
from hanse.core.ids import Digest, EventId, Segment, segment, version
from hanse.core.node import Node
from hanse.core.rollout.spec import canonical, parse_spec
from hanse.core.rollout.table import State
from hanse.core.trust import statements
from hanse.sim.answers import BAD, Nature
from hanse.sim.process import Process
from hanse.sim.world import NAMES, World, next_trust

MODEL = segment("digits")
Story = Generator[float, None, None]
_SETTLED = (State.HEALTHY, State.ROLLED_BACK, State.HELD, State.QUARANTINED)


def bad_region(regions: int) -> str:
    return NAMES[regions - 1] if regions <= len(NAMES) else f"region-{regions - 1}"


def nature(regions: int) -> Nature:
    return Nature({("2.0.0", bad_region(regions)): BAD})


def default(world: World) -> Story:
    names = list(world.processes)
    first = manifest("1.0.0")
    yield from publish(world, names[0], first, 1)
    yield from roll_out(world, names[0], first, 1, None)
    yield from until(lambda: everywhere(world, first, State.HEALTHY))
    second = manifest("2.0.0", first)
    yield from publish(world, names[1 % len(names)], second, 2)
    yield from roll_out(world, names[0], second, 2, first)
    yield from until(lambda: settled(world, second))
    third = manifest("3.0.0", second)
    yield from publish(world, names[0], third, 3)
    yield from roll_out(world, names[-1], third, 3, first)
    yield from until(lambda: everywhere(world, third, State.HEALTHY))
    yield from kill(world, names[0], second)


def publishing(world: World) -> Story:
    """Many releases from everywhere, and a new members file: what durability is tried on."""
    names = list(world.processes)
    parent: Manifest | None = None
    for i in range(1, 31):
        if i == 10:
            yield from trust(world, names[-1], 2)
        release = manifest(f"{i}.0.0", parent)
        yield from publish(world, names[i % len(names)], release, i)
        parent = release
        yield world.rng.uniform(0, 4)


def run_story(world: World, story: Callable[[World], Story], end_s: float) -> bool:
    """Drive the story second by second; True if it came to its end before `end_s`."""
    scene = story(world)
    for wait_s in scene:
        next_s = world.now_s + wait_s
        while world.now_s < next_s:
            world.run_until(min(next_s, world.now_s + 1.0))
            world.oracle.look()
        if world.now_s > end_s:
            return False
    return True


def until(condition: Callable[[], bool]) -> Story:
    while not condition():
        yield 1.0


# -- deeds ---------------------------------------------------------------------


def say(
    world: World, region: Segment, body: Body, *signed: bytes, supersedes: Sequence[EventId] = ()
) -> Story:
    """Propose an event and wait for its acknowledgement; a daemon that died is asked again."""
    process = world.processes[region]
    while True:
        node, ticket = process.node, process.propose(body, signed, supersedes)
        while ticket is not None and process.node is node:
            if world.oracle.is_acknowledged(ticket.event):
                return
            yield 0.05
        if ticket is not None and world.oracle.is_acknowledged(ticket.event):
            return
        yield 1.0


def publish(world: World, region: Segment, release: Manifest, counter: int) -> Story:
    raw = release.encode()
    digest = Digest.of(raw)
    process = world.processes[region]
    process.blobs[digest] = release.model
    process.do(lambda node, _: node.region.have(digest))
    name = f"{release.model}@{release.version}"
    signed = statements.sign_release(name, digest, counter, [world.operator])
    body = ReleaseRecord(release.model, release.version, counter, raw)
    yield from say(world, region, body, signed)


def roll_out(
    world: World,
    region: Segment,
    release: Manifest,
    generation: int,
    predecessor: Manifest | None,
) -> Story:
    """Start a rollout where the release is known; the first region is the pilot."""
    digest = Digest.of(release.encode())
    yield from until(lambda: _knows(world.processes[region], digest))
    before = Digest.of(predecessor.encode()) if predecessor else None
    spec = parse_spec(plan(list(world.processes), digest, generation, before))
    raw = canonical(spec)
    statement = statements.rollout_statement(spec.model, raw)
    body = RolloutIntent(spec.model, spec.name, generation, digest, before, raw)
    signed = statements.sign_control(statement, [world.operator])
    yield from say(world, region, body, signed)


def kill(world: World, region: Segment, release: Manifest) -> Story:
    digest = Digest.of(release.encode())
    statement = statements.control_statement("kill", release.model, release=str(digest))
    signed = statements.sign_control(statement, [world.operator])
    yield from say(world, region, Kill(release.model, digest, "wrong answers"), signed)


def trust(world: World, region: Segment, number: int) -> Story:
    """Bring the next trust version to one daemon; it is their business to tell the others.

    What nobody holds any more, because an old disk came back, is brought again.
    """
    next_trust(world)
    process, files = world.processes[region], world.trust.files
    while (held := _trusted(process)) < number:
        if held == number - 1 or 0 < held == max(map(_trusted, world.processes.values())):
            process.do(_brings(files[held]))
        yield 1.0


def _brings(raw: bytes) -> Callable[[Node, object], object]:
    return lambda node, _: node.extend_trust(raw)


def _trusted(process: Process) -> int:
    """The trust version that this region holds; 0 while it is down."""
    return process.node.book.chain.current.version if process.node else 0


# -- what regions say ----------------------------------------------------------


def state(process: Process, release: Manifest) -> State | None:
    """How far this region is with a release, as it would say itself."""
    if process.node is None:
        return None
    digest = Digest.of(release.encode())
    for execution in process.node.region.executions.values():
        if execution.plan.release == digest:
            return execution.progress.state
    return None


def everywhere(world: World, release: Manifest, wanted: State) -> bool:
    return all(state(p, release) is wanted for p in world.processes.values())


def settled(world: World, release: Manifest) -> bool:
    """Nobody goes on with it: healthy, held, or taken back; and somebody took it back."""
    states = [state(p, release) for p in world.processes.values()]
    return State.ROLLED_BACK in states and all(s in _SETTLED for s in states)


def view(process: Process) -> ModelView | None:
    return process.node.catalog.views.get(MODEL) if process.node else None


def _knows(process: Process, release: Digest) -> bool:
    seen = view(process)
    return seen is not None and seen.release(release) is not None


# -- documents -----------------------------------------------------------------


def manifest(name: str, parent: Manifest | None = None) -> Manifest:
    file = File(segment("model.onnx"), Digest.of(f"weights of {name}".encode()), 1000)
    parents = (Parent(Digest.of(parent.encode()), "retrained-from"),) if parent else ()
    return Manifest(
        MODEL,
        version(name),
        (file,),
        (Variant(segment("onnx"), "onnx", file.name),),
        (Tensor("x", "FP32", (-1, 64)),),
        (Tensor("y", "FP32", (-1, 10)),),
        outcome=Outcome("argmax", "y"),
        parents=parents,
    )


def plan(
    regions: Sequence[str], release: Digest, generation: int, predecessor: Digest | None
) -> dict[str, Any]:
    """A pilot, then everybody else: shadow, a fifth of the traffic, half, all of it."""
    stages: list[dict[str, Any]] = [
        {"name": "pilot", "regions": [regions[0]], "steps": _steps(predecessor)}
    ]
    if len(regions) > 1:
        rest = {"name": "rest", "regions": list(regions[1:]), "steps": _steps(predecessor)}
        stages.append({**rest, "requires": {"stage": "pilot", "healthy": "all"}})
    return {
        "apiVersion": "hanse.dev/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": f"digits-{generation}", "model": MODEL, "generation": generation},
        "spec": {
            "release": str(release),
            "predecessor": str(predecessor) if predecessor else None,
            "stages": [{**stage, "soak": "10s"} for stage in stages],
            "templates": _templates(predecessor),
            "freshness": {"within": "30s", "telemetry": "30s"},
        },
    }


def _steps(predecessor: Digest | None) -> list[dict[str, Any]]:
    safety = {"analysis": {"templates": ["safety"], "minSamples": 100}}
    if predecessor is None:
        return [{"setWeight": 50}, {"pause": {"duration": "5s"}}, safety, {"setWeight": 100}]
    return [
        {"shadow": {"sample": "50%", "duration": "10s"}},
        {"analysis": {"templates": ["agreement"]}},
        {"setWeight": 20},
        {"pause": {"duration": "10s"}},
        safety,
        {"setWeight": 100},
    ]


def _templates(predecessor: Digest | None) -> dict[str, Any]:
    accuracy = {
        "name": "accuracy",
        "test": "one-arm",
        "event": "wrong",
        "slo": "12%",
        "provenBelow": "12%",
    }
    errors: dict[str, Any] = {"name": "error-rate", "event": "error"}
    if predecessor is None:
        errors |= {"test": "one-arm", "slo": "6%", "provenBelow": "6%"}
        return {"safety": {"alpha": 0.0001, "metrics": [errors, accuracy]}}
    errors |= {"test": "ratio", "margin": 3, "provenBelow": "none"}
    disagreement = {
        "name": "disagreement",
        "test": "one-arm",
        "event": "disagree",
        "slo": "45%",
        "provenBelow": "45%",
    }
    return {
        "safety": {"alpha": 0.0001, "metrics": [errors, accuracy]},
        "agreement": {"alpha": 0.0001, "metrics": [disagreement]},
    }
