"""`hanse release fetch` against a daemon that goes away, lies or is asked twice."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_daemon as fake
import pytest

from hanse.cli.main import main
from hanse.core.catalog.manifest import File, Manifest, Variant
from hanse.core.ids import Digest, Segment, Version, segment
from hanse.storage import incoming

PIECE = 1024
FILES = {"model.onnx": bytes(range(256)) * 20, "labels.txt": b"a\nb\n"}
MANIFEST = Manifest(
    Segment("ocr-rec"),
    Version("4.0.0"),
    tuple(File(segment(name), Digest.of(raw), len(raw)) for name, raw in FILES.items()),
    (Variant(segment("onnx"), "onnx", segment("model.onnx")),),
    (),
    (),
).encode()
SHOWN = {
    "model": "ocr-rec",
    "version": "4.0.0",
    "release": str(Digest.of(MANIFEST)),
    "size": sum(map(len, FILES.values())),
    "manifest": MANIFEST.decode(),
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HANSE_HOME", str(tmp_path))
    (tmp_path / "hanse.toml").write_text("")
    return tmp_path


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "folder"


def answers(files: dict[str, bytes] = FILES, gone_after: int = 2**40) -> dict[str, fake.Answer]:
    """A daemon that hangs up once it has given so many bytes of a file."""

    def brought(args: dict[str, Any]) -> Iterator[Any]:
        yield {"bytes": 3, "of": 7, "why": "eu is away"}
        return {"region": "eu-north"}

    def give(args: dict[str, Any]) -> Iterator[Any]:
        if args.get("suspect"):
            return {}
        for at in range(args["from"], len(files[args["file"]]), PIECE):
            if at >= gone_after:
                raise ConnectionResetError
            yield {"data": files[args["file"]][at : at + PIECE]}
        return {}

    return {"release.show": SHOWN, "release.files": brought, "release.file": give}


def fetch(to: Path, *more: str) -> int:
    return main(["release", "fetch", "ocr-rec@4.0.0", "--to", str(to), *more])


def names(to: Path) -> list[str]:
    return sorted(path.name for path in to.iterdir())


def from_where(daemon: fake.FakeDaemon, name: str = "model.onnx") -> list[int]:
    return [a["from"] for a in daemon.calls("release.file") if a["file"] == name and "from" in a]


def test_all_files_of_a_release_come_under_their_names(home, to, capsys):
    with fake.running(home, answers()):
        assert fetch(to, "-o", "json") == 0
    assert {path.name: path.read_bytes() for path in to.iterdir()} == FILES
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (found["kind"], found["region"], found["folder"]) == ("Fetched", "eu-north", str(to))
    assert found["files"][0] == {
        "name": "model.onnx",
        "digest": str(Digest.of(FILES["model.onnx"])),
        "size": len(FILES["model.onnx"]),
    }
    assert "eu is away" in said.err


def test_what_came_before_the_daemon_went_away_is_not_asked_for_again(home, to, capsys):
    with fake.running(home, answers(gone_after=2 * PIECE)):
        assert fetch(to) == 6
    said = capsys.readouterr().err
    assert "went away" in said
    assert "hanse daemon run" in said
    assert "run the same command again: it goes on where it stopped" in said
    part, _ = sorted(to.iterdir(), reverse=True)
    assert part.name == f"model.onnx~{Digest.of(FILES['model.onnx']).hex[:12]}.part"
    assert part.read_bytes() == FILES["model.onnx"][: 2 * PIECE]
    with fake.running(home, answers()) as daemon:
        assert fetch(to) == 0
    assert from_where(daemon) == [2 * PIECE]
    assert {path.name: path.read_bytes() for path in to.iterdir()} == FILES


def flip(part: Path) -> None:
    raw = bytearray(part.read_bytes())
    raw[7] ^= 1
    part.write_bytes(raw)


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda part: part.write_bytes(b"shorter"),
        lambda part: part.with_suffix(".mark").unlink(),
    ],
    ids=["flipped", "cut", "unproved"],
)
def test_what_is_not_proved_to_be_there_is_asked_for_again(home, to, damage):
    with fake.running(home, answers(gone_after=2 * PIECE)):
        fetch(to)
    damage(next(to.glob("*.part")))
    with fake.running(home, answers()) as daemon:
        assert fetch(to) == 0
    assert from_where(daemon) == [0]
    assert {path.name: path.read_bytes() for path in to.iterdir()} == FILES


@pytest.mark.parametrize(
    "wrong", [b"x" * n for n in (len(FILES["model.onnx"]), 9, 10_000)], ids=len
)
def test_other_bytes_get_no_name_and_the_daemon_looks_at_its_copy(home, to, capsys, wrong):
    with fake.running(home, answers({**FILES, "model.onnx": wrong})) as daemon:
        assert fetch(to) == 5
    assert names(to) == []
    assert "model.onnx came with other bytes" in capsys.readouterr().err
    assert daemon.calls("release.file")[-1]["suspect"] is True


def test_what_is_there_already_stays_and_nothing_else_is_overwritten(home, to, capsys):
    to.mkdir(parents=True)
    (to / "model.onnx").write_bytes(FILES["model.onnx"])
    with fake.running(home, answers()) as daemon:
        assert fetch(to) == 0
        assert [args["file"] for args in daemon.calls("release.file")] == ["labels.txt"]
        (to / "labels.txt").write_bytes(b"mine")
        assert fetch(to) == 1
    assert "labels.txt is there, and is another" in capsys.readouterr().err
    assert (to / "labels.txt").read_bytes() == b"mine"


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_fetched(home, capsys):
    (home / "file").write_bytes(b"")
    with fake.running(home, answers()) as daemon:
        assert fetch(home / "file" / "folder") == 1
        assert not daemon.calls("release.files")
    assert "name another folder with --to" in capsys.readouterr().err


def test_a_full_disk_keeps_what_came(home, to, capsys, monkeypatch):
    write, room = incoming.write_all, [PIECE]

    def full(fd: int, data: bytes) -> None:
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        room.pop()
        write(fd, data)

    with fake.running(home, answers()) as daemon:
        monkeypatch.setattr(incoming, "write_all", full)
        assert fetch(to) == 6
        monkeypatch.undo()
        assert "make room there, then run the same command" in capsys.readouterr().err
        assert (
            main(["release", "fetch", "ocr-rec@4.0.0", "--to", str(to), "--home", str(home)]) == 0
        )
    assert from_where(daemon) == [0, PIECE]
    assert names(to) == sorted(FILES)


def test_two_fetches_into_one_folder_do_not_mix(home, to, capsys):
    with fake.running(home, answers(gone_after=PIECE)):
        fetch(to)
    part = incoming.Part.resume(next(to.glob("*.part")), 10_000)
    with fake.running(home, answers()):
        assert fetch(to) == 6
        assert "is under way" in capsys.readouterr().err
        incoming.os.close(part.fd)
        assert fetch(to) == 0
