"""The composition root of a daemon: every part is made here, once, and nothing is global.

Start: replay trust, restore every log (its root is recomputed), find out which releases are
whole, open the port and the control socket, run. Stop: no new requests, the step under way
is finished, the database is closed. A failed store or a broken invariant ends the process
with exit code 70; whoever supervises it starts it again, and nothing is lost by that.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import SystemRandom

import structlog

from hanse.core.counters import Counters
from hanse.core.effects import FetchRelease, Heal, PublishAssignment
from hanse.core.errors import Broken, NotPermitted
from hanse.core.ids import Origin, Segment, member_id
from hanse.core.node import Node
from hanse.core.signing import SigningKey
from hanse.core.step import PutTrust
from hanse.core.telemetry import parse_report
from hanse.core.trust.chain import Chain, replay
from hanse.daemon import control, disk_watch, enrol_verbs, healing_file, verbs
from hanse.daemon.blob_place import blobs_of
from hanse.daemon.bundles import Bundles
from hanse.daemon.config import FIRST_START, Config, load
from hanse.daemon.denied import on_record
from hanse.daemon.doors import Doors, read_authority
from hanse.daemon.driver import Driver, now
from hanse.daemon.enrolment import Enroller
from hanse.daemon.gate import Gate
from hanse.daemon.healer import Healer
from hanse.daemon.neighbours import Neighbours
from hanse.daemon.outside_witness import OutsideWitness
from hanse.daemon.private_files import read_seed
from hanse.daemon.private_values import PrivateValues
from hanse.daemon.prometheus import Prometheus
from hanse.daemon.release_files import release_files
from hanse.daemon.retention import Retention
from hanse.daemon.transfers import Transfers, complete
from hanse.daemon.trust_folder import read_files
from hanse.daemon.upkeep import Upkeep
from hanse.daemon.waiting import until_admitted
from hanse.gateways.log_files import LogFiles
from hanse.gateways.prometheus_client import Server
from hanse.logs import configure, run_to_the_end
from hanse.rpc.admission import Admission
from hanse.rpc.blob_service import BlobService
from hanse.rpc.certificates import Identity, daemon_uri, spki_hash
from hanse.rpc.codec import EventCodec, require_upb
from hanse.rpc.doorkeeper import utc_now
from hanse.rpc.edge_service import EdgeService
from hanse.rpc.enrol_service import EnrolService
from hanse.rpc.pacing import Pace
from hanse.rpc.peer_service import PeerService
from hanse.rpc.renewal import Renewed
from hanse.rpc.server import Service, build_server
from hanse.rpc.tls import Peer
from hanse.storage import restart
from hanse.storage.reserve import Reserve
from hanse.storage.sqlite import SqliteEventStore

log = structlog.get_logger("hanse.daemon")
STOP_S = 5.0


async def run(config: Config, *, accept_own_log: bool = False) -> None:
    """Serve until SIGTERM or SIGINT. Raises `Broken` when the process must end at once.

    With `accept_own_log` an operator vouches that the registry on disk is the newest there is.
    """
    configure(config.log_level)
    require_upb()
    async with AsyncExitStack() as stack:
        daemon = await assemble(config, stack, accept_own_log=accept_own_log)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, stop.set)
        driving = asyncio.create_task(daemon.driver.run())
        watches = (
            asyncio.create_task(daemon.doors.watch()),
            asyncio.create_task(disk_watch.watch(daemon.driver, daemon.reserve)),
            *(
                asyncio.create_task(each.watch())
                for each in (daemon.outside_witness, daemon.prometheus, daemon.upkeep)
                if each is not None
            ),
        )
        stopping = asyncio.create_task(stop.wait())
        log.info("started", region=config.region, listen=config.listen, pid=os.getpid())
        born = asyncio.create_task(_forget_first_start(daemon.driver, config))
        await asyncio.wait({driving, *watches, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        for work in (driving, *watches):
            if work.done():
                work.result()  # raises what ended it
        for watch in (*watches, born):
            watch.cancel()
        await daemon.stop(driving)
        log.info("stopped")


class Daemon:
    """One running daemon; made by `assemble`."""

    def __init__(
        self,
        driver: Driver,
        edge: EdgeService,
        transfers: Transfers,
        doors: Doors,
        reserve: Reserve,
    ) -> None:
        self.driver = driver
        self.reserve = reserve
        self.doors = doors
        self.outside_witness: OutsideWitness | None = None
        self.prometheus: Prometheus | None = None
        self.healer: Healer | None = None
        self.upkeep: Upkeep | None = None
        self._edge, self._transfers = edge, transfers

    # Outside, as the driver sees it
    def fetch(self, effect: FetchRelease) -> None:
        self._transfers.fetch(effect)

    def heal(self, effect: Heal) -> None:
        if self.healer is not None:
            self.healer.heal(effect)

    def publish(self, effect: PublishAssignment) -> None:
        self._edge.publish(effect.assignment, effect.signature)

    async def stop(self, driving: asyncio.Task[None]) -> None:
        if self.healer is not None:
            await self.healer.close()
        await self._transfers.close()
        await self._edge.close()
        driving.cancel()
        await asyncio.wait({driving}, timeout=STOP_S)
        await self.doors.transport.close()


class Nodes:
    """What the edge service tells the node about its nodes (`rpc.edge_service.EdgeHandler`)."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def on_watch(self, peer: Peer, node: Segment, facts: Mapping[str, str]) -> None:
        self._driver.post(lambda n, clock: n.fleet.watch(node, dict(facts), clock.now_s))

    def on_gone(self, peer: Peer, node: Segment) -> None:
        self._driver.post(lambda n, _: n.fleet.gone(node))

    async def on_report(
        self, peer: Peer, node: Segment, boot_nonce: bytes, seq: int, report: bytes
    ) -> int:
        parsed = parse_report(report)
        if parsed.node != node:
            raise NotPermitted(f"node {node} reports for {parsed.node}")
        return await self._driver.do(
            lambda n, clock: n.fleet.report(boot_nonce, seq, parsed, clock.now_s)
        )


async def _forget_first_start(driver: Driver, config: Config) -> None:
    """Once the log is begun: an empty registry means from then on that one was lost."""
    await driver.do(lambda _node, _clock: None)
    (config.home / FIRST_START).unlink(missing_ok=True)


async def assemble(
    config: Config,
    stack: AsyncExitStack,
    *,
    now: Callable[[], datetime.datetime] = utc_now,
    accept_own_log: bool = False,
) -> Daemon:
    """Build every part and open every door, in the order in which they may fail."""
    key = SigningKey(read_seed(config.daemon_key))
    authority = read_authority(config)
    reserve = Reserve(config.home / "data", config.disk_reserve_bytes)
    store = await SqliteEventStore.open(config.home / "data", reserve.release)
    stack.push_async_callback(store.close)
    blobs = await asyncio.to_thread(blobs_of, config, member_id(key.public))
    await _wait_to_be_admitted(config, key, authority, await _trust(config, store))
    node = await restore(config, key, authority, store, accept_own_log=accept_own_log)
    for release in complete(node, blobs):
        node.region.have(release)

    doors = Doors(config, node, authority, now=now)
    transport = doors.transport
    driver = Driver(node, store, transport, tick_interval_s=config.tick_interval_s)
    transport.accept(driver.converse, driver.second_link)
    node.set_room(await asyncio.to_thread(reserve.measure))
    transfers = Transfers(driver, transport, blobs, config.region, config.blob_fetch_bytes_per_s)
    edge = EdgeService(config.federation, config.region, Nodes(driver), node.counters)
    daemon = Daemon(driver, edge, transfers, doors, reserve)
    driver.outside = daemon
    heals = healing_file.load(config.home)
    node.region.healing.policies = {model: each.policy for model, each in heals.items()}
    daemon.healer = Healer(driver, blobs, config.home, heals, daemon.fetch)
    daemon.upkeep = upkeep = Upkeep(config, driver, blobs, daemon.fetch)
    node.damage = upkeep.scrubber.scrub.found
    gate = Gate(node, blobs, Neighbours(node, key))
    gate.on_denied = on_record(driver)
    node.fetching = transfers.progress
    gate.on_damage = transfers.on_damage = upkeep.scrubber.suspect
    enroller = Enroller(config, driver, now=now)
    services = (
        PeerService(transport, config.region),
        BlobService(gate, node.counters, Pace(config.blob_send_bytes_per_s)),
        edge,
        EnrolService(enroller),
    )
    await _open_port(config, stack, doors, services, node.counters)
    files = LogFiles(store, config.federation)
    await _look_outside(config, stack, daemon, files)
    bundles = Bundles(driver, store, blobs, key)
    behind = verbs.Services(
        files,
        bundles,
        PrivateValues(driver, store),
        config.private_fields,
        daemon.prometheus,
        Retention(
            driver, blobs, lambda: transfers.under_way | bundles.under_way, still=upkeep.still
        ),
    )
    table = verbs.table(driver, blobs, behind) | enrol_verbs.table(enroller)
    table |= release_files(driver, blobs, transfers)
    await stack.enter_async_context(control.serve(config.control_socket, table))
    return daemon


async def _open_port(
    config: Config,
    stack: AsyncExitStack,
    doors: Doors,
    services: Sequence[Service],
    counters: Counters,
) -> None:
    server, _ = await build_server(
        doors.shown,
        doors.doorkeeper,
        services,
        address=config.listen,
        admission=Admission(counters),
    )
    await server.start()
    stack.push_async_callback(server.stop, STOP_S)


async def _look_outside(
    config: Config, stack: AsyncExitStack, daemon: Daemon, files: LogFiles
) -> None:
    """What only some daemons have: a door for auditors, an outside witness, a metrics server."""
    if config.audit_listen:
        # Not at the top: a daemon whose door is closed needs no HTTP server.
        from hanse.gateways.log_door import serve

        await stack.enter_async_context(serve(files, config.audit_listen))
    if config.witness_url:
        daemon.outside_witness = OutsideWitness(daemon.driver, files, config.witness_url)
    if config.prometheus_url:
        server = Server(config.prometheus_url, config.prometheus_token)
        daemon.prometheus = Prometheus(daemon.driver, server)


async def restore(
    config: Config,
    key: SigningKey,
    authority: Identity,
    store: SqliteEventStore,
    *,
    accept_own_log: bool = False,
) -> Node:
    """The node as it was when its last step was stored."""
    chain = await _trust(config, store)
    me = Origin(config.federation, config.region, member_id(key.public), 1)
    # Salts and nonces come from it, so it must not be guessed.
    node = Node(
        me,
        key,
        spki_hash(authority.cert_pem),
        EventCodec(),
        chain,
        SystemRandom(),
        witness=SigningKey(read_seed(config.witness_key)),
        witnessed=await store.witnessed(),
        timestamp_key=_timestamp_key(config),
    )
    first = (config.home / FIRST_START).exists() and not await store.heads()
    vouched = first or accept_own_log
    ask_s = None if vouched else config.recovery_timeout_s
    await restart.restore(node, store, now, "first start" if first else "start", ask_s)
    return node


def _timestamp_key(config: Config) -> SigningKey | None:
    """Only some daemons of a federation hold one."""
    path = config.timestamp_key
    return SigningKey(read_seed(path)) if path.exists() else None


async def rebuild(config: Config) -> int:
    """Drop every view and fold it again from the events; returns how many models there are."""
    key = SigningKey(read_seed(config.daemon_key))
    authority = read_authority(config)
    store = await SqliteEventStore.open(config.home / "data")
    try:
        await store.drop_views()
        node = await restore(config, key, authority, store)
        await store.apply(node.catalog.stored_views())
        return len(node.catalog.views)
    finally:
        await store.close()


async def _trust(config: Config, store: SqliteEventStore) -> Chain:
    """Replay the chain: what is stored, then what an operator has put into the folder."""
    stored = await store.trust()
    folder = read_files(config.trust_folder)
    if stored and folder and stored[0] != folder[0]:
        raise Broken(
            "the stored trust chain begins with another file than the trust folder",
            fix="this home belongs to another federation: restore the right trust folder",
        )
    chain = replay(tuple(stored) or folder[:1])
    chain = replay((*chain.files, *folder[len(chain.files) :]))
    await store.apply(
        [
            PutTrust(version, raw)
            for version, raw in enumerate(chain.files, start=1)
            if version > len(stored)
        ]
    )
    return chain


async def _wait_to_be_admitted(
    config: Config, key: SigningKey, authority: Identity, chain: Chain
) -> None:
    me = member_id(key.public)
    shown = Renewed(daemon_uri(config.federation, config.region, me), authority, utc_now())
    await until_admitted(me, shown.current, chain, config.trust_folder)


def main(home: Path, *, accept_own_log: bool = False) -> int:
    """Load the configuration and run; the exit code for the shell.

    Raises what `config.load` raises: a person at a terminal has to read that, not a log.
    """
    return run_to_the_end(run(load(home), accept_own_log=accept_own_log), log)
