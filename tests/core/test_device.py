"""What an edge node decides, told as short histories of stimulus and effect."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.assignment import Assignment, ModelAssignment, Source
from hanse.core.catalog.manifest import File, Manifest, Tensor, Variant
from hanse.core.device import STARTS_MAX, Device
from hanse.core.device_memory import parse_memory
from hanse.core.device_step import DeviceStep, Effect, Fetch, Forget, Load, Route
from hanse.core.errors import NotPermitted, Rejected
from hanse.core.ids import Digest, Version, segment
from hanse.core.slots import ANSWERS, State

ACME, EU, OCR = segment("acme"), segment("eu-north"), segment("ocr-rec")
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def manifest(version: str) -> Manifest:
    return Manifest(
        OCR,
        Version(version),
        (File(segment("model.onnx"), Digest.of(version.encode()), 10),),
        (Variant(segment("onnx"), "onnx", segment("model.onnx")),),
        (Tensor("x", "FP32", (-1, 4)),),
        (Tensor("y", "FP32", (-1,)),),
    )


RAW = {v: manifest(v).encode() for v in ("1.0", "2.0", "3.0", "4.0")}
V1, V2, V3, V4 = (Digest.of(raw) for raw in RAW.values())
BY_DIGEST = {Digest.of(raw): raw for raw in RAW.values()}
NAME = {V1: "v1", V2: "v2", V3: "v3", V4: "v4", None: "-"}


def wish(serial: int, *, epoch: int = 1, **fields: object) -> bytes:
    model = replace(ModelAssignment(OCR, rollout="r-1", generation=1, salt="s"), **fields)  # type: ignore[arg-type]  # the tests choose fields by name
    sources = (Source("far:1", segment("ap"), PEM), Source("near:1", EU, PEM))
    releases = {d: BY_DIGEST[d] for d in model.named}
    return Assignment(ACME, EU, epoch, serial, (model,), releases, sources).encode()


def told(step: DeviceStep) -> list[str]:
    return [_told(effect) for effect in step.effects]


def _told(effect: Effect) -> str:
    if isinstance(effect, Route):
        share = f" {effect.weight_bp}+{effect.shadow_bp}" if effect.candidate else ""
        return f"route {NAME[effect.stable]}/{NAME[effect.candidate]}{share}"
    return f"{type(effect).__name__.lower()} {NAME[effect.release]}"


class Node:
    """A device whose fetches and loads succeed at once, unless told otherwise."""

    def __init__(self) -> None:
        self.disk: set[Digest] = set()
        self.stored: bytes | None = None
        self.history: list[str] = []
        self.unreachable = False
        self.unfit: set[Digest] = set()
        self.now = 0.0
        self.device = Device(ACME, EU)

    def start(self) -> None:
        self.device, step = Device.restore(ACME, EU, self.stored, self.disk, self.now)
        self.carry_out(step)

    def assign(self, raw: bytes) -> list[str]:
        begin = len(self.history)
        self.carry_out(self.device.assign(raw, self.now))
        return self.history[begin:]

    def carry_out(self, step: DeviceStep) -> None:
        if step.store is not None:
            self.stored = step.store
        self.history += told(step)
        for effect in step.effects:
            self._carry_out(effect)

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, Fetch):
            if self.unreachable:
                self.carry_out(
                    self.device.fetch_failed(
                        effect.release, "no source", self.now, transient=True, jitter=0.5
                    )
                )
            else:
                self.disk.add(effect.release)
                self.carry_out(self.device.fetched(effect.release, self.now))
        elif isinstance(effect, Load):
            if effect.release in self.unfit:
                self.carry_out(self.device.load_failed(effect.release, "golden: y", self.now))
            else:
                self.carry_out(self.device.loaded(effect.release, self.now))
        elif isinstance(effect, Forget):
            self.disk.discard(effect.release)

    @property
    def answers(self) -> str:
        model = self.device.report()[0]
        return NAME[model.running]


def on_v2_with_v1_warm() -> Node:
    node = Node()
    node.assign(wish(1, active=V1, last_good=(V1,)))
    node.assign(wish(2, active=V2, last_good=(V1,)))
    assert node.answers == "v2"
    return node


def test_a_release_answers_only_after_fetch_verify_load_and_golden() -> None:
    device = Device(ACME, EU)
    assert told(device.assign(wish(1, active=V1), 0.0)) == ["route -/-", "fetch v1"]
    assert told(device.fetched(V1, 0.0)) == ["load v1"]
    assert device.report()[0].running is None
    assert told(device.loaded(V1, 0.0)) == ["route v1/-"]


def test_steps_out_of_turn_change_nothing() -> None:
    device = Device(ACME, EU)
    device.assign(wish(1, active=V1), 0.0)
    assert told(device.loaded(V1, 0.0)) == ["unload v1"]  # nobody asked for this load
    device.fetched(V1, 0.0)
    assert device.fetched(V1, 0.0) == DeviceStep()
    assert device.lost(V4, 0.0) == DeviceStep()
    assert device.report()[0].running is None


def test_a_canary_and_its_shadow_begin_only_when_it_is_ready() -> None:
    node = Node()
    node.assign(wish(1, active=V1, last_good=(V1,)))
    history = node.assign(
        wish(2, active=V1, candidate=V2, weight_bp=500, shadow_bp=1000, last_good=(V1,))
    )
    assert history == ["fetch v2", "load v2", "route v1/v2 500+1000"]


def test_an_older_assignment_is_a_no_op_and_a_new_epoch_is_not() -> None:
    node = on_v2_with_v1_warm()
    assert node.assign(wish(2, active=V1, last_good=(V1,))) == []
    assert node.assign(wish(1, active=V1, last_good=(V1,))) == []
    assert node.answers == "v2"
    node.assign(wish(0, epoch=2, active=V1, last_good=(V1,)))
    assert node.answers == "v1"
    assert node.assign(wish(9, epoch=1, active=V2, last_good=(V1,))) == []


def test_another_regions_assignment_is_refused() -> None:
    device = Device(ACME, segment("ap"))
    with pytest.raises(NotPermitted, match="ap"):
        device.assign(wish(1, active=V1), 0.0)
    assert device.assignment is None


def test_what_ran_keeps_answering_until_the_assigned_release_is_ready() -> None:
    node = Node()
    node.assign(wish(1, active=V1))
    node.unreachable = True
    node.assign(wish(2, active=V2))
    assert node.answers == "v1"
    assert node.device.report()[0].interim
    assert node.device.tick(0.1) == DeviceStep()
    node.unreachable, node.now = False, 10.0
    node.carry_out(node.device.tick(10.0))
    assert node.answers == "v2"
    assert not node.device.report()[0].interim
    assert V1 not in node.disk


def test_a_failed_fetch_is_repeated_with_doubling_jittered_waits() -> None:
    device = Device(ACME, EU)
    device.assign(wish(1, active=V1), 0.0)
    waits, now = [], 0.0
    for _ in range(12):
        device.fetch_failed(V1, "no source", now, transient=True, jitter=0.5)
        begin = now
        while not (step := device.tick(now)).effects:
            now += 0.25
        assert told(step) == ["fetch v1"]
        waits.append(now - begin)
    assert waits[:5] == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert max(waits) == 120.0


def test_new_sources_are_tried_at_once() -> None:
    device = Device(ACME, EU)
    device.assign(wish(1, active=V1), 0.0)
    device.fetch_failed(V1, "no source", 0.0, transient=True, jitter=0.9)
    raw = wish(2, active=V1)
    assert told(device.assign(raw, 0.0)) == []
    fewer = Assignment(
        ACME,
        EU,
        1,
        3,
        device.assignment.models,
        dict(device.assignment.releases),
        (),  # type: ignore[union-attr]  # assigned above
    )
    assert told(device.assign(fewer.encode(), 0.0)) == ["fetch v1"]


def test_the_nearest_source_is_asked_first_and_a_dead_one_last() -> None:
    device = Device(ACME, EU)
    device.measured("far:1", 0.2)
    device.measured("near:1", 0.001)
    device.assign(wish(1, active=V1), 0.0)
    assert [s.address for s in device.sources()] == ["near:1", "far:1"]
    device.measured("near:1", None)
    assert [s.address for s in device.sources()] == ["far:1", "near:1"]


def test_a_barred_release_is_left_in_the_same_step_for_the_warm_one() -> None:
    node = on_v2_with_v1_warm()
    step = node.device.assign(wish(3, active=V2, last_good=(V1,), barred=(V2,)), 0.0)
    assert told(step)[:2] == ["route v1/-", "unload v2"]
    assert step.store is not None


def test_a_barred_release_is_left_even_if_nothing_else_can_answer() -> None:
    node = Node()
    node.assign(wish(1, active=V1))
    assert node.assign(wish(2, active=V1, barred=(V1,)))[0] == "route -/-"


def test_a_barred_candidate_gets_no_request() -> None:
    node = Node()
    node.assign(wish(1, active=V1, candidate=V2, weight_bp=500, last_good=(V1,)))
    told = node.assign(
        wish(2, active=V1, candidate=V2, weight_bp=500, last_good=(V1,), barred=(V2,))
    )
    assert told == ["route v1/-", "unload v2", "forget v2"]


def test_the_watchdog_swaps_to_the_warm_release_and_denies_the_generation() -> None:
    node = on_v2_with_v1_warm()
    step = node.device.tripped(OCR, V2, "5 errors in a row", 0.0)
    assert told(step) == ["route v1/-", "unload v2"]
    node.carry_out(step)
    report = node.device.report()[0]
    assert report.interim
    assert report.failed == {V2: "5 errors in a row"}
    node.assign(wish(3, active=V2, last_good=(V1,)))
    assert node.answers == "v1"
    node.assign(wish(4, active=V2, generation=2, last_good=(V1,)))
    assert node.answers == "v2"


def test_a_tripped_canary_gives_its_share_back() -> None:
    node = Node()
    node.assign(wish(1, active=V1, candidate=V2, weight_bp=500, last_good=(V1,)))
    assert told(node.device.tripped(OCR, V2, "NaN", 0.0)) == ["route v1/-", "unload v2"]


def test_the_watchdog_never_swaps_to_silence() -> None:
    node = Node()
    node.assign(wish(1, active=V1))
    assert node.device.tripped(OCR, V1, "errors", 0.0) == DeviceStep()
    assert node.answers == "v1"


def test_the_watchdog_ignores_what_is_not_routed_to() -> None:
    node = on_v2_with_v1_warm()
    assert node.device.tripped(OCR, V1, "late", 0.0) == DeviceStep()


def test_unfit_releases_are_reported_and_not_retried_in_their_generation() -> None:
    node = Node()
    node.unfit = {V2}
    node.assign(wish(1, active=V1, last_good=(V1,)))
    node.assign(wish(2, active=V2, last_good=(V1,)))
    assert node.answers == "v1"
    assert node.device.report()[0].failed == {V2: "golden: y"}
    assert node.assign(wish(3, active=V2, last_good=(V1,))) == []
    assert node.device.tick(1e6) == DeviceStep()
    assert "load v2" in node.assign(wish(4, active=V2, generation=2, last_good=(V1,)))


def test_a_manifest_that_cannot_be_read_fails_that_release_alone() -> None:
    odd = b'{"schema":9}'
    model = ModelAssignment(OCR, V1, Digest.of(odd), "r", 1, last_good=(V1,))
    releases = {V1: BY_DIGEST[V1], Digest.of(odd): odd}
    node = Node()
    node.assign(Assignment(ACME, EU, 1, 1, (model,), releases).encode())
    assert node.answers == "v1"
    assert "manifest" in node.device.report()[0].failed[Digest.of(odd)]


def test_a_release_that_no_variant_of_fits_is_never_fetched_nor_swapped_to() -> None:
    big = replace(manifest("1.0"), version=Version("5.0"))
    big = replace(big, variants=(replace(big.variants[0], requires={"mem.ram_mib": ">=9000"}),))
    raw = big.encode()
    facts, releases = {"mem.ram_mib": "512"}, {V1: BY_DIGEST[V1], Digest.of(raw): raw}
    node = Node()
    node.device = Device(ACME, EU, facts)
    node.assign(wish(1, active=V1))

    def wanted(serial: int, generation: int, **fields: object) -> bytes:
        model = ModelAssignment(OCR, generation=generation, last_good=(V1,), **fields)  # type: ignore[arg-type]  # chosen by name
        return Assignment(ACME, EU, 1, serial, (model,), releases).encode()

    for serial, more in ((2, {"active": V1, "candidate": Digest.of(raw)}), (3, {})):
        happened = node.assign(wanted(serial, serial, **{"active": Digest.of(raw)} | more))
        assert set(happened) <= {"route v1/-"}
        assert node.answers == "v1"
        report = node.device.report()[0]
        assert report.failed == {
            Digest.of(raw): "cannot run it: onnx needs mem.ram_mib >=9000, has 512"
        }
    node.device, step = Device.restore(ACME, EU, node.stored, node.disk, 0.0, facts)
    node.carry_out(step)
    assert node.answers == "v1"


def test_a_release_of_another_model_is_never_routed_to() -> None:
    model = ModelAssignment(segment("fraud"), V1, generation=1)
    device = Device(ACME, EU)
    step = device.assign(Assignment(ACME, EU, 1, 1, (model,), {V1: BY_DIGEST[V1]}).encode(), 0.0)
    assert told(step) == ["route -/-"]


def test_a_restart_serves_the_last_good_from_disk_without_network() -> None:
    node = on_v2_with_v1_warm()
    node.unreachable = True
    node.carry_out(node.device.tripped(OCR, V2, "NaN", 0.0))
    node.history.clear()
    node.start()
    assert node.answers == "v1"
    assert "route v1/-" in node.history
    assert not any(line.startswith("fetch") for line in node.history)
    assert node.device.report()[0].failed == {V2: "NaN"}


def test_a_restart_serves_what_ran_although_the_assignment_no_longer_names_it() -> None:
    node = Node()
    node.assign(wish(1, active=V1))
    node.unreachable = True
    node.assign(wish(2, active=V2))
    node.start()
    assert node.answers == "v1"


def test_files_lost_on_disk_are_fetched_again() -> None:
    device = Device(ACME, EU)
    device.assign(wish(1, active=V1), 0.0)
    device.fetched(V1, 0.0)
    assert told(device.lost(V1, 0.0)) == ["fetch v1"]


def test_what_answers_from_memory_answers_on_while_its_files_are_fetched_again() -> None:
    node = on_v2_with_v1_warm()
    node.unreachable = True
    begin = len(node.history)
    node.carry_out(node.device.lost(V2, node.now))
    assert node.history[begin:] == ["fetch v2"]
    assert (node.answers, node.device.state(V2)) == ("v2", State.WORN)
    node.unreachable = False
    node.now += 200.0
    node.carry_out(node.device.tick(node.now))
    assert node.history[begin:] == ["fetch v2", "fetch v2"]
    assert (node.answers, node.device.state(V2)) == ("v2", State.READY)


def test_what_cannot_be_mended_answers_on_and_is_not_asked_for_again() -> None:
    device = Device(ACME, EU)
    device.assign(wish(1, active=V1), 0.0)
    device.fetched(V1, 0.0)
    device.loaded(V1, 0.0)
    assert told(device.lost(V1, 0.0)) == ["fetch v1"]
    assert told(device.fetch_failed(V1, "too large", 0.0, transient=False, jitter=0.5)) == []
    assert (device.report()[0].running, device.state(V1)) == (V1, State.READY)


@pytest.mark.parametrize("mending", [False, True])
def test_what_is_unloaded_while_its_files_are_gone_is_loaded_from_new_ones(mending: bool) -> None:
    node = on_v2_with_v1_warm()
    device = node.device
    device.lost(V1, 0.0)
    if not mending:
        device.fetch_failed(V1, "no source", 0.0, transient=True, jitter=0.5)
    step = device.assign(wish(3, active=V3, last_good=(V2, V1)), 0.0)
    assert "unload v1" in told(step)
    assert device.state(V1) is (State.FETCHING if mending else State.ABSENT)


def test_a_release_that_kills_the_node_is_found_by_counting_starts() -> None:
    node = on_v2_with_v1_warm()
    for _ in range(STARTS_MAX):
        node.start()
    assert node.answers == "v1"
    assert "did not survive" in node.device.report()[0].failed[V2]


def test_clean_stops_and_proven_releases_do_not_count_as_crashes() -> None:
    node = on_v2_with_v1_warm()
    for _ in range(2 * STARTS_MAX):
        node.carry_out(node.device.stopping())
        node.start()
    assert node.answers == "v2"
    node.carry_out(node.device.proved(V2, 0.0))
    for _ in range(2 * STARTS_MAX):
        node.start()
    assert node.answers == "v2"


def test_a_model_that_is_no_longer_assigned_stops_and_frees_its_disk() -> None:
    node = Node()
    node.assign(wish(1, active=V1))
    history = node.assign(Assignment(ACME, EU, 1, 2).encode())
    assert history == ["route -/-", "unload v1", "forget v1"]
    assert node.device.state(V1) is State.ABSENT


def test_a_damaged_memory_is_refused() -> None:
    node = on_v2_with_v1_warm()
    assert node.stored is not None
    with pytest.raises(Rejected):
        parse_memory(node.stored[:-10])


RELEASES = st.sampled_from([V1, V2, V3, V4])


@st.composite
def assignments(draw: st.DrawFn) -> dict[str, object]:
    candidate = draw(st.none() | RELEASES)
    return {
        "active": draw(st.none() | RELEASES),
        "candidate": candidate,
        "weight_bp": draw(st.sampled_from([0, 500, 10_000])) if candidate else 0,
        "generation": draw(st.integers(1, 3)),
        "last_good": tuple(draw(st.lists(RELEASES, max_size=2, unique=True))),
        "barred": tuple(draw(st.lists(RELEASES, max_size=2, unique=True))),
    }


EVENTS = st.one_of(
    st.tuples(st.just("assign"), assignments()),
    st.tuples(st.just("trip"), RELEASES),
    st.tuples(st.just("unfit"), RELEASES),
    st.tuples(st.just("lost"), RELEASES),
    st.tuples(st.just("cut"), st.booleans()),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("tick"), st.none()),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS, max_size=14))
def test_whatever_happens_only_ready_and_permitted_releases_answer(
    events: list[tuple[str, object]],
) -> None:
    node = Node()
    node.start()
    serial = 0
    for kind, value in events:
        before = {m.model: m.running for m in node.device.report()}
        if kind == "assign":
            assert isinstance(value, dict)
            serial += 1
            node.assign(wish(serial, **value))
        elif kind == "trip":
            assert isinstance(value, Digest)
            node.carry_out(node.device.tripped(OCR, value, "trip", node.now))
        elif kind == "unfit":
            assert isinstance(value, Digest)
            node.unfit ^= {value}
        elif kind == "lost":
            assert isinstance(value, Digest)
            node.disk.discard(value)
            node.carry_out(node.device.lost(value, node.now))
        elif kind == "cut":
            node.unreachable = bool(value)
        elif kind == "restart":
            node.start()
        else:
            node.now += 200.0
            node.carry_out(node.device.tick(node.now))
        _check(node, kind, before)


def _check(node: Node, kind: str, before: dict[object, Digest | None]) -> None:
    assert node.device.assignment is not None or not node.device.report()
    for report in node.device.report():
        assert node.device.assignment is not None
        plan = node.device.assignment.models[0]
        route = next(r for r in node.device._routes.values())
        for release in (route.stable, route.candidate):
            if release is not None:
                assert release not in plan.barred
                assert release not in report.failed
                assert node.device.state(release) in ANSWERS
                assert release in node.disk or node.device.state(release) is not State.READY
        if kind in ("cut", "tick", "unfit", "lost") and before.get(OCR):
            assert report.running is not None, "silence came from no news"
        settled = node.device.tick(node.now)
        assert node.unreachable or settled == DeviceStep(), "settling twice gave something new"
