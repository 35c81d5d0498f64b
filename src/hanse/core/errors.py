"""What can go wrong, sorted by whose fault it is and what follows.

- `Rejected`: the other side erred. Record it, answer with it, go on.
- `Unavailable`: nobody erred; it may work later. The driver retries.
- `Broken`: our own disk or our own code cannot be trusted any more. The process ends.

Every message is read by a person. `fix` says what that person can do next; it is
part of the message, not an afterthought, so `str(error)` carries both.
"""

from __future__ import annotations


class HanseError(Exception):
    """Base of every error that Hanse raises on purpose."""

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message} ({self.fix})" if self.fix else self.message


class Rejected(HanseError):
    """The input is wrong. Nothing was changed by it."""


class InvalidName(Rejected):
    """A name, digest or address does not have the form that it must have."""


class InvalidSignature(Rejected):
    """A signature does not stand for these bytes under this key."""


class InvalidProof(Rejected):
    """A log, checkpoint or proof contradicts what it claims."""


class NotPermitted(Rejected):
    """The signer is known, but trust does not give it this right."""


class NotFound(Rejected):
    """There is nothing by that name here, or the asker may not know of it."""


class Conflict(Rejected):
    """The request was right for a state that is no longer there."""


class InvalidSpec(Rejected):
    """A rollout spec, manifest or configuration cannot be read as meant."""


class TooLarge(Rejected):
    """A bound in `core.limits` was exceeded."""


class Unavailable(HanseError):
    """It may work later, or from somebody else."""


class Broken(HanseError):
    """An invariant does not hold or storage failed: stop the process."""
