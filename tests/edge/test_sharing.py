"""A node gives parts to whom the daemon permits it, over mutual TLS, and to nobody else."""

from __future__ import annotations

import asyncio
import base64
import datetime
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import daemons
import grpc
import pytest
from parts.models import safetensors
from rpc.blob_worlds import Came, gathered
from tour.federation import free_ports

from hanse.core.catalog.manifest import File as Named
from hanse.core.catalog.manifest import Manifest, Variant
from hanse.core.errors import HanseError, NotFound, NotPermitted, Unavailable
from hanse.core.fleet import SHARE_FACT
from hanse.core.ids import Digest, Segment, Version, segment
from hanse.core.limits import TICKET_S
from hanse.core.signing import SigningKey
from hanse.core.ticket import Ticket, sign
from hanse.core.transfer.wanted import Elsewhere, File, Wanted
from hanse.edge import config as configs
from hanse.edge import sharing
from hanse.edge.cache import Cache
from hanse.edge.certificate import OwnCertificate
from hanse.edge.config import Config
from hanse.edge.sharing import PolitePace, SharedFiles, Sharing
from hanse.parts.payload import decode
from hanse.parts.recipe import split
from hanse.rpc import blob_client, blob_service, certificates, tls
from hanse.rpc.blob_client import Pointed
from hanse.rpc.certificates import NODE_NAME, Identity
from hanse.rpc.pacing import Pace
from hanse.transfer.underway import Underway

KEY, OTHER_KEY = SigningKey(bytes(range(32))), SigningKey(bytes(32))
DATA = safetensors({f"t{n}": ("U8", [2_000_000], bytes([n]) * 2_000_000) for n in range(3)})
RECIPE = split(DATA)
MANIFEST = Manifest(
    segment("digits"),
    Version("1"),
    (Named(segment("model.safetensors"), RECIPE.digest, len(DATA)),),
    (Variant(segment("any"), "safetensors", segment("model.safetensors")),),
    (),
    (),
)
RELEASE = Digest.of(MANIFEST.encode())
FILE = File(RECIPE.digest, RELEASE)
NOW_MS = 1_800_000_000_000


def settings(folder: Path, identity: Identity, **values: str | int) -> Config:
    (folder / "keys").mkdir(parents=True, exist_ok=True)
    (folder / "keys/tls.key").write_bytes(identity.key_pem)
    (folder / "keys/tls.key").chmod(0o600)
    (folder / "keys/tls.crt").write_bytes(identity.cert_pem)
    known = {
        "node": "edge-1",
        "federation": daemons.FEDERATION,
        "region": daemons.REGION,
        "daemon": "127.0.0.1:7420",
        "daemon_key": base64.b64encode(KEY.public).decode(),
        "share_listen": f"127.0.0.1:{free_ports(1)[0]}",
        **values,
    }
    (folder / configs.FILE_NAME).write_text(configs.render(known, {}))
    return configs.load(folder / configs.FILE_NAME)


class World:
    """A node that holds one file, and whoever comes."""

    def __init__(self, folder: Path) -> None:
        self.ca, self.other_ca = daemons.edge_ca(), daemons.edge_ca("us-west")
        self.known_ca = self.ca.cert_pem.decode()
        self.config = settings(folder, daemons.node("edge-1", self.ca))
        self.cache = Cache(self.config.state)
        with self.cache.blobs.writer(len(DATA), RECIPE.digest) as writer:
            writer.write(DATA)
            writer.commit()
        self.now_ms, self.answers = NOW_MS, 0
        self.underway, self.manifests = Underway(), {RELEASE: MANIFEST}
        self.files = SharedFiles(
            self.cache,
            self.manifests.get,
            self.underway,
            self.config.daemon_key,
            lambda: self.now_ms,
        )
        own = OwnCertificate(self.config)
        self.sharing = Sharing(
            self.config, own, self.files, lambda: self.known_ca, lambda: self.answers
        )
        self.channels: list[grpc.aio.Channel] = []

    def channel(self, identity: Identity, name: str = NODE_NAME) -> grpc.aio.Channel:
        channel = tls.open_channel(self.config.share_listen, identity, self.ca.cert_pem, name)
        self.channels.append(channel)
        return channel

    async def answers_to(
        self, identity: Identity, ticket: bytes, file: File, *numbers: int
    ) -> list[Came | Pointed]:
        wanted = Wanted(file, Digest.of(RECIPE.encode()), numbers, ticket=ticket)
        sizes = [RECIPE.parts[n].size for n in numbers]
        return await gathered(self.channel(identity), wanted, sizes)

    async def parts(
        self, identity: Identity, ticket: bytes = b"", file: File = FILE, *numbers: int
    ) -> list[bytes]:
        found = []
        for answer in await self.answers_to(identity, ticket, file, *(numbers or (0, 1, 2))):
            assert isinstance(answer, Came)
            part = RECIPE.parts[answer.part]
            found.append(bytes(decode(part, answer.payload, lambda _: None)))
        return found


def ticket_for(identity: Identity, key: SigningKey = KEY, **changes: object) -> bytes:
    peer = tls.peer_of_certificate(identity.cert_pem)
    expires_ms = NOW_MS + int(TICKET_S * 1000)
    made = Ticket(Segment(peer.name), peer.spki, RELEASE, RECIPE.digest, expires_ms)
    return sign(replace(made, **changes), key)  # type: ignore[arg-type]  # tests choose by name


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    assert await world.sharing.open()
    yield world
    for channel in world.channels:
        await channel.close()
    await world.sharing.close()


@pytest.fixture
def asker(world: World) -> Identity:
    return daemons.node("edge-2", world.ca)


async def test_whoever_has_a_ticket_gets_the_parts(world: World, asker: Identity) -> None:
    assert b"".join(await world.parts(asker, ticket_for(asker))) == DATA
    assert not await world.sharing.open(), "it is open already"
    told = world.sharing.describe()
    assert told["tickets_refused"] == 0
    assert isinstance(told["bytes_given"], int)
    assert told["bytes_given"] >= len(DATA)


async def test_what_both_hold_is_built_on_between_neighbours_too(
    world: World, asker: Identity
) -> None:
    tuned = bytearray(DATA)
    tuned[-1] ^= 1
    release = Digest.of(b"the next one")
    file = File(Digest.of(bytes(tuned)), release)
    recipe = split(bytes(tuned))
    with world.cache.blobs.writer(len(tuned), file.digest) as writer:
        writer.write(bytes(tuned))
        writer.commit()
    named = Named(segment("model.safetensors"), file.digest, len(tuned))
    world.manifests[release] = replace(MANIFEST, files=(named,))
    last = len(recipe.parts) - 1
    ticket = ticket_for(asker, release=release, digest=file.digest)
    wanted = Wanted(file, Digest.of(recipe.encode()), (last,), base=FILE, ticket=ticket)
    channel = world.channel(asker)
    (came,) = await gathered(channel, wanted, [recipe.parts[last].size])
    assert isinstance(came, Came)
    assert len(came.payload) < 1000


class HalfHere:
    """Bytes of a file under way: what has not come yet is zeros."""

    def __init__(self) -> None:
        self.data = bytearray(len(DATA))

    def take(self, number: int) -> None:
        start = sum(part.size for part in RECIPE.parts[:number])
        end = start + RECIPE.parts[number].size
        self.data[start:end] = DATA[start:end]

    def read(self, start: int, length: int) -> bytes:
        return bytes(self.data[start : start + length])


async def test_what_has_come_of_a_file_under_way_is_given_and_what_comes_is_waited_for(
    world: World, asker: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.cache.blobs.delete(RECIPE.digest)
    half = HalfHere()
    monkeypatch.setattr(blob_service, "WAIT_S", 0.2)
    with world.underway.coming(RECIPE, half) as coming:
        half.take(0)
        coming.came(0)
        asked = asyncio.create_task(world.answers_to(asker, ticket_for(asker), FILE, 0, 1, 2))
        await asyncio.sleep(0)
        half.take(1)
        coming.came(1)
        first, second, third = await asked
        assert isinstance(first, Came)
        assert isinstance(second, Came)
        assert third == Pointed(2, Elsewhere()), "it did not come"
    with pytest.raises(NotFound):
        await world.parts(asker, ticket_for(asker), FILE, 0)


async def test_bytes_that_have_not_come_are_not_given_whatever_is_believed_of_them(
    world: World, asker: Identity
) -> None:
    world.cache.blobs.delete(RECIPE.digest)
    with world.underway.coming(RECIPE, HalfHere()) as coming:
        coming.came(0)
        with pytest.raises(Unavailable, match="damaged"):
            await world.parts(asker, ticket_for(asker), FILE, 0)


SPOILT: dict[str, Callable[[Identity], bytes]] = {
    "none": lambda _: b"",
    "nonsense": lambda _: b"{}" * 40,
    "forged": lambda asker: ticket_for(asker, OTHER_KEY),
    "ended": lambda asker: ticket_for(asker, expires_ms=NOW_MS),
    "for ever": lambda asker: ticket_for(asker, expires_ms=NOW_MS * 2),
    "of another node": lambda asker: ticket_for(asker, node=Segment("edge-3")),
    "of another key": lambda asker: ticket_for(asker, spki=bytes(32)),
    "for another release": lambda asker: ticket_for(asker, release=RECIPE.digest),
    "for another file": lambda asker: ticket_for(asker, digest=RELEASE),
    "changed": lambda asker: ticket_for(asker)[:-1] + b" ",
    "too large": lambda asker: ticket_for(asker) + bytes(2000),
}


@pytest.mark.parametrize("case", SPOILT)
async def test_no_ticket_that_stands_no_byte(world: World, asker: Identity, case: str) -> None:
    with pytest.raises(HanseError) as caught:
        await world.parts(asker, SPOILT[case](asker))
    assert world.sharing.describe()["bytes_given"] == 0
    if case != "too large":
        absent = File(Digest.of(b"absent"), RELEASE)
        with pytest.raises(NotFound) as other:
            await world.parts(asker, ticket_for(asker, digest=absent.digest), absent)
        said, theirs = str(caught.value), str(other.value)
        assert said.replace(FILE.digest.hex, "") == theirs.replace(absent.digest.hex, "")


async def test_a_ticket_is_good_until_it_ends(world: World, asker: Identity) -> None:
    ticket = ticket_for(asker)
    world.now_ms += int(TICKET_S * 1000) - 1
    assert await world.parts(asker, ticket)
    world.now_ms += 1
    with pytest.raises(NotFound):
        await world.parts(asker, ticket)


async def test_without_parts_nothing_is_given_whoever_asks(world: World, asker: Identity) -> None:
    """Neither whole files nor recipes: neither call can show a ticket."""
    channel = world.channel(asker)
    with pytest.raises(NotFound):
        await blob_client.recipe(channel, FILE, len(DATA))
    with pytest.raises(NotFound):
        [piece async for piece in blob_client.fetch(channel, FILE.digest, RELEASE)]
    assert world.sharing.describe()["bytes_given"] == 0


STRANGERS: dict[str, Callable[[World], Identity]] = {
    "node of another region": lambda w: daemons.node("edge-2", w.other_ca, region="us-west"),
    "another CA for this region": lambda w: daemons.node("edge-2", w.other_ca),
    "this CA for another region": lambda w: daemons.node("edge-2", w.ca, region="us-west"),
    "daemon": lambda w: daemons.daemon(1).identity,
    "daemon by the CA": lambda w: certificates.issue(
        certificates.daemon_uri(daemons.FEDERATION, daemons.REGION, "0f" * 16), w.ca, _span()
    ),
    "ended": lambda w: certificates.issue(
        certificates.edge_uri(daemons.FEDERATION, daemons.REGION, "edge-2"),
        w.ca,
        certificates.from_now(daemons.NOW - datetime.timedelta(days=20), certificates.LIFE),
    ),
}


def _span() -> certificates.Span:
    return certificates.from_now(daemons.NOW, certificates.LIFE)


@pytest.mark.parametrize("case", STRANGERS)
async def test_who_is_no_node_of_this_region_gets_nothing_even_with_a_ticket(
    world: World, case: str
) -> None:
    stranger = STRANGERS[case](world)
    with pytest.raises((NotPermitted, Unavailable)):
        await world.parts(stranger, ticket_for(stranger))
    assert world.sharing.describe()["bytes_given"] == 0


async def test_no_node_is_taken_for_a_daemon(world: World, asker: Identity) -> None:
    """Though whoever asks trusts the edge CA: a daemon goes by another name."""
    channel = world.channel(asker, certificates.SERVER_NAME)
    with pytest.raises(Unavailable):
        await blob_client.recipe(channel, FILE, len(DATA))


async def test_when_the_edge_ca_is_replaced_its_nodes_are_strangers(
    world: World, asker: Identity
) -> None:
    assert await world.parts(asker, ticket_for(asker))
    world.known_ca = world.other_ca.cert_pem.decode()
    world.sharing.look_again()
    with pytest.raises((NotPermitted, Unavailable)):
        await world.parts(asker, ticket_for(asker))


async def test_one_peer_has_so_many_streams_and_all_together_so_many(
    world: World, asker: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of one peer are refused, those of others wait until a stream ends."""
    most = 0

    async def take(self: PolitePace, *_: object) -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await gate.wait()
        now -= 1

    gate, now = asyncio.Event(), 0
    monkeypatch.setattr(PolitePace, "take", take)
    others = [daemons.node(f"edge-{n}", world.ca) for n in range(3, 6)]
    many = [
        asyncio.create_task(world.parts(each, ticket_for(each), FILE, 0))
        for each in (asker, *others)
        for _ in range(3)
    ]
    for _ in range(1000):
        if now == sharing.STREAMS_MAX and sum(task.done() for task in many) == 4:
            break
        await asyncio.sleep(0.01)
    gate.set()
    done = await asyncio.gather(*many, return_exceptions=True)
    refused = [each for each in done if isinstance(each, Unavailable)]
    assert len(refused) == 4
    assert all(not isinstance(each, BaseException) for each in done if each not in refused)
    assert most == sharing.STREAMS_MAX


async def test_while_the_models_answer_little_is_given(
    world: World, asker: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    async def take(self: Pace, caller: object, size: int) -> None:
        if self is not blob_client.AS_IT_COMES:
            taken.append(self._bytes_per_s)

    monkeypatch.setattr(Pace, "take", take)
    for answers, bytes_per_s in ((0, 0), (7, sharing.BUSY_BYTES_PER_S), (7, 0)):
        world.answers = answers
        world.sharing.look_again()
        await world.parts(asker, ticket_for(asker))
        assert set(taken) == {bytes_per_s}
        taken.clear()


async def test_a_port_that_is_taken_stops_nothing(world: World, tmp_path: Path) -> None:
    second = World(tmp_path / "second")
    second.config = replace(second.config, share_listen=world.config.share_listen)
    own = OwnCertificate(second.config)
    other = Sharing(second.config, own, second.files, lambda: second.known_ca, int)
    assert not await other.open()
    assert other.facts() == {}


@pytest.mark.parametrize(
    ("listen", "address", "told"),
    [
        ("127.0.0.1:{}", "", "127.0.0.1:{}"),
        ("0.0.0.0:{}", "", ":{}"),
        ("[::]:{}", "", ":{}"),
        ("0.0.0.0:{}", "dock-7.lan:9000", "dock-7.lan:9000"),
    ],
)
async def test_the_daemon_is_told_where_others_reach_the_node(
    listen: str, address: str, told: str, tmp_path: Path
) -> None:
    world, (port,) = World(tmp_path), free_ports(1)
    config = replace(world.config, share_listen=listen.format(port), share_address=address)
    own = OwnCertificate(config)
    silent = Sharing(
        replace(config, share_listen=""), own, world.files, lambda: world.known_ca, int
    )
    assert not await silent.open()
    unknown = Sharing(config, own, world.files, lambda: "", int)
    assert not await unknown.open(), "nobody could come in"
    open_to_all = Sharing(config, own, world.files, lambda: world.known_ca, int)
    assert await open_to_all.open()
    assert open_to_all.facts() == {SHARE_FACT: told.format(port)}
    assert silent.facts() == unknown.facts() == {}
    await open_to_all.close()
