"""Whose bytes go next when there are fewer a second than are asked for.

One budget for all, and turns between those who wait: a caller with many streams gets no more than
one with a single stream. Within a caller the first to ask is the first to go. Pieces differ in
size, so a turn is worth `QUANTUM_BYTES`, and what a caller does not use of it is kept for its next
(deficit round robin, Shreedhar and Varghese 1995). It reads no clock; times are monotonic seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

from hanse.core.errors import InvalidSpec
from hanse.core.gossip.budget import Budget
from hanse.core.reading import Reader

BYTES_PER_S_MIN = 64 * 1024
"""Less a second serves nobody: whoever fetches gives up a line that brings less in a minute."""
QUANTUM_BYTES = 256 * 1024
BURST_S = 0.25
"""How much of a second's bytes may go at once after a pause."""


@dataclass(slots=True)
class _Caller:
    waiting: deque[tuple[int, int]] = field(default_factory=deque)  # (number, bytes)
    credit: int = 0


class Turns:
    """At most `bytes_per_s` on average."""

    def __init__(self, bytes_per_s: int, now_s: float) -> None:
        self._budget = Budget(bytes_per_s, bytes_per_s * BURST_S, now_s)
        self._callers: dict[Hashable, _Caller] = {}  # in the order of their turns
        self._number = 0

    def ask(self, caller: Hashable, size: int) -> int:
        """Wait for so many bytes: a number that `due` will name once, unless it is dropped."""
        self._number += 1
        self._callers.setdefault(caller, _Caller()).waiting.append((self._number, size))
        return self._number

    def drop(self, caller: Hashable, number: int) -> None:
        """Whoever asked is gone."""
        found = self._callers.get(caller)
        if found is not None:
            found.waiting = deque(each for each in found.waiting if each[0] != number)
            if not found.waiting:
                del self._callers[caller]

    def due(self, now_s: float) -> list[int]:
        """The numbers that may go now. What they cost is owed before anybody else may."""
        going = []
        while self._callers and self._budget.left(now_s) >= 0:
            name, caller = next(iter(self._callers.items()))
            number, size = caller.waiting[0]
            if caller.credit < size:
                caller.credit += QUANTUM_BYTES
                self._callers[name] = self._callers.pop(name)  # behind the others
                continue
            caller.credit -= size
            caller.waiting.popleft()
            if not caller.waiting:
                del self._callers[name]
            self._budget.spend(size, now_s)
            going.append(number)
        return going

    def wait_s(self, now_s: float) -> float | None:
        """Seconds until `due` may name somebody; None if nobody waits."""
        return self._budget.wait_s(now_s) if self._callers else None


def pace_of(reader: Reader, key: str) -> int:
    """A setting in bytes a second; 0, which means no limit, if it is not given."""
    found = reader.integer(key, 0, high=2**40)
    if 0 < found < BYTES_PER_S_MIN:
        raise InvalidSpec(
            f"{key}: {found} bytes a second are too few to finish anything",
            fix=f"give at least {BYTES_PER_S_MIN}, or 0 for no limit",
        )
    return found
