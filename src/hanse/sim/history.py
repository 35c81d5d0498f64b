"""What happened, as a person would tell it: one line a deed, with its virtual time."""

from __future__ import annotations

from hanse.core import events
from hanse.core.catalog.fold import read_plan
from hanse.core.events import Body, RolloutReport
from hanse.core.ids import Digest
from hanse.core.rollout.plan import RolloutSpec, SetWeight, Shadow
from hanse.core.rollout.table import State
from hanse.core.step import AppendEvents, Step
from hanse.sim.faults import Crash, Cut
from hanse.sim.process import CODEC, Process
from hanse.sim.timeline import Timeline

_CRASHES = {
    "before": "crashes right before a write: nothing of it was stored or sent",
    "after": "crashes right after a write: stored, not sent",
    "between": "crashes while it sends what it has stored",
}


_STATES = {
    State.PENDING: "has not begun with {version}",
    State.GATED: "waits at the gate of {version}",
    State.PREFETCHING: "fetches {version} and what it would fall back to",
    State.SHADOWING: "lets {version} answer {share}, unseen by users",
    State.WEIGHTING: "lets {version} answer {share}",
    State.PAUSED: "watches {version} at {share}",
    State.ANALYZING: "weighs what it knows of {version} at {share}",
    State.AWAITING: "waits for people to approve {version} at {share}",
    State.SOAKING: "lets {version} soak at {share}",
    State.HEALTHY: "attests that {version} is healthy: {why}",
    State.HELD: "goes no further with {version}: {why}",
    State.ROLLING_BACK: "takes {version} back",
    State.ROLLED_BACK: "has {version} on no node any more",
    State.SUPERSEDED: "gives {version} up: {why}",
    State.QUARANTINED: "bans {version}: {why}",
}


class History:
    """Owned by the world; `lines` only grows."""

    def __init__(self, time: Timeline) -> None:
        self.lines: list[str] = []
        self._time = time
        self._versions: dict[Digest, str] = {}
        self._plans: dict[str, RolloutSpec] = {}

    def say(self, who: str, what: str) -> None:
        if what:
            minutes, seconds = divmod(self._time.now_s, 60)
            self.lines.append(f"{int(minutes):02d}:{seconds:06.3f}  {who:<9} {what}")

    def stored(self, process: Process, step: Step) -> None:
        """Our own events only: those of others were told where they were written."""
        for write in step.store:
            if isinstance(write, AppendEvents) and write.head.origin.member == process.member:
                for raw in write.events:
                    body = CODEC.decode(raw).body
                    self.say(process.name, self._told(body) if body else "")

    def cut(self, cut: Cut) -> None:
        way = "can no longer be heard" if cut.one_way else "cut off from the others"
        self.say("network", f"{', '.join(cut.inside)}: {way}")

    def healed(self, cut: Cut) -> None:
        self.say("network", f"{', '.join(cut.inside)}: back in touch")

    def crashed(self, process: Process, crash: Crash) -> None:
        self.say(process.name, _CRASHES[crash.moment])

    def recovered(self, process: Process) -> None:
        heads = process.node.book.heads.values() if process.node else ()
        count = sum(head.size for head in heads)
        self.say(process.name, f"is back with {count} events of {len(heads)} logs")

    def _told(self, body: Body) -> str:
        match body:
            case events.ReleaseRecord():
                self._versions[body.release] = body.version
                return f"publishes {body.model} {body.version}"
            case events.RolloutIntent():
                spec = self._plans[body.rollout] = read_plan(body.spec)
                stages = "; ".join(f"{s.name}: {', '.join(s.regions)}" for s in spec.stages)
                return f"starts {body.rollout} of {self._version(body.release)} ({stages})"
            case events.RolloutReport():
                return self._reported(body)
            case events.Promote():
                return f"promotes {self._version(body.release)}"
            case events.Hold():
                held = self._version(body.release) if body.release else "the model"
                return f"holds {held}: {body.reason}"
            case events.Rollback():
                return (
                    f"rolls back from {self._version(body.from_release)}"
                    f" to {self._version(body.to_release)}"
                )
            case events.Kill():
                return f"records that {self._version(body.release)} is killed: {body.reason}"
            case events.Retrain():
                return f"asks for a better model than {self._version(body.release)}"
            case events.RetrainResult():
                answer = f": {self._version(body.release)}" if body.release else ""
                return f"has its answer, {body.outcome}{answer}"
            case events.LogOpen():
                return "opens its log"
            case _:
                return ""

    def _reported(self, body: RolloutReport) -> str:
        told = _STATES[State(body.state)].format(
            version=self._version(body.release), why=body.reason, share=self._share(body)
        )
        return told.rstrip(": ")

    def _share(self, body: RolloutReport) -> str:
        """What the release answers at this step of its plan."""
        steps = self._plans[body.rollout].stages[body.stage].steps[: body.step + 1]
        for step in reversed(steps):
            if isinstance(step, Shadow):
                return f"a shadow of {step.sample_percent}%"
            if isinstance(step, SetWeight):
                return f"{step.percent}%"
        return "nothing"

    def _version(self, release: Digest) -> str:
        return self._versions.get(release, release.short)
