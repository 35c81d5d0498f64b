"""One tick of a rollout: everything that a rule may look at."""

from __future__ import annotations

from dataclasses import dataclass

from hanse.core.rollout.facts import Facts
from hanse.core.rollout.plan import RolloutSpec, Stage
from hanse.core.rollout.progress import Progress
from hanse.core.rollout.table import State


@dataclass(frozen=True, slots=True)
class View:
    spec: RolloutSpec
    stage: Stage
    progress: Progress
    facts: Facts
    now_s: float
    region: str = ""

    @property
    def elapsed_ms(self) -> float:
        return self.progress.elapsed_s(self.now_s) * 1000

    @property
    def nodes_asked(self) -> int:
        """How many nodes answer, or could answer, with the release now."""
        nodes, progress = self.facts.nodes, self.progress
        whole = nodes.whole if progress.weight_percent else None
        return nodes.online if whole is None else whole

    @property
    def late(self) -> bool:
        """Whether every node has had the time to speak of the release in this state."""
        held = self.progress.state is State.HELD
        spent_s = self.progress.held_s(self.now_s) if held else self.progress.elapsed_s(self.now_s)
        return spent_s * 1000 >= self.spec.freshness.telemetry_ms
