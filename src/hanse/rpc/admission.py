"""What a call may cost before anybody has looked at it: one budget for each peer.

Every call of every service passes here first. A peer is its certificate, or its address where
there is no TLS. It may call so often, have so many calls under way and take so long to send a
request; beyond that it is refused before its request is read. gRPC's own bound on calls covers
all peers together, so that alone one peer could take all of it (T23).

Requests are read here, as bytes and within a time limit, and only then parsed: inside gRPC a
request that trickles in would hold its call for ever, unseen by any handler.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from google.protobuf.message import DecodeError

from hanse.core import limits
from hanse.core.counters import Counters
from hanse.core.errors import InvalidSpec, Rejected, Unavailable
from hanse.core.gossip.budget import Budget
from hanse.rpc.status import Context, refuse

if TYPE_CHECKING:
    Handlers = grpc.GenericRpcHandler[Any, Any]

PEERS_MAX = limits.NODES_MAX + 1_000
log = structlog.get_logger("hanse.rpc")


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Of one peer. Larger values cost memory (at once) or CPU (pace)."""

    per_s: float = limits.CALLS_PER_S
    burst: int = limits.CALLS_BURST
    at_once: int = limits.CALLS_AT_ONCE_MAX
    read_s: float = limits.REQUEST_READ_S


@dataclass(slots=True)
class _Account:
    pace: Budget
    under_way: int = 0
    refused_at_s: float = -1e9  # when that was last said in the log


class Admission:
    def __init__(self, counters: Counters, bounds: CallLimits | None = None) -> None:
        self._counters = counters
        self._bounds = bounds or CallLimits()
        self._accounts: dict[bytes, _Account] = {}

    @contextmanager
    def admit(self, who: bytes, now_s: float) -> Iterator[None]:
        """Hold one of this peer's calls. Raises `Unavailable` if it has too many."""
        account = self._account(who, now_s)
        if account.under_way >= self._bounds.at_once:
            self._refuse("calls_at_once_refused", who, account, now_s)
            raise Unavailable(
                f"{account.under_way} calls of this peer are under way",
                fix="let some of them end first",
            )
        if not account.pace.take(1, now_s):
            self._refuse("calls_pace_refused", who, account, now_s)
            raise Unavailable(
                f"this peer calls more than {self._bounds.per_s:g} times a second",
                fix="wait a second, and call less often",
            )
        account.under_way += 1
        try:
            yield
        finally:
            account.under_way -= 1

    def _account(self, who: bytes, now_s: float) -> _Account:
        found = self._accounts.pop(who, None)
        if found is None:
            if len(self._accounts) >= PEERS_MAX:
                self._forget_idle()
            found = _Account(Budget(self._bounds.per_s, self._bounds.burst, now_s))
        self._accounts[who] = found  # now the newest
        return found

    def _forget_idle(self) -> None:
        """Forget the peer that called longest ago of those that have no call under way."""
        idle = next((k for k, account in self._accounts.items() if not account.under_way), None)
        if idle is not None:
            del self._accounts[idle]

    def _refuse(self, counter: str, who: bytes, account: _Account, now_s: float) -> None:
        self._counters[counter] += 1
        if now_s - account.refused_at_s >= limits.REFUSAL_LOG_S:
            account.refused_at_s = now_s
            log.warning("calls_refused", peer=who.hex()[:16], why=counter)

    # -- handlers ----------------------------------------------------------------

    def guard(self, handlers: Handlers) -> Handlers:
        return _Guarded(self, handlers)

    def guarded(self, inner: Any) -> grpc.RpcMethodHandler[Any, Any]:
        """The same method behind this gate.

        To gRPC it is a stream both ways whose requests are bytes; on the wire that is the same.
        """

        async def call(_: object, context: Context) -> None:
            try:
                with self.admit(_caller(context), asyncio.get_running_loop().time()):
                    await self._serve(inner, context)
            except (Rejected, Unavailable) as error:
                await refuse(context, error)

        return grpc.stream_stream_rpc_method_handler(
            call, response_serializer=inner.response_serializer
        )

    async def _serve(self, inner: Any, context: Context) -> None:
        if inner.request_streaming:
            answer = inner.stream_stream(self._requests(inner, context), context)
        else:
            request = self._parse(inner, await self._read(context) or b"")
            answer = (inner.unary_unary or inner.unary_stream)(request, context)
        if inspect.isasyncgen(answer):
            async for message in answer:
                await context.write(message)
            return
        message = await answer
        if not inner.response_streaming:
            await context.write(message)

    async def _requests(self, inner: Any, context: Context) -> AsyncIterator[Any]:
        while (raw := await self._read(context)) is not None:
            yield self._parse(inner, raw)

    async def _read(self, context: Context) -> bytes | None:
        """The next request; None at the end of the stream."""
        try:
            async with asyncio.timeout(self._bounds.read_s):
                raw = await context.read()
        except TimeoutError:
            self._counters["calls_silent"] += 1
            raise Unavailable(
                f"the request did not come within {self._bounds.read_s:g} s", fix="call again"
            ) from None
        return None if raw is grpc.aio.EOF else raw  # type: ignore[attr-defined]  # not in the stub

    def _parse(self, inner: Any, raw: bytes) -> Any:
        if inner.request_deserializer is None:
            return raw
        try:
            return inner.request_deserializer(raw)
        except DecodeError:
            self._counters["calls_unreadable"] += 1
            raise InvalidSpec("the request cannot be read", fix="use the same version") from None


class _Guarded(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stub only
    def __init__(self, admission: Admission, handlers: Handlers) -> None:
        self._admission, self._handlers = admission, handlers

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        found = self._handlers.service(handler_call_details)
        return None if found is None else self._admission.guarded(found)


class GuardedServer:
    """Where generated code adds its handlers, so that health and reflection are guarded too."""

    def __init__(self, server: grpc.aio.Server, admission: Admission) -> None:
        self._server, self._admission = server, admission

    def add_generic_rpc_handlers(self, handlers: Iterable[Handlers]) -> None:
        self._server.add_generic_rpc_handlers([self._admission.guard(each) for each in handlers])

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """The same handlers by another way, which gRPC for asyncio does not take."""


def _caller(context: Context) -> bytes:
    """32 bytes that stand for whoever calls: the certificate, or the address without its port."""
    pems = list(context.auth_context().get("x509_pem_cert", ()))
    shown = pems[0] if pems else str(context.peer()).rpartition(":")[0].encode()
    return hashlib.sha256(shown).digest()
