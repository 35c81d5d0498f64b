"""A region that is cut off, and a witness outside the federation that makes its log final."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from random import Random

import pytest
from c2sp_witness import Witness, serve
from hand_federation import Federation
from lonely import chain
from memory_network import MemoryNetwork

from hanse.core import limits
from hanse.core.errors import Conflict, Rejected, Unavailable
from hanse.core.events import Note
from hanse.core.ids import Origin, Segment, member_id
from hanse.core.log import note as notes
from hanse.core.log.checkpoint import Checkpoint
from hanse.core.log.policy import witness_key
from hanse.core.node import Node
from hanse.core.signing import SigningKey
from hanse.core.step import PutTrust
from hanse.daemon import outside_witness
from hanse.daemon.driver import Driver
from hanse.daemon.outside_witness import OutsideWitness
from hanse.gateways import witness_client
from hanse.gateways.log_files import LogFiles
from hanse.rpc.codec import EventCodec
from hanse.rpc.tls import Peer
from hanse.storage.memory import MemoryEventStore

OWN, THEIRS = SigningKey(b"w" * 32), SigningKey(b"x" * 32)
KEY = Federation(edges=0).keys[0]
FEDERATION = Federation(edges=0).node("eu-north").book.chain.current.federation
ME = Origin(FEDERATION, Segment("eu-north"), member_id(KEY.public), 1)


def policy(outside: str) -> str:
    """Two of: this region, the other one, and somebody outside."""
    ours = witness_key(FEDERATION, "eu-north", ME.member, OWN.public).encode()
    theirs = witness_key(FEDERATION, "us-east", member_id(b"u" * 32), THEIRS.public).encode()
    return (
        f"witness eu {ours}\nwitness us {theirs}\nwitness outside {outside}\n"
        "group all 2 eu us outside\nquorum all\n"
    )


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not happened():  # noqa: ASYNC110  # what is waited for is not ours to signal
            await asyncio.sleep(0.01)


def _proposed(node: Node) -> int:
    note = node.finality.proposed()
    return Checkpoint.parse(notes.Note.parse(note).text).size if note else 0


class Daemon:
    """eu-north, whose peers are all out of reach; a restart takes its store."""

    def __init__(self, vkey: str, store: MemoryEventStore) -> None:
        known = chain(witness_keys={"eu-north": OWN.public}, witness_policy=policy(vkey))
        self.known, self.store = known, store
        self.node = Node(ME, KEY, b"spki", EventCodec(), known, Random(1), witness=OWN)
        self.node.open("test")
        identity = Peer(FEDERATION, ME.region, "daemon", ME.member, b"spki")
        network = MemoryNetwork().join(identity)
        self.driver = Driver(self.node, store, network, tick_interval_s=0.02)

    @property
    def final(self) -> int:
        return self.node.book.heads[ME].final_size

    async def write(self, count: int = 1) -> None:
        for i in range(count):
            await self.driver.do(lambda node, _, i=i: node.propose(Note(f"note {i}")))
        await until(lambda: _proposed(self.node) == self.node.book.size(ME))

    def asks(self, url: str) -> OutsideWitness:
        return OutsideWitness(self.driver, LogFiles(self.store, FEDERATION), url)


@asynccontextmanager
async def running(vkey: str) -> AsyncIterator[Daemon]:
    store = MemoryEventStore()
    daemon = Daemon(vkey, store)
    puts = [PutTrust(v, raw) for v, raw in enumerate(daemon.known.files, start=1)]
    await store.apply(puts)
    task = asyncio.create_task(daemon.driver.run())
    try:
        yield daemon
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def witness() -> Witness:
    return Witness({str(ME): KEY.public})


@pytest.fixture
def url(witness: Witness) -> Iterator[str]:
    with serve(witness) as found:
        yield found


async def test_a_region_that_is_cut_off_has_final_events_with_a_witness_outside(
    witness: Witness, url: str
) -> None:
    async with running(witness.vkey) as daemon:
        await daemon.write()
        assert daemon.final == 0, "its own word is not enough"
        asks = daemon.asks(url)
        await asks.look()
        first = daemon.final
        assert first == daemon.node.book.size(ME) > 0
        await asks.look()
        assert witness.answered == [200], "nothing new: nobody is asked"
        await daemon.write(700)
        await asks.look()
        assert daemon.final > first + 256, "with a consistency proof over several tiles"
        assert witness.answered == [200, 200]


async def test_after_a_restart_the_witness_tells_what_it_remembers(
    witness: Witness, url: str
) -> None:
    async with running(witness.vkey) as daemon:
        await daemon.write(5)
        await daemon.asks(url).look()
        await daemon.write(5)
        await daemon.asks(url).look()  # which remembers nothing
        assert witness.answered == [200, 409, 200]
        assert daemon.final == daemon.node.book.size(ME)


async def test_a_witness_that_knows_another_log_of_our_name_is_an_alarm(
    witness: Witness, url: str
) -> None:
    async with running(witness.vkey) as daemon:
        await daemon.write(5)
        witness.seen[str(ME)] = (10**6, b"o" * 32)
        with pytest.raises(Conflict, match="another log of this name"):
            await daemon.asks(url).look()
        witness.seen[str(ME)] = (3, b"o" * 32)
        with pytest.raises(Rejected, match="422"):
            await daemon.asks(url).look()
        assert daemon.final == 0


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b""),
        (403, b""),
        (500, b"oops"),
        (302, b""),
        (409, b"five\n"),
        (409, b"-1\n"),
        (409, b""),
        (200, b""),
        (200, b"\xff\xfe\n"),
        (200, "— nobody AAAAAAAA\n".encode()),
        (200, b"x" * 20_000),
        (200, ("— somebody.else/w " + "A" * 100 + "\n").encode() * 30),
    ],
)
async def test_whatever_a_witness_answers_nothing_is_final_that_it_did_not_sign(
    witness: Witness, url: str, status: int, body: bytes
) -> None:
    async with running(witness.vkey) as daemon:
        await daemon.write()
        witness.instead = status, body
        with pytest.raises((Rejected, Unavailable)):
            await daemon.asks(url).look()
        assert daemon.final == 0
        witness.instead = None
        await daemon.asks(url).look()
        assert daemon.final > 0, "and it may be right later"


async def test_a_signature_of_another_key_makes_nothing_final(witness: Witness, url: str) -> None:
    async with running(Witness({}).vkey) as daemon:
        await daemon.write()
        with pytest.raises(Rejected, match="not in the witness policy"):
            await daemon.asks(url).look()
        assert daemon.final == 0


async def test_a_cosignature_of_another_head_makes_nothing_final(
    witness: Witness, url: str
) -> None:
    async with running(witness.vkey) as daemon:
        await daemon.write()
        witness.instead = 200, witness.cosign(f"{ME}\n1\n{'A' * 43}=\n".encode())
        with pytest.raises(Rejected):
            await daemon.asks(url).look()
        assert daemon.final == 0


async def test_a_silent_witness_costs_only_its_own_word(
    witness: Witness, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witness_client, "WITNESS_S", 0.3)
    monkeypatch.setattr(outside_witness, "WITNESS_LOOK_S", 0.02)
    async with running(witness.vkey) as daemon:
        witness.silent.set()
        task = asyncio.create_task(daemon.asks(url).watch())
        await daemon.write()
        await asyncio.sleep(0.1)
        async with asyncio.timeout(1):
            await daemon.write(50)
        assert not task.done()
        witness.silent.clear()
        await until(lambda: daemon.final == daemon.node.book.size(ME))
        task.cancel()


async def test_an_answer_without_end_is_broken_off(witness: Witness, url: str) -> None:
    witness.instead = 200, b"x" * (limits.WITNESS_ANSWER_BYTES_MAX + 1)
    async with running(witness.vkey) as daemon:
        await daemon.write()
        with pytest.raises(Unavailable, match="too long"):
            await daemon.asks(url).look()


async def test_nobody_listens(witness: Witness) -> None:
    async with running(witness.vkey) as daemon:
        await daemon.write()
        with pytest.raises(Unavailable, match="cannot be asked"):
            await daemon.asks("http://127.0.0.1:1").look()
        with pytest.raises(Unavailable, match="cannot be asked"):
            await daemon.asks("http://127.0.0.1:99999").look()
