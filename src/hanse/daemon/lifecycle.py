"""Ending a release's life in good order: deprecated, then retired."""

from __future__ import annotations

from hanse.core.catalog.lifecycle import blocks
from hanse.core.errors import Conflict, InvalidSpec, NotFound
from hanse.core.events import RETIRED, ReleaseRetire, check_text
from hanse.core.ids import Digest
from hanse.core.node import Node
from hanse.daemon.commands import Answer, Args, envelope_of, event_of, model_view, text_of


def retire(node: Node, args: Args) -> Answer:
    """Record that people retire a release; refused while something still leans on it."""
    view, phase = model_view(node, text_of(args, "model")), text_of(args, "phase")
    digest = Digest.parse(text_of(args, "release"))
    release = view.release(digest)
    if phase not in RETIRED:
        raise InvalidSpec(f"{phase!r} is no phase", fix=f"write {' or '.join(RETIRED)}")
    if release is None:
        raise NotFound(f"{view.model} has no release {digest.short}", fix="see release list")
    if release.retired >= phase:
        raise Conflict(f"{release.version} is {release.retired} already", fix="nothing to do")
    found = list(blocks(view, release))
    if release.killed or (phase == "retired" and found):
        raise Conflict(
            f"{release.version} cannot be {phase}: {'; '.join(found)}",
            fix=f"see hanse release uses {view.model}@{release.version}",
        )
    reason = check_text(text_of(args, "reason"), "reason")
    body = ReleaseRetire(view.model, digest, phase, reason)
    ticket = node.propose(body, attestations=[envelope_of(args)])
    return lambda: {
        "event": event_of(ticket),
        "release": str(digest),
        "undo": "a retirement stands; publish the same files as a new release",
    }
