"""The code under which each kind of error is explained; stable, so that people can search them.

`kind` is the class name in `hanse.core.errors`. The daemon sends kind and code, the command
line turns the kind back into the class and the code into an exit code and an explanation.
"""

from __future__ import annotations

from hanse.core import errors

CODES = {
    "Rejected": "E0100",
    "InvalidName": "E0101",
    "InvalidSignature": "E0102",
    "InvalidProof": "E0103",
    "NotPermitted": "E0104",
    "NotFound": "E0105",
    "Conflict": "E0106",
    "InvalidSpec": "E0107",
    "TooLarge": "E0108",
    "Unavailable": "E0200",
    "Broken": "E0300",
}
DAEMON_DOWN = "E0201"
NO_ANSWER = "E0202"


def kind_of(error: errors.HanseError) -> str:
    """The nearest class that has a code, so that a subclass needs none of its own."""
    return next(c.__name__ for c in type(error).__mro__ if c.__name__ in CODES)


def to_mapping(error: errors.HanseError) -> dict[str, str]:
    kind = kind_of(error) if isinstance(error, _CODED) else "Broken"
    return {"kind": kind, "message": error.message, "fix": error.fix, "code": CODES[kind]}


def from_mapping(kind: str, message: str, fix: str) -> errors.HanseError:
    """The error that the daemon raised; a kind that we do not know is still an error."""
    found = getattr(errors, kind, errors.HanseError) if kind in CODES else errors.HanseError
    made: errors.HanseError = found(message, fix=fix)
    return made


_CODED = (errors.Rejected, errors.Unavailable, errors.Broken)
