"""What the verbs that look into a rollout answer, key by key: see `shapes` for the rules."""

from __future__ import annotations

from typing import TypedDict

from hanse.cli.shapes import ReleaseRef


class PlannedStage(TypedDict):
    stage: str
    regions: list[str]
    starts: str  # when
    steps: list[str]
    soak: str


class PlannedRegion(TypedDict):
    region: str
    stage: str
    active: ReleaseRef | None
    admitted: bool  # by the residency of the release
    download_bytes: int | None  # to this region's daemon; None for other regions


class PlannedNodes(TypedDict):
    """Nodes of the daemon's own region for which the same is true, as they last reported"""

    variant: str | None  # what they would run; None: none fits
    why: str
    download_bytes: int  # by each of them
    count: int
    online: int
    names: list[str]  # at most 20


class RolloutPlanned(TypedDict):
    """rollout.plan {spec}: nothing is started"""

    model: str
    rollout: str
    generation: int
    release: ReleaseRef
    predecessor: ReleaseRef | None
    objections: list[str]  # why starting it now would be refused
    stages: list[PlannedStage]  # in order
    regions: list[PlannedRegion]
    keeps: list[ReleaseRef]  # what stays on the disk of every node to go back to
    nodes: list[PlannedNodes]  # the largest group first
