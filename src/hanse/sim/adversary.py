"""What leaves a lying daemon instead of what its software wanted to send.

It drops frames and repeats old ones, its own and those it heard. It cannot break a signature,
and it greets and pings like everybody: who says nothing at all is merely down.
"""

from __future__ import annotations

from random import Random

from hanse.core.gossip.frames import Frame, Hello, HelloProof, Ping
from hanse.sim.vices import Vice

REMEMBERED = 200  # frames that are kept for later


class Adversary:
    """One for each process that lies; owned by `byzantine.Misdeeds`."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._vices: list[Vice] = []
        self._known: list[Frame] = []

    def begin(self, vice: Vice) -> None:
        self._vices.append(vice)

    def sends(self, frame: Frame, region: str) -> list[Frame]:
        """What goes to a daemon of that region in place of `frame`."""
        out = [] if self._withholds(frame, region) else [frame]
        for vice in self._vices:
            if vice.kind == "replay" and self._known and self._rng.random() < vice.share:
                out.append(self._rng.choice(self._known))
        self.remember(frame)
        return out

    def remember(self, frame: Frame) -> None:
        if len(self._known) < REMEMBERED:
            self._known.append(frame)
        else:
            self._known[self._rng.randrange(REMEMBERED)] = frame

    def _withholds(self, frame: Frame, region: str) -> bool:
        if isinstance(frame, Hello | HelloProof | Ping):
            return False
        return any(
            region in vice.half or self._rng.random() < vice.share
            for vice in self._vices
            if vice.kind == "withhold"
        )
