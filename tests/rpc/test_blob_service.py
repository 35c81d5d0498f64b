"""Blobs over real mTLS: resumable, bounded, and silent about what is not for you."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import daemons
import grpc
import pytest
from blob_worlds import serving
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from shelves import Shelf

from hanse.core import limits
from hanse.core.errors import (
    InvalidSpec,
    NotFound,
    Rejected,
    TooLarge,
    Unavailable,
)
from hanse.core.ids import Digest
from hanse.parts.payload import RAW
from hanse.rpc import blob_client, blob_service, tls
from hanse.rpc.blob_client import fetch, probe
from hanse.rpc.blob_service import BlobService, part_message, piece_message
from hanse.rpc.payloads import Piece
from hanse.v1 import blob_pb2

DATA = hashlib.shake_256(b"model").digest(2 * limits.BLOB_CHUNK_BYTES + 12_345)
BLOB = Digest.of(DATA)
RELEASE = Digest.of(b"release")
SECRET = Digest.of(b"stays in the region")


class World:
    shelf: Shelf
    channel: grpc.aio.Channel
    client: daemons.Daemon


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World()
    world.shelf = Shelf(tmp_path)
    world.shelf.put(DATA)
    world.shelf.secret.add(world.shelf.put(b"stays in the region"))
    async with serving(BlobService(world.shelf)) as (world.channel, world.client):
        yield world


async def fetched(world: World, digest: Digest = BLOB, offset: int = 0, **how: Any) -> list[bytes]:
    return [p async for p in fetch(world.channel, digest, RELEASE, offset, **how)]


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, limits.BLOB_CHUNK_BYTES])
def test_a_piece_written_by_hand_is_what_protobuf_writes(size: int) -> None:
    data = bytes(size)
    assert blob_pb2.FetchResponse.FromString(piece_message(data)).data == data
    if size:
        assert piece_message(data) == blob_pb2.FetchResponse(data=data).SerializeToString()
        assert blob_client._data(piece_message(data)) == data


def test_a_piece_in_any_other_legal_form_is_read_too() -> None:
    assert blob_client._data(b"\x0a\x01x\x0a\x02yz") == b"yz"
    assert blob_client._data(b"\x0a\x81\x00x") == b"x"
    assert blob_client._data(b"\x10\x07\x0a\x01x") == b"x"
    for spoilt in (b"\x0a", b"\x0a\x05x", b"\x0a\xff\xff\xff\xff\xff\xff"):
        with pytest.raises(InvalidSpec):
            blob_client._data(spoilt)


@given(
    st.integers(0, 2**32 - 1),
    st.binary(max_size=300) | st.integers(0, 20_000).map(bytes),
    st.sampled_from([b"", RAW]),
    st.booleans(),
)
def test_a_piece_of_a_part_is_written_and_read_as_protobuf_does(
    part: int, data: bytes, head: bytes, last: bool
) -> None:
    raw = part_message(part, Piece(head, data, last))
    told = blob_pb2.PartsResponse(part=part, data=head + data, last=last)
    assert blob_pb2.PartsResponse.FromString(raw) == told
    for message in (raw, told.SerializeToString()):
        if message:
            assert blob_client._piece_in(message)[:3] == (part, head + data, last)


@given(st.binary(min_size=1, max_size=40) | st.binary(max_size=30).map(lambda b: b"\x08\x07" + b))
def test_whatever_comes_instead_of_a_piece_is_read_as_protobuf_does(raw: bytes) -> None:
    try:
        told = blob_pb2.PartsResponse.FromString(raw)
    except DecodeError:
        with pytest.raises(InvalidSpec):
            blob_client._piece_in(raw)
        return
    found = blob_client._piece_in(raw)
    assert found[:3] == (told.part, told.data, told.last) or found.part >= 2**32


async def test_a_blob_arrives_whole_in_pieces_of_a_mebibyte(world: World) -> None:
    pieces = await fetched(world)
    assert b"".join(pieces) == DATA
    assert [len(p) for p in pieces] == [limits.BLOB_CHUNK_BYTES] * 2 + [12_345]
    peer = tls.peer_of_certificate(world.client.identity.cert_pem)
    assert world.shelf.asked == [(peer, BLOB, RELEASE)]


@pytest.mark.parametrize("offset", [1, limits.BLOB_CHUNK_BYTES, len(DATA) - 1, len(DATA)])
async def test_a_fetch_resumes_where_it_stopped(world: World, offset: int) -> None:
    assert b"".join(await fetched(world, offset=offset)) == DATA[offset:]


async def test_an_offset_beyond_the_end_is_refused(world: World) -> None:
    for offset in (len(DATA) + 1, 2**64 - 1):
        with pytest.raises(Rejected, match="beyond"):
            await fetched(world, offset=offset)


async def test_not_for_you_and_not_here_are_one_answer(world: World) -> None:
    answers = []
    for digest in (SECRET, Digest.of(b"nowhere")):
        with pytest.raises(NotFound) as caught:
            await fetched(world, digest)
        answers.append(str(caught.value).replace(str(digest), "…"))
    assert answers[0] == answers[1]


async def test_a_blob_dropped_after_the_gate_looked_is_the_same_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = Digest.of(b"dropped")
    monkeypatch.setattr(world.shelf, "may_fetch", lambda *_: True)
    with pytest.raises(NotFound, match="for you"):
        await fetched(world, missing)


async def test_more_bytes_than_promised_end_the_fetch(world: World) -> None:
    assert b"".join(await fetched(world, bytes_max=len(DATA))) == DATA
    with pytest.raises(TooLarge):
        await fetched(world, bytes_max=len(DATA) - 1)


async def test_a_piece_above_a_mebibyte_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size in (limits.BLOB_CHUNK_BYTES + 1, limits.BLOB_CHUNK_BYTES + 100_000):
        with monkeypatch.context() as patch:
            patch.setattr(world.shelf, "read_range", lambda *_, size=size: bytes(size))
            with pytest.raises(TooLarge):
                await fetched(world)
    assert b"".join(await fetched(world)) == DATA


async def test_a_malformed_request_is_refused_before_the_gate(world: World) -> None:
    method = world.channel.unary_stream(blob_client.FETCH, None, None)
    for request in (
        blob_pb2.FetchRequest(digest=b"short", release=RELEASE.raw),
        blob_pb2.FetchRequest(digest=BLOB.raw),
    ):
        call = method(request.SerializeToString())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "a digest has 32 bytes" in caught.value.details()
    assert world.shelf.asked == []


async def test_a_peer_that_holds_its_fetches_open_gets_no_more(world: World) -> None:
    held = [fetch(world.channel, BLOB, RELEASE) for _ in range(blob_service.FETCHES_PER_PEER_MAX)]
    big = world.shelf.path(BLOB)
    with big.open("ab") as file:
        file.truncate(64 * limits.BLOB_CHUNK_BYTES)  # more than gRPC buffers by itself
    for pieces in held:
        await anext(pieces)
    with pytest.raises(Unavailable, match="under way"):
        await fetched(world)
    for pieces in held:
        await pieces.aclose()  # type: ignore[attr-defined]  # an async generator
    async with asyncio.timeout(5):
        while True:  # the server hears of the cancellations in its own time
            try:
                await anext(fetch(world.channel, BLOB, RELEASE))
                break
            except Unavailable:
                await asyncio.sleep(0.01)


async def test_a_peer_that_stops_reading_loses_its_fetch(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blob_service, "WRITE_S", 0.1)
    with (world.shelf.path(BLOB)).open("ab") as file:
        file.truncate(64 * limits.BLOB_CHUNK_BYTES)
    pieces = fetch(world.channel, BLOB, RELEASE)
    await anext(pieces)
    await asyncio.sleep(0.3)
    with pytest.raises(Unavailable, match="took no piece"):
        async for _ in pieces:
            pass


async def test_a_probe_measures_a_round_trip(world: World) -> None:
    assert 0 < await probe(world.channel) < 5


async def test_a_probe_of_nobody_is_unavailable(world: World) -> None:
    nobody = tls.open_channel("127.0.0.1:1", world.client.identity, world.client.authority.cert_pem)
    with pytest.raises(Unavailable):
        await probe(nobody)
    await nobody.close()
