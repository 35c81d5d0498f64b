"""What the tests that are kept as twelve weights have in common: they add up, and are read back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

from hanse.core.evidence.grid import ZERO, add, decode_weights, log_mean, log_threshold


@dataclass(frozen=True, slots=True)
class Weighted:
    """A sequential test; its other fields are the hypothesis, which comes from the signed spec.

    `logw`, 12 integers of 2**-32 nats, is the whole state.
    """

    logw: tuple[int, ...] = field(default=ZERO, kw_only=True)

    def gained(self, gains: tuple[int, ...]) -> Self:
        """With those of a tick, or of many: exact, in any order."""
        return replace(self, logw=add(self.logw, gains))

    def log_e(self) -> float:
        return log_mean(self.logw)

    def rejects(self, alpha: float) -> bool:
        return self.log_e() >= log_threshold(alpha)

    def encode(self) -> dict[str, object]:
        """The parameters of the test are in the signed spec, not here."""
        return {"logw": list(self.logw)}

    def decoded(self, state: object) -> Self:
        """This hypothesis with stored weights. Raises `Rejected` when they are malformed."""
        return replace(self, logw=decode_weights(state))
