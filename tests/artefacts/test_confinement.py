"""A process that has given up what it does not need, and then tries everything (T27, T31)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hanse.artefacts import confinement

LANDLOCK = confinement.landlock_version()
TRIES = """
import json, os, socket, subprocess, sys
from pathlib import Path
from hanse.artefacts import confinement

inside, outside, kernel, readable = sys.argv[1:]
if not int(kernel):
    confinement.landlock_version = lambda: 0
opened = open(inside, "rb")
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen()
free = socket.socket()
confinement.confine([Path(inside)] if readable == "some" else None)

def tried(deed):
    try:
        deed()
    except OSError:
        return "denied"
    return "done"

found = {
    "go on reading": tried(lambda: opened.read()),
    "read inside": tried(lambda: open(inside, "rb")),
    "read outside": tried(lambda: open(outside, "rb")),
    "list": tried(lambda: os.listdir("/")),
    "write": tried(lambda: open(outside + ".new", "wb")),
    "append": tried(lambda: open(outside, "ab")),
    "rename": tried(lambda: os.rename(outside, outside + ".moved")),
    "remove": tried(lambda: os.unlink(outside)),
    "make a folder": tried(lambda: os.mkdir(outside + ".folder")),
    "link": tried(lambda: os.link(outside, outside + ".link")),
    "a new socket": tried(lambda: socket.socket()),
    "an old socket": tried(lambda: free.connect(listener.getsockname())),
    "a program": tried(lambda: subprocess.run(["/bin/true"])),
}
print(json.dumps(found))
"""
ALL = {
    "read outside", "list", "write", "append", "rename", "remove", "make a folder", "link",
    "an old socket", "a program",
}  # fmt: skip


def tried(tmp_path: Path, *, kernel: bool, readable: str = "none") -> dict[str, Any]:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.write_bytes(b"ours")
    outside.write_bytes(b"not ours")
    done = subprocess.run(
        [sys.executable, "-c", TRIES, inside, outside, str(int(kernel)), readable],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.skipif(not LANDLOCK, reason="this kernel has no Landlock")
def test_nothing_is_opened_changed_or_run_and_nobody_spoken_to(tmp_path: Path) -> None:
    found = tried(tmp_path, kernel=True)
    assert found.pop("go on reading") == "done"
    if LANDLOCK < 4:
        found.pop("an old socket")  # TCP came later
    assert set(found.values()) == {"denied"}, found
    assert (tmp_path / "outside").read_bytes() == b"not ours"


@pytest.mark.skipif(not LANDLOCK, reason="this kernel has no Landlock")
def test_what_is_named_may_be_read_and_nothing_else(tmp_path: Path) -> None:
    found = tried(tmp_path, kernel=True, readable="some")
    assert found["read inside"] == "done"
    denied = {deed for deed, how in found.items() if how == "denied"}
    assert denied >= (ALL if LANDLOCK >= 4 else ALL - {"an old socket"})


def test_without_landlock_there_is_still_no_file_no_socket_and_no_program(tmp_path: Path) -> None:
    """What remains is to rename and remove what the user owns, and sockets that were open."""
    found = tried(tmp_path, kernel=False)
    assert found["go on reading"] == "done"
    for deed in ("read inside", "read outside", "list", "write", "append", "a new socket"):
        assert found[deed] == "denied", deed
    assert found["a program"] == "denied"


def test_memory_and_time_are_bounded_before_anything_is_read() -> None:
    limits = "import resource as r; print(r.getrlimit(r.RLIMIT_AS), r.getrlimit(r.RLIMIT_CPU))"
    code = f"from hanse.artefacts import confinement as c; c.bound(memory=2**31, cpu_s=7); {limits}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["(2147483648,", "2147483648)", "(7,", "7)"]
