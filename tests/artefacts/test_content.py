"""T28, T31, T32: what would run code is told by its bytes, whatever it is called."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from random import Random

import numpy as np
import pytest

from hanse.artefacts.content import GOLDEN, check_content
from hanse.artefacts.pickles import is_pickle, only_tensors
from hanse.core.errors import InvalidSpec, Rejected
from hanse.daemon.inspection import inspect_files

ROLES = ["", "safetensors", "torch-export", "tensorrt-plan", GOLDEN]


class Danger:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("loaded",)


def zipped(*entries: tuple[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as file:
        for name, data in entries:
            file.writestr(name, data)
    return out.getvalue()


def linked_zip() -> bytes:
    entry = zipfile.ZipInfo("link")
    entry.create_system, entry.external_attr = 3, 0o120777 << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr(entry, "/etc/passwd")
    return out.getvalue()


def tarred(name: str, kind: bytes = tarfile.REGTYPE, to: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, to
        file.addfile(entry)
    return out.getvalue()


def tensors(header: object, size: int) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(size)


def entry(low: int, high: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": [(high - low) // 4], "data_offsets": [low, high]}


PICKLES = [pickle.dumps(value, p) for value in ({"w": 1}, Danger(), [1.5]) for p in (2, 3, 4, 5)]
STATE = pickle.dumps(OrderedDict(a=1), 2)  # what torch.save writes of a state, without tensors
PROGRAMS = {
    "elf": b"\x7fELF" + bytes(60),
    "macho": b"\xcf\xfa\xed\xfe" + bytes(60),
    "universal": b"\xca\xfe\xba\xbe" + bytes(60),
    "windows": b"MZ" + bytes(58) + struct.pack("<L", 64) + b"PE\0\0",
    "archive of objects": b"!<arch>\n" + bytes(60),
}


def refused(name: str, data: bytes, role: str = "") -> str:
    with pytest.raises(Rejected) as caught:
        check_content(name, io.BytesIO(data), role)
    assert caught.value.fix
    return str(caught.value)


def fine(name: str, data: bytes, role: str = "") -> None:
    check_content(name, io.BytesIO(data), role)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", ["model.onnx", "model.safetensors", "notes.txt", "engine.plan"])
def test_a_pickle_is_refused_by_whatever_name(name: str, role: str) -> None:
    for data in PICKLES:
        assert "pickle" in refused(name, data, role)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("what", PROGRAMS)
def test_a_program_is_refused_by_whatever_name(what: str, role: str) -> None:
    assert "program" in refused("labels.txt", PROGRAMS[what], role)


@pytest.mark.parametrize("name", ["ops.so", "ops.so.1.2", "ops.dll", "OPS.DYLIB", "ops.pyd"])
def test_a_library_is_refused_by_its_name_whatever_its_bytes(name: str) -> None:
    assert "library" in refused(name, b"text")


@pytest.mark.parametrize("name", ["weights.pkl", "a/data.pkl", "model.joblib", "data"])
def test_an_archive_of_pickles_is_refused(name: str) -> None:
    for data in (PICKLES[0], PICKLES[6], STATE):
        assert "pickle" in refused("model.onnx.zip", zipped((name, data)))
    if "." in name:
        packed = zipped((name, b"anything"), how=zipfile.ZIP_DEFLATED)
        assert "pickle" in refused("extra.bin", packed)


@pytest.mark.parametrize(
    "member",
    ["../out", "/etc/passwd", "a/../../b", "..\\out", "\\\\host\\share", "C:\\out", "a/.."],
)
def test_an_archive_that_leads_out_of_its_folder_is_refused(member: str) -> None:
    assert "outside" in refused("extra.zip", zipped((member, b"x")))
    assert "outside" in refused("extra.tar", tarred(member))


def test_links_and_devices_in_an_archive_are_refused() -> None:
    assert "link" in refused("extra.zip", linked_zip())
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        assert "links or devices" in refused("extra.tar", tarred("a", kind, "b"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("genai_config.json", '{"model": {"decoder": {"custom_ops_library": "x"}}}'),
        ("genai_config.json", '{"custom\\u005fops_library": "x"}'),
        ("config.pbtxt", 'model_operations { op_library_filename: "x.so" }'),
        ("settings.yaml", '"custom\\x5fops_library": x'),
        ("settings.toml", 'custom_op_libraries = ["x"]'),
    ],
)
def test_settings_that_name_a_library_are_refused(name: str, text: str) -> None:
    assert "loads a library" in refused(name, text.encode())
    fine("readme.md", text.encode())  # prose may say so


def test_data_beside_a_model_may_be_anything_else(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    fine("labels.txt", b"cat\ndog\n")
    fine("config.json", b'{"hidden_size": 4}')
    fine("calibration.npz", (tmp_path / "a.npz").read_bytes())
    fine("extra.tar", tarred("plain/file"))
    fine("extra.zip", zipped(("plain/file", b"x")))
    fine("tiny", b"")
    rng = Random(1)
    for start in (b"", b"MZ", b"\x80\x04", b"\x80\x02", b"PK"):
        fine("weights.bin", start + rng.randbytes(5_000))


# -- formats of variants -------------------------------------------------------------------------


def test_safetensors_are_a_header_and_numbers_and_nothing_else() -> None:
    good = {"__metadata__": {"a": "b"}, "w": entry(0, 8), "v": entry(8, 24)}
    fine("m", tensors(good, 24), "safetensors")
    fine("m", tensors({}, 0), "safetensors")


@pytest.mark.parametrize(
    ("header", "size"),
    [
        (b"", 0),
        (b"[]", 0),
        (b"\x80\x04N.", 4),
        (b'{"w": 1, "w": 2}', 0),
        ({"w": entry(0, 8)}, 4),
        ({"w": entry(0, 8)}, 12),
        ({"w": entry(0, 8), "v": entry(4, 12)}, 12),
        ({"w": entry(4, 8)}, 8),
        ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}, 8),
        ({"w": {"dtype": "F32", "shape": [2]}}, 8),
        ({"w": 1}, 0),
    ],
)
def test_what_only_says_that_it_is_safetensors_is_refused(header: object, size: int) -> None:
    refused("m", tensors(header, size), "safetensors")


def test_a_header_longer_than_the_file_is_refused() -> None:
    for length in (2**63, 2**31, 3):
        refused("m", struct.pack("<Q", length) + b"{}", "safetensors")
    refused("m", b"", "safetensors")


def test_an_export_holds_what_puts_tensors_together_and_nothing_else() -> None:
    inner = zipped(("x/data.pkl", STATE), ("x/data/0", bytes(8)))
    good = [("m/models/m.json", b"{}"), ("m/data/weights/w0", bytes(8)), ("m/s/m.pt", inner)]
    fine("m", zipped(*good), "torch-export")
    for bad in (
        ("m/s/n.pt", zipped(("x/data.pkl", PICKLES[6]))),
        ("m/s/n.pt", zipped(("x/data.pkl", STATE), ("y.pt", inner))),
        ("m/data/aotinductor/m.so", PROGRAMS["elf"]),
        ("m/code", PICKLES[4]),
        ("../m", b""),
    ):
        refused("m", zipped(*good, bad), "torch-export")
    refused("m", zipped(*good, how=zipfile.ZIP_DEFLATED), "torch-export")
    refused("m", b"no archive", "torch-export")
    assert "pickle" in refused("m.zip", zipped(*good))  # it is no variant: nobody expects that


def test_a_plan_is_at_least_nothing_else() -> None:
    fine("m", b"ftrt" + bytes(100), "tensorrt-plan")
    for data in (b"", b"   ", b'{"a": 1}', b"<html>", zipped(("a", b"b"))):
        refused("m", data, "tensorrt-plan")


def test_only_what_names_tensors_alone_is_harmless() -> None:
    assert only_tensors(io.BytesIO(STATE))
    assert only_tensors(io.BytesIO(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n."))
    assert only_tensors(io.BytesIO(b"\x80\x02ctorch\nFloatStorage\n."))
    for raw in (
        pickle.dumps(Danger(), 2),
        pickle.dumps(Danger(), 4),
        b"\x80\x02ctorch\nload\n.",
        b"\x80\x02cos\nsystem\n.",
        b"\x80\x02(ios\nsystem\n.",
        STATE[:-1],
        b"",
    ):
        assert not only_tensors(io.BytesIO(raw))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_random_bytes_are_no_pickle() -> None:
    rng = Random(2)
    heads = [bytes((0x80, rng.choice((2, 3, 4, 5)))) + rng.randbytes(1000) for _ in range(2000)]
    assert sum(map(is_pickle, heads)) < 200


# -- in the process that looks -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["weights.pkl", "../x"])
def test_a_whole_folder_is_looked_at(name: str, tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("labels")
    (tmp_path / "bad.bin").write_bytes(zipped((name, b"x")))
    files = {path.name: path for path in tmp_path.iterdir()}
    with pytest.raises(InvalidSpec, match=r"bad\.bin"):
        inspect_files(files, {})
    files.pop("bad.bin")
    assert inspect_files(files, {}) == {}


def test_a_name_in_an_archive_needs_no_file_of_ours(tmp_path: Path) -> None:
    """Names that are not UTF-8 are decoded by a codec that must be there already."""
    raw = zipped(("name", b"x")).replace(b"name", b"n\x82m\x81")
    (tmp_path / "a.zip").write_bytes(raw)
    assert inspect_files({"a.zip": tmp_path / "a.zip"}, {}) == {}
