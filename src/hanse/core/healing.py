"""When a region asks for a better model, and when what came back may roll out by itself.

A standing hold that this daemon's own rollout machine wrote, because evidence showed harm or
drift, is an *occasion*. It is answered by a RETRAIN event in our log; that event is stored before
anything is done about it, and its id is what the hook is called with, again after every restart,
until a result is stored. What keeps the loop from swinging, in the order in which it is asked:

    taken over    people have signed a newer plan since: it is theirs now
    moot          a newer release serves here already, say one that another region healed
    person        a release that answered an earlier RETRAIN was itself rolled back here, and the
                  hold on it stands: nothing more happens before a person lifts it or signs a plan
    open          one RETRAIN of a model at a time, until its answer is proven or held
    cooldown      so long after the last one, whatever became of it
    budget        so many within a window

An occasion is a hold, and a hold is written once each time that a level is crossed; so evidence
that hovers around its level cannot ask twice. Durations are local monotonic time and are stored
as ages: time while we were down counts for nothing, and waiting longer is safe.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from hanse.core.catalog.healed import answers
from hanse.core.catalog.under_way import under_way
from hanse.core.catalog.view import HealingView, HoldView, ModelView, Release
from hanse.core.effects import Heal
from hanse.core.errors import InvalidSpec
from hanse.core.events import RETRAIN_CAUSES, Retrain, RolloutIntent
from hanse.core.evidence.verdict import Reason
from hanse.core.ids import Digest, EventId, MemberId, Origin, Segment
from hanse.core.reading import canonical_json, parse_json
from hanse.core.rollout.plan import RolloutSpec
from hanse.core.rollout.spec import canonical, parse_spec
from hanse.core.step import PutLocal, Write
from hanse.core.trust.mandate import parse_mandate
from hanse.core.words import REASON_CHARS_MAX, Proposal

AGES, MANDATES = "healing", "mandate"
BUDGET_MAX = 100
_KEEP_EVERY_S = 60.0
_AGAIN_S = 60.0
_DOCUMENT_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Mandated:
    """A plan without its release, and the signed permission to start it."""

    statement: bytes
    envelope: bytes
    template: bytes

    @property
    def uses(self) -> int:
        return parse_mandate(self.statement).uses

    def encode(self) -> bytes:
        texts = (self.statement.decode(), self.envelope.decode(), self.template.decode())
        return canonical_json(texts)

    @classmethod
    def decode(cls, raw: bytes) -> Mandated:
        """Raises `InvalidSpec` for what this did not write."""
        found = parse_json(raw, "stored mandate", bytes_max=_DOCUMENT_BYTES_MAX)
        if not isinstance(found, list) or len(found) != 3:
            raise InvalidSpec("stored mandate: malformed")
        return cls(*(str(text).encode() for text in found))


@dataclass(frozen=True, slots=True)
class Policy:
    """What an operator has declared for one model."""

    causes: tuple[str, ...] = RETRAIN_CAUSES
    cooldown_s: float = 3600.0
    budget: int = 3
    window_s: float = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Place:
    """Who decides: one daemon of one region."""

    region: Segment
    member: MemberId


@dataclass(frozen=True, slots=True)
class Waits:
    """An occasion that is not answered now, and why; `person` if only people can change that."""

    hold: HoldView
    why: str
    person: bool = False


def occasions(view: ModelView, place: Place) -> list[HoldView]:
    """Holds of our own machine on what was shown to be worse, oldest first."""
    return [
        hold
        for hold in view.holds
        if hold.region == place.region
        and hold.release is not None
        and hold.rollout
        and hold.reason.startswith(f"{Reason.WORSE}:")
        and hold.log is not None
        and hold.log.member == place.member
    ]


def ours(view: ModelView, place: Place) -> list[HealingView]:
    return [h for h in view.healings if h.log.member == place.member]


def cause_of(view: ModelView, hold: HoldView) -> str:
    active = view.active(hold.region)
    if active is not None and active.release == hold.release:
        return "serving"
    promoted = any(
        r.rollout == hold.rollout and r.generation == hold.generation and hold.region in r.healthy
        for r in view.rollouts
    )
    return "undone" if promoted else "trial"


def due(
    view: ModelView, place: Place, policy: Policy, ages_s: Sequence[float]
) -> Iterator[Retrain | Waits]:
    """For every unanswered occasion: the event to write, for one at most, or why it waits.

    `ages_s` says how long ago each of `ours` was asked, in their order.
    """
    asked = ours(view, place)
    for hold in occasions(view, place):
        of_this = [h for h in asked if h.hold == hold.id]
        if any(h.outcome == "passed" for h in of_this) or hold.release is None:
            continue
        if _moot(view, hold):
            continue
        cause = cause_of(view, hold)
        if cause not in policy.causes:
            continue
        waits = _waits(view, place, policy, hold, asked, ages_s)
        if waits is not None:
            yield waits
            continue
        reason = hold.reason[:REASON_CHARS_MAX]
        yield Retrain(view.model, place.region, hold.release, hold.id, cause, reason)
        return


def _waits(
    view: ModelView,
    place: Place,
    policy: Policy,
    hold: HoldView,
    asked: Sequence[HealingView],
    ages_s: Sequence[float],
) -> Waits | None:
    if by := taken_over(view, hold):
        return Waits(hold, f"people have signed {by} since", person=True)
    if (child := _relapse(view, place, asked)) is not None:
        why = f"{child.version} was to heal it and was rolled back itself; lift the hold on it"
        return Waits(hold, f"{why}, or start a rollout", person=True)
    if (under_way := next((h for h in asked if not settled(view, h)), None)) is not None:
        what = "its hook runs" if not under_way.outcome else "its answer is not proven yet"
        return Waits(hold, f"{under_way.id} is under way: {what}")
    if ages_s and (left_s := policy.cooldown_s - min(ages_s)) > 0:
        return Waits(hold, f"cools down for {left_s:.0f} s more")
    spent = sum(age_s < policy.window_s for age_s in ages_s)
    if spent >= policy.budget:
        window = f"{policy.window_s:.0f} s"
        return Waits(hold, f"{spent} retrainings within {window} are the whole budget")
    return None


def taken_over(view: ModelView, hold: HoldView) -> str:
    """The plan that people have signed since the one that failed; empty if none."""
    newer = (r for r in view.rollouts if r.generation > hold.generation and not r.mandated)
    return next((r.rollout for r in newer), "")


def _moot(view: ModelView, hold: HoldView) -> bool:
    active = view.active(hold.region)
    serves = view.release(active.release) if active else None
    worse = view.release(hold.release) if hold.release else None
    return serves is not None and worse is not None and serves.counter > worse.counter


def _relapse(view: ModelView, place: Place, asked: Sequence[HealingView]) -> Release | None:
    """An answer that was itself found to be worse here and that does not serve any more."""
    active = view.active(place.region)
    for healing in asked:
        child = view.release(healing.child) if healing.child else None
        if child is None or (active is not None and active.release == child.digest):
            continue
        if any(h.region == place.region and h.release == child.digest for h in view.holds):
            tried = (r.generation for r in view.rollouts if r.release == child.digest)
            if view.signed_generation <= max(tried, default=0):
                return child
    return None


def settled(view: ModelView, healing: HealingView) -> bool:
    """Whether nothing more will come of it: it failed, its answer is proven or barred, or people
    have lifted the hold that it was about or signed a newer plan."""
    if healing.outcome != "passed":
        return bool(healing.outcome)
    child = view.release(healing.child) if healing.child else None
    if child is None or child.barred or healing.region in child.proven:
        return True
    hold = next((h for h in view.holds if h.id == healing.hold), None)
    return hold is None or bool(taken_over(view, hold))


def start(view: ModelView, place: Place, given: Mandated) -> Proposal | None:
    """The plan under our mandate for an answer that passed and that nobody has started yet."""
    if under_way(view) is not None:
        return None  # another region's healing, say: it is not cut short
    started = {r.release for r in view.rollouts}
    for healing in ours(view, place):
        child = view.release(healing.child) if healing.child else None
        if healing.outcome != "passed" or child is None or child.digest in started:
            continue
        if child.barred or not answers(healing, child.manifest):
            continue
        hold = next((h for h in view.holds if h.id == healing.hold), None)
        if hold is None or taken_over(view, hold) or _moot(view, hold):
            continue  # people have lifted it or begun something of their own, or it is healed
        return _proposal(view, place, given, child.digest)
    return None


def _proposal(view: ModelView, place: Place, given: Mandated, release: Digest) -> Proposal | None:
    active = view.active(place.region)
    generation = view.generation + 1
    if active is None or active.release == release:
        return None
    if generation > view.signed_generation + given.uses:
        return None
    spec = instance(given, generation, release, active.release)
    body = RolloutIntent(
        view.model,
        spec.name,
        generation,
        release,
        active.release,
        canonical(spec),
        given.statement,
    )
    return Proposal(body, attestations=(given.envelope,))


def instance(given: Mandated, generation: int, release: Digest, before: Digest) -> RolloutSpec:
    """The plan of a mandate with what it leaves open. Raises as `parse_spec` for no such plan."""
    plan = json.loads(given.template)
    plan["metadata"] |= {"name": f"heal-{generation}", "generation": generation}
    plan["spec"] |= {"release": str(release), "predecessor": str(before)}
    return parse_spec(plan)


@dataclass(slots=True)
class Healing:
    """Owned by the region: what it declared, and how long ago each RETRAIN of ours was asked."""

    me: Origin
    policies: Mapping[Segment, Policy] = field(default_factory=dict)
    mandates: dict[Segment, Mandated] = field(default_factory=dict)
    """Without one, a person starts the rollout of what came back."""
    _at_s: dict[EventId, float] = field(default_factory=dict)
    _stored: dict[Segment, dict[str, int]] = field(default_factory=dict)
    _handed: set[EventId] = field(default_factory=set)
    _tried_s: dict[object, float] = field(default_factory=dict)
    _kept: dict[Segment, dict[EventId, float]] = field(default_factory=dict)
    _writes: list[Write] = field(default_factory=list)

    @property
    def place(self) -> Place:
        return Place(self.me.region, self.me.member)

    def restore(self, ages: Mapping[str, bytes], mandates: Mapping[str, bytes]) -> None:
        """Take both back. A RETRAIN without an age was written just before the end."""
        for model, raw in ages.items():
            found = parse_json(raw, "stored ages", bytes_max=_DOCUMENT_BYTES_MAX)
            self._stored[Segment(model)] = {str(k): int(v) for k, v in found.items()}
        for model, raw in mandates.items():
            self.mandates[Segment(model)] = Mandated.decode(raw)

    def mandate(self, model: Segment, given: Mandated | None) -> None:
        """Hold this mandate from now on, or none."""
        if given is None:
            self.mandates.pop(model, None)
        else:
            self.mandates[model] = given
        raw = given.encode() if given is not None else None
        self._writes.append(PutLocal(MANDATES, model, raw))

    def advance(self, view: ModelView, now_s: float, *, may_start: bool) -> Iterator[Proposal]:
        """What to write now. `may_start`: nothing keeps this daemon from moving forward."""
        policy = self.policies.get(view.model)
        if policy is None:
            return
        ages_s = self._ages(view, now_s)
        self._keep(view.model, policy, ages_s)
        for each in due(view, self.place, policy, list(ages_s.values())):
            if isinstance(each, Retrain) and self._try((each.hold, len(ages_s)), now_s):
                yield Proposal(each)
        given = self.mandates.get(view.model)
        if given is not None and may_start and view.frozen(self.me.region) is None:
            plan = start(view, self.place, given)
            if plan is not None and self._try(plan.body, now_s):
                yield plan

    def _try(self, what: object, now_s: float) -> bool:
        """What is refused here, say because a signer left or the disk is full, waits a while."""
        if now_s - self._tried_s.get(what, -_AGAIN_S) < _AGAIN_S:
            return False
        self._tried_s = {k: at for k, at in self._tried_s.items() if now_s - at < _AGAIN_S}
        self._tried_s[what] = now_s
        return True

    def waiting(self, view: ModelView, now_s: float) -> list[Waits]:
        """For people: the occasions that are not answered now, and why."""
        policy = self.policies.get(view.model)
        if policy is None:
            return []
        found = due(view, self.place, policy, list(self._ages(view, now_s).values()))
        return [each for each in found if isinstance(each, Waits)]

    def effects(self, views: Mapping[Segment, ModelView]) -> Iterator[Heal]:
        """Every RETRAIN of ours that waits, once each time that this process runs."""
        for model in sorted(self.policies):
            for healing in ours(views[model], self.place) if model in views else ():
                if not healing.outcome and healing.id not in self._handed:
                    self._handed.add(healing.id)
                    yield Heal(model, healing.id)

    def writes(self) -> list[Write]:
        out, self._writes = self._writes, []
        return out

    def _ages(self, view: ModelView, now_s: float) -> dict[EventId, float]:
        """Of the latest RETRAINs of ours, as many as a budget can have, in their order."""
        stored = self._stored.get(view.model, {})
        for healing in (asked := ours(view, self.place)[-BUDGET_MAX:]):
            age_ms = stored.get(healing.id.raw.hex(), 0)
            self._at_s.setdefault(healing.id, now_s - age_ms / 1000)
        return {h.id: now_s - self._at_s[h.id] for h in asked}

    def _keep(self, model: Segment, policy: Policy, ages_s: dict[EventId, float]) -> None:
        """Store the ages when one is new, and now and then as they grow, while they count."""
        kept = self._kept.get(model, {})
        counted_s = max(policy.window_s, policy.cooldown_s)
        due = any(
            age_s < counted_s + _KEEP_EVERY_S and age_s - kept.get(id_, 0.0) >= _KEEP_EVERY_S
            for id_, age_s in ages_s.items()
        )
        if due or ages_s.keys() - kept.keys():
            self._kept[model] = dict(ages_s)
            ages = {id_.raw.hex(): int(age_s * 1000) for id_, age_s in ages_s.items()}
            self._writes.append(PutLocal(AGES, model, canonical_json(ages)))
