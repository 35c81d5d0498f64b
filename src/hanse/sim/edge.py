"""The edge nodes of a region: the real `Device` on synthetic files, answers and labels.

They speak to their region as real ones do, in assignment and report bytes: signatures are
verified, a report is repeated under its number until it is acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random

from hanse.core.assignment import open_assignment
from hanse.core.catalog.manifest import Manifest
from hanse.core.device import Device
from hanse.core.device_step import DeviceStep, Fetch, Load, Route
from hanse.core.ids import Digest, Segment, segment
from hanse.core.telemetry import Counts, Report, Window, parse_report
from hanse.sim.answers import LABEL_DELAY_S, Nature, Quality, answer, compare
from hanse.sim.process import Process, Surroundings

REPORT_S = 3.0
TICK_S = 1.0
REQUESTS = 60
LOST_ACKNOWLEDGEMENTS = 0.05


class EdgeNode:
    """One node. It outlives its region's daemon, and is never told wrong by a dead one."""

    def __init__(self, world: Surroundings, home: Process, name: str, nature: Nature) -> None:
        self.name = segment(name)
        self.device = Device(home.origin.federation, home.origin.region, None, name)
        self.routes: dict[Segment, Route] = {}
        self._world, self._home, self._nature = world, home, nature
        self._rng = Random(f"edge/{world.seed}/{name}")  # noqa: S311  # repeatable on purpose
        self._nonce = self._rng.randbytes(16)
        self._windows: dict[tuple[object, ...], Window] = {}
        self._labels: list[tuple[float, Window]] = []
        self._unanswered: bytes | None = None
        self._seq = 0
        self._watched_boot = 0
        world.after(self._rng.uniform(0, TICK_S), self._tick)
        world.after(self._rng.uniform(0, REPORT_S), self._report)

    # -- from the region -------------------------------------------------------

    def assigned(self, raw: bytes, signature: bytes) -> None:
        open_assignment(raw, signature, self._home.key.public)
        self._carry_out(self.device.assign(raw, self._world.now_s))

    def _carry_out(self, step: DeviceStep) -> None:
        for effect in step.effects:
            match effect:
                case Fetch(release, manifest):
                    self._later(0.2, 1.5, partial(self._fetch, release, manifest))
                case Load(release):
                    self._later(0.1, 0.5, partial(self._loaded, release))
                case Route() if effect.stable is None and effect.candidate is None:
                    self.routes.pop(effect.model, None)
                case Route():
                    self.routes[effect.model] = effect
                case _:
                    pass  # files are not simulated

    def _fetch(self, release: Digest, manifest: Manifest) -> None:
        now_s = self._world.now_s
        if self._world.serves(release, manifest, self._home):
            self._carry_out(self.device.fetched(release, now_s))
        else:
            self._carry_out(
                self.device.fetch_failed(
                    release, "no source", now_s, transient=True, jitter=self._rng.random()
                )
            )

    def _loaded(self, release: Digest) -> None:
        self._carry_out(self.device.loaded(release, self._world.now_s))

    # -- time ------------------------------------------------------------------

    def _tick(self) -> None:
        """Keep the watch stream, retry fetches, answer a second's worth of requests."""
        self._world.after(TICK_S, self._tick)
        if self._home.node and self._watched_boot != self._home.boots:
            self._watched_boot = self._home.boots
            self._home.do(lambda node, clock: node.fleet.watch(self.name, {}, clock.now_s))
            self._home.tell_again(self)
        self._carry_out(self.device.tick(self._world.now_s))
        for route in self.routes.values():
            self._answer(route)

    def _answer(self, route: Route) -> None:
        requests = int(REQUESTS * TICK_S / REPORT_S)
        canary = sum(self._rng.random() * 10_000 < route.canary_bp for _ in range(requests))
        shadow = 0
        if route.candidate and route.stable:
            chosen = (self._rng.random() * 10_000 < route.shadow_bp for _ in range(requests))
            shadow = sum(chosen)
        if route.stable is not None:
            self._count(route, "stable", route.stable, requests - canary)
        if route.candidate is not None:
            self._count(route, "canary", route.candidate, canary)
            self._count(route, "shadow", route.candidate, shadow)
            if route.stable is not None and shadow:
                old, new = self._quality(route.stable), self._quality(route.candidate)
                self._add(replace(_key(route), pairs=compare(self._rng, old, new, shadow)))

    def _count(self, route: Route, arm: str, release: Digest, requests: int) -> None:
        if not requests:
            return
        now, late = answer(self._rng, self._quality(release), requests)
        self._add(_arm(route, arm, now))
        due_s = self._world.now_s + self._rng.uniform(*LABEL_DELAY_S)
        self._labels.append((due_s, _arm(route, arm, late)))

    def _quality(self, release: Digest) -> Quality:
        manifest = self.device.manifest(release)
        version = manifest.version if manifest else ""
        return self._nature.quality(version, self._home.name, self.name, self._world.now_s)

    def _add(self, window: Window) -> None:
        held = self._windows.get(window.key)
        self._windows[window.key] = held + window if held else window

    # -- to the region -----------------------------------------------------------

    def _report(self) -> None:
        """Say what was counted; what is not acknowledged is said again, under its number."""
        self._world.after(REPORT_S, self._report)
        if self._unanswered is None:
            self._unanswered = self._next_report().encode()
            self._seq += 1
        raw, seq = self._unanswered, self._seq
        acknowledged = self._home.do(
            lambda node, clock: node.fleet.report(self._nonce, seq, parse_report(raw), clock.now_s)
        )
        if acknowledged == seq and self._rng.random() >= LOST_ACKNOWLEDGEMENTS:
            self._unanswered = None

    def _next_report(self) -> Report:
        now_s = self._world.now_s
        for due_s, window in self._labels:
            if due_s <= now_s:
                self._add(window)
        self._labels = [(due_s, window) for due_s, window in self._labels if due_s > now_s]
        counted, self._windows = list(self._windows.values()), {}
        epoch, serial = self.device.assignment.order if self.device.assignment else (0, 0)
        models = tuple(
            replace(model, windows=tuple(w for w in counted if w.model == model.model))
            for model in self.device.report()
        )
        return Report(self.name, epoch, serial, models)

    def _later(self, low_s: float, high_s: float, deed: Callable[[], None]) -> None:
        self._world.after(self._rng.uniform(low_s, high_s), deed)


def _key(route: Route) -> Window:
    return Window(route.model, route.rollout, route.generation, route.weight_bp, route.shadow_bp)


def _arm(route: Route, arm: str, counts: Counts) -> Window:
    window = _key(route)
    match arm:
        case "stable":
            return replace(window, stable=counts)
        case "canary":
            return replace(window, canary=counts)
        case _:
            return replace(window, shadow=counts)
