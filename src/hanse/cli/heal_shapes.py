"""What the verbs about healing and retirement answer, key by key; see `shapes`."""

from __future__ import annotations

from typing import TypedDict

from hanse.cli.shapes import ReleaseRef


class Healing(TypedDict):
    """One RETRAIN and what came of it."""

    retrain: str  # hex: the key that the hook is called with
    at_ms: int
    region: str
    release: ReleaseRef | None  # that became worse
    cause: str  # trial | undone | serving
    reason: str
    outcome: str  # passed | refused | failed | late; empty while it is under way
    child: ReleaseRef | None  # that answers it
    why: str
    rollout: str | None  # of the answer
    settled: bool  # nothing more will come of it


class HealWait(TypedDict):
    release: ReleaseRef | None
    why: str
    person: bool  # only people can change it


class HealModel(TypedDict):
    model: str
    declared: bool  # this daemon has a hook for it
    mandate: bool
    uses_left: int
    healings: list[Healing]  # in the order of their events
    waits: list[HealWait]


class HealStatus(TypedDict):
    """heal.status {model?}"""

    models: list[HealModel]


class UseRegion(TypedDict):
    region: str
    since_ms: int
    heard_s: float | None  # None: not since this daemon started


class UseNode(TypedDict):
    """Of this region; what another's nodes run only its daemon knows."""

    node: str
    runs: bool  # it answers with it; else it holds it ready
    online: bool
    seen_s: float


class Uses(TypedDict):
    """release.uses {model, version | release}"""

    model: str
    release: str
    version: str
    state: str
    retired: str  # deprecated | retired | empty
    regions: list[UseRegion]
    nodes: list[UseNode]
    blocks: list[str]  # what stands against retiring it, a sentence each
