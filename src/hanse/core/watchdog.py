"""When a node stops trusting a release by itself: errors in a row, before it proved itself.

Statistics across nodes are the region's; this is the reflex that also works offline. It is on
for a candidate at all times and for a stable release until it gave enough good answers.
"""

from __future__ import annotations

ERRORS_IN_A_ROW = 5
GOOD_ANSWERS = 1000


class Watchdog:
    """Owned by the thread that counts answers."""

    __slots__ = ("_errors", "_errors_max", "_good", "_good_needed")

    def __init__(self, errors_max: int = ERRORS_IN_A_ROW, good_needed: int = GOOD_ANSWERS) -> None:
        self._errors_max = errors_max
        self._good_needed = good_needed
        self._errors = 0
        self._good = 0

    @property
    def proved(self) -> bool:
        return self._good >= self._good_needed

    def good(self) -> bool:
        """Count a good answer; true for the one with which the release has proved itself."""
        self._errors = 0
        self._good += 1
        return self._good == self._good_needed

    def bad(self) -> bool:
        """Count an error that is the release's own; true when there were too many in a row."""
        self._errors += 1
        if self._errors < self._errors_max:
            return False
        self._errors = 0
        return True
