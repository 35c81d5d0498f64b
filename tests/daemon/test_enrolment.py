"""Machines that come in, over real gRPC, with a daemon that stores (T44).

Times are the test's own: daemon and node are told what to take for now.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tour.federation import free_ports

from hanse.cli import client
from hanse.core import limits, token
from hanse.core.encoding import to_base64
from hanse.core.errors import (
    Conflict,
    InvalidProof,
    InvalidSpec,
    NotFound,
    NotPermitted,
    Rejected,
    Unavailable,
)
from hanse.core.token import Token
from hanse.core.trust.chain import replay
from hanse.daemon import ceremony, enrolment
from hanse.daemon.config import load
from hanse.daemon.run import Daemon, assemble
from hanse.daemon.trust_folder import add_file, read_files
from hanse.daemon.waiting import until_admitted
from hanse.edge import config as edge_config
from hanse.edge.certificate import OwnCertificate
from hanse.rpc import certificates, edge_client, enrol_client, tls
from hanse.rpc.certificates import Identity

MINUTE, DAY = datetime.timedelta(minutes=1), datetime.timedelta(days=1)
WAIT_S = 10


class World:
    """A federation of one daemon, whose clock the test sets."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.began = self.now = datetime.datetime.now(datetime.UTC)
        self.port = free_ports(1)[0]
        ceremony.init(
            home, "harbour", "eu-north", f"127.0.0.1:{self.port}", "", self.began - 30 * DAY
        )
        self.daemon: Daemon
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        self._stack = AsyncExitStack()
        self.daemon = await assemble(load(self.home), self._stack, now=lambda: self.now)
        self._driving = asyncio.create_task(self.daemon.driver.run())

    async def stop(self) -> None:
        await self.daemon.stop(self._driving)
        await self._stack.aclose()

    async def ask(self, verb: str, **args: Any) -> Any:
        return await asyncio.to_thread(client.call, self.home, verb, **args)

    async def token(self, node: str = "n1", ttl_s: float = 900) -> Token:
        return token.parse((await self.ask("agent.token", node=node, ttl_s=ttl_s))["token"])

    async def daemon_token(self, region: str = "us-east") -> Token:
        return token.parse((await self.ask("daemon.token", region=region))["token"])

    @property
    def authority_pem(self) -> bytes:
        return (self.home / "keys/tls.crt").read_bytes()

    def channel(self, identity: Identity) -> grpc.aio.Channel:
        return tls.open_channel(f"127.0.0.1:{self.port}", identity, self.authority_pem)

    async def report(self, node: str, identity: Identity) -> None:
        """Whether this node may speak with its daemon."""
        async with self.channel(identity) as channel:
            report = b'{"epoch":0,"models":[],"node":"%s","schema":1,"serial":0}' % node.encode()
            await edge_client.report(channel, node, b"nonce", 1, report)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path / "d")
    await world.start()
    yield world
    await world.stop()


async def enrolled(world_token: Token, key_pem: bytes | None = None) -> Identity:
    key_pem = key_pem or certificates.new_key_pem()
    async with enrol_client.token_channel(world_token) as channel:
        pem = await enrol_client.enroll(channel, certificates.request(key_pem))
    return Identity(pem, key_pem)


async def renewed(world: World, identity: Identity, key_pem: bytes | None = None) -> Identity:
    async with world.channel(identity) as channel:
        request = certificates.request(key_pem or identity.key_pem)
        return Identity(await enrol_client.renew(channel, request), identity.key_pem)


# -- tokens -------------------------------------------------------------------------


async def test_a_token_makes_one_machine_the_node_that_it_names(world: World) -> None:
    identity = await enrolled(await world.token("dock-7"))
    peer = tls.peer_of_certificate(identity.cert_pem)
    named = (peer.federation, peer.region, peer.kind, peer.name)
    assert named == ("harbour", "eu-north", "edge", "dock-7")
    until = certificates.span_of(identity.cert_pem)[1]
    assert abs(until - world.began - 7 * 24 * 60 * MINUTE) < MINUTE
    await world.report("dock-7", identity)


async def test_a_lost_answer_is_asked_for_again_with_the_same_key(world: World) -> None:
    made, key_pem = await world.token(), certificates.new_key_pem()
    for _ in range(3):
        await world.report("n1", await enrolled(made, key_pem))


async def test_a_spent_token_is_refused_to_every_other_key(world: World) -> None:
    made = await world.token()
    await enrolled(made)
    with pytest.raises(NotPermitted, match="spent on another key"):
        await enrolled(made)


async def test_of_many_that_race_one_gets_in(world: World) -> None:
    made = await world.token()
    racing = [enrolled(made) for _ in range(8)]
    ended = await asyncio.gather(*racing, return_exceptions=True)
    assert sum(isinstance(each, Identity) for each in ended) == 1
    assert sum(isinstance(each, NotPermitted) for each in ended) == 7


async def test_the_spending_is_stored_before_anything_is_issued(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon dies between the two: no second key gets in, and the first may ask again."""
    made, key_pem = await world.token(), certificates.new_key_pem()

    def die(*_: object) -> bytes:
        raise Unavailable("the power is gone")

    with monkeypatch.context() as broken:
        broken.setattr(enrolment.certificates, "certify", die)
        with pytest.raises(Unavailable, match="power"):
            await enrolled(made, key_pem)
    await world.stop()
    await world.start()
    with pytest.raises(NotPermitted, match="another key"):
        await enrolled(made)
    await world.report("n1", await enrolled(made, key_pem))


async def test_an_old_token_opens_no_method(world: World) -> None:
    made = await world.token(ttl_s=60)
    world.now = world.began + MINUTE / 2
    identity = await enrolled(made)
    world.now = world.began + MINUTE
    for key_pem in (None, identity.key_pem):
        with pytest.raises(NotPermitted):
            await enrolled(made, key_pem)
    world.now = world.began  # what was seen as expired stays so
    world.daemon.driver.node.enrolment.tick(int((world.began + MINUTE).timestamp() * 1000))
    with pytest.raises((Rejected, Unavailable)):
        await enrolled(made)


async def test_a_token_is_worth_nothing_at_another_daemon(world: World, tmp_path: Path) -> None:
    other = World(tmp_path / "o")
    await other.start()
    made = await world.token()
    there = dataclasses.replace(made, address=f"127.0.0.1:{other.port}")
    with pytest.raises(Unavailable):  # the node finds that this is not whom the token names
        await enrolled(there)
    lied = dataclasses.replace(there, authority_der=certificates.to_der(other.authority_pem))
    with pytest.raises(Unavailable):  # and the other daemon knows no such token
        await enrolled(lied)
    await other.stop()


async def test_who_holds_a_token_cannot_change_what_it_is_for(world: World) -> None:
    """The region in the certificate is the holder's own claim; the daemon has its own record."""
    made = await world.token()
    elsewhere = dataclasses.replace(made, region=token.segment("us-east"))
    with pytest.raises(NotPermitted, match="for region eu-north"):
        await enrolled(elsewhere)
    renamed = dataclasses.replace(made, node="n9")
    assert tls.peer_of_certificate((await enrolled(renamed)).cert_pem).name == "n1"


async def test_each_kind_of_token_opens_its_own_method(world: World) -> None:
    with pytest.raises(NotPermitted, match="not open"):
        await enrolled(await world.daemon_token())
    async with enrol_client.token_channel(await world.token()) as channel:
        with pytest.raises(Rejected):
            await enrol_client.join(channel, b"{}")
        with pytest.raises(NotPermitted, match="may not call"):
            await enrol_client.renew(channel, certificates.request(certificates.new_key_pem()))
        with pytest.raises(NotPermitted, match="may not call"):
            await edge_client.report(channel, "n1", b"nonce", 1, b"{}")


async def test_a_forged_certificate_of_a_token_is_none(world: World) -> None:
    """The id is public, it stands in the certificate: only the key counts."""
    made = await world.token()
    forged = dataclasses.replace(made, secret=b"X" * 32)
    with pytest.raises(Unavailable):
        await enrolled(forged)


async def test_the_daemon_does_not_keep_the_secret(world: World) -> None:
    made = await world.token()
    await enrolled(made)
    kept = b"".join(p.read_bytes() for p in (world.home / "data").iterdir() if p.is_file())
    assert made.id.encode() in kept
    assert made.secret not in kept
    assert made.secret.hex().encode() not in kept


@pytest.mark.parametrize("ttl_s", [0, -1, 2 * limits.TOKEN_TTL_S, "x"])
async def test_a_token_for_longer_is_not_made(world: World, ttl_s: Any) -> None:
    with pytest.raises(InvalidSpec):
        await world.token(ttl_s=ttl_s)


async def test_no_token_is_made_where_the_edge_ca_is_kept_elsewhere(world: World) -> None:
    made = await world.token()
    (world.home / "keys/edge-ca.key").rename(world.home / "elsewhere.key")
    with pytest.raises(NotFound, match="edge-ca"):
        await world.token()
    with pytest.raises(Unavailable, match="edge CA"):
        await enrolled(made)
    (world.home / "elsewhere.key").rename(world.home / "keys/edge-ca.key")
    await enrolled(made)  # the failure has spent nothing


def requests() -> dict[str, bytes]:
    def signed(key: Any, names: int = 1) -> x509.CertificateSigningRequest:
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        extra = x509.SubjectAlternativeName([x509.DNSName("n" * 60) for _ in range(names)])
        return builder.add_extension(extra, critical=False).sign(key, hashes.SHA256())

    def der(request: x509.CertificateSigningRequest) -> bytes:
        return request.public_bytes(serialization.Encoding.DER)

    fine = certificates.request(certificates.new_key_pem())
    return {
        "nothing": b"",
        "noise": bytes(range(256)),
        "too long": der(signed(ec.generate_private_key(ec.SECP256R1()), names=70)),
        "rsa": der(signed(rsa.generate_private_key(65537, 2048))),
        "another curve": der(signed(ec.generate_private_key(ec.SECP384R1()))),
        "not its own signature": fine[:-1] + bytes([fine[-1] ^ 1]),
    }


@pytest.mark.parametrize("case", requests())
async def test_a_signing_request_that_is_not_right_spends_nothing(world: World, case: str) -> None:
    made = await world.token()
    async with enrol_client.token_channel(made) as channel:
        with pytest.raises(Rejected):
            await enrol_client.enroll(channel, requests()[case])
    await enrolled(made)


async def test_a_flood_from_many_machines_is_told_to_come_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them keeps below what one caller may do; together they are too many."""
    await world.stop()
    monkeypatch.setattr(limits, "ENROLS_PER_S", 0.1)  # a slow machine gives no time to recover
    await world.start()
    tokens, request = [await world.token() for _ in range(4)], certificates.new_key_pem()
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(enrol_client.token_channel(each)) for each in tokens
        ]
        calls = [
            enrol_client.enroll(channel, certificates.request(request))
            for channel in channels
            for _ in range(limits.ENROLS_BURST // 2)
        ]
        ended = await asyncio.gather(*calls, return_exceptions=True)
    assert any("many machines enrol" in str(each) for each in ended)
    assert any(isinstance(each, bytes) for each in ended)


# -- renewal ------------------------------------------------------------------------


async def test_a_node_renews_with_the_key_it_has(world: World) -> None:
    identity = await enrolled(await world.token())
    again = await renewed(world, identity)
    assert again.cert_pem != identity.cert_pem
    assert certificates.spki_hash(again.cert_pem) == certificates.spki_hash(identity.cert_pem)
    await world.report("n1", again)
    with pytest.raises(NotPermitted, match="same key only"):
        await renewed(world, identity, certificates.new_key_pem())


def node_folder(world: World, folder: Path, identity: Identity) -> edge_config.Config:
    (folder / "keys").mkdir(parents=True)
    (folder / "keys/tls.key").write_bytes(identity.key_pem)
    (folder / "keys/tls.key").chmod(0o600)
    (folder / "keys/tls.crt").write_bytes(identity.cert_pem)
    values = {
        "node": "n1",
        "federation": "harbour",
        "region": "eu-north",
        "daemon": f"127.0.0.1:{world.port}",
        "daemon_key": to_base64(bytes(32)[:-1] + b"\x09"),
    }
    (folder / edge_config.FILE_NAME).write_text(edge_config.render(values, {}))
    return edge_config.load(folder / edge_config.FILE_NAME)


def enrolled_on(world: World, moment: datetime.datetime) -> Identity:
    """A node that was enrolled then, for a week; TLS goes by the real clock and lets it in."""
    ca = ceremony.read_edge_ca(world.home)
    uri = certificates.edge_uri("harbour", "eu-north", "n1")
    return certificates.issue(uri, ca, certificates.from_now(moment, certificates.LIFE))


@pytest.mark.parametrize(("spread", "due"), [(0.0, -3.0), (1.0, -3.0 + 8 / 6)])
async def test_a_certificate_is_renewed_between_a_half_and_two_thirds_of_its_life(
    world: World, tmp_path: Path, spread: float, due: float
) -> None:
    identity = enrolled_on(
        world, world.began - 6 * DAY
    )  # so it lasts from a day before that, for eight
    config = node_folder(world, tmp_path / "n", identity)
    own = OwnCertificate(config, now=lambda: world.now, spread=lambda: spread)
    async with world.channel(identity) as channel:
        world.now = world.began + due * DAY - MINUTE
        assert not await own.renew_if_due(channel)
        world.now = world.began + due * DAY + MINUTE
        assert await own.renew_if_due(channel)
        assert not await own.renew_if_due(channel)
    assert own.until - world.now > 6.9 * DAY
    assert config.tls_cert.read_bytes() == own.identity.cert_pem
    await world.report("n1", own.identity)


async def test_a_node_outlives_its_daemon_and_says_when_it_is_too_late(
    world: World, tmp_path: Path
) -> None:
    identity = enrolled_on(world, world.began - 6 * DAY)
    config = node_folder(world, tmp_path / "n", identity)
    own = OwnCertificate(config, now=lambda: world.now, spread=lambda: 0.5)
    await world.stop()
    world.now = world.began - 2 * DAY
    async with world.channel(identity) as channel:
        with pytest.raises(Unavailable):
            await own.renew_if_due(channel)
        own.check()
        await world.start()
        async with asyncio.timeout(WAIT_S):
            while not await renewed_or_not(own, channel):  # noqa: ASYNC110  # gRPC reconnects
                await asyncio.sleep(0.05)
    world.now = own.until + MINUTE
    async with world.channel(own.identity) as channel:
        assert not await own.renew_if_due(channel)
    with pytest.raises(NotPermitted, match="enrol the node again"):
        own.check()
    with pytest.raises(NotPermitted, match="not now"):
        await world.report("n1", own.identity)
    world.now = world.began
    again = await enrolled(await world.token(), identity.key_pem)
    assert not own.reread()
    config.tls_cert.write_bytes(again.cert_pem)
    assert own.reread()
    assert own.identity.cert_pem == again.cert_pem
    await world.report("n1", own.identity)


async def test_a_certificate_for_another_key_or_name_is_not_taken(
    world: World, tmp_path: Path
) -> None:
    identity = await enrolled(await world.token())
    config = node_folder(world, tmp_path / "n", identity)
    own = OwnCertificate(config)
    for other in (await enrolled(await world.token()), await enrolled(await world.token("n2"))):
        config.tls_cert.write_bytes(other.cert_pem)
        with pytest.raises(InvalidProof):
            own.reread()
    assert own.identity.cert_pem == identity.cert_pem


async def renewed_or_not(own: OwnCertificate, channel: grpc.aio.Channel) -> bool:
    try:
        return await own.renew_if_due(channel)
    except Unavailable:  # the channel has not found the daemon again yet
        return False


async def test_the_daemon_renews_its_own_certificate(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = await enrolled(await world.token())
    doors = world.daemon.doors
    before = doors.shown()
    doors.look()
    assert doors.shown() is before
    world.now = world.began + datetime.timedelta(days=5)
    doors.look()
    assert doors.shown() is not before
    assert certificates.is_issued_by(doors.shown().cert_pem, world.authority_pem)
    world.now = world.began
    doors.look()  # a clock that was set back would show a certificate of the future
    await world.report("n1", identity)


# -- revocation ---------------------------------------------------------------------


async def watch_for_ever(channel: grpc.aio.Channel, node: str) -> None:
    async for _ in edge_client.watch(channel, node, {}):
        pass


async def test_a_revoked_node_is_cut_off_and_comes_back_with_a_token_only(world: World) -> None:
    identity, other = await enrolled(await world.token()), await enrolled(await world.token("n2"))
    async with world.channel(identity) as channel:
        stream = asyncio.ensure_future(watch_for_ever(channel, "n1"))
        await edge_client.report(channel, "n1", b"n", 1, report_of("n1"))
        open_token = await world.token()
        world.daemon.doors.look()
        await world.ask("agent.revoke", node="n1", reason="the truck was stolen")
        world.daemon.doors.look()
        async with asyncio.timeout(WAIT_S):
            with pytest.raises(NotPermitted, match="the truck was stolen"):
                await stream
        with pytest.raises(NotPermitted, match="revoked"):
            await edge_client.report(channel, "n1", b"n", 2, report_of("n1"))
        with pytest.raises(NotPermitted, match="revoked"):
            await enrol_client.renew(channel, certificates.request(identity.key_pem))
    with pytest.raises((Rejected, Unavailable)):
        await enrolled(open_token)
    await world.report("n2", other)
    await world.stop()
    await world.start()  # it is on the disk
    with pytest.raises(NotPermitted, match="revoked"):
        await world.report("n1", identity)
    fresh = await enrolled(await world.token())
    await world.report("n1", fresh)
    await world.report("n1", await renewed(world, fresh))
    with pytest.raises(NotPermitted, match="revoked"):
        await world.report("n1", identity)


def report_of(node: str) -> bytes:
    return b'{"epoch":0,"models":[],"node":"%s","schema":1,"serial":0}' % node.encode()


@pytest.mark.parametrize("by", ["name", "serial number"])
async def test_what_a_trust_file_revokes_is_refused(
    world: World, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = await enrolled(await world.token())
    await world.report("n1", identity)
    named = "n1" if by == "name" else certificates.serial_number(identity.cert_pem)
    extend_trust(world, lambda region: dataclasses.replace(region, revoked=frozenset({named})))
    with pytest.raises(NotPermitted, match="trust file"):
        await world.report("n1", identity)
    if by == "name":
        with pytest.raises(Conflict, match="revokes node n1"):
            await world.token()
    else:  # one certificate, not the node
        await world.report("n1", await enrolled(await world.token()))


def extend_trust(world: World, change: Callable[[Any], Any]) -> None:
    """What the region's officers would sign; here it is just put in force."""
    book = world.daemon.driver.node.book
    current = book.chain.current
    regions = tuple(change(region) for region in current.regions)
    changed = dataclasses.replace(current, version=current.version + 1, regions=regions)
    book.chain = dataclasses.replace(book.chain, versions=(*book.chain.versions, changed))


# -- daemons that join ----------------------------------------------------------------


async def test_a_daemon_that_joins_waits_until_people_admit_it(
    world: World, tmp_path: Path
) -> None:
    made = await world.daemon_token()
    home = tmp_path / "us"
    async with enrol_client.token_channel(made) as channel:
        files = await enrol_client.trust_files(channel)
        assert tuple(files) == read_files(world.home / "trust")
        listen = f"127.0.0.1:{free_ports(1)[0]}"
        request = ceremony.join(home, files, "us-east", listen, "", world.began)
        for _ in range(2):
            await enrol_client.join(channel, request)
    for version, raw in enumerate(files, start=1):
        add_file(home / "trust", version, raw)
    (waiting,) = (await world.ask("daemon.pending"))["pending"]
    assert (waiting["region"], waiting["address"]) == ("us-east", listen)
    assert waiting["request"].encode() == request

    config = load(home)
    authority = Identity(config.tls_cert.read_bytes(), config.tls_key.read_bytes())
    uri = certificates.daemon_uri("harbour", "us-east", waiting["member"])
    shown = certificates.issue(
        uri, authority, certificates.from_now(world.began, certificates.LIFE)
    )
    admission = asyncio.create_task(
        until_admitted(waiting["member"], shown, replay(tuple(files)), home / "trust", ask_s=0.05)
    )
    await asyncio.sleep(0.2)
    assert not admission.done()  # a request gives no right

    root = ceremony.root_keys([world.home / "keys/root.key"])
    raw = ceremony.admit(waiting["request"].encode(), files, root, world.began)
    await world.ask("trust.extend", file=raw.decode())
    async with asyncio.timeout(WAIT_S):
        await admission
    assert read_files(home / "trust") == (*files, raw)
    assert (await world.ask("daemon.pending"))["pending"] == []


async def test_a_daemon_that_waits_believes_no_chain_but_its_own(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member that lies can offer it a whole other federation, in which it is a member."""
    other, home = tmp_path / "other", tmp_path / "us"
    ceremony.init(other, "harbour", "eu-north", "127.0.0.1:1", "", world.began)
    files = read_files(other / "trust")
    request = ceremony.join(home, files, "us-east", "127.0.0.1:2", "", world.began)
    root = ceremony.root_keys([other / "keys/root.key"])
    forged = [*files, ceremony.admit(request, files, root, world.began)]
    asked = asyncio.Event()

    async def lie(_: grpc.aio.Channel) -> list[bytes]:
        asked.set()
        return forged

    monkeypatch.setattr(enrol_client, "trust_files", lie)
    me = next(m.id for m in replay(tuple(forged)).current.members if m.region == "us-east")
    own = replay(read_files(world.home / "trust"))
    shown = world.daemon.doors.shown()
    waiting = asyncio.create_task(until_admitted(me, shown, own, home / "trust", ask_s=0.01))
    async with asyncio.timeout(WAIT_S):
        for _ in range(2):
            await asked.wait()
            asked.clear()
    assert not waiting.done()
    waiting.cancel()


async def test_a_request_for_another_region_than_the_token_names_is_refused(
    world: World, tmp_path: Path
) -> None:
    made = await world.daemon_token("us-west")
    async with enrol_client.token_channel(made) as channel:
        files = await enrol_client.trust_files(channel)
        request = ceremony.join(tmp_path / "us", files, "us-east", "127.0.0.1:1", "", world.began)
        with pytest.raises(NotPermitted, match="for region us-west"):
            await enrol_client.join(channel, request)
        changed = request.replace(b'"payload":"', b'"payload":"A', 1)
        with pytest.raises(Rejected):
            await enrol_client.join(channel, changed)
    assert (await world.ask("daemon.pending"))["pending"] == []
    with pytest.raises(NotFound):
        await world.ask("daemon.refuse", member="0" * 32)


async def test_a_refused_request_is_forgotten(world: World, tmp_path: Path) -> None:
    async with enrol_client.token_channel(await world.daemon_token()) as channel:
        files = await enrol_client.trust_files(channel)
        request = ceremony.join(tmp_path / "us", files, "us-east", "127.0.0.1:1", "", world.began)
        await enrol_client.join(channel, request)
    (waiting,) = (await world.ask("daemon.pending"))["pending"]
    await world.ask("daemon.refuse", member=waiting["member"])
    assert (await world.ask("daemon.pending"))["pending"] == []
