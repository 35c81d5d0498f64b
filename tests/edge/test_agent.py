"""A whole edge node against a real daemon port over mutual TLS: fetch, prove, serve, fall back."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import daemons
import grpc
import pytest
import tritonclient.grpc.aio as triton
from digit_releases import DIGITS, Release, holdout, release
from shelves import Shelf
from tour.federation import free_ports

from hanse.core.assignment import Assignment, ModelAssignment, Source, signed_bytes
from hanse.core.errors import InvalidSignature, NotPermitted
from hanse.core.ids import Digest, Segment, segment
from hanse.core.signing import SigningKey
from hanse.core.telemetry import ModelReport, Report, parse_report
from hanse.edge import config as configs
from hanse.edge.agent import Agent
from hanse.edge.certificate import OwnCertificate
from hanse.edge.config import Config
from hanse.edge.status import FILE_NAME
from hanse.rpc import certificates
from hanse.rpc.blob_service import BlobService
from hanse.rpc.certificates import Identity
from hanse.rpc.edge_service import EdgeService
from hanse.rpc.enrol_service import EnrolService
from hanse.rpc.server import build_server
from hanse.rpc.tls import Peer

KEY = SigningKey(bytes(range(32)))
NODE = segment("edge-1")
X, Y = holdout()


@dataclass
class Region:
    """A daemon's port with real services over a folder of blobs."""

    shelf: Shelf
    ca: Identity
    reports: list[Report] = field(default_factory=list)
    shown: dict[str, bytes] = field(default_factory=dict)
    serial: int = 0
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    address: str = "127.0.0.1:0"
    server: grpc.aio.Server | None = None

    def on_watch(self, peer: Peer, node: Segment, facts: Mapping[str, str]) -> None: ...
    def on_gone(self, peer: Peer, node: Segment) -> None: ...

    async def on_report(
        self, peer: Peer, node: Segment, boot_nonce: bytes, seq: int, report: bytes
    ) -> int:
        self.shown[node] = peer.cert_pem
        self.reports.append(parse_report(report))
        self.heard.set()
        return seq

    def trust_files(self) -> list[bytes]:
        return []

    async def on_enroll(self, token: Peer, request: bytes) -> bytes:
        raise NotPermitted("no tokens here")

    async def on_join(self, token: Peer, request: bytes) -> None:
        raise NotPermitted("no tokens here")

    async def on_renew(self, node: Peer, request: bytes) -> bytes:
        uri = certificates.edge_uri(daemons.FEDERATION, daemons.REGION, node.name)
        span = certificates.from_now(daemons.NOW, certificates.LIFE)
        return certificates.certify(uri, request, self.ca, span)

    @property
    def served(self) -> set[Digest]:
        return {digest for _, digest, _ in self.shelf.asked}

    async def start(self) -> None:
        self.daemon = daemons.daemon(1)
        self.edge = EdgeService(daemons.FEDERATION, daemons.REGION, self)
        self.server, port = await build_server(
            self.daemon.shown,
            daemons.doorkeeper(lambda: daemons.members([], self.ca)),
            [self.edge, BlobService(self.shelf), EnrolService(self)],
            address=self.address,
        )
        self.address = f"127.0.0.1:{port}"
        await self.server.start()

    async def stop(self) -> None:
        if self.server is not None:
            await self.edge.close()
            await self.server.stop(None)
            self.server = None

    def offer(self, *releases: Release) -> None:
        for each in releases:
            for file in each.manifest.files:
                self.shelf.put((each.folder / file.name).read_bytes(), file.digest)

    def assign(self, *releases: Release, **fields: object) -> None:
        self.serial += 1
        model = replace(ModelAssignment(DIGITS, generation=1, salt="s"), **fields)  # type: ignore[arg-type]  # the tests choose fields by name
        source = Source(self.address, daemons.REGION, self.daemon.authority.cert_pem.decode())
        raw = Assignment(
            daemons.FEDERATION,
            daemons.REGION,
            1,
            self.serial,
            (model,),
            {r.digest: r.raw for r in releases},
            (source,),
        ).encode()
        self.edge.publish(raw, KEY.sign(signed_bytes(raw)))

    async def until(self, holds: Callable[[ModelReport], bool]) -> ModelReport:
        """The first report of which `holds` is true."""
        async with asyncio.timeout(10):
            while True:
                for report in self.reports:
                    for model in report.models:
                        if holds(model):
                            return model
                self.heard.clear()
                await self.heard.wait()


@pytest.fixture
async def region(tmp_path: Path) -> AsyncIterator[Region]:
    (tmp_path / "blobs").mkdir()
    region = Region(Shelf(tmp_path / "blobs"), daemons.edge_ca())
    await region.start()
    yield region
    await region.stop()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Release]:
    return {
        "v1": release("v1", tmp_path / "v1", golden_of="v1"),
        "v2": release("v2", tmp_path / "v2", golden_of="v2"),
        "lying": release("swapped", tmp_path / "lying", golden_of="v2"),
    }


def configured(region: Region, folder: Path) -> Config:
    identity = daemons.node("edge-1", region.ca)
    (folder / "keys").mkdir(exist_ok=True)
    (folder / "keys/tls.key").write_bytes(identity.key_pem)
    (folder / "keys/tls.key").chmod(0o600)
    (folder / "keys/tls.crt").write_bytes(identity.cert_pem)
    (folder / "keys/daemon.crt").write_bytes(region.daemon.authority.cert_pem)
    values = {
        "node": NODE,
        "federation": daemons.FEDERATION,
        "region": daemons.REGION,
        "daemon": region.address,
        "daemon_key": base64.b64encode(KEY.public).decode(),
        "report_interval_s": 0.2,
        "listen": f"127.0.0.1:{free_ports(1)[0]}",
    }
    (folder / configs.FILE_NAME).write_text(configs.render(values, {"tier": "test"}))
    config = configs.load(folder / configs.FILE_NAME)
    config.state.mkdir(exist_ok=True)
    return config


@contextlib.asynccontextmanager
async def running(config: Config) -> AsyncIterator[Agent]:
    agent = Agent(config, OwnCertificate(config), b"nonce")
    agent.start()
    task = asyncio.create_task(agent.run())
    yield agent
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled(), task.exception()
    await agent.close()


async def until(holds: Callable[[], bool]) -> None:
    """Loading and fetching take real time, so this polls; it gives up after ten seconds."""
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


async def ask(agent: Agent, request_id: str = "") -> Digest:
    answer = await agent.router.infer("digits", None, request_id, "", {"X": X[:1]})
    assert answer.outputs["label"][0] == Y[0]
    return answer.release


async def test_a_release_is_fetched_proved_served_counted_and_replaced(
    region: Region, files: dict[str, Release], tmp_path: Path
) -> None:
    v1, v2 = files["v1"], files["v2"]
    region.offer(v1, v2)
    config = configured(region, tmp_path)
    async with running(config) as agent:
        region.assign(v1, active=v1.digest, last_good=(v1.digest,))
        await region.until(lambda m: m.running == v1.digest)
        assert await ask(agent, "r1") == v1.digest
        agent.telemetry.label("digits", [("r1", str(Y[0]))])
        counted = await region.until(lambda m: bool(m.windows))
        assert counted.windows[0].stable.requests == 1
        assert counted.windows[0].stable.labelled == 1
        region.assign(v1, v2, active=v2.digest, last_good=(v1.digest,), generation=2)
        await region.until(lambda m: m.running == v2.digest and v1.digest in m.ready)
        assert await ask(agent) == v2.digest
        region.reports.clear()
        region.assign(
            v1, active=v1.digest, last_good=(v1.digest,), barred=(v2.digest,), generation=2
        )
        await region.until(lambda m: m.running == v1.digest and v2.digest not in m.ready)
        assert await ask(agent) == v1.digest
    status = json.loads((config.state / FILE_NAME).read_bytes())
    assert status["models"][0]["running"] == str(v1.digest)


async def test_a_release_that_fails_its_golden_inputs_never_answers(
    region: Region, files: dict[str, Release], tmp_path: Path
) -> None:
    v1, lying = files["v1"], files["lying"]
    region.offer(v1, lying)
    async with running(configured(region, tmp_path)) as agent:
        region.assign(v1, lying, active=lying.digest, last_good=(v1.digest,))
        report = await region.until(lambda m: bool(m.failed) and m.running == v1.digest)
        assert "golden" in report.failed[lying.digest]
        assert report.interim
        assert await ask(agent) == v1.digest


async def test_a_node_serves_from_its_disk_with_no_network_at_all(
    region: Region, files: dict[str, Release], tmp_path: Path
) -> None:
    v1, v2 = files["v1"], files["v2"]
    region.offer(v1, v2)
    config = configured(region, tmp_path)
    async with running(config):
        region.assign(v1, v2, active=v2.digest, last_good=(v1.digest,))
        await region.until(lambda m: m.running == v2.digest and v1.digest in m.ready)
    await region.stop()
    async with running(config) as agent:
        await until(lambda: agent.router.models() == ("digits",))
        await until(lambda: len(agent.router.loaded("digits")) == 2)
        assert await ask(agent) == v2.digest
        agent._tripped(DIGITS, v2.digest, "errors")
        assert await ask(agent) == v1.digest
    async with running(config) as agent:
        await until(lambda: agent.device.report()[0].running is not None)
        assert await ask(agent) == v1.digest


async def test_files_that_rot_on_the_disk_are_fetched_again(
    region: Region, files: dict[str, Release], tmp_path: Path
) -> None:
    v1 = files["v1"]
    region.offer(v1)
    config = configured(region, tmp_path)
    async with running(config):
        region.assign(v1, active=v1.digest)
        await region.until(lambda m: m.running == v1.digest)
    rotten = config.state / "releases" / v1.digest.hex / "model.onnx"
    rotten.chmod(0o600)
    rotten.write_bytes(b"\0" * rotten.stat().st_size)
    region.reports.clear()
    region.shelf.asked.clear()
    async with running(config) as agent:
        await region.until(lambda m: m.running == v1.digest)
        assert v1.manifest.file("model.onnx").digest in region.served
        assert await ask(agent) == v1.digest


async def test_an_assignment_signed_by_anybody_else_changes_nothing(
    region: Region, files: dict[str, Release], tmp_path: Path
) -> None:
    v1, v2 = files["v1"], files["v2"]
    region.offer(v1, v2)
    async with running(configured(region, tmp_path)) as agent:
        region.assign(v1, active=v1.digest)
        await region.until(lambda m: m.running == v1.digest)
        obeyed = agent.device.assignment
        assert obeyed is not None
        forged = replace(obeyed, serial=9, models=()).encode()
        thief = SigningKey(bytes(32))
        with pytest.raises(InvalidSignature):
            agent.on_assignment(forged, thief.sign(signed_bytes(forged)))
        region.edge.publish(forged, thief.sign(signed_bytes(forged)))
        region.assign(v1, v2, active=v2.digest)
        await region.until(lambda m: m.running == v2.digest)
        assert agent.device.assignment.serial == 2


async def test_the_process_serves_clients_and_stops_cleanly_on_sigterm(
    region: Region, files: dict[str, Release], tmp_path: Path
) -> None:
    v1 = files["v1"]
    region.offer(v1)
    region.assign(v1, active=v1.digest)
    config = configured(region, tmp_path)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sys, pathlib, hanse.edge.run as r; sys.exit(r.main(pathlib.Path(sys.argv[1])))",
        str(tmp_path / configs.FILE_NAME),
        stderr=asyncio.subprocess.PIPE,
    )
    await region.until(lambda m: m.running == v1.digest)
    async with triton.InferenceServerClient(config.listen) as client:
        tensor = triton.InferInput("X", [1, 64], "FP32").set_data_from_numpy(X[:1])
        answer = await client.infer("digits", [tensor], request_id="last")
    assert answer.as_numpy("label")[0] == Y[0]
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    output, code = await asyncio.wait_for(process.stderr.read(), 10), await process.wait()
    assert code == 0
    assert [json.loads(line)["event"] for line in output.splitlines()][-1] == "stopped"
    counted = [w for r in region.reports for m in r.models for w in m.windows]
    assert sum(w.stable.requests for w in counted) == 1


async def test_wrong_bytes_from_a_source_are_never_loaded(
    region: Region, files: dict[str, Release], tmp_path: Path
) -> None:
    v1 = files["v1"]
    region.offer(v1)
    blob = region.shelf.path(v1.manifest.file("model.onnx").digest)
    good = blob.read_bytes()
    blob.write_bytes(bytes(len(good)))
    async with running(configured(region, tmp_path)) as agent:
        region.assign(v1, active=v1.digest)
        await until(lambda: v1.manifest.file("model.onnx").digest in region.served)
        assert agent.device.report()[0].running is None
        blob.write_bytes(good)
        await region.until(lambda m: m.running == v1.digest)


async def test_a_damaged_state_is_set_aside_and_the_node_asks_anew(
    region: Region, files: dict[str, Release], tmp_path: Path
) -> None:
    v1 = files["v1"]
    region.offer(v1)
    config = configured(region, tmp_path)
    async with running(config):
        region.assign(v1, active=v1.digest)
        await region.until(lambda m: m.running == v1.digest)
    (config.state / "assignment.json").write_bytes(b"{")
    region.reports.clear()
    async with running(config):
        await region.until(lambda m: m.running == v1.digest)
    assert (config.state / "assignment.json.damaged").read_bytes() == b"{"


async def test_a_certificate_is_renewed_under_a_node_that_goes_on(
    region: Region, tmp_path: Path
) -> None:
    """It is due from the start here: the agent asks, stores what it gets, and shows it."""
    config = configured(region, tmp_path)
    now = daemons.NOW
    half = (now - 4 * daemons.DAY, now + 2 * daemons.DAY)
    uri = certificates.edge_uri(daemons.FEDERATION, daemons.REGION, NODE)
    old = certificates.issue(uri, region.ca, half)
    config.tls_key.write_bytes(old.key_pem)
    config.tls_cert.write_bytes(old.cert_pem)
    region.assign()
    async with running(config) as agent:
        await holds(lambda: region.shown.get(NODE) not in (None, old.cert_pem))
        shown = region.shown.get(NODE)
        assert config.tls_cert.read_bytes() == shown
        assert shown is not None
        assert certificates.spki_hash(shown) == certificates.spki_hash(old.cert_pem)
        assert certificates.span_of(shown)[1] > half[1]
        count = len(region.reports)
        await holds(lambda: len(region.reports) >= count + 2 and agent._connected)


async def holds(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # there is no event for all of these
            await asyncio.sleep(0.02)
