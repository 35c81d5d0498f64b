"""Swaps lose nothing, shadows delay nobody, errors are counted where they belong."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.audience import EVERYBODY, Audience, Rule
from hanse.core.catalog.manifest import Outcome, Tensor
from hanse.core.device_step import Route
from hanse.core.errors import InvalidSpec, NotFound, Unavailable
from hanse.core.ids import Digest, segment
from hanse.core.routing import bucket, shadow_salt, threshold
from hanse.core.telemetry import Pairs, Window
from hanse.core.watchdog import ERRORS_IN_A_ROW, GOOD_ANSWERS
from hanse.edge.comparators import Answer, Labels
from hanse.edge.inference import LoadedModel, ModelFailed
from hanse.edge.router import Router
from hanse.edge.served import Served
from hanse.edge.serving import RoutedServing
from hanse.edge.telemetry import Telemetry, key_of

OCR = segment("ocr-rec")
V1, V2, V3 = (Digest.of(v) for v in (b"1", b"2", b"3"))
FEEDS = {"x": np.zeros((1, 2), np.float32)}


class Session:
    """Answers its own version; fails, or waits, when told to."""

    def __init__(self, answer: int) -> None:
        self.answer = answer
        self.broken = False
        self.gate: threading.Event | None = None
        self.calls = 0
        self.seen: Callable[[str], None] = lambda _: None

    def run(self, names: list[str], feeds: Mapping[str, Any], _: Any = None) -> list[Any]:
        self.calls += 1
        self.seen(threading.current_thread().name)
        if self.gate is not None:
            assert self.gate.wait(5)
        if self.broken or feeds["x"][0, 0] == 666:
            raise ValueError("boom")
        return [np.array([self.answer + feeds["x"][0, 1]], np.float32)]


class Rounded(Labels):
    def read(self, outputs: Mapping[str, Any]) -> Answer:
        return self.truth(str(int(outputs["y"][0])))


COMPARE = Rounded(Outcome("label", "y"))


@dataclass
class Node:
    router: Router
    telemetry: Telemetry
    sessions: dict[Digest, Session] = field(default_factory=dict)
    trips: list[tuple[Digest, str]] = field(default_factory=list)
    proved: list[Digest] = field(default_factory=list)

    def add(self, release: Digest, answer: int) -> None:
        session = self.sessions[release] = Session(answer)
        model = LoadedModel(
            session,
            (Tensor("x", "FP32", (-1, 2)),),
            (Tensor("y", "FP32", (-1,)),),
            Rounded(Outcome("label", "y")),
        )
        self.router.add(OCR, Served(release, f"{answer}.0", model))

    async def ask(self, request_id: str = "", **more: Any) -> Any:
        arguments = {"version": None, "routing_key": "", "feeds": FEEDS, **more}
        return await self.router.infer("ocr-rec", request_id=request_id, **arguments)

    def window(self) -> Window:
        (window,) = self.telemetry.drain()
        return window


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    telemetry = Telemetry(memory_max=100)
    trips: list[tuple[Digest, str]] = []
    proved: list[Digest] = []
    router = Router(
        telemetry,
        shadows_max=4,
        on_trip=lambda _, release, reason: trips.append((release, reason)),
        on_proved=proved.append,
    )
    node = Node(router, telemetry, trips=trips, proved=proved)
    node.add(V1, 1)
    node.add(V2, 2)
    yield node
    await router.close()


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(1_000_000):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came true")


def canary(weight_bp: int = 0, shadow_bp: int = 0) -> Route:
    return Route(OCR, V1, V2, weight_bp, shadow_bp, "r-1", "r-1", 1)


def unit_where(wanted: Callable[[str], bool]) -> str:
    return next(unit for unit in map(str, range(10_000)) if wanted(unit))


async def test_the_bucket_alone_decides_who_sees_the_canary(node: Node) -> None:
    node.router.swap(canary(weight_bp=2000))
    for unit in map(str, range(60)):
        answer = await node.ask(routing_key=unit)
        inside = bucket("r-1", unit) < threshold(2000)
        assert (answer.role, answer.release) == (("canary", V2) if inside else ("stable", V1))
        assert answer.rollout == "r-1"
    window = node.window()
    assert window.stable.requests + window.canary.requests == 60
    assert window.key == ("ocr-rec", "r-1", 1, 2000, 0)
    assert sum(window.stable.latency.values()) == window.stable.requests


async def test_nobody_answers_before_a_route_and_the_reason_is_told(node: Node) -> None:
    with pytest.raises(NotFound, match="not assigned"):
        await node.ask()
    node.router.swap(Route(OCR, generation=1))
    with pytest.raises(Unavailable, match="ready"):
        await node.ask()
    node.router.swap(Route(OCR))
    with pytest.raises(NotFound):
        await node.ask()


async def test_an_explicit_version_bypasses_the_split_and_is_counted_apart(node: Node) -> None:
    node.router.swap(canary(weight_bp=0))
    for version in ("2.0", str(V2)):
        answer = await node.ask(version=version)
        assert (answer.release, answer.role) == (V2, "explicit")
    assert node.telemetry.drain() == ()
    assert [(s.version, s.answers) for s in node.router.loaded(OCR)] == [("1.0", 0), ("2.0", 2)]
    with pytest.raises(NotFound, match=r"9\.9"):
        await node.ask(version="9.9")


async def test_a_request_finishes_on_the_release_that_it_took(node: Node) -> None:
    node.router.swap(Route(OCR, V1, generation=1))
    gate = node.sessions[V1].gate = threading.Event()
    slow = asyncio.create_task(node.ask("slow"))
    await until(lambda: node.sessions[V1].calls > 0)
    node.router.swap(Route(OCR, V2, generation=2))
    node.router.remove(V1)
    assert (await node.ask()).release == V2
    gate.set()
    assert (await slow).release == V1


async def test_a_shadow_neither_answers_nor_delays(node: Node) -> None:
    node.router.swap(canary(shadow_bp=10_000))
    gate = node.sessions[V2].gate = threading.Event()
    for i in range(3):
        assert (await node.ask(f"r{i}")).release == V1  # while the shadow hangs
    gate.set()
    await node.router.shadows_done()
    window = node.window()
    assert (window.stable.requests, window.canary.requests, window.shadow.requests) == (3, 0, 3)
    assert window.pairs == Pairs(disagree=3, distances={32: 3}, confusion={"1>2": 3})


async def test_a_full_shadow_queue_drops_the_oldest_and_counts(node: Node) -> None:
    node.router.swap(canary(shadow_bp=10_000))
    gate = node.sessions[V2].gate = threading.Event()
    await node.ask("first")
    await until(lambda: node.sessions[V2].calls > 0)
    for i in range(10):
        await node.ask(f"r{i}")
    gate.set()
    await node.router.shadows_done()
    window = node.window()
    assert (window.pairs.dropped, window.shadow.requests) == (6, 5)


async def test_the_shadow_sample_is_not_the_canary_sample(node: Node) -> None:
    node.router.swap(canary(weight_bp=5000, shadow_bp=5000))
    unit = unit_where(
        lambda u: (
            bucket("r-1", u) >= threshold(5000) and bucket(shadow_salt("r-1"), u) < threshold(5000)
        )
    )
    await node.ask(routing_key=unit)
    await node.router.shadows_done()
    assert node.window().shadow.requests == 1


async def test_a_failing_canary_costs_the_caller_nothing_and_trips(node: Node) -> None:
    node.router.swap(canary(weight_bp=10_000))
    node.sessions[V2].broken = True
    for _ in range(ERRORS_IN_A_ROW):
        answer = await node.ask()
        assert (answer.release, answer.role) == (V1, "fallback")
    assert [release for release, _ in node.trips] == [V2]
    window = node.window()
    assert (window.canary.requests, window.canary.errors) == (5, 5)
    assert window.stable.requests == 0


async def test_a_failing_new_release_trips_and_its_callers_get_the_good_one(node: Node) -> None:
    node.router.swap(Route(OCR, V2, generation=2, fallback=V1))
    node.sessions[V2].broken = True
    for _ in range(ERRORS_IN_A_ROW):
        assert (await node.ask()).release == V1
    assert [release for release, _ in node.trips] == [V2]
    assert "boom" in node.trips[0][1]


async def test_errors_with_a_good_answer_between_do_not_trip(node: Node) -> None:
    node.router.swap(canary(weight_bp=10_000))
    for i in range(4 * ERRORS_IN_A_ROW):
        node.sessions[V2].broken = i % ERRORS_IN_A_ROW != 0
        await node.ask()
    assert node.trips == []


async def test_an_input_on_which_the_good_release_fails_too_is_not_the_candidates_fault(
    node: Node,
) -> None:
    node.router.swap(canary(weight_bp=10_000))
    poison = {"x": np.array([[666, 0]], np.float32)}
    for _ in range(2 * ERRORS_IN_A_ROW):
        with pytest.raises(ModelFailed):
            await node.ask(feeds=poison)
    assert node.trips == []
    assert node.window().canary.errors == 2 * ERRORS_IN_A_ROW


async def test_a_failing_shadow_trips_although_nobody_saw_it(node: Node) -> None:
    node.router.swap(canary(shadow_bp=10_000))
    node.sessions[V2].broken = True
    for i in range(ERRORS_IN_A_ROW):
        await node.ask(f"r{i}")
        await node.router.shadows_done()
    assert [release for release, _ in node.trips] == [V2]
    assert node.window().shadow.errors == ERRORS_IN_A_ROW


async def test_a_release_that_proved_itself_is_not_tripped_by_a_bad_moment(node: Node) -> None:
    node.router.swap(Route(OCR, V2, generation=2, fallback=V1))
    for _ in range(GOOD_ANSWERS):
        await node.ask()
    assert node.proved == [V2]
    node.sessions[V2].broken = True
    for _ in range(ERRORS_IN_A_ROW):
        await node.ask()
    assert node.trips == []


async def test_a_wrong_request_is_nobodys_error(node: Node) -> None:
    node.router.swap(Route(OCR, V1, generation=1))
    with pytest.raises(InvalidSpec):
        await node.ask(feeds={})
    with pytest.raises(InvalidSpec, match="unknown"):
        await node.ask(outputs=["z"])
    assert node.telemetry.drain() == ()


async def test_slow_answers_are_counted_against_the_assigned_bound(node: Node) -> None:
    node.router.swap(Route(OCR, V1, generation=1, slow_ms=1))
    await node.ask()
    gate = node.sessions[V1].gate = threading.Event()
    asyncio.get_running_loop().call_later(0.01, gate.set)
    await node.ask()
    window = node.window()
    assert window.stable.slow >= 1
    assert window.stable.requests == 2


@pytest.mark.parametrize("order", ["label last", "label first"])
async def test_a_label_is_joined_whenever_it_comes(node: Node, order: str) -> None:
    node.router.swap(canary(shadow_bp=10_000))
    gate = node.sessions[V2].gate = threading.Event()
    await node.ask("a")
    if order == "label first":
        assert node.telemetry.label("ocr-rec", [("a", "1"), ("zz", "1")]) == (1, 1)
    gate.set()
    await node.router.shadows_done()
    if order == "label last":
        assert node.telemetry.label("ocr-rec", [("a", "1"), ("zz", "1")]) == (1, 1)
    assert node.telemetry.label("ocr-rec", [("a", "2")]) == (1, 0)  # the first one counts
    window = node.window()
    assert (window.stable.labelled, window.stable.wrong) == (1, 0)
    assert (window.shadow.labelled, window.shadow.wrong) == (1, 1)
    assert window.pairs == Pairs(
        disagree=1,
        only_old_right=1,
        differences={64: 1},
        distances={32: 1},
        confusion={"1>2": 1},
    )


async def test_a_late_label_counts_for_the_arm_and_window_that_answered(node: Node) -> None:
    old = canary(weight_bp=10_000)
    node.router.swap(old)
    await node.ask("a")
    assert node.window().canary.requests == 1
    node.router.swap(Route(OCR, V1, generation=2))
    node.telemetry.label("ocr-rec", [("a", "1")])
    window = node.window()
    assert window.key == key_of(old)
    assert (window.canary.requests, window.canary.labelled, window.canary.wrong) == (0, 1, 1)


def test_the_memory_forgets_the_oldest() -> None:
    telemetry = Telemetry(memory_max=2)
    key = key_of(canary())
    for i in range(3):
        telemetry.remember(f"r{i}", key, "stable", COMPARE, Answer("x"))
    assert telemetry.label("ocr-rec", [("r0", "x"), ("r1", "x"), ("r2", "x")]) == (2, 1)


@pytest.mark.parametrize(("shadow", "pair"), [("a", "both_right"), ("b", "only_old_right")])
def test_pairs_are_told_apart(shadow: str, pair: str) -> None:
    telemetry, key = Telemetry(), key_of(canary())
    for request_id, answer in (("r", "a"), ("s", "c")):
        telemetry.remember(request_id, key, "stable", COMPARE, Answer(answer))
        telemetry.shadowed(key, request_id, COMPARE, Answer(answer), Answer(shadow))
        telemetry.label("ocr-rec", [(request_id, "a")])
    (window,) = telemetry.drain()
    assert getattr(window.pairs, pair) == 1
    assert window.pairs.only_new_right + window.pairs.both_wrong == 1


async def test_a_hundred_swaps_under_load_lose_nothing(node: Node) -> None:
    node.router.swap(Route(OCR, V1, generation=0))
    stop = asyncio.Event()
    seen: Counter[Digest] = Counter()

    async def caller(name: int) -> int:
        asked = 0
        while not stop.is_set():
            seen[(await node.ask(f"{name}/{asked}")).release] += 1
            asked += 1
        return asked

    callers = [asyncio.create_task(caller(i)) for i in range(8)]
    for generation in range(100):
        before = sum(seen.values())
        node.router.swap(Route(OCR, V2 if generation % 2 else V1, generation=generation))
        await until(lambda: sum(seen.values()) >= before + 3)  # noqa: B023  # awaited at once
    stop.set()
    asked = sum(await asyncio.gather(*callers))
    windows = node.telemetry.drain()
    assert asked == sum(seen.values()) == sum(w.stable.requests for w in windows)
    assert sum(w.stable.errors for w in windows) == 0
    assert seen[V1] > 50
    assert seen[V2] > 50


async def test_a_quick_model_is_not_sent_to_a_thread_and_a_large_input_is(node: Node) -> None:
    node.router.swap(Route(OCR, V1, generation=1))
    for _ in range(200):
        await node.ask()
    (served, _) = node.router.loaded("ocr-rec")
    served.computed_ns = 1  # whatever this machine is busy with
    threads: list[str] = []
    node.sessions[V1].seen = threads.append
    await node.ask()
    await node.ask(feeds={"x": np.zeros((10_000, 2), np.float32)})
    assert threads[0] == threading.main_thread().name
    assert threads[1].startswith("infer")


async def test_a_first_release_with_all_traffic_is_the_default(node: Node) -> None:
    node.router.swap(Route(OCR, None, V2, 5_000, 0, "r-1", "r-1", 1))
    assert node.router.entry("ocr-rec").default is None
    node.router.swap(Route(OCR, None, V2, 10_000, 0, "r-1", "r-1", 1))
    default = node.router.entry("ocr-rec").default
    assert default is not None
    assert default.release == V2
    assert node.router.loaded("ocr-rec")[0] is default


# -- whom a rollout is for ------------------------------------------------------------------

DOCKS = Audience("customer", (Rule("device", "in", ("dock",)),))


async def test_who_is_outside_the_audience_is_answered_as_before_and_is_in_neither_arm(
    node: Node,
) -> None:
    node.router.swap(replace(canary(weight_bp=5000, shadow_bp=10_000), audience=DOCKS))
    for i in range(40):
        inside = {"device": "dock", "customer": f"c{i}"}
        answer = await node.ask(f"in-{i}", context=inside)
        drawn = bucket("r-1", f"c{i}") < threshold(5000)
        assert answer.release == (V2 if drawn else V1)
    for i, context in enumerate(
        ({"device": "gate", "customer": "c"}, {"device": "dock"}, {"customer": "c"}, {})
    ):
        answer = await node.ask(f"out-{i}", context=context)
        assert (answer.role, answer.release) == ("stable", V1)
        node.telemetry.label("ocr-rec", [(f"out-{i}", "1")])
    await node.router.shadows_done()
    windows = {w.rollout: w for w in node.telemetry.drain()}
    assert windows["r-1"].stable.requests + windows["r-1"].canary.requests == 40
    assert windows["r-1"].stable.labelled == 0
    assert windows[""].stable.requests == windows[""].stable.labelled == 4
    mirrored = windows["r-1"].shadow.requests + windows["r-1"].pairs.dropped
    assert mirrored == windows["r-1"].stable.requests


async def test_a_nodes_own_labels_stand_under_what_a_request_says(node: Node) -> None:
    node.router._labels = {"device": "dock"}
    node.router.swap(replace(canary(weight_bp=10_000), audience=Audience("", DOCKS.target)))
    assert (await node.ask("a")).role == "canary"
    assert (await node.ask("a", context={"device": "gate"})).role == "stable"


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from([EVERYBODY, DOCKS, Audience("customer"), Audience("", DOCKS.target)]),
    st.text(min_size=1, max_size=12),
    st.dictionaries(st.sampled_from(["device", "customer", "page"]), st.sampled_from("abc")),
    st.booleans(),
)
async def test_who_only_asks_is_told_what_who_infers_is_answered_by(
    weight: int, audience: Audience, unit: str, context: dict[str, str], dock: bool
) -> None:
    router = Router(Telemetry())
    node = Node(router, router._telemetry)
    node.add(V1, 1)
    node.add(V2, 2)
    router.swap(replace(canary(weight), audience=audience))
    context |= {"device": "dock"} if dock else {}
    told = RoutedServing(router).choose("ocr-rec", unit, context)
    answer = await node.ask(routing_key=unit, context=context)
    assert (told.release, told.version, told.role) == (answer.release, answer.version, answer.role)
    (counted,) = node.telemetry.drain()
    assert (counted.rollout == "") == (told.reason == "target")
    assert counted.stable.requests + counted.canary.requests == 1, "asking counts nothing"
    await router.close()
