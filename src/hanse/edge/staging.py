"""What must happen to a release before it may answer: fetched, verified, loaded, proved.

Carries out the device's `Fetch`, `Load` and `Forget` beside the serving of requests, and tells it
how each ended. At most two fetches and one load run at a time: two large models must not peak
in memory together.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog

from hanse.core.assignment import Source
from hanse.core.catalog.manifest import Manifest
from hanse.core.device import Device
from hanse.core.device_step import DeviceStep, Effect, Fetch, Forget, Load
from hanse.core.errors import Broken, Rejected, TooLarge, Unavailable
from hanse.core.ids import Digest
from hanse.edge.cache import Cache
from hanse.edge.fetching import fetch_release
from hanse.edge.inference import LoadedModel, load, selftest
from hanse.edge.near import Near
from hanse.edge.router import Router
from hanse.edge.served import Served
from hanse.rpc import blob_client
from hanse.rpc.channels import Channels
from hanse.rpc.pacing import Pace
from hanse.transfer.threads import finished
from hanse.transfer.wish import Progress
from hanse.transfer.wish import Source as From

FETCHES_AT_ONCE = 2
log = structlog.get_logger("hanse.edge")


class Staging:
    """`apply` takes every step that the device answers with; `broken` fails if the process
    must end."""

    def __init__(
        self,
        device: Device,
        cache: Cache,
        router: Router,
        channels: Channels,
        apply: Callable[[DeviceStep], None],
        *,
        release_bytes_max: int,
        facts: Mapping[str, str],
        jitter: random.Random,
        near: Near,
        fetch_bytes_per_s: int = 0,
    ) -> None:
        self._device, self._cache, self._router = device, cache, router
        self._facts, self._near = facts, near
        self._line = Pace(fetch_bytes_per_s)
        self._channels, self._apply = channels, apply
        self._release_bytes_max = release_bytes_max
        self._random = jitter
        self._work: dict[Digest, asyncio.Task[None]] = {}
        self._fetches = asyncio.Semaphore(FETCHES_AT_ONCE)
        self._loads = asyncio.Semaphore(1)
        self.progress: list[Progress] = []
        """Of the files that are under way."""
        self._damaged: set[Digest] = set()
        self._disk = asyncio.Lock()  # forgetting against verifying
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def close(self) -> None:
        """Stop all work; what has arrived of a file stays and is resumed."""
        tasks = list(self._work.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def begin(self, effect: Effect) -> None:
        """Start to fetch or load; forgetting is done when it returns."""
        match effect:
            case Fetch():
                self._spawn(effect.release, self._fetch(effect.release, effect.manifest))
            case Load():
                self._spawn(effect.release, self._load(effect.release, effect.manifest))
            case Forget():
                await self._forget(effect.release)

    def _spawn(self, release: Digest, work: Coroutine[Any, Any, None]) -> None:
        """One piece of work a release at a time: the device never asks for two."""
        task = asyncio.create_task(work)
        self._work[release] = task
        task.add_done_callback(lambda done: self._work_done(release, done))

    def _work_done(self, release: Digest, task: asyncio.Task[None]) -> None:
        if self._work.get(release) is task:
            del self._work[release]
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Broken):
            if not self.broken.done():
                self.broken.set_exception(error)
        elif error is not None:
            log.error("work_failed", release=str(release), error=repr(error))
            self._apply(self._device.load_failed(release, repr(error), time.monotonic()))

    async def _fetch(self, release: Digest, manifest: Manifest) -> None:
        async with self._fetches:
            await self.measure(self._device.unmeasured())
            log.info("fetching", release=str(release), model=manifest.model)
            try:
                await fetch_release(
                    self._cache,
                    release,
                    manifest,
                    self._sources(),
                    region=self._device.region,
                    held=self._held(manifest),
                    bytes_max=self._release_bytes_max,
                    chance=self._random,
                    shown=self.progress,
                    neighbour=self._near.channel_to if self._near.known else None,
                    underway=self._near.underway,
                    on_damage=self._damaged.add,
                    line=self._line,
                )
            except asyncio.CancelledError:
                if release not in self._device.held():
                    await finished(self._cache.abandon, manifest)
                raise
            except (Rejected, Unavailable) as error:
                log.warning("fetch_failed", release=str(release), reason=str(error))
                transient, jitter = not isinstance(error, TooLarge), self._random.random()
                step = self._device.fetch_failed(
                    release, str(error), time.monotonic(), transient=transient, jitter=jitter
                )
            else:
                step = self._device.fetched(release, time.monotonic())
        self._apply(step)
        await self._look_at_damage()

    async def _look_at_damage(self) -> None:
        """Releases of which a file was found to have rotted are fetched again, if they have."""
        damaged = self._damaged.union(await finished(self._cache.blobs.lost))
        self._damaged.clear()
        for release in self._device.held():
            manifest = self._device.manifest(release)
            if manifest is None or damaged.isdisjoint(file.digest for file in manifest.files):
                continue
            try:
                async with self._disk:
                    await finished(self._cache.verify, release, manifest)
            except Unavailable as error:
                log.error("files_damaged", release=str(release), reason=str(error))
                self._apply(self._device.lost(release, time.monotonic()))

    def _sources(self) -> list[From]:
        """Whoever the region names; those that nobody measured, or that did not answer, last."""
        return [
            From(
                source.address,
                lambda source=source: self._channels.to_source(source),  # type: ignore[misc]  # binds the loop variable
                self._device.distance_s(source),
            )
            for source in self._device.sources()
        ]

    def _held(self, manifest: Manifest) -> list[tuple[Digest, Manifest]]:
        """The releases of that model that are here: parents first, then what answers."""
        parents = {parent.release for parent in manifest.parents}
        stable = self._device.route(manifest.model).stable
        held = [(d, self._device.manifest(d)) for d in sorted(self._device.held())]
        found = [(d, m) for d, m in held if m is not None and m.model == manifest.model]
        return sorted(found, key=lambda each: (each[0] not in parents, each[0] != stable))

    async def _load(self, release: Digest, manifest: Manifest) -> None:
        async with self._loads:
            try:
                async with self._disk:
                    folder = await finished(self._cache.verify, release, manifest)
                model: LoadedModel = await finished(load, folder, manifest, self._facts)
                if manifest.golden is not None:
                    await finished(selftest, model, folder, manifest.golden)
            except Unavailable as error:
                log.error("files_damaged", release=str(release), reason=str(error))
                step = self._device.lost(release, time.monotonic())
            except Rejected as error:
                log.error("refused", release=str(release), reason=str(error))
                step = self._device.load_failed(release, str(error), time.monotonic())
            else:
                self._router.add(manifest.model, Served(release, manifest.version, model))
                step = self._device.loaded(release, time.monotonic())
        self._apply(step)

    async def _forget(self, release: Digest) -> None:
        task = self._work.pop(release, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self._router.remove(release)
        async with self._disk:
            # It may be wanted again by a step that waits behind this one.
            if release not in self._device.held():
                await finished(self._cache.forget, release, self._device.files())

    async def measure(self, sources: tuple[Source, ...]) -> None:
        """Tell the device how far each source is away, by one round trip."""

        async def one(source: Source) -> None:
            begin_s = time.monotonic()
            try:
                await blob_client.probe(self._channels.to_source(source))
            except Unavailable:
                self._device.measured(source.address, None)
                return
            except Rejected:
                pass  # a refusal is an answer, and took one round trip
            self._device.measured(source.address, time.monotonic() - begin_s)

        await asyncio.gather(*(one(source) for source in sources))
