"""The evidence of a step without each of the nodes that gave it: no node decides alone.

A node may lie, or be broken in a way that no other is. So the evidence is kept once from all nodes
together and, beside that, once without each *voice*: the first eight nodes to speak are a voice of
their own, every other one joins one of them, by its name. With three nodes or more (`asked`):

    harm       is what shows without any one voice. What shows with all of them and not without one
               stops the rollout and undoes nothing: `oneNode`, which names it
    hidden     harm that shows only without one voice stops it too; one of so many is looked for, so
               each at alpha divided by their number
    healthy    is what is proven without any one voice, or, once the others have had the time to
               object (`late`), what is proven by all together while no harm is hidden

Whatever one node sends, the evidence without its voice is what the others measured: a sequential
test as it always was, whose bound on false alarms holds. Harm needs the least of them all, which is
no larger. Where nodes have nothing to say, once they had the time, two that speak are judged as
ever. See docs/decisions/0026.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, fields, replace
from functools import reduce
from operator import add
from typing import Any, Final, Self
from zlib import crc32

from hanse.core.errors import Rejected
from hanse.core.evidence.drift import Reference
from hanse.core.evidence.metrics import Metric, Setting
from hanse.core.evidence.ratio import COUNT_MAX, Arms
from hanse.core.evidence.tally import Evidence
from hanse.core.evidence.verdict import Kind, Reason, Verdict, inconclusive, judge
from hanse.core.evidence.weighted import Weighted
from hanse.core.evidence.window import ArmCounts, Window
from hanse.core.limits import NODES_MAX

VOICES_MAX: Final = 8
"""More of them: less evidence is left out with one, and the state of a step is so much larger."""
OF_ONE_MAX: Final = COUNT_MAX // NODES_MAX
"""Requests of one node in one tick; more would leave no room for all the others."""
CROWD_MIN: Final = 3
"""Of two that contradict each other nobody can say which one lies."""
_NAMED_MAX: Final = 3


def spared(metric: Metric) -> bool:
    """Whether a voice can be left out of it. A test of drift is hundreds of numbers: only where
    it may undo something, not where it asks for a hold."""
    return metric.on_fail == "rollback" or metric.test not in ("drift", "drift-watch")


@dataclass(frozen=True, slots=True)
class Voices:
    """`without[i]` is the evidence that all but voice `names[i]` gave since the arms changed."""

    names: tuple[str, ...] = ()
    without: tuple[Evidence, ...] = ()
    seen: tuple[ArmCounts, ...] = ()
    """What the release answered in the whole rollout, by all but each voice."""
    asked: int = 0
    """As many nodes as there are to speak: in the time that all have for it the most that there
    were, so that nobody gains who keeps others from speaking."""

    def hear(
        self, windows: Sequence[Window], evidence: Evidence, seen: ArmCounts, *, watching: bool
    ) -> tuple[Self, Window | None]:
        """Take in one tick; `evidence` and `seen` are what all together had said before it.

        Also what they say together in this tick; None where nobody can have counted so much. While
        `watching` what was seen in the rollout is complete.
        """
        voices = self._joined({w.node for w in windows} - {""}, evidence, seen)
        said: dict[int | None, Window] = {}
        for window in windows:
            voice = voices._voice_of(window.node)
            with suppress(Rejected):  # more than anybody can have counted
                said[voice] = said[voice] + window if voice in said else window
        without, shown = list(voices.without), list(voices.seen)
        for i in range(len(voices.names)):
            if rest := [window for voice, window in said.items() if voice != i]:
                with suppress(Rejected):
                    window = reduce(add, rest)
                    without[i] = without[i].observe(window)
                    shown[i] = shown[i] if watching else shown[i] + window.trial
        whole = None
        with suppress(Rejected):
            whole = reduce(add, said.values())
        return replace(voices, without=tuple(without), seen=tuple(shown)), whole

    def declare(self, counts: Mapping[str, Arms]) -> Self:
        """What no node counted is in the evidence of all."""
        return replace(self, without=tuple(e.declare(counts) for e in self.without))

    def anew(self, fresh: Evidence) -> Self:
        """Begin other evidence; who is which voice stays."""
        return replace(self, without=(_spared(fresh),) * len(self.names), asked=0)

    def settled(self, seen: ArmCounts) -> Self:
        """At the end of the rollout: of too few nodes none can be left out."""
        few = len(self.names) < CROWD_MIN
        return replace(self, seen=(seen,) * len(self.names)) if few else self

    def _crowd(self, evidence: Evidence, *, late: bool) -> bool:
        """Whether so many nodes have answered with the trial, or are there and still may.

        What one says beyond all bounds is not in the evidence of all, which may then be the less.
        """
        spoke = sum(rest.requests != evidence.requests for rest in self.without)
        return spoke >= CROWD_MIN or (self.asked >= CROWD_MIN and not late)

    def shown(self, seen: ArmCounts) -> tuple[ArmCounts, ...]:
        """`seen` by all, then by all but each voice."""
        return (seen, *self.seen)

    def least(self, evidence: Evidence, name: str, logw: tuple[int, ...]) -> tuple[int, ...]:
        """Of the harm weights of a metric that all gave, what no voice can have made up."""
        if not self._crowd(evidence, late=False):
            return logw
        kept = [row.harm.logw for rest in self.without for row in rest.rows
                if row.metric.name == name and isinstance(row.harm, Weighted)]  # fmt: skip
        return tuple(min(column) for column in zip(logw, *kept, strict=True))

    def judge(
        self,
        evidence: Evidence,
        metrics: Iterable[Metric],
        alpha: float,
        samples_min: int = 0,
        *,
        late: bool = True,
    ) -> Verdict:
        """The verdict of all together, as far as no voice decides. `late`: all had their time."""
        metrics = tuple(metrics)
        whole = judge(evidence, metrics, alpha, samples_min)
        kept = [metric for metric in metrics if spared(metric)]
        if not kept or not self.names or not self._crowd(evidence, late=late):
            return whole
        apart = [judge(rest, kept, alpha, samples_min) for rest in self.without]
        if whole.kind is Kind.HARM:
            return self._harm(whole, kept, apart)
        if any(verdict.kind is Kind.HARM for verdict in apart):
            strictly = [judge(rest, kept, alpha / len(apart)) for rest in self.without]
            if (hidden := self._hidden(whole, strictly)) is not None:
                return hidden
        if whole.kind is Kind.HEALTHY and not late:
            for voice, verdict in enumerate(apart):
                if verdict.kind is not Kind.HEALTHY:
                    why = f"without the word of {self._called(voice)}: {verdict.why}"
                    return inconclusive(verdict.reason, why, whole.readings)
        return whole

    def _harm(self, whole: Verdict, kept: Sequence[Metric], apart: Sequence[Verdict]) -> Verdict:
        names = {metric.name for metric in kept}
        if whole.on_fail == "hold" and any(
            r.harmful and not r.dry_run and r.metric not in names for r in whole.readings
        ):
            return whole
        grave = (whole.on_fail, "rollback")
        needed = [i for i, verdict in enumerate(apart) if verdict.on_fail not in grave]
        if not needed:
            return whole
        needed.sort(key=lambda i: _harm_of(apart[i]))
        said = ", ".join(map(self._called, needed[:_NAMED_MAX]))
        more = f" or {len(needed) - _NAMED_MAX} others" if len(needed) > _NAMED_MAX else ""
        why = f"harm does not show without the word of {said}{more}: {whole.why}"
        return Verdict(Kind.HARM, Reason.ONE_NODE, why, whole.readings, "hold")

    def _hidden(self, whole: Verdict, apart: Sequence[Verdict]) -> Verdict | None:
        by_harm = sorted(range(len(apart)), key=lambda i: _harm_of(apart[i]))
        least, most = by_harm[0], by_harm[-1]
        if apart[most].kind is not Kind.HARM:
            return None
        # All together lean to harm: perhaps nobody covers it up, and another one makes it up.
        open_ = _harm_of(whole) > 0
        other = f", least without that of {self._called(least)}" if open_ else ""
        word = f"harm shows without the word of {self._called(most)}{other}"
        why = f"{word}: {apart[most].why}"
        return Verdict(Kind.HARM, Reason.ONE_NODE, why, whole.readings, "hold")

    def _joined(self, nodes: set[str], evidence: Evidence, seen: ArmCounts) -> Self:
        """Until it first spoke a node gave nothing: the evidence without it is that of all."""
        new = sorted(nodes - set(self.names))[: VOICES_MAX - len(self.names)]
        count = len(new)
        return replace(
            self,
            names=(*self.names, *new),
            without=(*self.without, *(_spared(evidence),) * count),
            seen=(*self.seen, *(seen,) * count),
        )

    def _called(self, voice: int) -> str:
        """Its node; of more nodes than voices it may be another one that speaks with it."""
        shared = self.asked > VOICES_MAX
        return f"{self.names[voice]} (or a node of its voice)" if shared else self.names[voice]

    def _voice_of(self, node: str) -> int | None:
        if not node:
            return None
        return self.names.index(node) if node in self.names else crc32(node.encode()) % VOICES_MAX

    # -- at rest -----------------------------------------------------------------

    def encode(self) -> dict[str, object]:
        return {
            "asked": self.asked,
            "names": list(self.names),
            "seen": [list(astuple(counts)) for counts in self.seen],
            "without": [evidence.encode() for evidence in self.without],
        }

    @classmethod
    def decode(cls, state: object) -> Self:
        """Who they are and what they have seen; see `decoded`. Raises `Rejected`."""
        if not isinstance(state, Mapping) or set(state) != {"asked", "names", "seen", "without"}:
            raise Rejected("the stored voices of a step are malformed")
        names, seen, without = lists = state["names"], state["seen"], state["without"]
        if type(state["asked"]) is not int or not all(isinstance(each, list) for each in lists):
            raise Rejected("the stored voices of a step are malformed")
        if not len(names) == len(seen) == len(without) <= VOICES_MAX:
            raise Rejected("the stored voices of a step are not as many as their evidence")
        counts = tuple(map(decode_counts, seen))
        return cls(tuple(map(str, names)), (), counts, state["asked"])

    def decoded(
        self, state: Mapping[str, Any], metrics: Iterable[Metric], setting: Setting
    ) -> Self:
        """These with their stored evidence of such metrics. Raises `Rejected`, `Conflict`."""
        kept = [metric for metric in metrics if spared(metric)]
        without = (Evidence.decode(each, kept, setting) for each in state["without"])
        return replace(self, without=tuple(without))


NONE: Final = Voices()


def fits(window: Window, references: Mapping[str, Reference]) -> bool:
    """Whether a node can have counted this: no more than leaves room for all others, and series
    in the bins of the profile. Of a window that does not fit nothing is taken."""
    arms, pairs = (window.trial, window.stable), window.pairs
    counts = [count for arm in arms for count in (arm.requests, arm.labelled)]
    counts += [pairs.labelled, pairs.compared, *window.differences.values()]
    counts += [count for bins in window.series.values() for count in bins]
    return max(counts) <= OF_ONE_MAX and all(
        len(bins) == len(references[name].counts)
        for name, bins in window.series.items()
        if name in references
    )


def decode_counts(value: object) -> ArmCounts:
    if not isinstance(value, list) or len(value) != len(fields(ArmCounts)):
        raise Rejected("stored counts are malformed")
    return ArmCounts(*value)


def _spared(evidence: Evidence) -> Evidence:
    return replace(evidence, rows=tuple(row for row in evidence.rows if spared(row.metric)))


def _harm_of(verdict: Verdict) -> float:
    return max((r.harm_log_e for r in verdict.readings if not r.dry_run), default=0.0)
