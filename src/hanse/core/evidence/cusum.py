"""After promotion: has something become worse *lately*? An e-CUSUM over the same increments.

One long test grows deaf: the wealth that it lost while all was well has to be won back before a
late regression shows. The CUSUM forgets losses: per grid point

    c_j <- max(c_j, 0) + increment_j          alarm when log mean_j exp(c_j) >= ln(level)

While the null holds, the expected number of ticks to the first false alarm is at least `level`
(Shin, Ramdas and Rinaldo, e-detectors). At one tick a minute a level of 1e5 is seventy days.

Forgetting depends on the order of ticks, so states of two regions do not add: each region watches
its own, and what crosses regions are counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Protocol, Self

from hanse.core.errors import InvalidSpec
from hanse.core.evidence.grid import (
    ZERO,
    add,
    decode_weights,
    encode_weights,
    log_mean,
    log_threshold,
)
from hanse.core.evidence.ratio import Arms

LEVEL: Final = 1e5


class Gains(Protocol):
    """A sequential test that can say what one tick is worth to each grid point."""

    def gains(self, arms: Arms) -> tuple[int, ...]: ...


@dataclass(frozen=True, slots=True)
class Cusum:
    """Evidence that `test`'s null has lately stopped to hold; `logw` is the whole state."""

    test: Gains
    level: float = LEVEL
    logw: tuple[int, ...] = ZERO

    def __post_init__(self) -> None:
        if not self.level > 1:
            raise InvalidSpec(
                f"level is {self.level}", fix="write how many ticks may pass between false alarms"
            )

    def observe(self, arms: Arms) -> Self:
        kept = tuple(max(weight, 0) for weight in self.logw)
        return replace(self, logw=add(kept, self.test.gains(arms)))

    def log_e(self) -> float:
        return log_mean(self.logw)

    @property
    def alarmed(self) -> bool:
        return self.log_e() >= log_threshold(1 / self.level)

    def encode(self) -> dict[str, object]:
        return encode_weights(self.logw)

    def decoded(self, state: object) -> Self:
        """This watch with stored weights. Raises `Rejected` when they are malformed."""
        return replace(self, logw=decode_weights(state))
