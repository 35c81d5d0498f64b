"""What a release needs and what a node has: yes, no or unknown, with a sentence for each need."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core.catalog.manifest import File, Manifest, Variant
from hanse.core.catalog.view import Release
from hanse.core.compat import check_format, check_requires, fit, looser
from hanse.core.errors import InvalidSpec
from hanse.core.fleet import FITS_KEPT, SHARE_FACT, Fleet
from hanse.core.ids import Digest, EventId, Segment, Version, segment

ORIN = {
    "formats": "onnx,tensorrt-plan",
    "os": "linux",
    "arch": "aarch64",
    "label.hardware": "jetson-orin",
    "mem.ram_mib": "7800",
    "ort": "1.32.0+cu12",
    "ort.providers": "CUDAExecutionProvider,CPUExecutionProvider",
    "onnx.ir": "10",
    "onnx.opset.ai.onnx": "21",
}
SIGNS = ["<", "<=", "==", "!=", ">", ">="]
PLAIN = {**ORIN, "formats": "onnx", "ort.providers": "CPUExecutionProvider"}


def released(*variants: tuple[str, str, dict[str, str]]) -> Manifest:
    file = File(segment("m.onnx"), Digest.of(b"m"), 1)
    listed = tuple(Variant(segment(n), form, file.name, needs) for n, form, needs in variants)
    return Manifest(Segment("m"), Version("1"), (file,), listed, (), ())


def chosen(facts: dict[str, str], *variants: tuple[str, str, dict[str, str]]) -> str:
    found = fit(released(*variants), facts)
    return found.variant.id if found.variant else found.why


def test_the_first_variant_that_fits_is_chosen() -> None:
    cuda = ("cuda", "onnx", {"ort.providers": "CUDAExecutionProvider", "hardware": "jetson-orin"})
    cpu = ("cpu", "onnx", {"ort": ">=1.17,<2"})
    assert chosen(ORIN, cuda, cpu) == "cuda"
    assert chosen(ORIN, cpu, cuda) == "cpu"
    assert chosen(PLAIN, cuda, cpu) == "cpu"


@pytest.mark.parametrize(
    ("key", "needs", "fits"),
    [
        ("os", "linux", True),
        ("os", "windows,linux", True),
        ("arch", "x86_64", False),
        ("hardware", "jetson-orin", True),
        ("hardware", "coral", False),
        ("mem.ram_mib", ">=7800", True),
        ("mem.ram_mib", ">7800", False),
        ("ort", ">=1.17,<2", True),
        ("ort", "==1.32", True),
        ("ort", "!=1.32.0", False),
        ("ort", "<1.32", False),
        ("ort.providers", "CPUExecutionProvider CUDAExecutionProvider", True),
        ("ort.providers", "TensorrtExecutionProvider", False),
        ("onnx.opset.ai.onnx", ">=21", True),
        ("onnx.opset.ai.onnx", ">=22", False),
        ("onnx.ir", ">=9", True),
    ],
)
def test_every_need_has_one_comparison(key: str, needs: str, fits: bool) -> None:
    said = chosen(ORIN, ("v", "onnx", {key: needs}))
    assert said == "v" if fits else said.startswith(f"v needs {key} {needs}, has ")


def test_whoever_does_not_say_what_it_has_is_not_tried() -> None:
    needs = ("v", "onnx", {"hardware": "orin", "onnx.opset.ai.onnx.ml": ">=3"})
    facts = {key: value for key, value in ORIN.items() if key != "label.hardware"}
    assert "hardware orin, and the node does not say" in chosen(facts, needs)
    assert "onnx.opset.ai.onnx.ml >=3, and the node does not say" in chosen(ORIN, needs)


def test_every_variant_that_does_not_fit_says_why() -> None:
    plan = ("trt", "tensorrt-plan", {})
    old = ("onnx", "onnx", {"ort": ">=1.33"})
    why = chosen(PLAIN, plan, old)
    assert why == (
        "trt is tensorrt-plan, which the node has no runtime for / "
        "onnx needs ort >=1.33, has 1.32.0+cu12"
    )
    assert chosen(ORIN, plan, old) == "trt"


def test_a_need_that_nobody_reports_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidSpec, match="nothing that nodes report") as caught:
        check_requires({"gpu.compute": ">=8"}, "manifest.variants[0].requires")
    assert "onnx.opset.NAME" in caught.value.fix
    for key, wanted in (("ort", "1.17"), ("ort", ">=1.17;<2"), ("os", ""), ("onnx.ir", ">=x")):
        with pytest.raises(InvalidSpec, match="cannot be read"):
            check_requires({key: wanted}, "requires")


@given(
    st.tuples(*[st.integers(0, 40)] * 3),
    st.lists(st.tuples(st.sampled_from(SIGNS), st.integers(0, 40))),
)
def test_a_range_means_what_it_says(has: tuple[int, ...], clauses: list[tuple[str, int]]) -> None:
    wanted = ",".join(f"{sign}{n}" for sign, n in clauses)
    facts = {**ORIN, "ort": ".".join(map(str, has))}
    truth = all(eval(f"{has} {sign} {(n, 0, 0)}") for sign, n in clauses)
    if clauses:
        assert (chosen(facts, ("v", "onnx", {"ort": wanted})) == "v") == truth


def test_a_node_that_says_something_new_each_time_fills_no_memory() -> None:
    fleet = Fleet()
    for i in range(20_000):
        fleet.watch(segment("liar"), {"label.n": str(i)}, 0.0)
        fleet.watch(segment("dock"), {"ort": "1.32.0"}, 0.0)
    assert len(fleet._kinds) < 3 * FITS_KEPT
    record = released(("v", "onnx", {"ort": ">=1.17"}))
    release = Release(
        Digest.of(b"r"), Version("1"), 1, record, 1, EventId(bytes(32)), segment("eu"), ("eu",)
    )
    assert [node.name for node in fleet.able(fleet.nodes.values(), release)] == ["dock"]


def test_nodes_that_differ_in_their_address_alone_are_alike() -> None:
    """Or every node of a fleet that shares would be judged for itself."""
    fleet = Fleet()
    for i in range(3):
        fleet.watch(segment(f"dock-{i}"), {"ort": "1.32.0", SHARE_FACT: f"10.0.0.{i}:80"}, 0.0)
    assert len({node.kind for node in fleet.nodes.values()}) == 1
    assert [node.share for node in fleet.nodes.values()] == [f"10.0.0.{i}:80" for i in range(3)]


JETSON = {
    **ORIN,
    "gpu.compute_capability": "8.7",
    "tensorrt": "10.3.0.30",
    "cuda": "12.6",
    "torch": "2.8.0+cu126",
    "mem.gpu_mib": "7620",
}


@pytest.mark.parametrize(
    ("key", "needs", "fits"),
    [
        ("gpu.compute_capability", "8.7", True),
        ("gpu.compute_capability", "8.6,8.9", False),
        ("tensorrt", "==10.3.0.30", True),
        ("tensorrt", ">=10.3,<10.4", True),
        ("tensorrt", "==11.4", False),
        ("cuda", ">=12,<13", True),
        ("torch", ">=2.8", True),
        ("mem.gpu_mib", ">=8000", False),
    ],
)
def test_what_an_owner_declares_of_a_machine_is_held_against_needs(
    key: str, needs: str, fits: bool
) -> None:
    said = chosen(JETSON, ("plan", "tensorrt-plan", {key: needs}))
    assert said == "plan" if fits else said.startswith(f"plan needs {key} {needs}, has ")
    assert "does not say what it has" in chosen(ORIN, ("plan", "tensorrt-plan", {key: needs}))


def test_a_plan_built_elsewhere_gives_way_to_the_next_variant() -> None:
    plan = ("trt", "tensorrt-plan", {"tensorrt": "==11.4.0", "gpu.compute_capability": "8.7"})
    assert chosen({**JETSON, "tensorrt": "11.4.0"}, plan, ("cpu", "onnx", {})) == "trt"
    assert chosen({**JETSON, "tensorrt": "11.3.0"}, plan, ("cpu", "onnx", {})) == "cpu"
    assert chosen({**JETSON, "formats": "onnx"}, plan, ("cpu", "onnx", {})) == "cpu"


@given(st.integers(0, 30), st.lists(st.tuples(st.sampled_from(SIGNS), st.integers(0, 30))))
def test_what_is_looser_than_a_file_could_be_met_by_a_node_that_cannot_load_it(
    needed: int, clauses: list[tuple[str, int]]
) -> None:
    wanted = ",".join(f"{sign}{n}" for sign, n in clauses)
    if clauses and not looser(wanted, f">={needed}"):
        for has in range(31):
            facts = {**ORIN, "ort": str(has)}
            if chosen(facts, ("v", "onnx", {"ort": wanted})) == "v":
                assert has >= needed


def test_a_format_that_is_bound_to_a_machine_says_to_which() -> None:
    whole = {"os": "linux", "gpu.compute_capability": "8.7", "tensorrt": "==10.3"}
    check_format("tensorrt-plan", whole, "v")
    check_format("onnx", {}, "v")
    for key in whole:
        with pytest.raises(InvalidSpec, match=key):
            check_format("tensorrt-plan", {k: v for k, v in whole.items() if k != key}, "v")
    with pytest.raises(InvalidSpec, match="torch"):
        check_format("torch-export", {}, "v")
