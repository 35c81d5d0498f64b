"""From a stored RETRAIN to its result: hooks elsewhere, checks, and what each failure is called."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from digit_releases import Release, holdout, release
from hand_federation import Federation

from hanse.artefacts import confinement
from hanse.core.catalog.healed import LABEL
from hanse.core.catalog.manifest import Manifest, Parent
from hanse.core.effects import FetchRelease, Heal
from hanse.core.events import ReleaseRecord, Retrain
from hanse.core.healing import Policy
from hanse.core.ids import Digest, EventId, Segment
from hanse.core.node import Clock, Node
from hanse.core.room import Room
from hanse.core.trust import statements
from hanse.daemon import healer as healers
from hanse.daemon.healer import Healer
from hanse.daemon.healing_file import Command, Heals, Hook, HttpCall, Pipeline
from hanse.daemon.hooks import web
from hanse.storage.blobs import BlobStore

T = TypeVar("T")
DIGITS = Segment("digits")
EU = Segment("eu-north")
NO_EVENT = EventId(bytes(32))


class Direct:
    """Runs stimuli on a node of a federation that is driven by hand."""

    def __init__(self, federation: Federation) -> None:
        self.federation, self.node = federation, federation.node(EU)

    async def do(self, stimulus: Callable[[Node, Clock], T]) -> T:
        value = stimulus(self.node, self.federation.clock)
        self.federation.settle()
        return value


@dataclass
class World:
    folder: Path
    federation: Federation = field(default_factory=lambda: Federation(edges=0))
    fetched: list[FetchRelease] = field(default_factory=list)
    key: EventId = NO_EVENT
    healer: Healer | None = None

    def __post_init__(self) -> None:
        self.blobs = BlobStore(self.folder / "blobs", reserve_bytes=0)
        self.worse = self.publish("swapped", "1.0.0")
        body = Retrain(DIGITS, EU, self.worse, NO_EVENT, "serving", "worse: accuracy")
        ticket = self.federation.propose(EU, body)
        assert ticket.event is not None
        self.key = ticket.event

    def publish(self, kind: str, version: str, *, golden_of: str = "", answers: bool = False):  # type: ignore[no-untyped-def]  # a digest
        made = release(kind, self.folder / version, version=version, golden_of=golden_of)
        manifest = self.answering(made) if answers else made.manifest
        for file in manifest.files:
            writer = self.blobs.writer(file.size, file.digest)
            writer.write((made.folder / file.name).read_bytes())
            writer.commit()
        raw = manifest.encode()
        view = self.federation.node(EU).catalog.views.get(DIGITS)
        counter = max((r.counter for r in view.releases), default=0) + 1 if view else 1
        signed = statements.sign_release(
            f"digits@{version}", Digest.of(raw), counter, [self.federation.person]
        )
        record = ReleaseRecord(DIGITS, manifest.version, counter, raw)
        self.federation.propose(EU, record, attestations=[signed])
        self.federation.node(EU).region.have(record.release)
        return record.release

    def answering(self, made: Release) -> Manifest:
        labels, parents = {LABEL: self.key.raw.hex()}, (Parent(self.worse, "retrained-from"),)
        return replace(made.manifest, labels=labels, parents=parents)

    async def heals(self, hook: Hook, **more: Any) -> tuple[str, Digest | None, str]:
        """Outcome, answer and reason of the RETRAIN once it has its result."""
        values = {"deadline_s": 2.0, "heldout": None, "heldout_min": 0.0} | more
        declared = {DIGITS: Heals(Policy(), hook, **values)}
        driver: Any = Direct(self.federation)
        self.healer = Healer(driver, self.blobs, self.folder, declared, self.fetched.append)
        self.healer.heal(Heal(DIGITS, self.key))
        async with asyncio.timeout(30):
            while not (found := self.healing()).outcome:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return found.outcome, found.child, found.why

    def healing(self):  # type: ignore[no-untyped-def]  # a view
        (found,) = self.federation.node(EU).catalog.views[DIGITS].healings
        return found

    def heldout(self) -> Path:
        x, y = holdout()
        np.savez(self.folder / "heldout.npz", **{"in.X": x[:100], "label": y[:100]})
        return self.folder / "heldout.npz"


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(healers, "LOOK_S", 0.01)
    monkeypatch.setattr(healers, "RUN_LOOK_S", 0.05)
    made = World(tmp_path)
    yield made
    if made.healer is not None:
        await made.healer.close()


HTTP = HttpCall("http://trainer", 1.0, 1, None, None)
PIPELINE = Pipeline("http://kfp", 1.0, 1, None, "p", "", "", "", {})


def taken_by(world: World, monkeypatch: pytest.MonkeyPatch, **release: Any) -> list[str]:
    """A trainer elsewhere that takes the event and publishes later; the keys that it was given."""
    keys: list[str] = []

    async def post(hook: HttpCall, asking: Any) -> None:
        keys.append(asking.key)
        if release:
            asyncio.get_running_loop().call_later(0.1, lambda: world.publish(**release))

    monkeypatch.setattr(web, "post_event", post)
    return keys


async def test_what_a_trainer_elsewhere_publishes_later_is_the_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = {"kind": "v2", "version": "1.0.1", "golden_of": "v2", "answers": True}
    keys = taken_by(world, monkeypatch, **release)
    outcome, child, why = await world.heals(HTTP, heldout=world.heldout(), heldout_min=0.9)
    assert (outcome, keys) == ("passed", [world.key.raw.hex()])
    assert child is not None
    assert "held-out examples" in why
    assert "golden inputs as signed" in why
    assert {f.release for f in world.fetched} == {child, world.worse}


async def test_an_answer_that_is_there_already_is_not_asked_for_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a restart: the hook published before the daemon died."""
    child = world.publish("v2", "1.0.1", golden_of="v2", answers=True)
    keys = taken_by(world, monkeypatch)
    assert (await world.heals(HTTP))[:2] == ("passed", child)
    assert keys == []


@pytest.mark.parametrize(
    ("release", "more", "why"),
    [
        ({"kind": "v2", "golden_of": "v1"}, {"heldout": True}, "golden: output"),
        ({"kind": "v2"}, {}, "no golden inputs, and no held-out data"),
        ({"kind": "v1"}, {"heldout": True, "heldout_min": 0.999}, "at least 100% are asked for"),
        ({"kind": "truncated"}, {"heldout": True}, "it was cut off"),
    ],
)
async def test_what_does_not_stand_its_checks_is_refused(
    world: World, release: dict[str, str], more: dict[str, Any], why: str
) -> None:
    child = world.publish(version="1.0.1", answers=True, **release)
    given = {**more, "heldout": world.heldout()} if more.get("heldout") else more
    outcome, refused, said = await world.heals(HTTP, **given)
    assert (outcome, refused) == ("refused", child)
    assert why in said


async def test_one_that_is_right_less_often_than_the_one_before_is_refused(tmp_path: Path) -> None:
    made = World(tmp_path)
    made.worse = made.publish("v2", "1.5.0")
    ticket = made.federation.propose(
        EU, Retrain(DIGITS, EU, made.worse, EventId(b"1" * 32), "serving", "worse")
    )
    assert ticket.event is not None
    made.key = ticket.event
    made.publish("swapped", "1.5.1", answers=True)
    driver: Any = Direct(made.federation)
    declared = {DIGITS: Heals(Policy(), HTTP, 5.0, made.heldout(), 0.0)}
    healer = Healer(driver, made.blobs, tmp_path, declared, made.fetched.append)
    healer.heal(Heal(DIGITS, made.key))
    async with asyncio.timeout(30):
        while True:
            found = made.federation.node(EU).catalog.views[DIGITS].healings[-1]
            if found.outcome:
                break
            await asyncio.sleep(0.02)
    await healer.close()
    assert found.outcome == "refused"
    assert "the release before in" in found.why


async def test_an_answer_that_never_comes_is_late(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken_by(world, monkeypatch)
    outcome, _, why = await world.heals(HTTP, deadline_s=0.2)
    assert (outcome, why) == ("late", "no release names this retraining; it took the event")


async def test_a_release_with_another_parent_is_no_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world, "answering", lambda made: made.manifest)
    taken_by(world, monkeypatch, kind="v2", version="1.0.1")
    assert (await world.heals(HTTP, deadline_s=0.5))[0] == "late"


async def test_a_run_that_fails_ends_the_wait(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = iter(["PENDING", "RUNNING", "FAILED"])

    async def run(hook: Pipeline, asking: Any) -> str:
        return "run-1"

    async def state(hook: Pipeline, run_id: str) -> str:
        return next(states)

    monkeypatch.setattr(web, "start_run", run)
    monkeypatch.setattr(web, "run_state", state)
    outcome, _, why = await world.heals(PIPELINE, deadline_s=20.0)
    assert (outcome, why) == ("failed", "run run-1 is FAILED")


@pytest.mark.parametrize(
    ("hook", "why"),
    [
        (Command(("/bin/false",), Path("/"), 5.0, {}), "it ended with 1"),
        (HttpCall("http://x", 1.0, 1, None, Path("/nothing")), "there is no key file"),
    ],
)
async def test_a_hook_that_fails_says_nothing_about_a_release(
    world: World, hook: Hook, why: str
) -> None:
    outcome, child, said = await world.heals(hook)
    assert (outcome, child) == ("failed", None)
    assert why in said


async def test_whatever_a_hook_says_can_be_stored_and_shown(world: World) -> None:
    words = "\\033[2J" + "é" * 300
    shout = Command(("/bin/sh", "-c", f"printf '{words}'; exit 7"), Path("/"), 5.0, {})
    outcome, _, said = await world.heals(shout)
    assert outcome == "failed"
    assert "ended with 7" in said
    assert "é" in said
    assert "\x1b" not in said


async def test_a_result_that_cannot_be_written_yet_waits_and_calls_no_hook_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(healers, "AGAIN_S", 0.05)
    calls = world.folder / "calls"
    node = world.federation.node(EU)
    node.set_room(Room(10, 1000, 0, reserve_kept=True))
    asyncio.get_running_loop().call_later(
        0.6, lambda: node.set_room(Room(900, 1000, 0, reserve_kept=True))
    )
    hook = Command(("/bin/sh", "-c", f"echo x >> {calls}; exit 1"), Path("/"), 5.0, {})
    assert (await world.heals(hook))[0] == "failed"
    assert calls.read_text() == "x\n"


async def test_a_check_that_cannot_run_is_tried_again_and_is_no_verdict(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(healers, "AGAIN_S", 0.05)
    world.publish("v2", "1.0.1", golden_of="v2", answers=True)
    heldout, real = world.heldout(), confinement.PYTHON
    monkeypatch.setattr(confinement, "PYTHON", ("/bin/true",))
    asyncio.get_running_loop().call_later(
        0.5, lambda: monkeypatch.setattr(confinement, "PYTHON", real)
    )
    assert (await world.heals(HTTP, heldout=heldout))[0] == "passed"
