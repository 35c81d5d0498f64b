"""Model files that are fine, and model files that are bad in one way each."""

from __future__ import annotations

import pickle
import zipfile
from functools import partial
from pathlib import Path

import onnx
import pytest
from crafted import external, model, saved
from onnx import TensorProto, helper

from hanse.artefacts.onnx_walk import check_beside
from hanse.cli.manifest_builder import _size
from hanse.core.catalog.manifest import Tensor
from hanse.core.errors import InvalidSpec, NotFound, Rejected
from hanse.daemon import inspection
from hanse.daemon.onnx_file import Inspection, examine


def inspect(path: Path, *, wall_s: float = inspection.WALL_S) -> Inspection:
    """In a process of its own, without files beside it."""
    name = path.name
    return inspection.inspect_files({name: path}, {name: "onnx"}, wall_s=wall_s)[name]


def looked_at(path: Path) -> Inspection:
    """In this process, with the files beside it, as they are published from a folder."""
    with path.open("rb") as file:
        found = examine(file, path.name)
    check_beside(path.name, found.external, partial(_size, path.parent))
    return found


def test_a_good_file_tells_its_needs_and_its_signature(tmp_path):
    path = saved(model(), tmp_path)
    found = inspect(path)
    assert found.requires == {"onnx.ir": ">=9", "onnx.opset.ai.onnx": ">=17"}
    assert found.inputs == (Tensor("x", "FP32", (-1, 4)),)  # the weight is no input
    assert found.outputs == (Tensor("y", "FP32", (-1, 4)),)
    assert found == looked_at(path)


def test_an_operator_set_of_the_future_is_recorded(tmp_path):
    assert inspect(saved(model(opset=99), tmp_path)).opsets == {"ai.onnx": 99}


def test_an_unknown_operator_domain_is_refused_by_name(tmp_path):
    with pytest.raises(InvalidSpec, match=r"com\.acme"):
        inspect(saved(model(domain="com.acme"), tmp_path))


def test_an_unknown_domain_inside_a_branch_is_found(tmp_path):
    branch = helper.make_graph(
        [helper.make_node("Odd", [], ["b"], domain="com.acme")],
        "branch",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, [])],
    )
    chosen = helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)
    with pytest.raises(InvalidSpec, match=r"com\.acme"):
        looked_at(saved(model(extra=[chosen]), tmp_path))


def test_a_function_that_the_file_defines_itself_is_no_foreign_operator(tmp_path):
    own = helper.make_function(
        "com.acme",
        "Add",
        ["a", "b"],
        ["c"],
        [helper.make_node("Add", ["a", "b"], ["c"])],
        [helper.make_opsetid("", 17)],
    )
    found = looked_at(saved(model(domain="com.acme", functions=[own]), tmp_path))
    assert found.opsets == {"ai.onnx": 17}


@pytest.mark.parametrize(
    "location",
    ["../outside", "/etc/passwd", "sub/weights", "..", "", "a\x00b", "Weights.bin", "link"],
)
def test_weights_outside_the_folder_are_refused(tmp_path, location):
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "outside").write_bytes(bytes(16))
    (folder / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(InvalidSpec, match="keeps weights in"):
        looked_at(saved(external(model(), location), folder))


def test_weights_beside_the_file_are_listed_and_not_read(tmp_path):
    (tmp_path / "weights.bin").write_bytes(bytes(16))
    path = saved(external(model(), "weights.bin", offset="0", length="16"), tmp_path)
    assert inspect(path).external == {"weights.bin": 16}


@pytest.mark.parametrize(("key", "value"), [("length", "17"), ("offset", "1"), ("offset", "-1")])
def test_weights_that_do_not_fit_their_file_are_refused(tmp_path, key, value):
    (tmp_path / "weights.bin").write_bytes(bytes(16))
    places = {"offset": "0", "length": "16", key: value}
    with pytest.raises(InvalidSpec):
        looked_at(saved(external(model(), "weights.bin", **places), tmp_path))


def test_weights_hidden_in_an_attribute_are_found(tmp_path):
    constant = helper.make_node("Constant", [], ["k"], value=TensorProto(dims=[1], data_type=1))
    tensor = constant.attribute[0].t
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../outside")
    with pytest.raises(InvalidSpec, match="keeps weights in"):
        looked_at(saved(model(extra=[constant]), tmp_path))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(tmp_path, share):
    whole = model().SerializeToString()
    (tmp_path / "cut.onnx").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InvalidSpec):
        inspect(tmp_path / "cut.onnx")


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"not a model at all", bytes(range(256))])
def test_what_is_no_model_is_refused(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(InvalidSpec):
        looked_at(tmp_path / "model.onnx")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_by_another_name_is_refused_and_not_loaded(tmp_path, protocol):
    (tmp_path / "model.onnx").write_bytes(pickle.dumps({"w": 1}, protocol))
    with pytest.raises(InvalidSpec, match="pickle"):
        inspect(tmp_path / "model.onnx")


def test_a_torch_archive_by_another_name_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.onnx", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    with pytest.raises(InvalidSpec, match="zip archive"):
        looked_at(tmp_path / "model.onnx")


def test_a_pointer_in_place_of_the_model_is_named(tmp_path):
    (tmp_path / "model.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")
    with pytest.raises(InvalidSpec, match="Git LFS"):
        looked_at(tmp_path / "model.onnx")


def test_a_sequence_cannot_be_served(tmp_path):
    made = model()
    made.graph.output.append(helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None))
    with pytest.raises(InvalidSpec, match="only tensors"):
        looked_at(saved(made, tmp_path))


def test_a_type_without_a_protocol_name_is_refused(tmp_path):
    made = model()
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.BFLOAT16
    with pytest.raises(InvalidSpec, match="BFLOAT16"):
        looked_at(saved(made, tmp_path))


def test_a_missing_output_shape_is_inferred(tmp_path):
    made = model()
    made.graph.output[0].type.tensor_type.ClearField("shape")
    assert looked_at(saved(made, tmp_path)).outputs == (Tensor("y", "FP32", (-1, 4)),)


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(NotFound):
        inspect(tmp_path / "none.onnx")


def test_a_file_that_takes_too_long_is_refused(tmp_path):
    with pytest.raises(InvalidSpec, match="within"):
        inspect(saved(model(), tmp_path), wall_s=0.001)


def test_a_file_that_takes_too_much_memory_is_refused(tmp_path, monkeypatch):
    child = tmp_path / "hog.py"
    child.write_text(
        "import sys\nfrom hanse.daemon import inspection\n"
        "inspection.MEMORY_BYTES_BASE = 2**28\n"
        "inspection.examine = lambda file, name: bytes(2**30)\n"
        "sys.exit(inspection.main())\n"
    )
    real = inspection.subprocess.run

    def run(command, **options):
        return real([command[0], str(child)], **options)

    monkeypatch.setattr(inspection.subprocess, "run", run)
    with pytest.raises(InvalidSpec, match="more memory"):
        inspect(saved(model(), tmp_path))


def test_the_process_that_reads_a_file_can_read_no_other(tmp_path, monkeypatch):
    child = tmp_path / "taken-over.py"
    child.write_text(
        "import sys\nfrom hanse.core.errors import InvalidSpec\n"
        "from hanse.daemon import inspection\n"
        "def examine(file, name):\n"
        "    assert file.read(1)\n"
        f"    raise InvalidSpec(open({str(child)!r}).read()[:100])\n"
        "inspection.examine = examine\n"
        "sys.exit(inspection.main())\n"
    )
    real = inspection.subprocess.run

    def run(command, **options):
        return real([command[0], str(child)], **options)

    monkeypatch.setattr(inspection.subprocess, "run", run)
    with pytest.raises(InvalidSpec, match="could not be read"):
        inspect(saved(model(), tmp_path))


def test_a_damaged_byte_never_escapes_as_another_error(tmp_path):
    whole = bytearray(model().SerializeToString())
    path = tmp_path / "model.onnx"
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        try:
            looked_at(path)
        except Rejected:
            continue


def test_onnx_checks_our_good_model_too():
    onnx.checker.check_model(model())
