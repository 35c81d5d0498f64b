"""What the tests that are kept as twelve weights have in common: they add up, and are read back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

from hanse.core.errors import Conflict
from hanse.core.evidence.grid import (
    ZERO,
    add,
    decode_weights,
    encode_weights,
    log_mean,
    reaches,
)


@dataclass(frozen=True, slots=True)
class Weighted:
    """A sequential test; its other fields are the hypothesis, which comes from the signed spec.

    `logw`, 12 integers of 2**-32 nats, is the whole state.
    """

    logw: tuple[int, ...] = field(default=ZERO, kw_only=True)

    def gained(self, gains: tuple[int, ...]) -> Self:
        return replace(self, logw=add(self.logw, gains))

    def merge(self, other: Weighted) -> Self:
        """Join the evidence of two sets of ticks: exact, in any order."""
        if replace(self, logw=ZERO) != replace(other, logw=ZERO):
            raise Conflict("evidence of different hypotheses cannot be added")
        return self.gained(other.logw)

    def log_e(self) -> float:
        return log_mean(self.logw)

    def rejects(self, alpha: float) -> bool:
        return reaches(self.logw, alpha)

    def encode(self) -> dict[str, object]:
        return encode_weights(self.logw)

    def decoded(self, state: object) -> Self:
        """This hypothesis with stored weights. Raises `Rejected` when they are malformed."""
        return replace(self, logw=decode_weights(state))
