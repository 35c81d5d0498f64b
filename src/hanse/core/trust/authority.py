"""Who may say what: a pure function of an event, its log and the trust chain.

Three answers. *None*: the event counts. `Void`: it is stored, since the log must verify, but
it has no effect anywhere. `Stall`: we cannot judge it yet (a trust version that has not
reached us), so nothing of that author counts from here on until we can.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from hanse.core.dsse import open_envelope
from hanse.core.errors import Rejected
from hanse.core.events import (
    Body,
    Event,
    FloorRaise,
    HoldLift,
    Kill,
    ReleaseRecord,
    ReleaseRetire,
    RolloutApprove,
    RolloutControl,
    RolloutIntent,
    region_of,
)
from hanse.core.ids import Digest, MemberId, Origin
from hanse.core.trust import statements
from hanse.core.trust.chain import Chain
from hanse.core.trust.mandate import misfit
from hanse.core.trust.members import Members
from hanse.core.trust.statements import CONTROL_TYPE


@dataclass(frozen=True, slots=True)
class Void:
    reason: str


@dataclass(frozen=True, slots=True)
class Stall:
    reason: str


def judge(event: Event, origin: Origin, previous_trust: int, chain: Chain) -> Void | Stall | None:
    """Decide whether `event` of `origin` counts: first its place, then its word.

    `previous_trust` is the highest trust version that this author has acted under.
    """
    verdict = judge_place(event, origin, previous_trust, chain)
    return verdict if verdict is not None else judge_word(event, origin, chain)


def judge_place(
    event: Event, origin: Origin, previous_trust: int, chain: Chain
) -> Void | Stall | None:
    """What the header alone decides: can we read it, and was its author a member then?"""
    header = event.header
    if not event.readable:
        return Stall(f"event {header.seq} needs reader level {header.min_reader_level}")
    members = chain.at(header.trust_version)
    if members is None:
        return Stall(f"trust version {header.trust_version} has not reached us")
    if members.digest != header.trust_digest:
        return Void("it names another trust file of that version")
    if header.trust_version < previous_trust:
        return Void("its trust version is lower than the author's last one")
    author = members.member(origin.member)
    if author is None or author.region != origin.region:
        return Void("its author was no member at that trust version")
    return None


def judge_word(event: Event, origin: Origin, chain: Chain) -> Void | None:
    """What the body decides, once its place stands: may this author say that, and who signed?"""
    members = chain.at(event.header.trust_version)
    if members is None:
        return Void("its trust version is unknown")
    try:
        spoken_for = region_of(event.body)
    except Rejected as error:
        return Void(f"it cannot be read: {error.message}")
    if spoken_for is not None and spoken_for != origin.region:
        return Void(f"a daemon of {origin.region} may not speak for {spoken_for}")
    return _attested(event, origin, members)


@dataclass(frozen=True, slots=True)
class Demand:
    """The human or CI signatures that an event needs: by `count` people who hold `keys`.

    A plan may also need `approvals`, by people whom the others do not count: who holds both
    roles still is one person.
    """

    role: str
    keys: dict[MemberId, bytes]
    payload_type: str
    payload: bytes
    count: int = 1
    approvers: Mapping[MemberId, bytes] = field(default_factory=dict)
    approvals: int = 0

    def signers(self, envelopes: Iterable[bytes]) -> frozenset[MemberId]:
        keys = {**self.keys, **self.approvers}
        return signers(envelopes, keys, self.payload_type, self.payload)

    def unmet(self, envelopes: Iterable[bytes], members: Members) -> str:
        """What is missing; empty if enough people signed. A second key makes no second person."""
        signed = self.signers(envelopes)
        held = {members.name_of(key) for key in signed if key in self.keys}
        approved = {members.name_of(key) for key in signed if key in self.approvers}
        if len(held) < self.count:
            if self.count == 1:
                return f"no {self.role} signed it"
            return f"{len(held)} of {self.count} people who are {self.role} signed it"
        if len(approved) < self.approvals or len(held | approved) < self.count + self.approvals:
            more = f"{self.count} {self.role} and {self.approvals} approver"
            return f"{len(held | approved)} people signed it, and it needs {more}"
        return ""


def demand(body: Body | None, origin: Origin, members: Members) -> Demand | None:
    """Whose signature this kind of event needs; None if the daemon's own word is enough."""
    match body:
        case ReleaseRecord():
            name = f"{body.model}@{body.version}"
            statement = statements.release_statement(name, body.release, body.counter)
            return of_role("publisher", members, statement, statements.RELEASE_TYPE)
        case RolloutIntent():
            statement = body.mandate or statements.rollout_statement(body.model, body.spec)
            return replace(
                of_role("release-manager", members, statement),
                approvers=members.keys("approver"),
                approvals=members.threshold("approver"),
            )
        case RolloutApprove():
            spec = str(Digest.from_bytes(body.spec_digest))
            statement = statements.approval_statement(body.model, spec, body.stage, body.step)
            asked = of_role(body.role, members, statement)
            return replace(asked, count=max(asked.count, body.count))
        case Kill():
            statement = statements.control_statement("kill", body.model, release=str(body.release))
        case ReleaseRetire():
            scope = {"release": str(body.release), "phase": body.phase}
            statement = statements.control_statement("retire", body.model, **scope)
        case FloorRaise():
            statement = statements.control_statement("floor", body.model, counter=body.counter)
        case RolloutControl(action="abort", region=origin.region):
            return None
        case RolloutControl(action="resume" | "abort"):
            # Aborting rolls back: elsewhere that is not for one region's daemon to say.
            statement = statements.control_statement(
                body.action, body.model, rollout=body.rollout, region=body.region
            )
            return _of_operator(members, body.region or "*", statement)
        case HoldLift():
            statement = statements.control_statement("lift", body.model, hold=body.hold.raw.hex())
            return _of_operator(members, origin.region, statement)
        case _:
            return None
    return of_role("release-manager", members, statement)


def signed_by(event: Event, origin: Origin, members: Members) -> frozenset[MemberId]:
    """The people whose demanded signature stands on this event."""
    asked = demand(event.body, origin, members)
    if asked is None:
        return frozenset()
    return asked.signers(event.header.attestations)


_DEMANDING = frozenset(
    {ReleaseRecord, RolloutIntent, RolloutApprove, RolloutControl, HoldLift, Kill, FloorRaise}
    | {ReleaseRetire}
)


def _attested(event: Event, origin: Origin, members: Members) -> Void | None:
    if type(event.body) not in _DEMANDING:
        return None  # most events, and they are many
    asked = demand(event.body, origin, members)
    missing = asked.unmet(event.header.attestations, members) if asked else ""
    if not missing and isinstance(event.body, RolloutIntent) and event.body.mandate:
        missing = misfit(event.body.mandate, event.body.model, event.body.spec)
    return Void(missing) if missing else None


def of_role(role: str, members: Members, statement: bytes, kind: str = CONTROL_TYPE) -> Demand:
    """As many people of a role as `members` asks for, but never nobody."""
    return Demand(role, members.keys(role), kind, statement, max(1, members.threshold(role)))


def _of_operator(members: Members, region: str, statement: bytes) -> Demand:
    keys = members.keys("operator", region) | members.keys("release-manager", region)
    count = max(1, members.threshold("operator"))
    return Demand(f"operator of {region}", keys, CONTROL_TYPE, statement, count)


def signers(
    envelopes: Iterable[bytes], keys: dict[MemberId, bytes], payload_type: str, payload: bytes
) -> frozenset[MemberId]:
    """The distinct keys among `keys` that signed exactly this payload."""
    found: set[MemberId] = set()
    for raw in envelopes:
        try:
            envelope, verified = open_envelope(raw, keys)
        except Rejected:
            continue
        if envelope.payload_type == payload_type and envelope.payload == payload:
            found |= verified
    return frozenset(found)
