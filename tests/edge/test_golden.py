"""T27, T32: golden inputs that nobody should unpack, each bad in one way."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from digit_releases import release

from hanse.artefacts import npz
from hanse.core.catalog.manifest import Golden
from hanse.core.errors import InvalidSpec, Rejected
from hanse.core.ids import segment
from hanse.core.limits import GOLDEN_BYTES_MAX
from hanse.edge.inference import load, selftest

BOUND = 10_000


def header(dtype: str = "'<f4'", shape: str = "(2,)", version: int = 1) -> bytes:
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (63 - (10 + len(text)) % 64) + b"\n"
    return b"\x93NUMPY" + bytes((version, 0)) + struct.pack("<H", len(text)) + text


def archive(*entries: tuple[str, bytes], packed: bool = False, comment: bytes = b"") -> bytes:
    out = io.BytesIO()
    how = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", how) as file:
        for name, data in entries:
            file.writestr(name, data)
        file.comment = comment
    return out.getvalue()


def one(data: bytes) -> bytes:
    return archive(("in.X.npy", data))


def understated(raw: bytes, at: int) -> bytes:
    """One of the two sizes in the directory of an archive, made small."""
    place = raw.rindex(b"PK\x01\x02") + at
    return raw[:place] + struct.pack("<L", 100) + raw[place + 4 :]


def twice() -> bytes:
    with pytest.warns(UserWarning, match="Duplicate name"):
        return archive(("in.X.npy", header() + bytes(8)), ("in.X.npy", header() + bytes(8)))


PACKED = archive(("in.X.npy", header(shape="(1000000,)") + bytes(4_000_000)), packed=True)
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "not an .npz file"),
    "cut off": (lambda: one(header() + bytes(8))[:-1], "not an .npz file"),
    "a zip bomb": (lambda: PACKED, "unpacks to"),
    "a bomb that understates itself": (lambda: understated(PACKED, 24), "cannot be read"),
    "a hidden directory": (lambda: archive(comment=b"x" * 100), "not an .npz file"),
    "a larger file than allowed": (lambda: one(header("'|u1'", "(20000,)") + bytes(20_000)), "has"),
    "an array of petabytes": (lambda: one(header(shape=f"({2**50},)")), "as many elements"),
    "an array that overflows": (lambda: one(header(shape=f"({2**64},)")), "as many elements"),
    "less than no elements": (lambda: one(header(shape="(-1,)")), "numbers or texts"),
    "many dimensions": (lambda: one(header(shape="(" + "1," * 70 + ")") + bytes(4)), "as many"),
    "objects": (lambda: one(header("'|O'") + b"\x80\x04N."), "they are pickles"),
    "records": (lambda: one(header("[('a', '<f4')]") + bytes(8)), "numbers or texts"),
    "a program in the header": (
        lambda: one(header("__import__('os').getcwd()") + bytes(8)), "numbers or texts",
    ),
    "brackets without end": (lambda: one(header("(" * 400) + bytes(8)), "numbers or texts"),
    "a header without end": (
        lambda: one(b"\x93NUMPY\x02\x00" + struct.pack("<L", 2**31)), "is no array",
    ),
    "a later version": (lambda: one(header(version=9)), "is no array"),
    "a pickle": (lambda: one(b"\x80\x04N."), "cannot be read|is no array"),
    "other things": (lambda: archive(("readme.txt", b"hello")), "other things"),
    "one name twice": (twice, "each once"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bomb_or_a_lie_is_refused_before_it_is_unpacked(name: str) -> None:
    make, why = BAD[name]
    for read in (npz.listed, npz.read):
        with pytest.raises(InvalidSpec, match=why):
            read(io.BytesIO(make()), "golden.npz", bytes_max=BOUND)


def test_a_directory_of_many_entries_is_not_even_read() -> None:
    many = archive(*((f"in.{n}.npy", header() + bytes(8)) for n in range(npz.ENTRIES_MAX + 1)))
    with pytest.raises(InvalidSpec, match=f"{npz.ENTRIES_MAX + 1} arrays"):
        npz.listed(io.BytesIO(many), "golden.npz", bytes_max=10 * len(many))


def test_no_more_is_unpacked_than_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in bytes that come out of the decompressor."""
    came = 0
    real = zipfile.ZipExtFile.read

    def counted(self: zipfile.ZipExtFile, n: int | None = -1) -> bytes:
        nonlocal came
        data = real(self, n)
        came += len(data)
        return data

    monkeypatch.setattr(zipfile.ZipExtFile, "read", counted)
    for make, _ in BAD.values():
        with pytest.raises(InvalidSpec):
            npz.read(io.BytesIO(make()), "golden.npz", bytes_max=BOUND)
    assert came < len(BAD) * BOUND


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["f4", "f2", "f8", "i8", "u1", "bool", "U7", "S3", ">i4"])
def test_what_numpy_writes_is_read_as_numpy_reads_it(
    dtype: str, order: str, tmp_path: Path
) -> None:
    array = np.asarray(np.arange(24).reshape(2, 3, 4), dtype=dtype, order=order)  # type: ignore[call-overload]
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **{"in.x": array, "in/y": array[0, 0, 0], "none": array[:0]})
        with (tmp_path / "a.npz").open("rb") as file:
            found = npz.read(file, "a.npz", bytes_max=BOUND)
        with np.load(tmp_path / "a.npz") as expected:
            assert set(found) == set(expected.files)
            for name in expected.files:
                assert found[name].dtype == expected[name].dtype
                assert np.array_equal(found[name], expected[name])


@pytest.mark.parametrize("name", ["empty", "a zip bomb", "an array of petabytes", "objects"])
def test_a_node_refuses_a_release_with_such_golden_inputs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    v1 = release("v1", tmp_path)
    (tmp_path / "golden.npz").write_bytes(BAD[name][0]())
    monkeypatch.setattr("hanse.edge.inference.GOLDEN_BYTES_MAX", BOUND)
    with pytest.raises(Rejected, match="golden"):
        selftest(load(v1.folder, v1.manifest), v1.folder, Golden(segment("golden.npz"), 0, 0))


def test_a_node_takes_golden_inputs_of_no_more_than_the_bound() -> None:
    assert GOLDEN_BYTES_MAX == 256 * 1024**2
