"""What the core asks an edge node to do: swap routes, store, then the other effects in order.

A route may be swapped before the state is stored: nothing leaves the node by it, and what a
crash forgets is derived again. So a swap waits for no disk and no network.
"""

from __future__ import annotations

from dataclasses import dataclass

from hanse.core.assignment import WEIGHT_FULL_BP as FULL_BP
from hanse.core.audience import EVERYBODY, Audience
from hanse.core.catalog.manifest import Manifest
from hanse.core.ids import Digest, Segment


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get every file of the manifest."""

    release: Digest
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Load:
    """Verify the files, load the model, run its golden inputs; no traffic."""

    release: Digest
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Unload:
    release: Digest


@dataclass(frozen=True, slots=True)
class Forget:
    """Stop fetching the release and delete its files: nothing names it any more."""

    release: Digest


@dataclass(frozen=True, slots=True)
class Route:
    """From now on answer like this, from one swap of a pointer. None: nobody answers.

    `fallback` is the good release that stands in when the stable one fails on a request.
    """

    model: Segment
    stable: Digest | None = None
    candidate: Digest | None = None
    weight_bp: int = 0
    shadow_bp: int = 0
    salt: str = ""
    rollout: str = ""
    generation: int = 0
    slow_ms: int | None = None
    fallback: Digest | None = None
    audience: Audience = EVERYBODY
    whole: bool | None = None
    """This node answers with the candidate alone, or not at all; None: by unit, by the weight."""

    @property
    def canary_bp(self) -> int:
        """The share of the units of this node that the candidate answers."""
        return self.weight_bp if self.whole is None else FULL_BP * self.whole


Effect = Fetch | Load | Unload | Forget | Route


@dataclass(frozen=True, slots=True)
class DeviceStep:
    store: bytes | None = None
    effects: tuple[Effect, ...] = ()
