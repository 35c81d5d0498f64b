"""Runs a command that an operator declared: no shell, its own process group, bounded in all.

What it is told stands in `HANSE_*` variables and, as a CloudEvent, on its standard input. A hook
that outlives its daemon is found by a lock that its processes inherit: it is ended before the
next one begins, so that two of them never work on one model at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from hanse.core.errors import Unavailable
from hanse.daemon.healing_file import Command
from hanse.daemon.hooks.asking import Asking, HookFailed

log = structlog.get_logger("hanse.healing")
SAID_BYTES_MAX = 4096
GRACE_S = 5.0
POLL_S = 0.05
LEFT_BEHIND_S = 10.0


async def run(command: Command, asking: Asking, home: Path) -> str:
    """The end of what it said. Raises `HookFailed`, or `Unavailable` while an older one lives."""
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "HOME": str(command.folder),
        "HANSE_HOME": str(home),
        **command.environment,
        **asking.environment(),
    }
    async with _alone(home / "data" / f"hook-{asking.model}.lock") as lock:
        try:
            process = await asyncio.create_subprocess_exec(
                *command.argv,
                cwd=command.folder,
                env=environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock,),
            )
        except OSError as error:
            raise HookFailed(f"{command.argv[0]} cannot be started: {error.strerror}") from None
        os.pwrite(lock, b"%d\n" % process.pid, 0)
        return await _watched(process, asking, command.timeout_s)


async def _watched(process: asyncio.subprocess.Process, asking: Asking, timeout_s: float) -> str:
    said = bytearray()
    talk = asyncio.create_task(_converse(process, asking.cloud_event(), said))
    try:
        async with asyncio.timeout(timeout_s):
            # Not `wait`: what it left behind may hold its output open for ever.
            while process.returncode is None:  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise HookFailed(f"it took longer than {timeout_s:.0f} s; {_end(said)}") from None
    finally:
        code = process.returncode
        await _end_group(process)  # also of one that ended well
        await asyncio.wait({talk}, timeout=GRACE_S)
        talk.cancel()
    if code != 0:
        raise HookFailed(f"it ended with {code}; {_end(said)}")
    return _end(said)


async def _converse(process: asyncio.subprocess.Process, told: bytes, said: bytearray) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(told)
        await process.stdin.drain()
    process.stdin.close()
    while chunk := await process.stdout.read(SAID_BYTES_MAX):
        said += chunk
        del said[:-SAID_BYTES_MAX]


async def _end_group(process: asyncio.subprocess.Process) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + GRACE_S
        try:
            os.killpg(process.pid, sign)
            while time.monotonic() < deadline:
                await asyncio.sleep(POLL_S)
                os.killpg(process.pid, 0)
        except (ProcessLookupError, PermissionError):
            return  # nobody of it is left


@asynccontextmanager
async def _alone(path: Path) -> AsyncIterator[int]:
    """A locked file that is handed on to the hook. One that a dead daemon left is ended first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + LEFT_BEHIND_S
        while not _locked(lock):
            _end_left_behind(lock)
            if time.monotonic() > deadline:
                raise Unavailable(f"an older hook still runs: it holds {path.name}")
            await asyncio.sleep(0.05)
        os.ftruncate(lock, 0)
        yield lock
    finally:
        os.close(lock)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _end_left_behind(lock: int) -> None:
    """Somebody holds the lock, so the group that is written there still lives."""
    text = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
    if text.isdigit() and int(text) > 1:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(int(text), signal.SIGKILL)
            log.info("hook_left_behind_ended", group=int(text))


def _end(said: bytearray) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return f"it said: {lines[-1][:200]}" if lines else "it said nothing"
