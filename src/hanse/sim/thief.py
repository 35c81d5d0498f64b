"""Signing with another daemon's key: a branch of its log that its owner has never seen.

The branch begins anywhere in the log, its end included, and is longer than the log itself.
What it says is what an online key can say, and some of what it cannot.
"""

from __future__ import annotations

from random import Random
from typing import Final

from hanse.core.catalog.view import ModelView
from hanse.core.events import Body, Event, Hold, Kill, Note, Promote
from hanse.core.gossip.frames import Announce
from hanse.core.ids import Digest, Origin
from hanse.core.log.checkpoint import Checkpoint, sign_checkpoint
from hanse.core.log.merkle import Frontier, leaf_hash
from hanse.core.logbook import header
from hanse.core.node import Node
from hanse.core.signing import SigningKey
from hanse.sim.process import CODEC

LONGER_MAX: Final = 3


def forge(rng: Random, node: Node, origin: Origin, key: SigningKey, log: list[bytes]) -> Announce:
    """A branch of the log `origin`, of which the thief's `node` knows these events."""
    start = rng.randint(0, len(log))
    events = [
        _event(rng, node, origin, seq)
        for seq in range(start, len(log) + rng.randint(1, LONGER_MAX))
    ]
    whole = Frontier.empty().append([leaf_hash(raw) for raw in (*log[:start], *events)])
    note = sign_checkpoint(Checkpoint(str(origin), whole.size, whole.root()), key)
    return Announce(origin, note, start, tuple(events))


def _event(rng: Random, node: Node, origin: Origin, seq: int) -> bytes:
    where = header(origin, seq, node.book.chain, rng.randbytes(32), 0)
    return CODEC.encode(Event(where, words(rng, node, origin)))


def words(rng: Random, node: Node, origin: Origin) -> Body:
    """What a daemon whose owner has no person's key may try to say."""
    views = [view for _, view in sorted(node.catalog.views.items()) if view.releases]
    if not views:
        return Note(f"word {rng.randrange(1000)}")
    view = rng.choice(views)
    release = rng.choice(view.releases).digest
    return rng.choice(_SAY)(view, release, origin)


def _hold(view: ModelView, release: Digest, origin: Origin) -> Body:
    return Hold(view.model, origin.region, release, "because we say so")


def _promote(view: ModelView, release: Digest, origin: Origin) -> Body:
    """No plan that anybody signed says so."""
    return Promote(view.model, origin.region, release, 1, 1, "nobodys-plan", 9)


def _kill(view: ModelView, release: Digest, origin: Origin) -> Body:
    """Without the signature that it needs."""
    return Kill(view.model, release, "because we say so")


_SAY: Final = (_hold, _promote, _kill)
