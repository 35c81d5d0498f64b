"""Who is about to come in, and who must not: tokens, daemons that ask to join, revoked nodes.

A token is spent on one key, and that is stored before anything is issued: whoever comes second
with another key finds it spent, also after a crash. The same key may come again until the token
expires, because an answer can be lost.

    open ──spend(key)──► spent on key ──spend(same key)──► spent on key
      └────────────── expires: forgotten, and with it the way in ──────────────┘

Times are Unix milliseconds by this daemon's wall clock, as they must outlive the process. What
was once seen as expired stays so, however the clock is set afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from hanse.core import limits
from hanse.core.errors import InvalidSpec, NotFound, NotPermitted, TooLarge
from hanse.core.ids import MemberId
from hanse.core.reading import canonical_json
from hanse.core.step import PutLocal, Write
from hanse.core.trust.members import Members

TOKENS, PENDING, NODES, DENIED = "token", "pending", "node", "denied"
SPACES = (TOKENS, PENDING, NODES, DENIED)
KEYS_MAX = 16  # of one node that are remembered, newest last


@dataclass(frozen=True, slots=True)
class Grant:
    """An open or spent token, as the daemon keeps it: nothing in it opens anything."""

    kind: str  # edge | daemon
    region: str
    node: str  # empty for a daemon
    expires_ms: int
    authority_pem: str  # the public half
    spent_on: str = ""  # hex SHA-256 of the node's public key, or the member id


@dataclass(frozen=True, slots=True)
class Denial:
    """A revoked node: no key of that name counts but those enrolled later, which are new ones.

    Keys are hex SHA-256 of public keys.
    """

    reason: str
    at_ms: int
    barred: tuple[str, ...] = ()  # those known when it was revoked: a token does not redeem them
    allowed: tuple[str, ...] = ()


class Enrolment:
    """Owned by the node. Every change is stored with the step in which it was made."""

    def __init__(self) -> None:
        self.grants: dict[str, Grant] = {}
        self.pending: dict[MemberId, bytes] = {}
        self.keys: dict[str, tuple[str, ...]] = {}  # of each node that enrolled or renewed here
        self.denials: dict[str, Denial] = {}
        self.revision = 0  # rises with every change
        self._writes: list[Write] = []
        self._latest_ms = 0

    def restore(self, spaces: Mapping[str, Mapping[str, bytes]]) -> None:
        self.grants = {k: Grant(**json.loads(v)) for k, v in spaces[TOKENS].items()}
        self.pending = {MemberId(k): v for k, v in spaces[PENDING].items()}
        self.keys = {k: tuple(json.loads(v)) for k, v in spaces[NODES].items()}
        self.denials = {k: _denial(json.loads(v)) for k, v in spaces[DENIED].items()}

    # -- tokens ----------------------------------------------------------------

    def issue(self, token: str, grant: Grant, now_ms: int) -> None:
        """Open a token. Raises `InvalidSpec`, `TooLarge`, `NotPermitted`."""
        self._forget_expired(now_ms)
        life_s = (grant.expires_ms - self._latest_ms) / 1000
        if not 0 < life_s <= limits.TOKEN_TTL_S:
            raise InvalidSpec(
                f"a token cannot live for {life_s:g} s", fix=f"1 to {limits.TOKEN_TTL_S} seconds"
            )
        if len(self.grants) >= limits.TOKENS_MAX:
            raise TooLarge(
                f"{limits.TOKENS_MAX} tokens are open", fix="wait until some of them have expired"
            )
        self._put(TOKENS, token, canonical_json(asdict(grant)))
        self.grants[token] = grant

    def spend(self, token: str, kind: str, region: str, on: str, now_ms: int) -> Grant:
        """Bind the token to this key for good. Raises `Rejected`; then nothing has changed."""
        grant = self._usable(token, kind, region, on, now_ms)
        if not grant.spent_on:
            grant = replace(grant, spent_on=on)
            self._put(TOKENS, token, canonical_json(asdict(grant)))
            self.grants[token] = grant
            if kind == "edge":
                self.seen(grant.node, on)
                self._allow(grant.node, on)
        return grant

    def _usable(self, token: str, kind: str, region: str, on: str, now_ms: int) -> Grant:
        self._forget_expired(now_ms)
        grant = self.grants.get(token)
        if grant is None or grant.kind != kind:
            raise NotPermitted(
                "this token is not open here: it has expired, or another daemon has made it",
                fix="ask for a new token",
            )
        if grant.region != region:
            raise NotPermitted(
                f"this token is for region {grant.region}, not {region}",
                fix=f"ask for a token for {region}",
            )
        if grant.spent_on not in ("", on):
            raise NotPermitted(
                "this token has been spent on another key",
                fix="ask for a new token; if nobody of yours has spent it, it was stolen: revoke "
                "what it enrolled",
            )
        denial = self.denials.get(grant.node)
        if denial is not None and on in denial.barred:
            raise NotPermitted(
                f"this key of node {grant.node} was revoked: {denial.reason}",
                fix="enrol into a new folder, or remove keys/tls.key from this one first",
            )
        return grant

    def tick(self, now_ms: int) -> None:
        self._forget_expired(now_ms)

    def _forget_expired(self, now_ms: int) -> None:
        self._latest_ms = max(self._latest_ms, now_ms)
        for token, grant in list(self.grants.items()):
            if grant.expires_ms <= self._latest_ms:
                del self.grants[token]
                self._put(TOKENS, token, None)

    # -- daemons that ask to join ------------------------------------------------

    def ask(self, token: str, region: str, member: MemberId, request: bytes, now_ms: int) -> None:
        """Spend the token on this member, and keep its request until people decide.

        Raises `Rejected`; then nothing has changed.
        """
        self._usable(token, "daemon", region, member, now_ms)
        if member not in self.pending and len(self.pending) >= limits.PENDING_MAX:
            raise TooLarge(
                f"{limits.PENDING_MAX} daemons wait to be admitted", fix="admit or refuse some"
            )
        self.spend(token, "daemon", region, member, now_ms)
        self._put(PENDING, member, request)
        self.pending[member] = request

    def answered(self, member: MemberId) -> None:
        """Ask no more for this one: it is a member now, or people refused it. Raises `NotFound`."""
        if member not in self.pending:
            raise NotFound(f"no daemon {member} waits to be admitted", fix="hanse daemon pending")
        del self.pending[member]
        self._put(PENDING, member, None)

    def admitted(self, members: Members) -> None:
        """Who is a member now waits no longer."""
        for member in [m for m in self.pending if members.member(m) is not None]:
            self.answered(member)

    # -- revoked nodes -----------------------------------------------------------

    def deny(self, node: str, reason: str, now_ms: int) -> None:
        """From now on no key of this node counts here; a later enrolment may bring a new one."""
        if len(self.denials) >= limits.NODES_MAX and node not in self.denials:
            raise TooLarge(f"{limits.NODES_MAX} nodes are revoked", fix="replace the edge CA")
        self._deny(node, Denial(reason, now_ms, barred=self.keys.get(node, ())))
        for token, grant in list(self.grants.items()):
            if grant.node == node:  # or the thief of a token could come back with it
                del self.grants[token]
                self._put(TOKENS, token, None)

    def why_denied(self, node: str, key: str) -> str:
        """Why this key of this node does not count here; empty if it does."""
        denial = self.denials.get(node)
        return denial.reason if denial is not None and key not in denial.allowed else ""

    def seen(self, node: str, key: str) -> None:
        """This node has this key: it enrolled or renewed with it."""
        known = self.keys.get(node, ())
        if key not in known and (known or len(self.keys) < limits.NODES_MAX):
            self.keys[node] = (*known, key)[-KEYS_MAX:]
            self._put(NODES, node, canonical_json(self.keys[node]))

    def _allow(self, node: str, key: str) -> None:
        denial = self.denials.get(node)
        if denial is not None:
            allowed = (*denial.allowed, key)[-KEYS_MAX:]
            self._deny(node, replace(denial, allowed=allowed))

    def _deny(self, node: str, denial: Denial) -> None:
        self.denials[node] = denial
        self._put(DENIED, node, canonical_json(asdict(denial)))

    # -- small helpers -----------------------------------------------------------

    def writes(self) -> list[Write]:
        out, self._writes = self._writes, []
        return out

    def _put(self, space: str, key: str, value: bytes | None) -> None:
        self.revision += 1
        self._writes.append(PutLocal(space, key, value))


def _denial(document: dict[str, Any]) -> Denial:
    keys = {k: tuple(document[k]) for k in ("barred", "allowed")}
    return Denial(document["reason"], document["at_ms"], **keys)
