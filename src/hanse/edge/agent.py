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
import math
import random
import time
from collections.abc import Mapping

import structlog

from hanse.core import signing
from hanse.core.assignment import signed_bytes
from hanse.core.device import Device
from hanse.core.device_step import DeviceStep, Route, Unload
from hanse.core.errors import HanseError, NotPermitted, Rejected, Unavailable
from hanse.core.fleet import INTERVAL_FACT
from hanse.core.ids import Digest, Segment
from hanse.edge import status, switch
from hanse.edge.cache import Cache
from hanse.edge.certificate import OwnCertificate
from hanse.edge.config import Config
from hanse.edge.inference import runtime_facts
from hanse.edge.near import Near
from hanse.edge.outbox import Outbox
from hanse.edge.router import Router
from hanse.edge.sharing import SharedFiles, Sharing
from hanse.edge.staging import Staging
from hanse.edge.telemetry import Telemetry
from hanse.rpc import edge_client
from hanse.rpc.channels import Channel, Channels
from hanse.transfer.threads import finished

STATE_FILE = "assignment.json"
RECONNECT_FIRST_S = 0.25
RECONNECT_MAX_S = 15.0
TICK_S = 1.0
RENEW_LOOK_S = 60.0
REPORT_GAP_S = 0.2
log = structlog.get_logger("hanse.edge")


class Agent:
    """One edge node. Made in a running event loop; `start` it, `run` it, `close` it."""

    def __init__(self, config: Config, own: OwnCertificate, boot_nonce: bytes) -> None:
        self._config = config
        self._boot_nonce = boot_nonce
        self._random = random.Random(boot_nonce)  # noqa: S311  # it only spreads retries
        cache = Cache(config.state)
        self._facts = facts_of(config)
        self.device, self._first_step = _restore(config, cache, self._facts)
        self.telemetry = Telemetry()
        self.router = Router(
            self.telemetry,
            threads=config.threads,
            labels=config.labels,
            on_trip=self._tripped,
            on_proved=lambda release: self._apply(self.device.proved(release, time.monotonic())),
        )
        self._own = own
        self._channels = Channels(own.identity)
        # Who gives may take: to look for neighbours costs a node more time than to be streamed to.
        self._near = Near(own.identity, self._edge_ca if config.share_listen else str)
        self._staging = Staging(
            self.device,
            cache,
            self.router,
            self._channels,
            self._apply,
            release_bytes_max=config.release_bytes_max,
            facts=self._facts,
            jitter=self._random,
            near=self._near,
            fetch_bytes_per_s=config.fetch_bytes_per_s,
        )
        files = SharedFiles(cache, self.device.manifest, self._near.underway, config.daemon_key)
        self._sharing = Sharing(config, own, files, self._edge_ca, lambda: self.router.answers)
        self._outbox = Outbox(config.node)
        self._status = status.StatusFile(config.state)
        self._status_lock = asyncio.Lock()
        self._connected = False
        self._steps: asyncio.Queue[DeviceStep] = asyncio.Queue()
        self._changed = asyncio.Event()

    def start(self) -> None:
        """Begin again from the disk, with no network."""
        self._apply(self._first_step)

    async def run(self) -> None:
        """Serve until cancelled; raises what must end the process."""
        async with asyncio.TaskGroup() as group:
            for duty in (
                self._carry_out,
                self._watch,
                self._report,
                self._probe,
                self._tick,
                self._renew,
            ):
                group.create_task(duty())
            await self._staging.broken  # fails when work that runs beside the duties may not go on

    async def close(self) -> None:
        """After `run` has ended: stop work, say goodbye, keep what must be kept."""
        await self._sharing.close()
        await self._staging.close()
        await self.router.close()
        while not self._steps.empty():
            await self._store(self._steps.get_nowait())
        await self._store(self.device.stopping())
        with contextlib.suppress(HanseError, TimeoutError):
            async with asyncio.timeout(2.0):
                self._seal()
                await self._send_reports()
        await self._channels.close()
        await self._near.close()

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
                await self._staging.begin(effect)
            await self._write_status()

    async def _store(self, step: DeviceStep) -> None:
        if step.store is not None:
            path = self._config.state / STATE_FILE
            await finished(lambda: status.replace_file(path, step.store or b"", durable=True))

    # -- duties ----------------------------------------------------------------

    async def _watch(self) -> None:
        wait_s = RECONNECT_FIRST_S
        while True:
            try:
                await self._sharing.open()
                facts = {**self._facts, **self._sharing.facts()}
                stream = edge_client.watch(self._daemon(), self._config.node, facts)
                async with contextlib.aclosing(stream):
                    async for raw, signature in stream:
                        wait_s = RECONNECT_FIRST_S
                        await self._set_connected(True)
                        self._hear(raw, signature)
                        if await self._sharing.open():
                            break  # to say so
            except HanseError as error:
                log.info("daemon_lost", reason=str(error), retry_s=round(wait_s, 2))
                self._look_at_own_certificate()
            await self._set_connected(False)
            # A fleet that lost one daemon must not come back in one instant.
            await asyncio.sleep(wait_s * (0.5 + self._random.random()))
            wait_s = min(RECONNECT_MAX_S, wait_s * 2)

    def _look_at_own_certificate(self) -> None:
        """TLS refuses it without a word, so this side has to find out why."""
        try:
            self._own.check()
        except NotPermitted as error:
            log.error("certificate_out_of_date", reason=str(error))

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

    async def _renew(self) -> None:
        """Keep the certificate fresh; also take one that a person has put there meanwhile."""
        while True:
            try:
                if self._own.reread() or await self._own.renew_if_due(self._daemon()):
                    self._channels.renew(self._own.identity)
                    self._near.renew(self._own.identity)
                    log.info("certificate_renewed", until=self._own.until.isoformat())
                    await self._write_status()
            except (Rejected, Unavailable) as error:
                log.warning("renewal_waits", reason=str(error), until=self._own.until.isoformat())
            await asyncio.sleep(RENEW_LOOK_S * (0.5 + self._random.random()))

    async def _probe(self) -> None:
        while True:
            await asyncio.sleep(self._config.probe_interval_s)
            await self._staging.measure(self.device.sources())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._apply(self.device.tick(time.monotonic()))
            self._look_at_switch()
            self._sharing.look_again()
            if self._staging.progress:
                await self._write_status()

    def _look_at_switch(self) -> None:
        """A file goes once what it asks for is on the disk, so that no crash forgets it."""
        for path, model, release, reason in switch.left(self._config.state):
            route = self.device.route(model)
            if release in (route.stable, route.candidate):
                self._tripped(model, release, f"switched off here: {reason}")
            if release not in (self.device.route(model).stable, self.device.route(model).candidate):
                if self._steps.empty():
                    path.unlink(missing_ok=True)
            else:
                log.error("not_switched_off", model=model, why="nothing else could answer")
                path.unlink(missing_ok=True)

    async def _set_connected(self, connected: bool) -> None:
        if connected != self._connected:
            self._connected = connected
            log.info("daemon_connected" if connected else "daemon_disconnected")
            await self._write_status()

    async def _write_status(self) -> None:
        # Several duties write it: one at a time, and each what holds by then.
        async with self._status_lock:
            document = {
                "node": self._config.node,
                "federation": self._config.federation,
                "region": self._config.region,
                "listen": self._config.listen,
                "daemon": {"address": self._config.daemon, "connected": self._connected},
                "windows_lost": self._outbox.lost_windows,
                "certificate_until": self._own.until.isoformat(),
                "sharing": self._sharing.describe(),
                "fetching": [each.to_mapping() for each in self._staging.progress],
                **status.describe(self.device),
            }
            await finished(self._status.write, document)

    def _edge_ca(self) -> str:
        return self.device.assignment.edge_ca_pem if self.device.assignment else ""

    def _daemon(self) -> Channel:
        return self._channels.to(self._config.daemon, self._config.daemon_cert.read_text())


def facts_of(config: Config) -> dict[str, str]:
    """What this node says of itself, to its daemon and to its own judgement of releases."""
    labels = {f"label.{k}": v for k, v in config.labels.items()}
    facts = {**runtime_facts(), **config.facts, **labels}
    facts[INTERVAL_FACT] = str(math.ceil(config.report_interval_s))
    return facts


def _restore(config: Config, cache: Cache, facts: Mapping[str, str]) -> tuple[Device, DeviceStep]:
    """The device as it was. A state that cannot be read is set aside, not obeyed in part."""
    path = config.state / STATE_FILE
    stored = path.read_bytes() if path.exists() else None
    on_disk = cache.releases()
    try:
        return Device.restore(
            config.federation, config.region, stored, on_disk, time.monotonic(), facts, config.node
        )
    except Rejected as error:
        log.error("state_damaged", reason=str(error), kept_as=f"{path.name}.damaged")
        path.replace(path.with_name(f"{path.name}.damaged"))
        return Device.restore(
            config.federation, config.region, None, on_disk, time.monotonic(), facts, config.node
        )


def _shown(route: Route) -> dict[str, object]:
    return {
        "model": route.model,
        "stable": str(route.stable) if route.stable else None,
        "candidate": str(route.candidate) if route.candidate else None,
        "weight_bp": route.weight_bp,
        "shadow_bp": route.shadow_bp,
        "generation": route.generation,
    }
