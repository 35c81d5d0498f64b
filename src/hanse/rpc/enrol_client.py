"""How a machine enrols with a token, how a node renews, how a daemon learns that it was admitted.

gRPC's errors end here: no caller above sees a status code.
"""

from __future__ import annotations

import datetime
from collections.abc import Awaitable
from typing import TypeVar

import grpc

from hanse.core.errors import InvalidSpec
from hanse.core.gossip.trust_parts import PART_BYTES, PARTS_MAX
from hanse.core.token import Token
from hanse.rpc import certificates, tls
from hanse.rpc.status import call_errors
from hanse.v1 import enrol_pb2, enrol_pb2_grpc

CALL_S = 20.0
T = TypeVar("T")


def token_channel(token: Token) -> grpc.aio.Channel:
    """A channel to the daemon that made the token, and to nobody else."""
    until = datetime.datetime.fromtimestamp(token.expires_ms / 1000, datetime.UTC)
    _, authority = certificates.token_authority(token.secret, token.federation, token.region, until)
    uri = certificates.token_uri(token.federation, token.region, token.id)
    identity = certificates.issue(uri, authority, certificates.span_of(authority.cert_pem))
    return tls.open_channel(token.address, identity, certificates.to_pem(token.authority_der))


async def enroll(channel: grpc.aio.Channel, request: bytes) -> bytes:
    """A certificate, PEM. Raises `Rejected`, `Unavailable`; the same key may try again."""
    message = enrol_pb2.EnrollRequest(signing_request=request)
    answer = await _answer(enrol_pb2_grpc.EnrolServiceStub(channel).Enroll(message, timeout=CALL_S))
    return certificates.to_pem(answer.certificate)


async def renew(channel: grpc.aio.Channel, request: bytes) -> bytes:
    """Another certificate, PEM, for the same key. Raises `Rejected`, `Unavailable`."""
    message = enrol_pb2.RenewRequest(signing_request=request)
    answer = await _answer(enrol_pb2_grpc.EnrolServiceStub(channel).Renew(message, timeout=CALL_S))
    return certificates.to_pem(answer.certificate)


async def join(channel: grpc.aio.Channel, request: bytes) -> None:
    """Deposit a join request. Raises `Rejected`, `Unavailable`; it may be sent again."""
    message = enrol_pb2.JoinRequest(request=request)
    await _answer(enrol_pb2_grpc.EnrolServiceStub(channel).Join(message, timeout=CALL_S))


async def trust_files(channel: grpc.aio.Channel) -> list[bytes]:
    """Every trust file, version 1 first. Nothing is verified here but their size and order."""
    return await _answer(_trust_files(channel))


async def _trust_files(channel: grpc.aio.Channel) -> list[bytes]:
    stub = enrol_pb2_grpc.EnrolServiceStub(channel)
    files: list[bytes] = []
    parts: list[bytes] = []
    async for piece in stub.Trust(enrol_pb2.TrustRequest(), timeout=CALL_S):
        fits = piece.parts <= PARTS_MAX and len(piece.data) <= PART_BYTES
        if not fits or (piece.version, piece.part) != (len(files) + 1, len(parts)):
            raise InvalidSpec("the daemon sends its trust files in a wrong order")
        parts.append(piece.data)
        if len(parts) == piece.parts:
            files.append(b"".join(parts))
            parts = []
    return files


async def _answer(call: Awaitable[T]) -> T:
    with call_errors("enrolment"):
        return await call
