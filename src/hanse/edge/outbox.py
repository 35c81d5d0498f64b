"""Reports on their way to the region: each is counted once, none is lost for a lost answer.

A report keeps its sequence number and its bytes until it is acknowledged, because the region
tells a repeated report only by its number. Windows that no report holds yet wait beside it and
are merged by addition, so a long silence costs precision in time but no counts, up to a bound.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace

from hanse.core.errors import TooLarge
from hanse.core.ids import Segment
from hanse.core.telemetry import WINDOWS_MAX, ModelReport, Report, Window

MODELS_A_REPORT = 8  # so that the longest reasons of all their releases fit
_WAITING_MAX = 16 * WINDOWS_MAX


class Outbox:
    def __init__(self, node: Segment) -> None:
        self._node = node
        self._seq = 0
        self._sealed: deque[tuple[int, bytes]] = deque()
        self._waiting: dict[tuple[object, ...], Window] = {}
        self.lost_windows = 0

    def add(self, windows: Iterable[Window]) -> None:
        for window in windows:
            known = self._waiting.get(window.key)
            self._waiting[window.key] = known + window if known else window
        while len(self._waiting) > _WAITING_MAX:
            del self._waiting[next(iter(self._waiting))]
            self.lost_windows += 1

    def seal(self, epoch: int, serial: int, models: Sequence[ModelReport]) -> None:
        """Put what waits into numbered reports, unless earlier ones are still unacknowledged.

        A node with many models sends several reports; each speaks only of the models in it.
        """
        if self._sealed:
            return
        waiting = {
            m.model: [w for w in self._waiting.values() if w.model == m.model] for m in models
        }
        header = Report(self._node, epoch, serial)
        for at in range(0, max(len(models), 1), MODELS_A_REPORT):
            some = tuple(models[at : at + MODELS_A_REPORT])
            self._seal(header, some, [w for m in some for w in waiting[m.model][:WINDOWS_MAX]])
        # Windows of models that are no longer assigned have nobody left to judge them.
        names = {m.model for m in models}
        self._waiting = {k: w for k, w in self._waiting.items() if w.model in names}

    def _seal(self, header: Report, models: tuple[ModelReport, ...], windows: list[Window]) -> None:
        while True:
            filled = tuple(
                replace(m, windows=tuple(w for w in windows if w.model == m.model)) for m in models
            )
            try:
                raw = replace(header, models=filled).encode()
                break
            except TooLarge:
                if not windows:
                    raise
                windows = windows[: len(windows) // 2]  # the rest goes with the next one
        for window in windows:
            del self._waiting[window.key]
        self._seq += 1
        self._sealed.append((self._seq, raw))

    def head(self) -> tuple[int, bytes] | None:
        """The oldest report that is not acknowledged: the same number, the same bytes."""
        return self._sealed[0] if self._sealed else None

    def acknowledge(self, seq: int) -> None:
        while self._sealed and self._sealed[0][0] <= seq:
            self._sealed.popleft()
