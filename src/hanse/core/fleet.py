"""The edge nodes of one region, as their last reports tell.

Latest-value status: replaced, never logged. A node that falls silent keeps its last state
here with its age; it is counted neither as a success nor as a failure (invariant 15).
Counts are taken once per (node, boot, sequence), however often a report is delivered: see
`counted`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from hanse.core import limits
from hanse.core.assignment import MODELS_MAX
from hanse.core.catalog.view import Release
from hanse.core.compat import Fit, fit
from hanse.core.counted import Counted
from hanse.core.errors import TooLarge
from hanse.core.ids import Digest, Segment
from hanse.core.recent import Recent
from hanse.core.telemetry import Counts, ModelReport, Report, Window

ONLINE_S = 15.0
INTERVAL_FACT = "report_interval_s"
SHARE_FACT = "share"
"""Where other nodes reach it: host:port, or :port at the host from which it came."""
INTERVALS_MISSED_MAX = 3
FITS_KEPT = 4096


@dataclass(slots=True)
class NodeStatus:
    """Owned by the fleet. Times are the local monotonic clock, in seconds."""

    name: Segment
    facts: dict[str, str] = field(default_factory=dict)
    watching: bool = False
    seen_s: float = 0.0
    order: tuple[int, int] = (0, 0)
    models: dict[Segment, ModelReport] = field(default_factory=dict)
    kind: int = 0
    """Equal for nodes with equal facts; 0 for those that have said nothing."""
    share: str = ""
    """Where other nodes reach it, host:port; empty if they cannot."""

    @property
    def on_disk(self) -> set[Digest]:
        """Every release of any model whose files it said it has."""
        reports = self.models.values()
        return {d for r in reports for d in (*r.ready, *r.stored, r.running) if d is not None}

    @property
    def silence_s(self) -> float:
        """How long it may say nothing and still count: three of its own report intervals."""
        text = self.facts.get(INTERVAL_FACT, "")
        whole = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
        return max(ONLINE_S, INTERVALS_MISSED_MAX * whole)

    def online(self, now_s: float) -> bool:
        return self.watching and now_s - self.seen_s <= self.silence_s


class Fleet:
    """Owned by the node; windows wait here until the next tick takes or drops them."""

    def __init__(self) -> None:
        self.nodes: dict[Segment, NodeStatus] = {}
        self.counted = Counted()
        self.recent: dict[Segment, Recent] = {}
        self._windows: dict[tuple[str, str, int], dict[tuple[Segment, int, int], Window]] = {}
        self._stable: dict[Segment, tuple[Digest, dict[Segment, Counts]]] = {}
        self._kinds: dict[frozenset[tuple[str, str]], int] = {frozenset(): 0}
        self._fits: dict[tuple[Digest, int], Fit] = {}

    def watch(self, name: Segment, facts: dict[str, str], now_s: float) -> None:
        status = self._status(name)
        status.watching, status.seen_s = True, now_s
        status.share = facts.get(SHARE_FACT, "")
        facts = {k: v for k, v in facts.items() if k != SHARE_FACT}  # or no two would be alike
        if status.facts != facts:
            status.facts = dict(facts)
            self._sort(status)

    def gone(self, name: Segment) -> None:
        if name in self.nodes:
            self.nodes[name].watching, self.nodes[name].share = False, ""

    def report(self, boot_nonce: bytes, seq: int, report: Report, now_s: float) -> int:
        """Take a report; returns the sequence number that is now acknowledged."""
        status = self._status(report.node)
        status.seen_s = now_s
        last = self.counted.last(report.node, boot_nonce)
        if last is not None and seq <= last:
            return last
        self.counted.count(report.node, boot_nonce, seq)
        status.order = (report.epoch, report.serial)
        before, status.models = status.models, {m.model: m for m in report.models}
        for model in report.models:
            self._remember(report.node, before.get(model.model), model, now_s)
            for window in model.windows:
                of_rollout = self._windows.setdefault(window.key[:3], {})
                key = (report.node, *window.key[3:])
                held = of_rollout.get(key)
                of_rollout[key] = held + window if held else window
        return seq

    def take(
        self, model: Segment, rollout: str, generation: int
    ) -> tuple[tuple[Segment, Window], ...]:
        """What each node counted of one rollout since the last tick; handed out once."""
        found = self._windows.pop((model, rollout, generation), {})
        return tuple((key[0], found[key]) for key in sorted(found))

    def drop_untaken(self, watched: Collection[Segment] = ()) -> None:
        """Forget what no running rollout asked for, so that nothing gathers for a later one; of
        stable arms all but those of models that are `watched`."""
        self._windows.clear()
        for model in self._stable.keys() - watched:
            del self._stable[model]

    def take_stable(self, model: Segment, release: Digest) -> tuple[tuple[Segment, Counts], ...]:
        """What each node's stable arm answered while it was `release`; handed out once.

        It is kept from the first time on that somebody asks.
        """
        found, counts = self._stable.get(model, (release, {}))
        self._stable[model] = (release, {})
        return tuple(sorted(counts.items())) if found == release else ()

    def online(self, now_s: float) -> list[NodeStatus]:
        return [self.nodes[n] for n in sorted(self.nodes) if self.nodes[n].online(now_s)]

    def fit(self, node: NodeStatus, release: Release) -> Fit:
        """What the node would run of a release. Most nodes of a fleet are alike: it is kept."""
        key = release.digest, node.kind
        if (found := self._fits.get(key)) is None:
            if len(self._fits) >= FITS_KEPT:
                self._fits.clear()
            found = self._fits[key] = fit(release.manifest, node.facts)
        return found

    def _sort(self, status: NodeStatus) -> None:
        """Number its kind. A node that says something new each time must not fill the memory."""
        nodes = [status]
        if len(self._kinds) > 2 * len(self.nodes) + FITS_KEPT:
            self._kinds, nodes = {frozenset(): 0}, list(self.nodes.values())
            self._fits.clear()
        for node in nodes:
            node.kind = self._kinds.setdefault(frozenset(node.facts.items()), len(self._kinds))

    def able(self, nodes: Iterable[NodeStatus], release: Release | None) -> list[NodeStatus]:
        """Those that can run it. The others keep what they have, and no gate counts them."""
        return [n for n in nodes if release is None or self.fit(n, release).variant is not None]

    @property
    def obeyed(self) -> tuple[int, int]:
        """The newest assignment that any node says it obeys."""
        return max((node.order for node in self.nodes.values()), default=(0, 0))

    def running(self, nodes: Iterable[NodeStatus], model: Segment, release: Digest) -> int:
        reports = [node.models.get(model) for node in nodes]
        return sum(1 for r in reports if r is not None and r.running == release)

    def _remember(
        self, node: Segment, before: ModelReport | None, report: ModelReport, now_s: float
    ) -> None:
        """Counts of a report across a change of release belong to neither: leave them out."""
        if before is None or report.running is None or before.running != report.running:
            return
        if report.model not in self.recent and len(self.recent) >= MODELS_MAX:
            return
        recent = self.recent.setdefault(report.model, Recent())
        for window in report.windows:
            if window.stable != Counts():
                recent.add(report.running, window.stable, now_s)
                found, counts = self._stable.get(report.model, (None, {}))
                if found == report.running:
                    counted = counts.get(node, Counts())
                    counts[node] = counted + replace(window.stable, latency={})

    def _status(self, name: Segment) -> NodeStatus:
        if name not in self.nodes and len(self.nodes) >= limits.NODES_MAX:
            raise TooLarge(f"this region has {limits.NODES_MAX} nodes", fix="start another daemon")
        return self.nodes.setdefault(name, NodeStatus(name))
