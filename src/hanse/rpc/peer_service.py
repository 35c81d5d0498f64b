"""hanse.v1.PeerService: links for members, probes for members and nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from hanse.core.ids import Segment
from hanse.rpc.link import GrpcTransport
from hanse.rpc.methods import handler_of
from hanse.rpc.status import Context, translated
from hanse.v1 import sync_pb2 as pb

NAME = "hanse.v1.PeerService"


class PeerService:
    name = NAME

    def __init__(self, transport: GrpcTransport, region: Segment) -> None:
        self._transport = transport
        self._region = region

    async def link(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """The transport reads through `context`, so `requests` is never touched."""
        await self._transport.serve(context)

    @translated
    async def probe(self, request: pb.ProbeRequest, context: Context) -> pb.ProbeResponse:
        return pb.ProbeResponse(region=self._region)

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        return handler_of(self, pb.DESCRIPTOR.services_by_name["PeerService"])
