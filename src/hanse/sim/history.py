"""What happened, as a person would tell it: one line a deed, with its virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hanse.core import events
from hanse.core.events import Body
from hanse.core.ids import Digest
from hanse.core.step import AppendEvents, Step
from hanse.sim.faults import Crash, Cut
from hanse.sim.process import CODEC

if TYPE_CHECKING:
    from hanse.sim.process import Process
    from hanse.sim.world import World

_CRASHES = {
    "before": "crashes right before a write: nothing of it was stored or sent",
    "after": "crashes right after a write: stored, not sent",
    "between": "crashes while it sends what it has stored",
}


class History:
    """Owned by the world; `lines` only grows."""

    def __init__(self, world: World) -> None:
        self.lines: list[str] = []
        self._world = world
        self._versions: dict[Digest, str] = {}

    def say(self, who: str, what: str) -> None:
        if what:
            minutes, seconds = divmod(self._world.now_s, 60)
            self.lines.append(f"{int(minutes):02d}:{seconds:06.3f}  {who:<9} {what}")

    def stored(self, process: Process, step: Step) -> None:
        """Our own events only: those of others were told where they were written."""
        for write in step.store:
            if isinstance(write, AppendEvents) and write.head.origin == process.origin:
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
                return f"starts rollout {body.rollout} of {self._version(body.release)}"
            case events.RolloutReport():
                at = f" (step {body.step + 1})" if body.step or body.state != "gated" else ""
                why = f": {body.reason}" if body.reason else ""
                return f"{self._version(body.release)} {body.state}{at}{why}"
            case events.Promote():
                return f"promotes {self._version(body.release)}"
            case events.Healthy():
                return f"attests that {self._version(body.release)} is healthy"
            case events.Hold():
                held = self._version(body.release) if body.release else "the model"
                return f"holds {held}: {body.reason}"
            case events.Rollback():
                return (
                    f"rolls back from {self._version(body.from_release)}"
                    f" to {self._version(body.to_release)}"
                )
            case events.Kill():
                return f"records the kill of {self._version(body.release)}"
            case events.LogOpen():
                return "opens its log"
            case _:
                return ""

    def _version(self, release: Digest) -> str:
        return self._versions.get(release, release.short)
