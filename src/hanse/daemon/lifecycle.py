"""Ending a release's life in good order: deprecated, then retired."""

from __future__ import annotations

from hanse.core.catalog.lifecycle import blocks
from hanse.core.errors import Conflict, InvalidSpec
from hanse.core.events import RETIRED, ReleaseRetire, check_text
from hanse.core.node import Node
from hanse.daemon.commands import Answer, Args, envelope_of, event_of, named_release, text_of


def retire(node: Node, args: Args) -> Answer:
    """Record that people retire a release; refused while something still leans on it."""
    phase = text_of(args, "phase")
    if phase not in RETIRED:
        raise InvalidSpec(f"{phase!r} is no phase", fix=f"write {' or '.join(RETIRED)}")
    view, release = named_release(node, args)
    if release.retired >= phase:
        raise Conflict(f"{release.version} is {release.retired} already", fix="nothing to do")
    found = list(blocks(view, release))
    if release.killed or (phase == "retired" and found):
        raise Conflict(
            f"{release.version} cannot be {phase}: {'; '.join(found)}",
            fix=f"see hanse release uses {view.model}@{release.version}",
        )
    reason = check_text(text_of(args, "reason"), "reason")
    body = ReleaseRetire(view.model, release.digest, phase, reason)
    ticket = node.propose(body, attestations=[envelope_of(args)])
    return lambda: {
        "event": event_of(ticket),
        "release": str(release.digest),
        "undo": "a retirement stands; publish the same files as a new release",
    }
