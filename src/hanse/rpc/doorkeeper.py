"""Who may call what, and for how long: one gate before every method of every service.

A caller gets as far as a handler only if it speaks TLS 1.3 with a certificate that is in date,
issued by the authority of whom it names, not revoked, and of a kind that may call this method.
The same is asked again of every call under way whenever something has changed: a new members
file, a revocation, a certificate that ends. Whoever fails then is hung up on (T43).

Without the second half a revocation would wait for streams that nobody has a reason to close.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc

from hanse.core.errors import NotPermitted, Rejected
from hanse.core.trust.members import Members
from hanse.rpc import tls
from hanse.rpc.sending import Sending
from hanse.rpc.status import Context, refuse
from hanse.rpc.tls import Peer

Moment = datetime.datetime
MEMBERS_AND_NODES = frozenset({"daemon", "edge"})
CALLERS: Mapping[str, frozenset[str]] = {
    "/hanse.v1.PeerService/Link": frozenset({"daemon"}),
    "/hanse.v1.EdgeService/Watch": frozenset({"edge"}),
    "/hanse.v1.EdgeService/Report": frozenset({"edge"}),
    "/hanse.v1.EnrolService/Trust": frozenset({"token", "daemon"}),
    "/hanse.v1.EnrolService/Enroll": frozenset({"token"}),
    "/hanse.v1.EnrolService/Join": frozenset({"token"}),
    "/hanse.v1.EnrolService/Renew": frozenset({"edge"}),
}
"""Which kinds of identity may call it; what is not listed here is for members and nodes."""


def utc_now() -> Moment:
    return datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True, slots=True)
class Known:
    """What the daemon knows of those who may come, asked anew each time."""

    members: Callable[[], Members]
    tokens: Callable[[], Mapping[str, str]] = dict  # id -> the authority, PEM, of open tokens
    denied: Callable[[Peer], str] = lambda _: ""  # why, or nothing
    revision: Callable[[], object] = lambda: None  # changes whenever one of the two above does

    def accepted(self) -> list[bytes]:
        """The authorities whose certificates open a TLS connection."""
        members = self.members()
        return [
            pem.encode()
            for pem in (
                *(m.tls_cert_pem for m in members.members),
                *(r.edge_ca_pem for r in members.regions),
                *self.tokens().values(),
            )
        ]


@dataclass(eq=False, slots=True)
class _Call:
    method: str
    pem: bytes
    task: asyncio.Task[Any]
    until: Moment
    refused: Rejected | None = None


class Doorkeeper(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic for mypy alone
    """Owned by the event loop. Whoever owns it calls `look_again` several times a second."""

    def __init__(self, known: Known, *, now: Callable[[], Moment] = utc_now) -> None:
        self.known = known
        self._now = now
        self._calls: set[_Call] = set()
        self._seen: tuple[Members | None, object] = (None, None)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        found = await continuation(handler_call_details)
        return None if found is None else self._guarded(handler_call_details.method, found)

    def judge(self, method: str, pem: bytes) -> Moment:
        """Until when this caller may go on calling. Raises `NotPermitted`."""
        peer = tls.peer_of_certificate(pem)
        if peer.kind not in CALLERS.get(method, MEMBERS_AND_NODES):
            raise NotPermitted(
                f"{peer.kind} {peer.name} may not call {method}",
                fix="use the identity of whom this method is for",
            )
        until = tls.check_issued(pem, self._authority_of(peer), now=self._now())
        if why := self.known.denied(peer):
            raise NotPermitted(
                f"{peer.kind} {peer.name} is revoked: {why}",
                fix="enrol it again with a new token, if it may come back",
            )
        return until

    def look_again(self) -> None:
        """Hang up on every caller who would not be let in now."""
        now = self._now()
        members, revision = self.known.members(), self.known.revision()
        changed = members is not self._seen[0] or revision != self._seen[1]
        if not changed and all(now <= call.until for call in self._calls):
            return
        self._seen = (members, revision)
        for call in self._calls:
            try:
                call.until = self.judge(call.method, call.pem)
            except Rejected as error:
                if call.refused is None:
                    call.refused = error
                    call.task.cancel()

    def _authority_of(self, peer: Peer) -> bytes:
        if peer.kind != "token":
            return tls.authority_of(peer, self.known.members())
        found = self.known.tokens().get(peer.name)
        if found is None or peer.federation != self.known.members().federation:
            raise NotPermitted("this token is not known here", fix="ask for a new token")
        return found.encode()

    def _guarded(self, method: str, inner: Any) -> Any:
        """The same method behind this gate; `rpc.admission` has made a stream of every one."""

        async def call(request: Any, context: Context) -> None:
            under_way, line = await self._enter(method, context), Sending(context)
            try:
                await inner.stream_stream(request, line)
            except asyncio.CancelledError:
                if under_way.refused is None:
                    raise
                await _hang_up(under_way, line)
            finally:
                self._calls.discard(under_way)

        return grpc.stream_stream_rpc_method_handler(
            call, response_serializer=inner.response_serializer
        )

    async def _enter(self, method: str, context: Context) -> _Call:
        task = asyncio.current_task()
        assert task is not None
        try:
            pem = tls.certificate_of(context)
            call = _Call(method, pem, task, self.judge(method, pem))
        except Rejected as error:
            await refuse(context, error)
        self._calls.add(call)
        return call


async def _hang_up(call: _Call, line: Sending) -> NoReturn:
    """The cancellation was ours, so it ends here, and the caller learns why."""
    assert call.refused is not None
    call.task.uncancel()
    await refuse(line, call.refused)  # type: ignore[arg-type]  # it stands in for a context
