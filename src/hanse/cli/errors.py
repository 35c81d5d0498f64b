"""What an error means to the shell and to the person before it.

    exit 0 ok · 1 error · 2 usage · 3 unhealthy, or a gate failed · 4 inconclusive, or timed out
         5 verification failed · 6 peer unreachable

Each error has a code that stays the same, and `hanse explain CODE` says more about it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hanse.core import errors
from hanse.daemon.error_codes import CODES, DAEMON_DOWN, NO_ANSWER, kind_of

OK, ERROR, USAGE, UNHEALTHY, INCONCLUSIVE, UNVERIFIED, UNREACHABLE = range(7)
TIMED_OUT = "E0400"
PACKAGE_MISSING = "E0600"


class TimedOut(errors.HanseError):
    """What was waited for has not happened yet; it may still."""

    code = TIMED_OUT


class PackageMissing(errors.HanseError):
    """This command needs more than the base installation."""

    code = PACKAGE_MISSING


_EXITS = (
    (TimedOut, INCONCLUSIVE),
    (errors.InvalidSignature, UNVERIFIED),
    (errors.InvalidProof, UNVERIFIED),
    (errors.InvalidName, USAGE),
    (errors.Unavailable, UNREACHABLE),
)

EXPLANATIONS = {
    "E0100": "What was asked for is not acceptable. Nothing was changed.",
    "E0101": "A name, version, digest or address does not have its form. Names have 1 to 64 of "
    "a-z 0-9 . _ - and begin with a letter or digit; digests are sha256: and 64 hex digits.",
    "E0102": "A signature does not stand for the bytes under any key that may sign them. Either "
    "the bytes were changed on the way, or they were signed with a key that the members file "
    "does not list for this role.",
    "E0103": "A log, members file or checksum contradicts what it claims. Do not work around "
    "this: find out which copy is right, from another daemon or from the publisher.",
    "E0104": "The caller or signer is known, but has not this right. Roles are given in the "
    "members file; a control socket answers only the daemon's own user and root; key files "
    "must be readable by their owner alone.",
    "E0105": "There is nothing by that name here. It may exist elsewhere and not have arrived "
    "yet: see the ages in hanse status.",
    "E0106": "The request was right for a state that is no longer there, or something is in its "
    "way. Look again with hanse status, then decide again.",
    "E0107": "A manifest, plan or configuration cannot be read as meant. The message names the "
    "field and what to write there; a field that nobody knows is refused, never ignored.",
    "E0108": "Something is larger than its bound. Bounds are the same in the whole federation, "
    "so a larger value here would be refused elsewhere.",
    "E0200": "Nobody erred: what is needed is not available now. Trying again later may help.",
    DAEMON_DOWN: "No process answers on the daemon's control socket. Start it with "
    "hanse daemon run --home HOME. If it runs, --home or HANSE_HOME names another folder.",
    NO_ANSWER: "The daemon took the request and then stopped, or took too long. What was asked "
    "may have been done: events are stored before they are answered. Look before trying again.",
    "E0300": "The daemon found its own state or disk in disorder, or made a mistake. It stops "
    "rather than go on; its log says why.",
    TIMED_OUT: "The command waited for as long as --timeout says. What it waited for was ordered "
    "and stays ordered: nodes that are out of reach follow when they are back.",
    PACKAGE_MISSING: "The base installation is the command line alone. A daemon host installs "
    "hanse[daemon], an edge node hanse[edge].",
}


def code_of(error: errors.HanseError) -> str:
    own: str | None = getattr(error, "code", None)
    if own is not None:
        return own
    return CODES[kind_of(error)] if isinstance(error, _CODED) else CODES["Rejected"]


def exit_code(error: errors.HanseError) -> int:
    return next((exit_ for kind, exit_ in _EXITS if isinstance(error, kind)), ERROR)


@contextmanager
def next_step(fix: str) -> Iterator[None]:
    """Around the reading of files: a parser cannot know where they came from, the command can."""
    try:
        yield
    except errors.HanseError as error:
        error.fix = error.fix or fix
        raise


def report(error: errors.HanseError) -> int:
    """Say it on stderr, with what to do next; returns the exit code."""
    from hanse.cli.output import safe

    code = code_of(error)
    lines = [f"error {code}: {safe(error.message)}"]
    if error.fix:
        lines.append(f"  next: {safe(error.fix)}")
    lines.append(f"  more: hanse explain {code}")
    print("\n".join(lines), file=sys.stderr)
    return exit_code(error)


_CODED = (errors.Rejected, errors.Unavailable, errors.Broken)
