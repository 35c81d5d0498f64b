"""The verbs of the control socket about machines that come in or must leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hanse.core import limits, token
from hanse.core.errors import InvalidSpec
from hanse.core.ids import parse_member_id
from hanse.daemon.control import Handler, plain
from hanse.daemon.enrolment import Enroller
from hanse.daemon.join_request import read_request

Args = Mapping[str, Any]


def table(enroller: Enroller) -> dict[str, Handler]:
    """Every verb by name."""

    async def node_token(args: Args) -> Mapping[str, Any]:
        return _shown(await enroller.node_token(_text(args, "node"), _ttl_s(args)))

    async def daemon_token(args: Args) -> Mapping[str, Any]:
        return _shown(await enroller.daemon_token(_text(args, "region"), _ttl_s(args)))

    async def revoke(args: Args) -> Mapping[str, Any]:
        await enroller.revoke(_text(args, "node"), _text(args, "reason"))
        return {"node": args["node"]}

    async def pending(_: Args) -> Mapping[str, Any]:
        return {"pending": [_waiting(raw) for raw in enroller.pending().values()]}

    async def refuse(args: Args) -> Mapping[str, Any]:
        await enroller.refuse(parse_member_id(_text(args, "member")))
        return {"member": args["member"]}

    return {
        "agent.token": plain(node_token),
        "agent.revoke": plain(revoke),
        "daemon.token": plain(daemon_token),
        "daemon.pending": plain(pending),
        "daemon.refuse": plain(refuse),
    }


def _shown(made: token.Token) -> dict[str, Any]:
    return {
        "token": token.encode(made),
        "region": made.region,
        "node": made.node or None,
        "expires_ms": made.expires_ms,
    }


def _waiting(raw: bytes) -> dict[str, Any]:
    member = read_request(raw).member
    return {
        "member": member.id,
        "region": member.region,
        "address": member.address,
        "request": raw.decode(),
    }


def _text(args: Args, key: str) -> str:
    value = args.get(key)
    longest = limits.TEXT_BYTES_MAX
    if not isinstance(value, str) or not 0 < len(value.encode(errors="replace")) <= longest:
        raise InvalidSpec(f"{key}: expected a text of 1 to {longest} bytes")
    return value


def _ttl_s(args: Args) -> float:
    value = args.get("ttl_s", limits.TOKEN_TTL_S)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidSpec("ttl_s: expected a number of seconds")
    return float(value)
