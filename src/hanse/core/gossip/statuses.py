"""Words of which only the latest counts: signed, stored, replaced, never logged.

    signed text     hanse-status/v1\\n <origin>\\n <kind>\\n <serial>\\n <body>

A daemon keeps one of each kind of every member. What is older than the one it has, or the
same, changes nothing. An author's order is its log's incarnation, then the serial, which is
stored before the word leaves and so never goes back. To a daemon whose disk was set back, its
peers give its own latest words with a new link, and its next word is newer than those.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hanse.core import limits, testimony
from hanse.core.agreement import Attest
from hanse.core.counters import Counters
from hanse.core.encoding import strict_base64, to_base64
from hanse.core.errors import InvalidSpec, NotPermitted, TooLarge
from hanse.core.gossip.budget import Budget
from hanse.core.gossip.frames import Status
from hanse.core.ids import MemberId, Origin
from hanse.core.reading import canonical_json, parse_json
from hanse.core.signing import SigningKey, verify
from hanse.core.step import PutLocal, Write
from hanse.core.trust.members import Members

SPACE = "status"
ATTEST, HEALTH, EVIDENCE = "attest", "health", "evidence"
KINDS = (ATTEST, HEALTH, EVIDENCE)
_DOMAIN = b"hanse-status/v1\n"


@dataclass(frozen=True, slots=True)
class Heard:
    """A member's latest word of one kind. `at_ms` is our wall time when it came, for display."""

    status: Status
    said: Mapping[str, Any]
    at_ms: int

    @property
    def order(self) -> tuple[int, int]:
        return (self.status.origin.incarnation, self.status.serial)


class Statuses:
    """Owned by `bulletin`; `latest` also holds our own words."""

    def __init__(self, me: Origin, key: SigningKey, counters: Counters) -> None:
        self.latest: dict[tuple[MemberId, str], Heard] = {}
        self.me, self._key, self._counters = me, key, counters
        self._budgets: dict[MemberId, Budget] = {}
        self._changed: set[tuple[MemberId, str]] = set()

    def restore(self, stored: Mapping[str, bytes]) -> None:
        for raw in stored.values():
            heard = _decode(raw)
            self.latest[heard.status.origin.member, heard.status.kind] = heard

    def say(self, kind: str, body: Mapping[str, Any], now_ms: int) -> Status:
        """Sign our next word of this kind. It may leave once `writes` is stored."""
        me, before = self.me, self.latest.get((self.me.member, kind))
        serial = before.status.serial + 1 if before and before.status.origin == me else 1
        raw = canonical_json(body)
        status = Status(me, kind, serial, raw, self._key.sign(_text(me, kind, serial, raw)))
        self._keep(Heard(status, body, now_ms))
        return status

    def take(self, status: Status, members: Members, now_s: float, now_ms: int) -> Heard | None:
        """What a member says, if it is new. Raises `Rejected` if it is not the member's word."""
        if status.kind not in KINDS:
            return None  # of a newer daemon
        if len(status.body) > limits.STATUS_BYTES_MAX:
            raise TooLarge(f"a status of {len(status.body)} bytes", fix="say less")
        member = members.member(status.origin.member)
        if member is None or member.region != status.origin.region:
            raise NotPermitted(f"{status.origin} is no log of a member")
        if status.origin.federation != members.federation:
            raise NotPermitted(f"{status.origin} belongs to another federation")
        heard = Heard(status, {}, now_ms)
        before = self.latest.get((member.id, status.kind))
        if before is not None and heard.order <= before.order:
            return None
        if not self._in_time(member.id, now_s):
            self._counters["statuses_ignored"] += 1
            return None
        verify(member.key, status.signature, _text_of(status))
        self._budgets[member.id].spend(1, now_s)  # by its author alone
        heard = Heard(status, _read(status), now_ms)
        self._keep(heard)
        return heard

    def of(self, kind: str, members: Members) -> Iterator[Heard]:
        """The latest words of one kind of those who are members now, in member order."""
        for (member, spoken), heard in sorted(self.latest.items(), key=lambda item: item[0]):
            if spoken == kind and members.member(member) is not None:
                yield heard

    def for_new_link(self, peer: MemberId) -> list[Status]:
        """What we attested and measured last, and the peer's own words: it may have lost its disk.

        Not our health: the time in it has passed.
        """
        ours = [(self.me.member, ATTEST), (self.me.member, EVIDENCE)]
        slots = [*ours, *((peer, kind) for kind in KINDS)]
        return [self.latest[slot].status for slot in slots if slot in self.latest]

    def writes(self) -> list[Write]:
        writes: list[Write] = [
            PutLocal(SPACE, f"{member}/{kind}", _encode(self.latest[member, kind]))
            for member, kind in sorted(self._changed)
        ]
        self._changed.clear()
        return writes

    def _in_time(self, author: MemberId, now_s: float) -> bool:
        """Every word is a write on our disk: nobody may speak without end (T48)."""
        if author not in self._budgets:
            self._budgets[author] = Budget(1 / limits.STATUS_S, limits.STATUSES_BURST, now_s)
        return self._budgets[author].left(now_s) >= 1

    def _keep(self, heard: Heard) -> None:
        slot = (heard.status.origin.member, heard.status.kind)
        self.latest[slot] = heard
        self._changed.add(slot)


def _read(status: Status) -> Mapping[str, Any]:
    said = parse_json(status.body, "status", bytes_max=limits.STATUS_BYTES_MAX)
    if not isinstance(said, dict) or canonical_json(said) != status.body:
        raise InvalidSpec("a status is a canonical JSON object")
    if status.kind == ATTEST:
        Attest.read(said)
    elif status.kind == EVIDENCE:
        testimony.read(said)
    return said


def _text_of(status: Status) -> bytes:
    return _text(status.origin, status.kind, status.serial, status.body)


def _text(origin: Origin, kind: str, serial: int, body: bytes) -> bytes:
    return _DOMAIN + f"{origin}\n{kind}\n{serial}\n".encode() + body


def _encode(heard: Heard) -> bytes:
    status = heard.status
    return canonical_json(
        {
            "at_ms": heard.at_ms,
            "body": to_base64(status.body),
            "kind": status.kind,
            "origin": str(status.origin),
            "serial": status.serial,
            "signature": to_base64(status.signature),
        }
    )


def _decode(raw: bytes) -> Heard:
    """What `_encode` wrote; our own disk is believed."""
    stored = json.loads(raw)
    body, signature = strict_base64(stored["body"]), strict_base64(stored["signature"])
    assert body is not None
    assert signature is not None
    origin = Origin.parse(stored["origin"])
    status = Status(origin, stored["kind"], stored["serial"], body, signature)
    return Heard(status, json.loads(body), stored["at_ms"])
