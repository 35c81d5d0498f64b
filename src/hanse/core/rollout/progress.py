"""Where one region stands in one rollout: the only state that the machine keeps.

Durations are measured on the local monotonic clock, which starts anew with the process. Stored
progress therefore carries elapsed milliseconds instead of instants: `decode` puts the instants
back so that the time while the process was down counts for nothing. Waiting longer is safe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Final, Self

from hanse.core.errors import Conflict, NotFound, Rejected
from hanse.core.evidence.drift import Reference
from hanse.core.evidence.grid import add, decode_weights
from hanse.core.evidence.metrics import Metric, Setting
from hanse.core.evidence.tally import Evidence
from hanse.core.evidence.voices import NONE, Voices, decode_counts
from hanse.core.evidence.watch import watched
from hanse.core.evidence.weighted import Weighted
from hanse.core.evidence.window import ArmCounts
from hanse.core.ids import Digest
from hanse.core.rollout.plan import RolloutSpec, Stage
from hanse.core.rollout.table import State

NOTHING_SEEN: Final = ArmCounts()
NO_PROFILE: Final[Mapping[str, Reference]] = {}
ANOTHER: Final = "another version of hanse has written it: run that one until the rollout is over"
_TEXTS = ("state", "reason", "why")
_NUMBERS = (
    "stage",
    "step",
    "weight_percent",
    "shadow_percent",
    "elapsed_ms",
    "stage_elapsed_ms",
    "held_ms",
)
_KEYS = {
    *(*_TEXTS, *_NUMBERS, "resumes", "evidence", "proofs", "exposed", "seen", "watching"),
    *("earlier", "rejected", "voices"),
}


@dataclass(frozen=True, slots=True)
class Progress:
    state: State
    stage: int
    step: int
    """Index into the stage's steps; -1 before the first, their number while soaking."""
    entered_at_s: float
    """When the current state began; moved on by the time spent held."""
    stage_entered_at_s: float
    telemetry_at_s: float
    """When a window of any kind was last seen."""
    traffic_at_s: float
    """When a window with at least one request was last seen."""
    evidence: Evidence
    weight_percent: int = 0
    shadow_percent: int = 0
    exposed: bool = False
    """Whether any node was ever asked to run the release."""
    reason: str = ""
    """Why it waits or ended, as a code: a `Reason` or a cause of `stimuli.Cause`."""
    why: str = ""
    resumes: State | None = None
    """While held: the state to go back to."""
    held_at_s: float = 0.0
    proofs: tuple[Digest, ...] = ()
    """Digest of the evidence of each analysis that passed, in order."""
    seen: ArmCounts = NOTHING_SEEN
    """All that the release answered in this rollout: what it is watched against afterwards."""
    watching: bool = False
    """Promoted: the evidence is that of the watch."""
    earlier: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """By metric, the harm weights of the steps that are over: what `evidence` began anew from."""
    rejected: Mapping[str, int] = field(default_factory=dict)
    """By metric, the evidence with which all regions together found harm; 0 once judged by a
    person."""
    voices: Voices = NONE
    """The evidence without each of the nodes that gave it."""

    @property
    def whole(self) -> dict[str, tuple[int, ...]]:
        """By metric, the harm weights since the first step, of tests that are kept as weights: what
        no node alone can have made up.

        The arms may change in between: each tick was judged at the shares that it had.
        """
        found = dict(self.earlier)
        for row in () if self.watching else self.evidence.rows:
            if isinstance(row.harm, Weighted):
                name = row.metric.name
                logw = self.voices.least(self.evidence, name, row.harm.logw)
                found[name] = add(found[name], logw) if name in found else logw
        return found

    def anew(self, evidence: Evidence) -> Self:
        """Begin other evidence, and keep what there was in `earlier`."""
        voices = self.voices.anew(evidence)
        return replace(self, earlier=self.whole, evidence=evidence, voices=voices)

    @property
    def has_traffic(self) -> bool:
        return self.weight_percent > 0 or self.shadow_percent > 0

    @property
    def share(self) -> float:
        """The trial's share of requests: a canary's of all, a shadow's of the stable arm's."""
        return (self.weight_percent or self.shadow_percent) / 100

    @property
    def active(self) -> State:
        """The state whose work is under way, also while held."""
        return self.resumes or self.state

    def held_s(self, now_s: float) -> float:
        return now_s - self.held_at_s if self.state is State.HELD else 0.0

    def elapsed_s(self, now_s: float) -> float:
        """Seconds in the active state; time spent held does not count."""
        return now_s - self.entered_at_s - self.held_s(now_s)

    def encode(self, now_s: float) -> dict[str, object]:
        """Plain JSON-able state without floats."""
        return {
            "state": self.state.value,
            "reason": self.reason,
            "why": self.why,
            "stage": self.stage,
            "step": self.step,
            "weight_percent": self.weight_percent,
            "shadow_percent": self.shadow_percent,
            "elapsed_ms": int(self.elapsed_s(now_s) * 1000),
            "stage_elapsed_ms": int((now_s - self.stage_entered_at_s) * 1000),
            "held_ms": int(self.held_s(now_s) * 1000),
            "resumes": self.resumes.value if self.resumes else None,
            "evidence": self.evidence.encode(),
            "proofs": [str(proof) for proof in self.proofs],
            "exposed": self.exposed,
            "seen": list(astuple(self.seen)),
            "watching": self.watching,
            "earlier": {name: list(weights) for name, weights in self.earlier.items()},
            "rejected": dict(self.rejected),
            "voices": self.voices.encode(),
        }

    @classmethod
    def decode(
        cls,
        spec: RolloutSpec,
        region: str,
        state: object,
        now_s: float,
        references: Mapping[str, Reference] = NO_PROFILE,
    ) -> Self:
        """Read stored progress of this spec. Raises `Rejected` or `Conflict` if it is not that."""
        if (
            not isinstance(state, Mapping)
            or set(state) != _KEYS
            or not all(type(state[key]) is int for key in _NUMBERS)
            or not all(isinstance(state[key], str) for key in _TEXTS)
        ):
            raise Rejected("stored progress is malformed", fix=ANOTHER)
        index, stage = stage_of(spec, region)
        if state["stage"] != index or not -1 <= state["step"] <= len(stage.steps):
            raise Conflict("stored progress belongs to another spec")
        held_s = state["held_ms"] / 1000
        share = (state["weight_percent"] or state["shadow_percent"]) / 100
        seen, watching = decode_counts(state["seen"]), state["watching"] is True
        setting, voices = Setting(share, references), Voices.decode(state["voices"])
        metrics = kept(spec, stage, voices.shown(seen) if watching else ())
        return cls(
            state=State(state["state"]),
            stage=index,
            step=state["step"],
            entered_at_s=now_s - held_s - state["elapsed_ms"] / 1000,
            stage_entered_at_s=now_s - state["stage_elapsed_ms"] / 1000,
            telemetry_at_s=now_s,
            traffic_at_s=now_s,
            evidence=Evidence.decode(state["evidence"], metrics, setting),
            weight_percent=state["weight_percent"],
            shadow_percent=state["shadow_percent"],
            exposed=state["exposed"] is True,
            reason=state["reason"],
            why=state["why"],
            resumes=State(state["resumes"]) if state["resumes"] else None,
            held_at_s=now_s - held_s,
            proofs=tuple(Digest.parse(proof) for proof in state["proofs"]),
            seen=seen,
            watching=watching,
            earlier={n: decode_weights({"logw": w}) for n, w in state["earlier"].items()},
            rejected=dict(state["rejected"]),
            voices=voices.decoded(state["voices"], metrics, setting),
        )

    def restarted(self, evidence: Evidence, now_s: float) -> Self:
        """All clocks and the evidence from the beginning; the place in the plan stays."""
        return replace(
            self,
            evidence=evidence,
            voices=self.voices.anew(evidence),
            earlier={},
            rejected=dict.fromkeys(self.rejected, 0),
            entered_at_s=now_s,
            stage_entered_at_s=now_s,
            held_at_s=now_s,
        )


def kept(spec: RolloutSpec, stage: Stage, shown: Sequence[ArmCounts]) -> tuple[Metric, ...]:
    """The metrics that evidence is kept for; those of the watch once `shown` is complete."""
    metrics = spec.metrics(stage)
    if not shown:
        return metrics
    if (factor := spec.watch_factor) is None:
        return ()
    return tuple(w for metric in metrics if (w := watched(metric, shown, factor)) is not None)


def begin(
    spec: RolloutSpec,
    region: str,
    now_s: float,
    references: Mapping[str, Reference] = NO_PROFILE,
) -> Progress:
    """The progress of a region that has just learnt of the rollout. Raises `NotFound`."""
    index, stage = stage_of(spec, region)
    return Progress(
        state=State.PENDING,
        stage=index,
        step=-1,
        entered_at_s=now_s,
        stage_entered_at_s=now_s,
        telemetry_at_s=now_s,
        traffic_at_s=now_s,
        evidence=Evidence.fresh(spec.metrics(stage), Setting(0.0, references)),
    )


def stage_of(spec: RolloutSpec, region: str) -> tuple[int, Stage]:
    for index, stage in enumerate(spec.stages):
        if region in stage.regions:
            return index, stage
    raise NotFound(f"rollout {spec.name} has no stage for region {region}")
