"""Which loaded release answers a request; changed by replacing one reference.

A route is immutable. A request takes the reference once and finishes on what it took, so a swap
loses nothing and waits for nobody. Inference runs in a small thread pool (onnxruntime releases
the interpreter lock), unless it is known to be quicker than the way there; all counting happens
on the event loop, hence without locks.

When a release fails on a request, the good release beside it is asked as well. If it can answer,
the caller gets that answer, marked `fallback`, and the failure is the release's own. If it
fails too, the input is to blame, and the watchdog does not count it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from hanse.core.assignment import WEIGHT_FULL_BP
from hanse.core.audience import EVERYBODY, Context
from hanse.core.device_step import Route
from hanse.core.errors import InvalidSpec, NotFound, Unavailable
from hanse.core.ids import Digest, Segment
from hanse.core.routing import bucket, shadow_salt, threshold
from hanse.edge.inference import ModelFailed
from hanse.edge.outcomes import Array
from hanse.edge.served import Feeds, Run, Served, run_model
from hanse.edge.shadow import SHADOWS_MAX, Shadow, ShadowQueue
from hanse.edge.telemetry import Key, Telemetry, key_of

QUICK_BYTES_MAX = 16 * 1024
_NO_CONTEXT: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Entry:
    """One model's route with everything looked up that a request needs."""

    route: Route
    key: Key
    key_outside: Key
    """Of requests that take no part in the rollout: they belong to neither arm."""
    stable: Served | None
    candidate: Served | None
    fallback: Served | None
    canary_below: int
    shadow_below: int
    salt_of_shadow: str
    slow_s: float | None

    @property
    def default(self) -> Served | None:
        """What answers whoever asks: the stable release, or a first one that has all traffic."""
        everything = self.route.canary_bp == WEIGHT_FULL_BP
        return self.stable or (self.candidate if everything else None)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Who answers one unit; see `core.serving.Choice` for `role` and `reason`."""

    entry: Entry
    served: Served
    role: str
    reason: str
    unit: str

    @property
    def key(self) -> Key:
        return self.entry.key_outside if self.reason == "target" else self.entry.key


@dataclass(frozen=True, slots=True)
class Outputs:
    """An answer with its provenance; see `core.serving.Answer` for `role`."""

    outputs: dict[str, Array]
    release: Digest
    version: str
    role: str
    rollout: str


class Router:
    """Use from one event loop. `on_trip(model, release, reason)` and `on_proved(release)` are
    called on it, as soon as a count says so; what they reroute holds for the next request."""

    def __init__(
        self,
        telemetry: Telemetry,
        *,
        threads: int = 2,
        shadows_max: int = SHADOWS_MAX,
        labels: Context = _NO_CONTEXT,
        on_trip: Callable[[Segment, Digest, str], None] = lambda *_: None,
        on_proved: Callable[[Digest], None] = lambda _: None,
    ) -> None:
        self._telemetry = telemetry
        self._labels = labels  # the node's own, under what a request says
        self._on_trip, self._on_proved = on_trip, on_proved
        self._served: dict[Digest, tuple[Segment, Served]] = {}
        self._entries: dict[str, Entry] = {}
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="infer")
        self._shadows = ShadowQueue(telemetry, self._judge_shadow, shadows_max)
        self._unnamed = itertools.count()

    def add(self, model: Segment, served: Served) -> None:
        """Make a loaded release routable; it answers nothing until a route names it."""
        self._served[served.release] = (model, served)

    def remove(self, release: Digest) -> None:
        """Let go of a release; requests that took it finish on it."""
        self._served.pop(release, None)

    def swap(self, route: Route) -> None:
        """Answer by `route` from the next request on."""
        if route == Route(route.model):
            self._entries = {m: e for m, e in self._entries.items() if m != route.model}
            return
        entry = Entry(
            route,
            key_of(route),
            key_of(Route(route.model)),
            self._find(route.stable),
            self._find(route.candidate),
            self._find(route.fallback),
            threshold(route.canary_bp),
            threshold(route.shadow_bp),
            shadow_salt(route.salt),
            None if route.slow_ms is None else route.slow_ms / 1000,
        )
        self._entries = {**self._entries, route.model: entry}

    def entry(self, model: str) -> Entry:
        entry = self._entries.get(model)
        if entry is None:
            raise NotFound(f"model {model[:80]!r} is not assigned to this node")
        return entry

    def models(self) -> tuple[str, ...]:
        return tuple(self._entries)

    @property
    def answers(self) -> int:
        """By all that is in memory; whoever looks again sees whether anybody has asked."""
        return sum(served.answers for _, served in self._served.values())

    def loaded(self, model: str) -> tuple[Served, ...]:
        """The releases of a model in memory, the one that answers by default first."""
        default = self.entry(model).default
        found = [served for name, served in self._served.values() if name == model]
        return tuple(sorted(found, key=lambda served: served is not default))

    def choose(self, model: str, version: str, unit: str, context: Context = _NO_CONTEXT) -> Chosen:
        """Who answers: by `unit`, unless the audience names another one in the context.

        Everybody who asks goes through here, whether for an answer or only for the choice.
        Raises `NotFound` or `Unavailable`.
        """
        entry = self.entry(model)
        if version:
            for served in self.loaded(model):
                if version in (served.version, str(served.release)):
                    return Chosen(entry, served, "explicit", "explicit", unit)
            raise NotFound(f"version {version[:80]!r} of {model} is not loaded here")
        reason, audience, candidate = "static", entry.route.audience, entry.candidate
        if candidate and audience != EVERYBODY:
            context = {**self._labels, **context}
            unit = audience.unit_of(context, unit)
            if not audience.admits(context):
                reason, candidate = "target", None
        if candidate and entry.canary_below:
            reason = "split"
            if bucket(entry.route.salt, unit) < entry.canary_below:
                return Chosen(entry, candidate, "canary", reason, unit)
        if entry.stable is None:
            raise Unavailable(f"no release of {model} is ready on this node yet", fix="try later")
        return Chosen(entry, entry.stable, "stable", reason, unit)

    async def infer(
        self,
        model: str,
        version: str | None,
        request_id: str,
        routing_key: str,
        feeds: Feeds,
        outputs: Sequence[str] = (),
        context: Context = _NO_CONTEXT,
    ) -> Outputs:
        """Answer one request. Raises `NotFound`, `Unavailable`, `InvalidSpec` or `ModelFailed`.

        `outputs`: those that the caller wants, all if empty.
        """
        unit = routing_key or request_id or f"unnamed/{next(self._unnamed)}"
        chosen = self.choose(model, version or "", unit, context)
        entry, served, role = chosen.entry, chosen.served, chosen.role
        served.model.check(feeds)
        if unknown := set(outputs) - set(served.model.output_names):
            raise InvalidSpec(f"outputs {sorted(unknown)} are unknown")
        run = await self._run(served, feeds)
        if role == "explicit":
            self._count_explicit(served, run)
        else:
            self._count(chosen, run, request_id)
        if run.failure is not None:
            return await self._second_try(entry, served, role, run.failure, feeds, outputs)
        candidate = entry.candidate
        if (
            candidate
            and role == "stable"
            and chosen.reason != "target"
            and entry.shadow_below
            and bucket(entry.salt_of_shadow, chosen.unit) < entry.shadow_below
        ):
            compared = (run.answer, served.model.comparator)
            self._shadows.offer(
                Shadow(candidate, entry.key, entry.slow_s, feeds, request_id, *compared)
            )
        return _outputs(served, role, entry.route.rollout, run.outputs, outputs)

    async def _second_try(
        self,
        entry: Entry,
        served: Served,
        role: str,
        failure: ModelFailed,
        feeds: Feeds,
        outputs: Sequence[str],
    ) -> Outputs:
        if role == "explicit":
            raise failure
        other = entry.stable if role == "canary" else entry.fallback
        if other is None or other is served:
            self._bad(entry, served, str(failure))
            raise failure
        run = await self._run(other, feeds)
        if run.failure is not None:
            raise failure
        self._bad(entry, served, str(failure))
        return _outputs(other, "fallback", entry.route.rollout, run.outputs, outputs)

    async def close(self) -> None:
        """Stop the shadow and wait for the inferences that run."""
        await self._shadows.close()
        await asyncio.to_thread(self._pool.shutdown)

    async def shadows_done(self) -> None:
        """Wait until the shadow queue is empty."""
        await self._shadows.done()

    async def _run(self, served: Served, feeds: Feeds) -> Run:
        # Handing over to a thread costs more than a small model does.
        if served.is_quick and sum(array.nbytes for array in feeds.values()) <= QUICK_BYTES_MAX:
            await asyncio.sleep(0)  # a caller in a loop must not shut out the others
            return run_model(served.model, feeds)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, run_model, served.model, feeds)

    def _find(self, release: Digest | None) -> Served | None:
        found = self._served.get(release) if release else None
        return found[1] if found else None

    def _count(self, chosen: Chosen, run: Run, request_id: str) -> None:
        served, role = chosen.served, chosen.role
        self._telemetry.tally(chosen.key).arm(role).answered(run, chosen.entry.slow_s)
        self._count_explicit(served, run)
        if run.failure is None:
            self._good(served)
            compare = served.model.comparator
            if run.answer is not None and compare is not None and request_id:
                self._telemetry.remember(request_id, chosen.key, role, compare, run.answer)

    def _count_explicit(self, served: Served, run: Run) -> None:
        served.answers += run.failure is None
        served.failures += run.failure is not None
        served.computed_ns += int(run.latency_s * 1e9)

    def _good(self, served: Served) -> None:
        if served.watchdog.good():
            self._on_proved(served.release)

    def _bad(self, entry: Entry, served: Served, reason: str) -> None:
        """The watchdog is on for what is not yet the proven stable release."""
        current = self._entries.get(entry.route.model)
        if current is None or (served is current.stable and served.watchdog.proved):
            return
        if served.watchdog.bad():
            self._on_trip(entry.route.model, served.release, f"errors in a row, last: {reason}")

    def _judge_shadow(self, shadow: Shadow, run: Run) -> None:
        entry = self._entries.get(shadow.key[0])
        if run.failure is None:
            self._good(shadow.served)
        elif entry is not None and entry.candidate is shadow.served:
            self._bad(entry, shadow.served, str(run.failure))


def _outputs(
    served: Served,
    role: str,
    rollout: str,
    found: dict[str, Array],
    wanted: Sequence[str],
) -> Outputs:
    chosen = {name: found[name] for name in wanted} if wanted else found
    return Outputs(chosen, served.release, served.version, role, rollout)
