"""One at a time for each blob: a few wait for their turn, all others are told to ask again."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from hanse.core.errors import Unavailable
from hanse.core.ids import Digest

WAIT_S = 20.0
WAITING_MAX = 2
"""Threads in all, so that no pool fills up with them."""


class OneAtATime:
    def __init__(self) -> None:
        self._free = threading.Condition()
        self._busy: set[Digest] = set()
        self._waiting = 0

    @contextlib.contextmanager
    def alone(self, digest: Digest) -> Iterator[None]:
        """Raises `Unavailable` when too many wait, or for too long."""
        with self._free:
            if digest in self._busy:
                self._waiting += 1
                try:
                    if self._waiting > WAITING_MAX or not self._free.wait_for(
                        lambda: digest not in self._busy, WAIT_S
                    ):
                        raise Unavailable(
                            f"{digest} is on its way from the bucket or to it",
                            fix="ask again in a moment",
                        )
                finally:
                    self._waiting -= 1
            self._busy.add(digest)
        try:
            yield
        finally:
            with self._free:
                self._busy.discard(digest)
                self._free.notify_all()
