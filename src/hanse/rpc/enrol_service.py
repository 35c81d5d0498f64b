"""hanse.v1.EnrolService: tokens become certificates or requests; certificates are renewed.

Who calls has been proved by `rpc.doorkeeper`: a token by its key, a node by its certificate.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from hanse.core import limits
from hanse.core.errors import NotPermitted, TooLarge, Unavailable
from hanse.core.gossip.budget import Budget
from hanse.core.gossip.trust_parts import PART_BYTES
from hanse.rpc import certificates, tls
from hanse.rpc.methods import Described
from hanse.rpc.status import Context, translated
from hanse.rpc.tls import Peer
from hanse.v1 import enrol_pb2 as pb


class EnrolHandler(Protocol):
    """What the daemon does about those who come in. All may raise `Rejected`, `Unavailable`."""

    def trust_files(self) -> Sequence[bytes]: ...

    async def on_enroll(self, token: Peer, request: bytes) -> bytes:
        """A certificate, PEM, for the key of this request; the token is durably spent by then."""
        ...

    async def on_join(self, token: Peer, request: bytes) -> None:
        """Keep the request; the token is durably spent when this returns."""
        ...

    async def on_renew(self, node: Peer, request: bytes) -> bytes:
        """A certificate, PEM, for the key of this request, which is that of the caller."""
        ...


class EnrolService(Described):
    described = pb.DESCRIPTOR.services_by_name["EnrolService"]

    def __init__(self, handler: EnrolHandler) -> None:
        self._handler = handler
        now_s = asyncio.get_running_loop().time()
        self._pace = Budget(limits.ENROLS_PER_S, limits.ENROLS_BURST, now_s)

    async def trust(
        self, request: pb.TrustRequest, context: Context
    ) -> AsyncIterator[pb.TrustResponse]:
        self._take_turn()
        await context.send_initial_metadata(())
        for version, raw in enumerate(self._handler.trust_files(), start=1):
            starts = range(0, len(raw), PART_BYTES)
            for part, at in enumerate(starts):
                data = raw[at : at + PART_BYTES]
                yield pb.TrustResponse(version=version, part=part, parts=len(starts), data=data)

    @translated
    async def enroll(self, request: pb.EnrollRequest, context: Context) -> pb.EnrollResponse:
        self._take_turn()
        pem = await self._handler.on_enroll(tls.peer_of(context), request.signing_request)
        return pb.EnrollResponse(certificate=certificates.to_der(pem))

    @translated
    async def join(self, request: pb.JoinRequest, context: Context) -> pb.JoinResponse:
        self._take_turn()
        if len(request.request) > limits.JOIN_REQUEST_BYTES_MAX:
            raise TooLarge(f"a join request has at most {limits.JOIN_REQUEST_BYTES_MAX} bytes")
        await self._handler.on_join(tls.peer_of(context), request.request)
        return pb.JoinResponse()

    @translated
    async def renew(self, request: pb.RenewRequest, context: Context) -> pb.RenewResponse:
        self._take_turn()
        node = tls.peer_of(context)
        if certificates.requested_key(request.signing_request) != node.spki:
            raise NotPermitted(
                "a certificate is renewed for the same key only",
                fix="enrol the node again with a new token to change its key",
            )
        pem = await self._handler.on_renew(node, request.signing_request)
        return pb.RenewResponse(certificate=certificates.to_der(pem))

    def _take_turn(self) -> None:
        if not self._pace.take(1, asyncio.get_running_loop().time()):
            raise Unavailable("many machines enrol just now", fix="try again in a few seconds")
