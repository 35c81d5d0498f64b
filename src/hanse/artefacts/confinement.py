"""A process that reads what is not ours gives up everything that it does not need.

    confine()                 no file is opened any more, no socket, no other process
    confine(readable=[...])   these files and folders may still be read, and nothing else

Nothing of it needs privileges, and nothing can be taken back. Landlock forbids whatever the
running kernel knows of: reading, writing, renaming, executing, TCP, signals to others. Where the
kernel has none, the limits of the process stand alone: with no file to be opened, there is none
to read and no socket to speak over; what remains is renaming and removing what the user owns.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # the same on every machine
_PR_SET_NO_NEW_PRIVS = 38
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
_FILES: Final = {1: 13, 2: 14, 3: 15, 4: 15}  # rights over files that each version knows
_FILES_NOW: Final = 16
_TCP: Final = 0b11  # bind and connect, from version 4
_SCOPES: Final = 0b11  # abstract sockets and signals, from version 6
_RULE_BENEATH: Final = 1
_KEPT: Final = ("LANG", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH")  # the same code as this process
PYTHON: Final = (sys.executable, "-sPB")
"""How to start one: it imports nothing from the folder that it happens to be started in."""


def confine(readable: Iterable[Path] | None = None) -> int:
    """Give it all up, for good. The version of Landlock that watches over it; 0: there is none.

    Without `readable` not even a file descriptor can be had any more: import and open first.
    """
    version = _landlock(list(readable or ()))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if readable is None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    return version


def bound(*, memory: int, cpu_s: int) -> None:
    """At most so much address space and processor time; beyond it the process ends (L25)."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))


def environment() -> dict[str, str]:
    """For a process that shall read what is not ours: without the tokens that this one holds.

    One thread, since Landlock confines the one that asks and those that it starts later.
    """
    kept = {key: os.environ[key] for key in _KEPT if key in os.environ}
    return {**kept, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def landlock_version() -> int:
    """0 where the kernel has none, or has it switched off."""
    found = _libc().syscall(_CREATE, None, 0, 1)
    return max(0, int(found))


def _landlock(readable: list[Path]) -> int:
    version = landlock_version()
    if not version:
        return 0
    libc = _libc()
    files = (1 << _FILES.get(version, _FILES_NOW)) - 1
    asked = struct.pack("=QQQ", files, _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0)[
        : 8 if version < 4 else 16 if version < 6 else 24
    ]
    rules = _kernel(libc.syscall(_CREATE, asked, len(asked), 0), "make a ruleset")
    try:
        for path in readable:
            _allow(libc, rules, path)
        _kernel(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "give up privileges")
        _kernel(libc.syscall(_RESTRICT, rules, 0), "restrict itself")
    finally:
        os.close(rules)
    return version


def _allow(libc: ctypes.CDLL, rules: int, path: Path) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rights = _READ_FILE | _READ_FOLDER if path.is_dir() else _READ_FILE
        rule = struct.pack("=Qi", rights, fd)
        _kernel(libc.syscall(_ADD_RULE, rules, _RULE_BENEATH, rule, 0), "allow to read")
    finally:
        os.close(fd)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _kernel(answer: int, deed: str) -> int:
    if answer < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot {deed}: {os.strerror(code)}")
    return answer
