"""A hostile member over real gRPC: what it says wrongly is refused, and nothing else happens.

After every attack the same member sends a sentinel, a valid event. Once the daemon shows it,
the attack before it has been judged and not merely queued; then the state has to be as before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from digit_releases import paths
from hostile_peer import HostilePeer, Log
from plan_texts import EVERYWHERE
from system_federation import MODEL, REGIONS, WAIT_S, Daemon, Federation, done, hanse

from hanse.core import limits
from hanse.core.signing import SigningKey
from hanse.v1 import event_pb2, sync_pb2

pytestmark = pytest.mark.system
VECTORS = Path(__file__).parents[1] / "vectors"
HONEST = ("eu-north", "us-east")


@dataclass
class World:
    """Two honest daemons; the keys of the third are in hostile hands."""

    federation: Federation
    log: Log

    @property
    def victim(self) -> Daemon:
        return self.federation.founder

    @asynccontextmanager
    async def peer(self) -> AsyncIterator[HostilePeer]:
        """A link that stands; the daemon may need a moment to see that the last one is gone."""
        thief = self.federation.daemons["ap-south"]
        async with asyncio.timeout(WAIT_S):
            while True:
                async with HostilePeer(thief, self.victim, self.log) as peer:
                    if await peer.accepted():
                        yield peer
                        return
                await asyncio.sleep(0.05)

    async def sentinel(self, peer: HostilePeer) -> None:
        """A valid event, on the same link if it stands, that the daemon has to take and show."""
        if peer.ended.is_set():
            async with self.peer() as another:
                await self.sentinel(another)
            return
        if not peer.proven:
            await peer.prove()
        event = self.log.text(f"sentinel {len(self.log.events)}")
        chunk = self.log.chunk(event)
        self.log.events.append(event)
        await peer.say(chunk)
        await peer.shown()


@pytest.fixture(scope="module")
def world(federation: Federation, folder: Path) -> World:
    """A release and a rollout that waits, so that there is something to spoil."""
    federation.nodes.clear()
    federation.start(HONEST)
    federation.publish(paths()["v1"], "1.0.0")
    (folder / "first.yaml").write_text(EVERYWHERE)
    federation.roll_out("1.0.0", folder / "first.yaml")
    for daemon in (federation.daemons[name] for name in HONEST):
        federation.until(  # it stays there: no node of theirs is up
            "the rollout waits", lambda d=daemon: d.state_in("r-1", d.region) == "weighting"
        )
    return World(federation, Log(federation.daemons["ap-south"]))


Attack = Callable[[HostilePeer], Awaitable[None]]


async def unknown_kind(peer: HostilePeer) -> None:
    await peer.prove()
    await peer.say(b"\x0a\x03\x9a\x06\x00")  # field 99 of the frame
    await peer.ended.wait()
    assert "INVALID_ARGUMENT" in peer.refusal


async def random_bytes(peer: HostilePeer) -> None:
    await peer.prove()
    await peer.say(b"\xff\xfe" * 1000)
    await peer.ended.wait()
    assert "INVALID_ARGUMENT" in peer.refusal


async def deep_nesting(peer: HostilePeer) -> None:
    await peer.prove()
    await peer.say(b"\x0b" * 100_000)  # groups within groups
    await peer.ended.wait()
    assert "INVALID_ARGUMENT" in peer.refusal


async def oversize(peer: HostilePeer) -> None:
    await peer.prove()
    await peer.say(bytes(300 * 1024))
    await peer.ended.wait()
    assert "RESOURCE_EXHAUSTED" in peer.refusal


async def a_frame_of_one_byte_too_many(peer: HostilePeer) -> None:
    await peer.prove()
    await peer.say(padded(limits.FRAME_BYTES_MAX + 1))
    await peer.ended.wait()
    assert "RESOURCE_EXHAUSTED" in peer.refusal


async def a_frame_as_long_as_it_may_be(peer: HostilePeer) -> None:
    """It is read, and says nothing that matters: the link stands."""
    await peer.prove()
    await peer.say(padded(limits.FRAME_BYTES_MAX))
    await peer.say(
        sync_pb2.Frame(ping=sync_pb2.Ping(head_map_digest=bytes(32), trust_prefix=bytes(8)))
    )
    await peer.hears("heads")
    assert not peer.ended.is_set()


def padded(size: int) -> bytes:
    """A ping with a field that nobody knows, so that the frame has this many bytes."""
    ping = sync_pb2.LinkRequest(
        frame=sync_pb2.Frame(ping=sync_pb2.Ping(head_map_digest=bytes(32), trust_prefix=bytes(8)))
    ).SerializeToString()
    rest = size - len(ping) - 5  # a tag of two bytes and a length of three
    raw = ping + b"\xfa\x01" + bytes((rest & 0x7F | 0x80, rest >> 7 & 0x7F | 0x80, rest >> 14))
    return raw + bytes(rest)


async def an_event_of_one_byte_too_many(peer: HostilePeer) -> None:
    await peer.prove()
    await peer.say(peer.log.chunk(bytes(limits.EVENT_BYTES_MAX + 1)))
    await peer.ended.wait()
    assert "RESOURCE_EXHAUSTED" in peer.refusal


async def a_head_with_too_many_signatures(peer: HostilePeer) -> None:
    await peer.prove()
    event = peer.log.text("signed by many")
    note = peer.log.note(event)
    line = note.rpartition(b"\n\n")[2]
    many = note + line * limits.NOTE_SIGNATURES_MAX
    await peer.say(peer.log.chunk(event, note=many))
    await peer.say(peer.log.chunk(event, note=note + b" " * limits.NOTE_BYTES_MAX))
    await peer.ended.wait()  # the second cannot even be a note


async def announces_that_nothing_follows(peer: HostilePeer) -> None:
    """Signed heads of a log that is never shown: it is asked for once and then forgotten."""
    await peer.prove()
    before = counted(peer, "pulls_late")
    unseen = [peer.log.text(str(n), seq=len(peer.log.events) + n) for n in range(5)]
    note = peer.log.note(*unseen)
    start = len(peer.log.events) + len(unseen)
    announce = sync_pb2.Announce(origin=str(peer.log.origin), note=note, start=start)
    await peer.say(sync_pb2.Frame(announce=announce))
    await peer.hears("pull")
    while counted(peer, "pulls_late") == before:  # noqa: ASYNC110  # another process counts
        await asyncio.sleep(0.1)


def counted(peer: HostilePeer, name: str) -> int:
    return int(peer.victim.ask("counters")["counters"][name])


async def too_many_events(peer: HostilePeer) -> None:
    await peer.prove()
    await peer.say(peer.log.chunk(*[b"x"] * 257))
    await peer.ended.wait()
    assert "RESOURCE_EXHAUSTED" in peer.refusal


async def wrong_root(peer: HostilePeer) -> None:
    await peer.prove()
    said, signed = peer.log.text("said"), peer.log.text("signed")
    await peer.say(peer.log.chunk(said, note=peer.log.note(signed)))


async def signed_by_another_key(peer: HostilePeer) -> None:
    await peer.prove()
    event, own = peer.log.text("forged"), peer.log.key
    peer.log.key = SigningKey(b"a stranger's key of 32 bytes ok?"[:32])
    chunk = peer.log.chunk(event)
    peer.log.key = own
    await peer.say(chunk)


async def a_gap(peer: HostilePeer) -> None:
    await peer.prove()
    start = len(peer.log.events) + 1
    await peer.say(peer.log.chunk(peer.log.text("later", seq=start), start=start))


async def written_for_another_place(peer: HostilePeer) -> None:
    await peer.prove()
    await peer.say(peer.log.chunk(peer.log.text("moved", seq=2**63)))
    await peer.say(peer.log.chunk(peer.log.text("moved", origin_hash=bytes(32))))


async def an_event_that_lies_about_its_payload(peer: HostilePeer) -> None:
    """It enters, since its author signed it, and has no effect: it is void everywhere."""
    await peer.prove()
    lie = peer.log.text("x", payload=b"\x0a\x01y")
    chunk = peer.log.chunk(lie)
    peer.log.events.append(lie)
    await peer.say(chunk)
    await peer.shown()


async def another_federation(peer: HostilePeer) -> None:
    await peer.prove()
    other = Log(Daemon(peer.victim.home.parent / "ap-south", (), region="ap-south"), "elsewhere")
    await peer.say(other.chunk(other.text("from elsewhere")))
    await peer.say(peer.log.chunk(other.text("from elsewhere")))


async def the_log_of_another_member(peer: HostilePeer) -> None:
    await peer.prove()
    origin = peer.victim.ask("status")["daemon"]["origin"]
    await peer.say(peer.log.chunk(peer.log.text("in your name"), origin=origin))
    await peer.say(peer.log.chunk(peer.log.text("no name"), origin="harbour/../x"))
    await peer.ended.wait()


async def a_trust_file_of_its_own(peer: HostilePeer) -> None:
    await peer.prove()
    version = peer.log.trust.version + 1
    half = (VECTORS / "found/trust-version/half-a-character").read_bytes()
    for data in (b"{}", b"\xff" * 1000, half):
        file = sync_pb2.TrustFile(version=version, part=0, parts=1, data=data)
        await peer.say(sync_pb2.Frame(trust_file=file))


async def numbers_at_their_ends(peer: HostilePeer) -> None:
    await peer.prove()
    top, mine = 2**64 - 1, str(peer.log.origin)
    theirs = peer.victim.ask("status")["daemon"]["origin"]
    for origin in (mine, theirs):
        head = sync_pb2.LogHead(origin=origin, size=top, root_prefix=bytes(8))
        await peer.say(
            sync_pb2.Frame(heads=sync_pb2.Heads(heads=[head])),
            sync_pb2.Frame(pull=sync_pb2.Pull(origin=origin, start=top)),
            sync_pb2.Frame(announce=sync_pb2.Announce(origin=origin, start=top, note=b"\xff")),
            sync_pb2.Frame(chunk=sync_pb2.Chunk(origin=origin, start=top, events=[b""])),
            sync_pb2.Frame(chunk=sync_pb2.Chunk(origin=origin, start=0)),
        )


async def frames_before_it_has_proved_who_it_is(peer: HostilePeer) -> None:
    await peer.greet()
    await peer.say(peer.log.chunk(peer.log.text("unproven")))
    await peer.hears("hello")


async def a_proof_by_another_key(peer: HostilePeer) -> None:
    await peer.prove(SigningKey(bytes(range(32))))
    await peer.ended.wait()


async def a_greeting_from_another_federation(peer: HostilePeer) -> None:
    await peer.greet(federation="elsewhere")
    await peer.ended.wait()


async def a_greeting_in_another_name(peer: HostilePeer) -> None:
    await peer.greet(origin=peer.victim.ask("status")["daemon"]["origin"])
    await peer.ended.wait()


ATTACKS: tuple[Attack, ...] = (
    unknown_kind,
    random_bytes,
    deep_nesting,
    oversize,
    a_frame_of_one_byte_too_many,
    a_frame_as_long_as_it_may_be,
    an_event_of_one_byte_too_many,
    a_head_with_too_many_signatures,
    announces_that_nothing_follows,
    too_many_events,
    wrong_root,
    signed_by_another_key,
    a_gap,
    written_for_another_place,
    an_event_that_lies_about_its_payload,
    another_federation,
    the_log_of_another_member,
    a_trust_file_of_its_own,
    numbers_at_their_ends,
    frames_before_it_has_proved_who_it_is,
    a_proof_by_another_key,
    a_greeting_from_another_federation,
    a_greeting_in_another_name,
)


REASONS: dict[Attack, str] = {
    unknown_kind: "frames_unreadable",
    random_bytes: "frames_unreadable",
    deep_nesting: "frames_unreadable",
    oversize: "",  # refused inside gRPC, before anything of ours sees it
    a_frame_of_one_byte_too_many: "frames_too_large",
    a_frame_as_long_as_it_may_be: "",
    an_event_of_one_byte_too_many: "frames_too_large",
    a_head_with_too_many_signatures: "frames_rejected",
    announces_that_nothing_follows: "pulls_late",
    too_many_events: "frames_too_large",
    the_log_of_another_member: "frames_unreadable",
    an_event_that_lies_about_its_payload: "",
    frames_before_it_has_proved_who_it_is: "",
    a_greeting_from_another_federation: "",
    a_greeting_in_another_name: "",
}
"""The counter that names why, where that is not that a frame was rejected."""


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
async def test_a_lie_changes_nothing(world: World, attack: Attack) -> None:
    before = world.federation.settled()
    reason = REASONS.get(attack, "frames_rejected")
    async with asyncio.timeout(WAIT_S), world.peer() as peer:
        noted = counted(peer, reason) if reason else 0
        await attack(peer)
        await world.sentinel(peer)
        if "INVALID_ARGUMENT" in peer.refusal:  # both sides are told why
            assert peer.refusal.partition(": ")[2] in world.victim.log.read_text()
        assert not reason or counted(peer, reason) > noted
    assert world.federation.settled() == before
    assert world.victim.row()["rollout"] == "r-1"


async def test_a_second_link_of_one_member_is_refused(world: World) -> None:
    async with world.peer() as first:
        await first.prove()
        thief = world.federation.daemons["ap-south"]
        async with HostilePeer(thief, world.victim, world.log) as second:
            await asyncio.wait_for(second.ended.wait(), WAIT_S)
            assert "ALREADY_EXISTS" in second.refusal
            assert "use that one" in second.refusal
        assert not first.ended.is_set()


def nonsense(release: bytes) -> list[tuple[int, object]]:
    """Bodies of events that lie in every field that their author may fill in."""
    top, region = 2**64 - 1, "ap-south"
    ugly = "\x1b[2J\u202e \x00<b>'; drop table event"
    what = {"model": MODEL, "rollout": "r-1", "generation": 1}
    report = {**what, "release": release, "region": region, "state": "healthy"}
    hold = event_pb2.Hold(model=MODEL, region=region, reason=ugly, expires_ms=top)
    bodies: list[tuple[str, object]] = [
        ("HOLD", hold),
        ("HOLD", event_pb2.Hold(model=MODEL, region=region, release=bytes(32), reason=ugly)),
        (
            "HOLD",
            event_pb2.Hold(model=MODEL, region="eu-north", release=release, reason="not mine"),
        ),
        ("HOLD", event_pb2.Hold(model="unheard-of", region=region, reason=ugly)),
        ("LOG_OPEN", event_pb2.LogOpen(incarnation=2**32 - 1, prev_size=top)),
        ("BLOB_HAVE", event_pb2.BlobHave(model=MODEL, digests=[bytes(32)] * 300)),
        ("STATE_ATTEST", event_pb2.StateAttest(head_map_digest=bytes(32), state_digest=bytes(32))),
        ("KILL", event_pb2.Kill(model=MODEL, release=release, reason="unsigned")),
        ("FLOOR_RAISE", event_pb2.FloorRaise(model=MODEL, counter=top, reason="unsigned")),
        ("HOLD_LIFT", event_pb2.HoldLift(model=MODEL, hold=bytes(32))),
        ("RELEASE_RECORD", event_pb2.ReleaseRecord(model=MODEL, version="9", manifest=b"\xff")),
        ("ROLLOUT_INTENT", event_pb2.RolloutIntent(**what, release=release, spec=b"[[[[")),
        ("ROLLOUT_INTENT", event_pb2.RolloutIntent(**what, release=release, mandate=b"{}")),
        (
            "RETRAIN",
            event_pb2.Retrain(
                model=MODEL, region=region, release=release, hold=bytes(32), cause="serving"
            ),
        ),
        (
            "RETRAIN_RESULT",
            event_pb2.RetrainResult(
                model=MODEL, region=region, retrain=bytes(32), outcome="passed", release=release
            ),
        ),
        (
            "RELEASE_RETIRE",
            event_pb2.ReleaseRetire(model=MODEL, release=release, phase="retired", reason=ugly),
        ),
        (
            "ROLLOUT_CONTROL",
            event_pb2.RolloutControl(**what, action="pause", region=region, reason=ugly),
        ),
        (
            "PROMOTE",
            event_pb2.Promote(
                model=MODEL,
                channel="stable",
                region=region,
                release=bytes(32),
                counter=top,
                manifest_size=top,
                generation=top,
            ),
        ),
        (
            "ROLLBACK",
            event_pb2.Rollback(
                model=MODEL,
                channel="stable",
                region=region,
                from_activation=bytes(32),
                from_release=bytes(32),
                to_release=bytes(32),
                reason=ugly,
            ),
        ),
        (
            "HEALTHY",
            event_pb2.Healthy(
                **what,
                release=bytes(32),
                region=region,
                spec_digest=bytes(32),
                evidence_digest=bytes(32),
            ),
        ),
        ("ROLLOUT_REPORT", event_pb2.RolloutReport(**{**report, "state": ugly}, verdict=ugly)),
        ("ROLLOUT_REPORT", event_pb2.RolloutReport(**report, stage=2**32 - 1, step=2**32 - 1)),
        *(
            ("ROLLOUT_REPORT", event_pb2.RolloutReport(**report, evidence=evidence, reason=ugly))
            for evidence in (b"\xff", b"[]", b"{}", b"1", b'{"counts":3}', b"[" * 5000)
        ),
    ]
    return [(event_pb2.EventType.Value(f"EVENT_TYPE_{kind}"), body) for kind, body in bodies]


async def test_signed_nonsense_stops_nobody(world: World) -> None:
    """A member may fill its own log with lies; everybody else goes on, and can still look."""
    victim, federation = world.victim, world.federation
    release = victim.ask("release.show", model=MODEL, version="1.0.0")["release"]
    end_of_time = {"hlc_ms": 2**64 - 1, "attestations": [b"\xff", b"{}"]}
    async with asyncio.timeout(WAIT_S), world.peer() as peer:
        await peer.prove()
        # Each alone, so that one that is refused would be missed.
        for number, body in nonsense(bytes.fromhex(release.removeprefix("sha256:"))):
            raw = world.log.event(number, body, **end_of_time)
            chunk = world.log.chunk(raw)
            world.log.events.append(raw)
            await peer.say(chunk)
            await peer.shown()
        await world.sentinel(peer)
    federation.publish(paths()["v2"], "2.0.0", parent="1.0.0")
    federation.agreed()
    for daemon in (federation.daemons[name] for name in HONEST):
        for words in (["status"], ["lineage", MODEL], ["release", "list"], ["rollout", "status"]):
            ran = hanse(*words, home=daemon.home)
            assert ran.returncode in (0, 3), (words, ran.stderr)
            assert "\x1b" not in ran.stdout
            assert "\u202e" not in ran.stdout
        for region in REGIONS:
            said = done("why", f"{MODEL}@1.0.0", "--region", region, home=daemon.home)
            assert "\x1b" not in said
        (row,) = [
            r
            for r in daemon.ask("release.list", model=MODEL)["releases"]
            if r["version"] == "1.0.0"
        ]
        assert row["state"] == "recorded"
        assert daemon.row("eu-north")["state"] == "rolling-out", daemon.row("eu-north")
    state = federation.settled()
    for daemon in (federation.daemons[name] for name in HONEST):
        assert daemon.stop() == 0
        daemon.start()
        federation.until("it starts from that log", lambda d=daemon: d.state_digest == state)
        assert "Traceback" not in daemon.log.read_text()
