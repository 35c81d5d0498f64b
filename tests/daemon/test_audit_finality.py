"""What an auditor believes of finality: a quorum by the signed policy, and nothing less."""

from __future__ import annotations

from dataclasses import replace

import pytest
from audited import door_of
from hand_federation import REGIONS
from lonely import ROOT, Lonely, chain, lonely

from hanse.core.audit.proof import find, prove, verify_proof
from hanse.core.audit.replay import Read, audit
from hanse.core.errors import InvalidProof, Rejected
from hanse.core.events import Event, Note
from hanse.core.ids import EventId, Segment, member_id
from hanse.core.log.checkpoint import Checkpoint, cosign, sign_checkpoint
from hanse.core.log.merkle import leaf_hash
from hanse.core.log.policy import default_policy, witness_key
from hanse.core.log.tlog_proof import TlogProof
from hanse.core.logbook import header
from hanse.core.signing import SigningKey
from hanse.core.step import AppendEvents, Head
from hanse.core.trust.chain import Chain, extend, sign
from hanse.rpc.codec import EventCodec

WITNESSES = {region: SigningKey(bytes([i + 100]) * 32) for i, region in enumerate(REGIONS)}
CODEC = EventCodec()


def known() -> Chain:
    """Three regions of which two must witness."""
    keys = {r: {member_id(k.public): k.public} for r, k in WITNESSES.items()}
    return chain(witness_policy=default_policy(Segment("hansa"), keys))


def cosigned(note: bytes, regions: tuple[str, ...]) -> bytes:
    made = note
    for region in regions:
        key = WITNESSES[Segment(region)]
        name = witness_key("hansa", region, member_id(key.public), key.public).name
        made += cosign(note, name, key, 1_800_000_000)
    return made


async def final(daemon: Lonely, regions: tuple[str, ...], note: bytes | None = None) -> Head:
    """The daemon's head so far, stored as final with these cosignatures."""
    head = await daemon.store.head(daemon.node.me)
    assert head is not None
    made = replace(head, final_size=head.size, final_note=cosigned(note or head.note, regions))
    await daemon.store.apply([AppendEvents(made, head.size, ())])
    return made


def of(daemon: Lonely) -> Read:
    return door_of(daemon.store)


async def later(daemon: Lonely, head: Head) -> EventId:
    """One more event above what is final, which the driver does not know of: it is said again."""
    ticket = await daemon.driver.do(lambda node, _: node.propose(Note("later")))
    now = await daemon.store.head(daemon.node.me)
    assert now is not None
    assert ticket.event is not None
    kept = replace(now, final_size=head.final_size, final_note=head.final_note)
    await daemon.store.apply([AppendEvents(kept, now.size, ())])
    return ticket.event


async def test_a_quorum_makes_events_final_and_what_follows_is_not_yet() -> None:
    trust = known()
    async with lonely("eu-north", trust) as daemon:
        head = await final(daemon, ("eu-north", "ap-south"))
        last = await later(daemon, head)
        found = audit(of(daemon), trust.files[0], CODEC).logs[daemon.node.me]
        assert found.final is not None
        assert (found.final.head.size, found.head.size) == (head.size, head.size + 1)
        assert len(found.final.witnesses) == 2
        read = of(daemon)
        for event, is_final in ((found.events[0].id, True), (last, False)):
            made = prove(read, *find(read, event.raw.hex()))
            proven = verify_proof(made.render(), trust.files[0], trust.files, CODEC)
            assert (proven.final is not None) == is_final


@pytest.mark.parametrize("regions", [(), ("us-east",), ("us-east", "us-east")])
async def test_less_than_a_quorum_is_named(regions: tuple[str, ...]) -> None:
    trust = known()
    async with lonely("eu-north", trust) as daemon:
        await final(daemon, regions)
        with pytest.raises(InvalidProof, match=r"^log/.*/final: the witnesses .* no quorum"):
            audit(of(daemon), trust.files[0], CODEC)


async def test_a_cosignature_that_does_not_stand_is_named() -> None:
    trust = known()
    async with lonely("eu-north", trust) as daemon:
        head = await final(daemon, ("eu-north", "us-east"))
        other = sign_checkpoint(
            Checkpoint(str(daemon.node.me), head.size, b"x" * 32), daemon.bundles._key
        )
        # A third line that names a witness and that it wrote under another head.
        elsewhere = cosigned(other, ("ap-south",)).removeprefix(other)
        broken = cosigned(head.note, ("eu-north", "us-east")) + elsewhere
        await daemon.store.apply([AppendEvents(replace(head, final_note=broken), head.size, ())])
        with pytest.raises(InvalidProof, match=r"^log/.*/final"):
            audit(of(daemon), trust.files[0], CODEC)
        read = of(daemon)
        made = prove(read, daemon.node.me, 0)
        with pytest.raises(Rejected):
            verify_proof(made.render(), trust.files[0], trust.files, CODEC)


async def test_a_final_head_of_another_history_is_named() -> None:
    """A quorum cosigned it and the author signed it: it still is not what the events give."""
    trust = known()
    async with lonely("eu-north", trust) as daemon:
        head = await daemon.store.head(daemon.node.me)
        assert head is not None
        other = Checkpoint(str(daemon.node.me), head.size, b"x" * 32)
        await final(daemon, ("eu-north", "us-east"), sign_checkpoint(other, daemon.bundles._key))
        with pytest.raises(InvalidProof, match=r"^log/.*/final: the events do not give"):
            audit(of(daemon), trust.files[0], CODEC)


async def test_a_head_over_another_history_is_named() -> None:
    trust = known()
    async with lonely("eu-north", trust) as daemon:
        head = await daemon.store.head(daemon.node.me)
        assert head is not None
        other = Checkpoint(str(daemon.node.me), head.size, b"x" * 32)
        lie = replace(head, note=sign_checkpoint(other, daemon.bundles._key))
        await daemon.store.apply([AppendEvents(lie, head.size, ())])
        with pytest.raises(InvalidProof, match=r"^log/.*/checkpoint: the events do not give"):
            audit(of(daemon), trust.files[0], CODEC)


async def test_an_event_that_its_author_wrote_for_another_place_is_no_proof() -> None:
    trust = known()
    async with lonely("eu-north", trust) as daemon:
        me, key = daemon.node.me, daemon.bundles._key
        event = CODEC.encode(Event(header(me, 5, trust, bytes(32), 0), Note("word")))
        note = sign_checkpoint(Checkpoint(str(me), 1, leaf_hash(event)), key)
        proof = TlogProof(0, (), note, event)
        with pytest.raises(InvalidProof, match="another place"):
            verify_proof(proof.render(), trust.files[0], trust.files, CODEC)


async def test_a_proof_is_judged_by_the_chain_of_the_root_that_was_given() -> None:
    trust = known()
    async with lonely("eu-north", trust) as daemon:
        raw = prove(of(daemon), daemon.node.me, 0).render()
        verify_proof(raw, trust.files[0], trust.files, CODEC)
        with pytest.raises(InvalidProof, match="does not begin with the trust root"):
            verify_proof(raw, chain().files[0], trust.files, CODEC)


@pytest.mark.parametrize("events_first", [False, True])
async def test_finality_is_carried_in_bundles_with_the_events_or_after_them(
    events_first: bool,
) -> None:
    trust = known()
    async with lonely("eu-north", trust) as sender, lonely("us-east", trust) as receiver:

        async def carry() -> None:
            held = await receiver.bundles.held()
            _, pieces = await sender.bundles.make(held, Segment("us-east"), with_blobs=False)
            assert (await receiver.bundles.take(pieces)).refused == []
            await receiver.driver.do(lambda node, _: None)  # one more step

        if events_first:
            await carry()
            assert receiver.node.book.heads[sender.node.me].final_size == 0
        head = await final(sender, ("eu-north", "ap-south"))
        await carry()
        assert receiver.node.book.heads[sender.node.me].final_size == head.size
        stored = await receiver.store.head(sender.node.me)
        assert stored is not None
        assert stored.final_size == head.size


async def test_a_chunk_of_a_bundle_ends_where_the_log_is_final() -> None:
    trust = known()
    async with lonely("eu-north", trust) as sender, lonely("us-east", trust) as receiver:
        head = await final(sender, ("eu-north", "ap-south"))
        await later(sender, head)
        held = await receiver.bundles.held()
        _, pieces = await sender.bundles.make(held, Segment("us-east"), with_blobs=False)
        await receiver.bundles.take(pieces)
        found = receiver.node.book.heads[sender.node.me]
        assert (found.final_size, found.size) == (head.size, head.size + 1)


async def test_witnesses_that_a_policy_has_dropped_make_nothing_final_after_it() -> None:
    """Their keys may have been stolen since."""
    old = known()
    newer = {r: SigningKey(bytes([i + 200]) * 32) for i, r in enumerate(REGIONS)}
    keys = {r: {member_id(k.public): k.public} for r, k in newer.items()}
    policy = default_policy(Segment("hansa"), keys)
    following = replace(old.current, version=2, witness_policy=policy)
    trust = extend(old, sign(following, (ROOT,), old))
    async with lonely("eu-north", trust) as daemon:  # what it writes names version 2
        await final(daemon, ("eu-north", "us-east", "ap-south"))
        with pytest.raises(InvalidProof, match="no quorum"):
            audit(of(daemon), trust.files[0], CODEC)
        made = prove(of(daemon), daemon.node.me, 0).render()
        assert verify_proof(made, trust.files[0], trust.files, CODEC).final is None


async def test_a_region_cannot_vouch_for_its_own_log_to_an_auditor_either() -> None:
    """A policy of one region alone: daemons ignore it (they ask for another), so do auditors."""
    ours = WITNESSES[Segment("eu-north")]
    vkey = witness_key("hansa", "eu-north", member_id(ours.public), ours.public).encode()
    alone = f"witness a {vkey}\nquorum a\n"
    listed = {"eu-north": ours.public}
    trust = chain(witness_policy=alone, witness_keys=listed)
    async with lonely("eu-north", trust) as daemon:
        await final(daemon, ("eu-north",))
        with pytest.raises(InvalidProof, match="no quorum"):
            audit(of(daemon), trust.files[0], CODEC)
