"""Waiting for what was ordered to be true, and saying how far it has come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from hanse.cli.errors import TimedOut
from hanse.cli.output import note

T = TypeVar("T")
POLL_S = 0.25


def until(
    ask: Callable[[], T],
    *,
    done: Callable[[T], bool],
    describe: Callable[[T], str],
    timeout_s: float,
) -> T:
    """Ask again until `done`; each new description is printed once. Raises `TimedOut`."""
    end = time.monotonic() + timeout_s
    said = ""
    while True:
        found = ask()
        line = describe(found)
        if line != said:
            note(line)
            said = line
        if done(found):
            return found
        if time.monotonic() >= end:
            raise TimedOut(
                f"not done after {timeout_s:g} s: {line}",
                fix="nothing is lost: look again with hanse status",
            )
        time.sleep(POLL_S)
