"""hanse.v1.PeerService: links for members, probes for members and nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator

from hanse.core.ids import Segment
from hanse.rpc.link import GrpcTransport
from hanse.rpc.methods import Described
from hanse.rpc.status import Context, translated
from hanse.v1 import sync_pb2 as pb


class PeerService(Described):
    described = pb.DESCRIPTOR.services_by_name["PeerService"]

    def __init__(self, transport: GrpcTransport, region: Segment) -> None:
        self._transport = transport
        self._region = region

    async def link(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """The transport reads through `context`, so `requests` is never touched."""
        await self._transport.serve(context)

    @translated
    async def probe(self, request: pb.ProbeRequest, context: Context) -> pb.ProbeResponse:
        return pb.ProbeResponse(region=self._region)
