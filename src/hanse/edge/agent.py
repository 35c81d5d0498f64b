"""An edge node's process: feeds the device and carries out what it decides.

All decisions are the device's; all its stimuli and effects pass through this one event loop.
What a step routes or unloads takes effect at once; its state is then stored by one worker, in
order, and only then are its other effects begun. A store that fails ends the process.

Nothing here needs the daemon: watching, reporting and probing retry for ever beside a node that
goes on serving.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Coroutine
from typing import Any

import grpc
import structlog

from hanse.core import signing
from hanse.core.assignment import SOURCES_MAX, Source, signed_bytes
from hanse.core.catalog.manifest import Manifest
from hanse.core.device import Device
from hanse.core.device_step import DeviceStep, Effect, Fetch, Forget, Load, Route, Unload
from hanse.core.errors import Broken, HanseError, NotPermitted, Rejected, TooLarge, Unavailable
from hanse.core.ids import Digest, Segment
from hanse.edge import status
from hanse.edge.cache import Cache
from hanse.edge.config import Config
from hanse.edge.fetching import fetch_release, finished
from hanse.edge.inference import LoadedModel, load, runtime_facts, selftest
from hanse.edge.outbox import Outbox
from hanse.edge.router import Router, Served
from hanse.edge.telemetry import Telemetry
from hanse.rpc import blob_client, edge_client
from hanse.rpc.tls import Identity, open_channel

STATE_FILE = "assignment.json"
FETCHES_AT_ONCE = 2
RECONNECT_FIRST_S = 0.25
RECONNECT_MAX_S = 15.0
TICK_S = 1.0
CHANNELS_MAX = 2 * SOURCES_MAX
REPORT_GAP_S = 0.2
log = structlog.get_logger("hanse.edge")


class Agent:
    """One edge node. Made in a running event loop; `start` it, `run` it, `close` it."""

    def __init__(self, config: Config, identity: Identity, boot_nonce: bytes) -> None:
        self._config = config
        self._identity = identity
        self._boot_nonce = boot_nonce
        self._random = random.Random(boot_nonce)  # noqa: S311  # it only spreads retries
        self._cache = Cache(config.state)
        self.telemetry = Telemetry()
        self.router = Router(
            self.telemetry,
            threads=config.threads,
            on_trip=self._tripped,
            on_proved=lambda release: self._apply(self.device.proved(release, time.monotonic())),
        )
        self.device = Device(config.federation, config.region)
        self._outbox = Outbox(config.node)
        self._status = status.StatusFile(config.state)
        self._connected = False
        self._steps: asyncio.Queue[DeviceStep] = asyncio.Queue()
        self._channels: dict[tuple[str, str], grpc.aio.Channel] = {}
        self._work: dict[Digest, asyncio.Task[None]] = {}
        self._fetches = asyncio.Semaphore(FETCHES_AT_ONCE)
        self._loads = asyncio.Semaphore(1)  # two large models must not peak together
        self._disk = asyncio.Lock()  # forgetting against laying out
        self._changed = asyncio.Event()
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self) -> None:
        """Begin again from the disk, with no network. A damaged state is set aside."""
        path = self._config.state / STATE_FILE
        stored = path.read_bytes() if path.exists() else None
        where = (self._config.federation, self._config.region)
        on_disk = self._cache.releases()
        try:
            self.device, step = Device.restore(*where, stored, on_disk, time.monotonic())
        except Rejected as error:
            log.error("state_damaged", reason=str(error), kept_as=f"{path.name}.damaged")
            path.replace(path.with_suffix(".json.damaged"))
            self.device, step = Device.restore(*where, None, on_disk, time.monotonic())
        self._apply(step)

    async def run(self) -> None:
        """Serve until cancelled; raises what must end the process."""
        async with asyncio.TaskGroup() as group:
            for duty in (self._carry_out, self._watch, self._report, self._probe, self._tick):
                group.create_task(duty())
            await self._broken  # fails when work that runs beside the duties may not go on

    async def close(self) -> None:
        """After `run` has ended: stop work, say goodbye, keep what must be kept."""
        for task in list(self._work.values()):
            task.cancel()
        await asyncio.gather(*self._work.values(), return_exceptions=True)
        await self.router.close()
        while not self._steps.empty():
            await self._store(self._steps.get_nowait())
        await self._store(self.device.stopping())
        with contextlib.suppress(HanseError, TimeoutError):
            async with asyncio.timeout(2.0):
                self._seal()
                await self._send_reports()
        for channel in self._channels.values():
            await channel.close(None)

    def on_assignment(self, raw: bytes, signature: bytes) -> None:
        """Verify, then obey. Raises `Rejected` for what this node must not obey."""
        signing.verify(self._config.daemon_key, signature, signed_bytes(raw))
        self._apply(self.device.assign(raw, time.monotonic()))

    # -- steps -----------------------------------------------------------------

    def _apply(self, step: DeviceStep) -> None:
        for effect in step.effects:
            if isinstance(effect, Route):
                self.router.swap(effect)
                log.info("routed", **_shown(effect))
            elif isinstance(effect, Unload):  # now, so that nobody can ask for it by version
                self.router.remove(effect.release)
        if step != DeviceStep():
            self._steps.put_nowait(step)
            self._changed.set()

    def _tripped(self, model: Segment, release: Digest, reason: str) -> None:
        log.error("watchdog", model=model, release=str(release), reason=reason)
        self._apply(self.device.tripped(model, release, reason, time.monotonic()))

    async def _carry_out(self) -> None:
        while True:
            step = await self._steps.get()
            await self._store(step)
            for effect in step.effects:
                await self._begin(effect)
            await self._write_status()

    async def _store(self, step: DeviceStep) -> None:
        if step.store is not None:
            path = self._config.state / STATE_FILE
            await finished(lambda: status.replace_file(path, step.store or b"", durable=True))

    async def _begin(self, effect: Effect) -> None:
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
            if not self._broken.done():
                self._broken.set_exception(error)
        elif error is not None:
            log.error("work_failed", release=str(release), error=repr(error))
            self._apply(self.device.load_failed(release, repr(error), time.monotonic()))

    async def _fetch(self, release: Digest, manifest: Manifest) -> None:
        async with self._fetches:
            await self._measure(self.device.unmeasured())
            log.info("fetching", release=str(release), model=manifest.model)
            try:
                await fetch_release(
                    self._cache,
                    release,
                    manifest,
                    self.device.sources(),
                    self._channel_to,
                    bytes_max=self._config.release_bytes_max,
                )
            except asyncio.CancelledError:
                if release not in self.device.held():
                    await finished(self._cache.abandon, manifest)
                raise
            except (Rejected, Unavailable) as error:
                log.warning("fetch_failed", release=str(release), reason=str(error))
                transient, jitter = not isinstance(error, TooLarge), self._random.random()
                step = self.device.fetch_failed(
                    release, str(error), time.monotonic(), transient=transient, jitter=jitter
                )
            else:
                step = self.device.fetched(release, time.monotonic())
        self._apply(step)

    async def _load(self, release: Digest, manifest: Manifest) -> None:
        async with self._loads:
            try:
                async with self._disk:
                    folder = await finished(self._cache.verify, release, manifest)
                model: LoadedModel = await finished(load, folder, manifest)
                if manifest.golden is not None:
                    await finished(selftest, model, folder, manifest.golden)
            except Unavailable as error:
                log.error("files_damaged", release=str(release), reason=str(error))
                step = self.device.lost(release, time.monotonic())
            except Rejected as error:
                log.error("refused", release=str(release), reason=str(error))
                step = self.device.load_failed(release, str(error), time.monotonic())
            else:
                self.router.add(manifest.model, Served(release, manifest.version, model))
                step = self.device.loaded(release, time.monotonic())
        self._apply(step)

    async def _forget(self, release: Digest) -> None:
        task = self._work.pop(release, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self.router.remove(release)
        async with self._disk:
            # It may be wanted again by a step that waits behind this one.
            if release not in self.device.held():
                await finished(self._cache.forget, release, self.device.files())

    # -- duties ----------------------------------------------------------------

    async def _watch(self) -> None:
        facts = runtime_facts() | {f"label.{k}": v for k, v in self._config.labels.items()}
        wait_s = RECONNECT_FIRST_S
        while True:
            try:
                async for raw, signature in edge_client.watch(
                    self._daemon(), self._config.node, facts
                ):
                    wait_s = RECONNECT_FIRST_S
                    await self._set_connected(True)
                    self._hear(raw, signature)
            except HanseError as error:
                log.info("daemon_lost", reason=str(error), retry_s=round(wait_s, 2))
            await self._set_connected(False)
            # A fleet that lost one daemon must not come back in one instant.
            await asyncio.sleep(wait_s * (0.5 + self._random.random()))
            wait_s = min(RECONNECT_MAX_S, wait_s * 2)

    def _hear(self, raw: bytes, signature: bytes) -> None:
        try:
            self.on_assignment(raw, signature)
        except Rejected as error:
            log.error("assignment_refused", reason=str(error))

    async def _report(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.report_interval_s):
                    await self._changed.wait()
            self._changed.clear()
            self._seal()
            try:
                await self._send_reports()
            except (Unavailable, NotPermitted) as error:
                log.info("report_waits", reason=str(error))
                await asyncio.sleep(self._config.report_interval_s)
            await asyncio.sleep(REPORT_GAP_S)

    def _seal(self) -> None:
        self._outbox.add(self.telemetry.drain())
        assignment = self.device.assignment
        order = assignment.order if assignment else (0, 0)
        self._outbox.seal(*order, self.device.report())

    async def _send_reports(self) -> None:
        while (head := self._outbox.head()) is not None:
            seq, raw = head
            try:
                counted = await edge_client.report(
                    self._daemon(), self._config.node, self._boot_nonce, seq, raw
                )
            except NotPermitted:
                raise
            except Rejected as error:
                # Sent again it would be refused again, and hold up all that follow.
                log.error("report_refused", seq=seq, reason=str(error))
                counted = seq
            self._outbox.acknowledge(max(counted, seq))

    async def _probe(self) -> None:
        while True:
            await asyncio.sleep(self._config.probe_interval_s)
            await self._measure(self.device.sources())

    async def _measure(self, sources: tuple[Source, ...]) -> None:
        async def one(source: Source) -> None:
            begin_s = time.monotonic()
            try:
                await blob_client.probe(self._channel_to(source))
            except Unavailable:
                self.device.measured(source.address, None)
                return
            except Rejected:
                pass  # a refusal is an answer, and took one round trip
            self.device.measured(source.address, time.monotonic() - begin_s)

        await asyncio.gather(*(one(source) for source in sources))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._apply(self.device.tick(time.monotonic()))

    async def _set_connected(self, connected: bool) -> None:
        if connected != self._connected:
            self._connected = connected
            log.info("daemon_connected" if connected else "daemon_disconnected")
            await self._write_status()

    async def _write_status(self) -> None:
        document = {
            "node": self._config.node,
            "federation": self._config.federation,
            "region": self._config.region,
            "listen": self._config.listen,
            "daemon": {"address": self._config.daemon, "connected": self._connected},
            **status.describe(self.device),
        }
        await finished(self._status.write, document)

    # -- channels --------------------------------------------------------------

    def _daemon(self) -> grpc.aio.Channel:
        return self._channel(self._config.daemon, self._config.daemon_cert.read_text())

    def _channel_to(self, source: Source) -> grpc.aio.Channel:
        return self._channel(source.address, source.tls_cert_pem)

    def _channel(self, address: str, cert_pem: str) -> grpc.aio.Channel:
        """One connection to each (address, certificate), kept."""
        key = (address, cert_pem)
        if key not in self._channels:
            if len(self._channels) >= CHANNELS_MAX:  # certificates that were replaced long ago
                oldest = self._channels.pop(next(iter(self._channels)))
                self._closing = asyncio.create_task(oldest.close(None))
            self._channels[key] = open_channel(address, self._identity, cert_pem.encode())
        return self._channels[key]


def _shown(route: Route) -> dict[str, object]:
    return {
        "model": route.model,
        "stable": str(route.stable) if route.stable else None,
        "candidate": str(route.candidate) if route.candidate else None,
        "weight_bp": route.weight_bp,
        "shadow_bp": route.shadow_bp,
        "generation": route.generation,
    }
