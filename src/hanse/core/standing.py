"""Which releases of a model may answer on this node, and which must be kept warm for it.

Pure questions about one model's assignment and what the node knows. The order in which a
stable release is chosen: what the region assigned, what ran before, the nearest good one; the
first that is ready and neither barred nor denied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hanse.core.assignment import ModelAssignment
from hanse.core.audience import EVERYBODY
from hanse.core.catalog.manifest import Manifest
from hanse.core.device_memory import Denial
from hanse.core.device_step import Route
from hanse.core.ids import Digest
from hanse.core.routing import takes_all
from hanse.core.slots import ANSWERS, Slot, State
from hanse.core.telemetry import ModelReport


@dataclass(frozen=True, slots=True)
class Standing:
    """One model as it stands now. `running` is what answered last, also before a restart."""

    plan: ModelAssignment
    running: Digest | None
    slots: Mapping[Digest, Slot]
    manifests: Mapping[Digest, Manifest]
    denied: Mapping[Digest, Denial]
    node: str = ""

    def state(self, release: Digest) -> State:
        return self.slots.get(release, Slot()).state

    def permitted(self, release: Digest) -> bool:
        manifest = self.manifests.get(release)
        return (
            release not in self.plan.barred
            and release not in self.denied
            and manifest is not None
            and manifest.model == self.plan.model
        )

    def servable(self, release: Digest | None) -> bool:
        return release is not None and self.permitted(release) and self.state(release) in ANSWERS

    def fallback(self, instead_of: Digest | None) -> Digest | None:
        """The nearest good release that could answer at once."""
        good = (d for d in self.plan.last_good if d != instead_of and self.servable(d))
        return next(good, None)

    def route(self) -> Route:
        plan, stable = self.plan, None
        if plan.active is not None:
            order = (plan.active, self.running, *plan.last_good)
            stable = next((d for d in order if self.servable(d)), None)
        candidate = plan.candidate
        if candidate == stable or not self.servable(candidate):
            candidate = None
        return Route(
            plan.model,
            stable,
            candidate,
            plan.weight_bp if candidate else 0,
            plan.shadow_bp if candidate else 0,
            plan.salt,
            plan.rollout,
            plan.generation,
            plan.slow_ms,
            self.fallback(stable),
            plan.audience if candidate else EVERYBODY,
            takes_all(plan.salt, self.node, plan.weight_bp)
            if candidate and plan.whole_nodes
            else None,
        )

    def warm(self) -> tuple[Digest, ...]:
        """What must be in memory, in the order of need."""
        plan = self.plan
        running = None if self.servable(plan.active) else self.running
        good = (d for d in plan.last_good if d != plan.active and self._usable(d))
        wanted = (running, next(good, None), plan.active, plan.candidate)
        return tuple(dict.fromkeys(d for d in wanted if self._usable(d) and d is not None))

    def staged(self) -> tuple[Digest, ...]:
        """What must be on disk: what is loaded, then what else may be gone back to."""
        good = (d for d in self.plan.last_good if self._usable(d))
        return tuple(dict.fromkeys((*self.warm(), *good)))

    def held(self) -> tuple[Digest, ...]:
        """What this node knows the model by; its files stay unless it is barred."""
        named = self.plan.named
        return named if self.running is None else tuple(dict.fromkeys((*named, self.running)))

    def kept(self) -> tuple[Digest, ...]:
        return tuple(d for d in self.held() if d not in self.plan.barred)

    def report(self, route: Route) -> ModelReport:
        held, plan = self.held(), self.plan
        failed = {d: self.slots[d].reason for d in held if self.state(d) is State.FAILED}
        failed |= {d: self.denied[d].reason for d in held if d in self.denied}
        return ModelReport(
            plan.model,
            running=route.stable,
            candidate_ready=self.servable(plan.candidate),
            ready=tuple(d for d in held if self.state(d) in ANSWERS),
            stored=tuple(d for d in held if self.state(d) in (State.STORED, State.LOADING)),
            failed=failed,
            interim=plan.active is not None and route.stable != plan.active,
        )

    def _usable(self, release: Digest | None) -> bool:
        return (
            release is not None
            and self.permitted(release)
            and self.state(release) is not State.FAILED
        )
