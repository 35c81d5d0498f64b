"""What the kernel says to a real daemon: no room, a sync that failed, no more files."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from publisher import NOTES, Publisher, releases
from system_federation import REGIONS, Daemon, Federation, done, hanse, until

from hanse.core.errors import HanseError, Unavailable
from hanse.daemon.control import CONNECTIONS_MAX

pytestmark = pytest.mark.system
DISK_MIB, RESERVE_MIB = 200, 8
STRACE = shutil.which("strace")


@pytest.fixture(scope="module")
def alone(folder: Path) -> Iterator[Federation]:
    """A founder without anybody else."""
    made = Federation(folder / "alone")
    made.found(nodes=(), regions=REGIONS[:1])
    made.start(REGIONS[:1])
    assert made.founder.stop() == 0
    yield made
    made.close()


def writing(daemon: Daemon, file: Path) -> Publisher:
    """The daemon runs and has room; what is published is noted."""
    daemon.start()
    until("it answers", lambda: daemon.state_digest, logs=[daemon.log])
    publisher = Publisher(daemon, file, number=len(releases_of(daemon)))
    publisher.upload()
    return publisher


def releases_of(daemon: Daemon) -> set[str]:
    try:
        return releases(daemon)
    except HanseError:
        return set()  # nothing was published yet


# -- a sync that fails ---------------------------------------------------------------------------


@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
@pytest.mark.parametrize("nth", [14, 33])
def test_a_failed_sync_ends_the_daemon_and_nothing_acknowledged_is_lost(
    alone: Federation, folder: Path, nth: int
) -> None:
    """Only every third sync fails: SQLite alone would go on, with holes (T46)."""
    daemon = alone.founder
    fault = f"fdatasync:error=EIO:when={nth}+3"
    # With -D the tracer is the grandchild, so that the process that is waited for is the daemon.
    daemon.under = (str(STRACE), "-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null")
    daemon.under += ("-e", "trace=fdatasync", "-e", f"inject={fault}")
    try:
        publisher = writing(daemon, folder / "note.bin")
        publisher.run()
        code = daemon.ended()
    finally:
        daemon.under = ()
    said = daemon.log.read_text()
    assert code == 70, said[-2000:]
    assert "disk I/O error" in said
    daemon.start()
    until("it answers", lambda: daemon.state_digest, logs=[daemon.log])
    assert set(publisher.acknowledged) <= releases(daemon)
    assert daemon.stop() == 0


# -- no room -------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    place = folder / "small"
    place.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(place))
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield place
    subprocess.run(("umount", str(place)), check=True)


@pytest.fixture
def filled(small_disk: Path) -> Iterator[Federation]:
    made = Federation(small_disk)
    made.found(nodes=(), regions=REGIONS[:1])
    settings = made.founder.home / "hanse.toml"
    reserve = f"disk_reserve_bytes = {RESERVE_MIB * 2**20}\nblob_reserve_bytes = 0\n"
    settings.write_text(settings.read_text() + reserve)
    yield made
    made.close()


def fill(place: Path, *, leave_kib: int) -> None:
    """Take all the space but so much."""
    filler = place / "filler"
    fd = os.open(filler, os.O_WRONLY | os.O_CREAT)
    free = shutil.disk_usage(place).free - leave_kib * 1024
    os.posix_fallocate(fd, os.fstat(fd).st_size, free)
    os.close(fd)


def test_on_a_full_disk_holds_are_still_written_and_everything_goes_on_with_room(
    filled: Federation, small_disk: Path, tmp_path: Path
) -> None:
    daemon = filled.founder
    publisher = writing(daemon, tmp_path / "note.bin")
    publisher.publish()

    def disk() -> dict[str, Any]:
        return dict(daemon.ask("status")["daemon"]["disk"])

    def hold() -> str:
        return str(daemon.ask("freeze", model=NOTES, reason="a drill " + "." * 400)["hold"])

    def at(level: str) -> Any:
        return filled.until(f"it sees that its disk is {level}", lambda: disk()["level"] == level)

    assert disk()["reserve_kept"]
    # Nearly full: nothing new is begun, and the person is told what to do.
    fill(small_disk, leave_kib=9 * 1024)
    at("low")
    with pytest.raises(Unavailable, match=r"disk is nearly full.*free some space"):
        publisher.publish()
    refused = hanse("status", home=daemon.home)
    assert refused.stdout.startswith("DISK LOW: "), refused.stdout
    holds = [hold()]
    # Full to the last byte: holds are written from the reserve.
    fill(small_disk, leave_kib=0)
    at("full")
    while disk()["reserve_kept"]:
        holds.append(hold())
    holds += [hold() for _ in range(150)]  # more than SQLite's log takes before it is emptied
    assert done("status", home=daemon.home).startswith("DISK FULL: ")
    # A daemon that is killed then comes back, and with it what it acknowledged.
    daemon.kill()
    daemon.start()
    filled.until("it answers", lambda: daemon.state_digest)
    assert set(holds) <= {row["hold"] for row in daemon.ask("holds", model=NOTES)["holds"]}
    # Nothing is left of the reserve either: it ends, and has lost nothing that it acknowledged.
    fill(small_disk, leave_kib=0)
    with contextlib.suppress(HanseError, ConnectionError):
        while len(holds) < 20_000:
            holds.append(hold())
    assert daemon.ended() == 70
    # Room again: the reserve is made anew, and everything is taken.
    (small_disk / "filler").unlink()
    daemon.start()
    filled.until("it answers", lambda: daemon.state_digest)
    assert set(holds) <= {row["hold"] for row in daemon.ask("holds", model=NOTES)["holds"]}
    at("enough")
    filled.until("the reserve is back", lambda: disk()["reserve_kept"])
    publisher.publish()
    assert set(publisher.acknowledged) == releases(daemon)
    assert daemon.stop() == 0


# -- no more files -------------------------------------------------------------------------------


def test_a_daemon_without_file_descriptors_refuses_and_loses_nothing(
    alone: Federation, folder: Path
) -> None:
    daemon = alone.founder
    publisher = writing(daemon, folder / "note.bin")
    publisher.publish()
    assert daemon.handle is not None
    pid = daemon.handle.pid
    used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 3, usual[1]))
    callers = [socket.socket(socket.AF_UNIX) for _ in range(CONNECTIONS_MAX // 4)]
    for caller in callers:
        caller.connect(str(daemon.home / "control.sock"))
    assert daemon.handle.poll() is None
    for caller in callers:
        caller.close()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
    until("it answers again", lambda: daemon.state_digest, logs=[daemon.log])
    publisher.publish()
    assert set(publisher.acknowledged) <= releases(daemon)
    assert daemon.stop() == 0
