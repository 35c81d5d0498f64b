"""Bundles between daemons that have never had a network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lonely import ROOT, Lonely, chain, lonely

from hanse.core import bundle
from hanse.core.bundle import Held, Manifest, Part
from hanse.core.errors import Conflict, HanseError, InvalidProof, NotFound, Rejected, Unavailable
from hanse.core.freeze import SPACE
from hanse.core.ids import Digest, Origin, Segment
from hanse.core.log.checkpoint import Checkpoint, sign_checkpoint
from hanse.core.log.fork import prove
from hanse.core.log.merkle import leaf_hash
from hanse.core.room import Room
from hanse.core.signing import SigningKey
from hanse.core.trust.chain import Chain, extend, replay, sign

HERE, THERE = Segment("eu-north"), Segment("us-east")
FILE = b"weights " * 200_000  # more than one piece


def known(*versions: int) -> tuple[Chain, ...]:
    whole = chain(max(versions))
    return tuple(trimmed(whole, n) for n in versions)


def trimmed(whole: Chain, versions: int) -> Chain:
    return replay(whole.files[:versions])


async def made(
    sender: Lonely, receiver: Lonely | Held, *, blobs: bool = True, region: Segment = THERE
) -> bytes:
    held = receiver if isinstance(receiver, Held) else await receiver.bundles.held()
    _, pieces = await sender.bundles.make(held, region, with_blobs=blobs)
    return b"".join([piece async for piece in pieces])


async def pieces(raw: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for at in range(0, len(raw), size):
        yield raw[at : at + size]


def state(daemon: Lonely) -> bytes:
    return daemon.node.catalog.state_digest


async def test_a_release_reaches_a_daemon_that_has_never_had_a_network() -> None:
    a, b = known(1, 1)
    async with lonely(HERE, a) as sender, lonely(THERE, b) as receiver:
        release = await sender.publish("1.0.0", FILE)
        taken = await receiver.bundles.take(pieces(await made(sender, receiver)))
        assert (taken.sender, taken.files, taken.refused) == ("daemon of eu-north", 1, [])
        assert state(sender) == state(receiver) != bytes(32)
        assert release in receiver.node.region.local
        assert receiver.blobs.open_verified(Digest.of(FILE)).read() == FILE
        assert receiver.blobs.pins(Digest.of(FILE)) == (f"release-{release.short}",)
        heads = {h.origin: h.size for h in await receiver.store.heads()}
        assert heads[sender.node.me] == sender.node.book.size(sender.node.me)


async def test_the_next_bundle_carries_only_what_is_new() -> None:
    a, b = known(2, 1)
    async with lonely(HERE, a) as sender, lonely(THERE, b) as receiver:
        await sender.publish("1.0.0", FILE)
        first = await made(sender, receiver)
        assert (await receiver.bundles.take(pieces(first))).trust == 1
        await sender.publish("2.0.0", b"other weights")
        for held in (receiver, Manifest.parse(manifest_of(first)).after):
            second = await made(sender, held)
            assert len(second) < len(first) / 100
            parts = Manifest.parse(manifest_of(second)).parts
            assert [part.count for part in parts if part.kind == "events"] == [2]
            assert [part.digest for part in parts if part.kind == "blob"] == [
                Digest.of(b"other weights")
            ]
        taken = await receiver.bundles.take(pieces(second))
        assert (taken.trust, taken.events, taken.known, taken.files) == (0, 2, 0, 1)
        assert state(sender) == state(receiver)


async def test_a_bundle_with_a_gap_enters_nothing_and_says_so() -> None:
    a, b = known(1, 1)
    async with lonely(HERE, a) as sender, lonely(THERE, b) as receiver:
        await sender.publish("1.0.0", FILE)
        first = await made(sender, receiver)
        await sender.publish("2.0.0", b"other weights")
        second = await made(sender, Manifest.parse(manifest_of(first)).after)
        taken = await receiver.bundles.take(pieces(second))
        assert taken.events == 0
        assert "leave a gap" in taken.refused[0]


async def test_a_bundle_that_broke_off_is_taken_up_where_it_stopped() -> None:
    a, b = known(1, 1)
    async with lonely(HERE, a) as sender, lonely(THERE, b) as receiver:
        await sender.publish("1.0.0", FILE)
        raw = await made(sender, receiver)
        with pytest.raises(Unavailable, match="too early"):
            await receiver.bundles.take(pieces(raw[: -len(FILE) // 2]))
        assert state(sender) == state(receiver)
        with receiver.blobs.writer(len(FILE), Digest.of(FILE)) as begun:
            assert begun.offset > 0
        again = await receiver.bundles.take(pieces(raw))
        assert (again.events, again.files) == (0, 1)
        assert again.known > 0


async def test_a_bundle_carries_the_evidence_of_forks() -> None:
    """Whoever is reached by files alone must not be the last to act on a forked log."""
    a, b = known(1, 1)
    async with lonely(HERE, a) as sender, lonely(THERE, b) as receiver:
        log, key = sender.node.me, sender.bundles._key
        copies = [
            (sign_checkpoint(Checkpoint(str(log), 1, leaf), key), [leaf])
            for leaf in (leaf_hash(b"one"), leaf_hash(b"two"))
        ]
        fork = prove(log, key.public, copies[0], copies[1])
        assert fork is not None
        await sender.driver.do(lambda node, _: node.freezer.found(fork, None))
        while not await sender.store.local(SPACE):  # noqa: ASYNC110  # its log is read first
            await asyncio.sleep(0)
        taken = await receiver.bundles.take(pieces(await made(sender, receiver)))
        assert taken.refused == []
        assert receiver.node.book.forks == {log: fork}
        assert await receiver.store.local(SPACE) == {str(log): fork.encode()}


async def test_taking_a_bundle_twice_changes_nothing() -> None:
    a, b = known(2, 1)
    async with lonely(HERE, a) as sender, lonely(THERE, b) as receiver:
        await sender.publish("1.0.0", FILE)
        raw = await made(sender, receiver)
        await receiver.bundles.take(pieces(raw))
        before = await receiver.store.heads()
        taken = await receiver.bundles.take(pieces(raw))
        assert (taken.trust, taken.events, taken.files, taken.refused) == (0, 0, 0, [])
        assert await receiver.store.heads() == before


async def test_a_bundle_waits_for_room_on_a_full_disk_and_says_so() -> None:
    a, b = known(1, 1)
    async with lonely(HERE, a) as sender, lonely(THERE, b) as receiver:
        await sender.publish("1.0.0", FILE)
        raw = await made(sender, receiver)
        receiver.node.set_room(Room(0, 100, 1, False))
        with pytest.raises(Unavailable, match=r"the disk is full.*free some space"):
            await receiver.bundles.take(pieces(raw))
        receiver.node.set_room(Room(50, 100, 1, True))
        await receiver.bundles.take(pieces(raw))
        assert state(sender) == state(receiver) != bytes(32)


async def test_a_model_file_goes_only_where_its_release_may_lie() -> None:
    a, b = known(1, 1)
    async with lonely(HERE, a) as sender, lonely(THERE, b) as receiver:
        await sender.publish("1.0.0", FILE, residency=("eu-north", "ap-south"))
        raw = await made(sender, receiver)
        assert FILE[:1000] not in raw
        assert FILE[:1000] in await made(sender, receiver, region=Segment("ap-south"))
        assert FILE[:1000] not in await made(sender, receiver, blobs=False)


async def test_a_receiver_judges_residency_itself() -> None:
    """Whoever sends may lie: a bundle for elsewhere, or one whose sender does not care."""
    a, b = known(1, 1)
    async with lonely(HERE, a) as sender, lonely(THERE, b) as receiver:
        release = await sender.publish("1.0.0", FILE, residency=("eu-north", "ap-south"))
        raw = await made(sender, receiver, region=Segment("ap-south"))
        taken = await receiver.bundles.take(pieces(raw))
        assert taken.files == 0
        assert "residency keeps 1.0.0 out of us-east" in taken.refused[0]
        assert not receiver.blobs.has(Digest.of(FILE))
        assert release not in receiver.node.region.local
        assert state(sender) == state(receiver)


async def test_a_region_that_gives_nothing_gives_nothing_in_a_bundle_either() -> None:
    whole = chain(residency={HERE: ("ap-south",)})
    async with lonely(HERE, whole) as sender, lonely(THERE, whole) as receiver:
        await sender.publish("1.0.0", FILE)
        assert FILE[:1000] not in await made(sender, receiver)


async def test_a_receiver_that_knows_a_stricter_rule_keeps_to_it() -> None:
    """The sender acts under an older trust version, in which it might still give files away."""
    old = chain()
    stricter = replace(old.current, version=2, residency={HERE: ("ap-south",)})
    new = extend(old, sign(stricter, (ROOT,), old))
    async with lonely(HERE, old) as sender, lonely(THERE, new) as receiver:
        await sender.publish("1.0.0", FILE)
        raw = await made(sender, receiver)
        assert FILE[:1000] in raw
        taken = await receiver.bundles.take(pieces(raw))
        assert "residency keeps 1.0.0 out of us-east" in taken.refused[0]
        assert not receiver.blobs.has(Digest.of(FILE))


async def test_a_file_that_no_release_lists_is_refused() -> None:
    a, b = known(1, 1)
    async with lonely(HERE, a) as sender, lonely(THERE, b) as receiver:
        release = await sender.publish("1.0.0", FILE)
        stray = b"not in the release"
        part = Part("blob", len(stray), Digest.of(stray), release=release)
        events = Manifest.parse(manifest_of(await made(sender, receiver, blobs=False)))
        forged = Manifest(events.key, THERE, events.after, (*events.parts, part))
        body = (await made(sender, receiver, blobs=False))[header_size(events) :]
        raw = bundle.seal(forged, sender.bundles._key) + body + stray
        taken = await receiver.bundles.take(pieces(raw))
        assert "is no file of release" in taken.refused[0]
        assert not receiver.blobs.has(Digest.of(stray))


async def test_a_bundle_signed_by_nobody_of_ours_stops_after_the_trust_it_brings() -> None:
    a, b = known(2, 1)
    async with lonely(HERE, a) as sender, lonely(THERE, b) as receiver:
        await sender.publish("1.0.0", FILE)
        sender.bundles._key = SigningKey(b"x" * 32)
        with pytest.raises(InvalidProof, match="no daemon of this federation"):
            await receiver.bundles.take(pieces(await made(sender, receiver)))
        assert receiver.node.book.chain.current.version == 2
        assert receiver.node.book.size(sender.node.me) == 0


async def test_another_trust_version_of_the_same_number_is_refused() -> None:
    a, b = chain(2), chain(2, quarantine_quorum=3)
    async with lonely(HERE, a) as sender, lonely(THERE, b) as receiver:
        held = Held(Segment("hansa"), THERE, 0)
        with pytest.raises(InvalidProof, match="another trust version 1"):
            await receiver.bundles.take(pieces(await made(sender, held)))


async def test_a_bundle_for_an_unknown_region_or_federation_is_not_made() -> None:
    (a,) = known(1)
    async with lonely(HERE, a) as sender:
        with pytest.raises(NotFound, match="eu-north"):
            await made(sender, Held(Segment("hansa"), THERE, 0), region=Segment("moon"))
        with pytest.raises(Conflict):
            await made(sender, Held(Segment("other"), THERE, 0))


@pytest.mark.parametrize("seed", range(40))
async def test_no_changed_byte_of_a_bundle_gets_in(seed: int) -> None:
    a, b = known(2, 1)
    async with lonely(HERE, a) as sender, lonely(THERE, b) as receiver:
        await sender.publish("1.0.0", b"small weights")
        raw = bytearray(await made(sender, receiver))
        raw[Random(seed).randrange(len(raw))] ^= 1 << seed % 8
        with pytest.raises(HanseError):
            await receiver.bundles.take(pieces(bytes(raw)))
        assert not receiver.blobs.has(Digest.of(bytes(raw[-13:]))) or raw[-13:] == b"small weights"


async def test_nobody_brings_a_daemon_its_own_log() -> None:
    """What it wrote is what it has stored; recovery is decided at boot, by other rules."""
    a, b = known(1, 1)
    async with lonely(HERE, a) as twin, lonely(HERE, b) as receiver, lonely(THERE, a) as sender:
        await twin.publish("1.0.0", FILE)
        await sender.bundles.take(pieces(await made(twin, sender)))
        before = receiver.node.book.size(receiver.node.me)
        taken = await receiver.bundles.take(
            pieces(await made(sender, receiver, blobs=False, region=HERE))
        )
        assert receiver.node.book.size(receiver.node.me) == before
        assert not taken.refused


async def test_a_bundle_that_goes_on_after_its_end_is_refused() -> None:
    a, b = known(1, 1)
    async with lonely(HERE, a) as sender, lonely(THERE, b) as receiver:
        raw = await made(sender, receiver)
        with pytest.raises(InvalidProof, match="goes on"):
            await receiver.bundles.take(pieces(raw + b"\0"))


async def test_nothing_of_a_bundle_is_read_into_memory_by_its_own_word() -> None:
    (a,) = known(1)
    async with lonely(HERE, a) as receiver:
        huge = bundle.MAGIC + (2**32 - 1).to_bytes(4, "big")
        with pytest.raises(InvalidProof, match="too large"):
            await receiver.bundles.take(pieces(huge + bytes(1000)))
        part = {"kind": "trust", "sha256": "0" * 64, "size": 2**40, "version": 2}
        with pytest.raises(Rejected, match="at most"):
            bundle._part(part, "part")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=300), st.integers(0, 400))
def test_any_bytes_are_a_manifest_or_are_refused(raw: bytes, at: int) -> None:
    good = MANIFEST.encode()
    for text in (raw, good[:at] + raw + good[at + len(raw) :]):
        try:
            found = Manifest.parse(text)
        except HanseError:
            continue
        assert found.encode() == text
        for part in found.parts:
            assert part.size <= part.size_max


@given(st.binary(max_size=200), st.integers(1, 5))
def test_any_bytes_are_events_or_are_refused(raw: bytes, count: int) -> None:
    part = Part("events", max(1, len(raw)), Digest.of(raw), 0, None, 0, count)
    try:
        note, events = bundle.unpack_events(part, raw)
    except InvalidProof:
        return
    assert len(events) == count
    assert bundle.pack_events(note, events) == raw


def test_what_is_held_is_read_back_as_it_was_written() -> None:
    held = MANIFEST.after
    assert bundle.parse_held(held.encode()) == held


def examples() -> Iterable[Part]:
    origin = Origin.parse(f"hansa/eu-north/{'a' * 32}/i1")
    digest = Digest("0" * 64)
    yield Part("trust", 5, digest, version=2)
    yield Part("events", 900, digest, 0, origin, 3, 7)
    yield Part("final", 300, digest, 0, origin)
    yield Part("blob", 10**9, digest, release=digest)


MANIFEST = Manifest(
    bytes(32),
    THERE,
    Held(
        Segment("hansa"),
        THERE,
        3,
        {part.origin: 9 for part in examples() if part.origin},
        frozenset({Digest("1" * 64)}),
    ),
    tuple(examples()),
)


def manifest_of(raw: bytes) -> bytes:
    start = len(bundle.MAGIC) + bundle.LENGTH_BYTES
    size = int.from_bytes(raw[len(bundle.MAGIC) : start], "big")
    return raw[start : start + size]


def header_size(manifest: Manifest) -> int:
    return len(bundle.MAGIC) + bundle.LENGTH_BYTES + len(manifest.encode()) + 64
