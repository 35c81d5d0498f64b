"""The state of one model in one region: every state that applies, and the worst of them.

Our own region is judged by its running rollout and its nodes, another by what it signed and by
how long it has been silent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hanse.core.catalog.view import Activation, HoldView, Release
from hanse.core.events import Kill, ReleaseRetire, Rollback
from hanse.core.evidence.verdict import Reason
from hanse.core.ids import Digest
from hanse.core.rollout.plan import Freshness
from hanse.core.rollout.table import State
from hanse.daemon.queries.matter import Matter, plain
from hanse.daemon.queries.parts import BACK, Part
from hanse.daemon.queries.readings import assigned, expected, heard_s, on_target

WORST_FIRST = (
    "failing",
    "conflict",
    "rolling-back",
    "held",
    "degraded",
    "unknown",
    "frozen",
    "rolling-out",
    "rolled-back",
    "healthy",
    "empty",
)


@dataclass(frozen=True, slots=True)
class Standing:
    """`release` is the one that the state is about; `since_ms` None: not known."""

    state: str
    release: Digest | None = None
    since_ms: int | None = None
    reason: str = ""

    @property
    def rank(self) -> int:
        return WORST_FIRST.index(self.state)


def standing(matter: Matter, region: str, part: Part | None) -> Standing:
    """The worst state that applies; of two equal ones, the first that was found."""
    active = matter.view.active(region)
    found = [Standing("empty")]
    if active is not None:
        found = [Standing("healthy", active.release, matter.at_ms(active.id), _age(matter, active))]
        found += _of_active(matter, region, active)
    if part is not None:
        found += _of_part(matter, part, active)
    found += _of_nodes(matter, active) if region == matter.own else _of_silence(matter, region)
    frozen = matter.view.frozen(region)
    if frozen is not None:
        release = active.release if active else None
        found.append(Standing("frozen", release, matter.at_ms(frozen.id), plain(frozen.reason)))
    return min(found, key=lambda s: s.rank)


def _age(matter: Matter, active: Activation) -> str:
    """That a release which serves well was deprecated or retired."""
    release = matter.view.release(active.release)
    said = matter.latest(ReleaseRetire, release=active.release)
    if release is None or said is None:
        return ""
    return f"{release.version} is {release.retired}: {plain(said[1].reason)}"


def _of_active(matter: Matter, region: str, active: Activation) -> Iterator[Standing]:
    view, at_ms = matter.view, matter.at_ms(active.id)
    release = view.release(active.release)
    if region in view.conflicts():
        names = " and ".join(matter.version(a.release) for a in view.heads if a.region == region)
        reason = f"two activations stand, {names}: {matter.version(active.release)} is preferred"
        yield Standing("conflict", active.release, at_ms, reason)
    if active.cause == "rollback":
        yield Standing("rolled-back", _undone(matter, active), at_ms, plain(active.reason))
    if release is not None:
        yield from _of_bars(matter, region, release)


def _undone(matter: Matter, active: Activation) -> Digest:
    """What a rollback took away: that is what people ask about."""
    record = matter.record(active.id)
    body = record.event.body if record else None
    return body.from_release if isinstance(body, Rollback) else active.release


def _of_bars(matter: Matter, region: str, release: Release) -> Iterator[Standing]:
    """The region serves a release that somebody has found to be bad."""
    digest, version = release.digest, release.version
    holds = [h for h in matter.view.holds if h.release == digest]
    since = min((m for h in holds if (m := matter.at_ms(h.id)) is not None), default=None)
    if release.killed:
        killed = matter.latest(Kill, release=digest)
        since = killed[0].event.header.hlc_ms if killed else None
        reason = plain(killed[1].reason) if killed else "a file of it was killed"
        yield Standing("failing", digest, since, f"{version} is killed: {reason}")
    elif release.quarantined:
        yield Standing("failing", digest, since, f"{version} is quarantined: {_held(holds)}")
    elif holds:
        state = "failing" if region in release.held else "held"
        yield Standing(state, digest, since, f"{version} is {_held(holds)}")


def _held(holds: list[HoldView]) -> str:
    regions = ", ".join(sorted({h.region for h in holds})) or "regions that have lifted it since"
    return f"held by {regions}" + (f": {plain(holds[0].reason)}" if holds else "")


def _of_part(matter: Matter, part: Part, active: Activation | None) -> Iterator[Standing]:
    release, at_ms, name = part.rollout.release, part.at_ms, part.rollout.rollout
    serves = active is not None and active.release == release
    if part.state == State.ROLLING_BACK:
        yield Standing("rolling-back", release, at_ms, part.text)
    elif part.state in BACK and part.rollout.current and not serves:
        yield Standing("rolled-back", release, at_ms, part.text)
    elif part.live and part.state == State.HELD:
        state = "failing" if part.reason == Reason.WORSE else "held"
        yield Standing(state, release, at_ms, f"{name} waits: {part.text}")
    elif part.state == State.HEALTHY and part.reason == Reason.ONE_NODE and serves:
        yield Standing("degraded", release, at_ms, part.text)
    elif part.live:
        since = at_ms if at_ms is not None else matter.at_ms(part.rollout.id)
        steps = " ".join(filter(None, (part.state, part.step_text)))
        text = f"{name} is {steps}" + (f": {part.text}" if part.text else "")
        yield Standing("rolling-out", release, since, text)
        found = matter.view.release(release)
        if found is not None and found.barred:
            holds = [h for h in matter.view.holds if h.release == release]
            yield Standing("held", release, at_ms, f"{found.version} is {_held(holds)}")


def _of_nodes(matter: Matter, active: Activation | None) -> Iterator[Standing]:
    told = matter.node.region.duty.told(matter.view.model)
    fleet = matter.node.fleet
    online = fleet.able(fleet.online(matter.clock.now_s), assigned(matter))
    if told is None or not online:
        return
    behind = [n.name for n in online if not on_target(matter, n)]
    wanted = told.active or told.candidate
    if behind and wanted is not None:
        text = f"{len(online) - len(behind)}/{len(online)} nodes run {matter.version(wanted)}"
        text += f"; not yet: {', '.join(behind[:5])}"
        if active is not None and active.cause == "rollback":
            since = matter.at_ms(active.id)
            yield Standing("rolling-back", _undone(matter, active), since, text)
        else:
            yield Standing("degraded", wanted, None, text)
    for status in online:
        report = status.models.get(matter.view.model)
        failed = report.failed if report is not None else {}
        if told.active in failed and told.active is not None:
            why = f"{status.name}: {plain(failed[told.active])}"
            yield Standing("failing", told.active, None, why)
        trial = matter.view.release(told.candidate) if told.candidate in failed else None
        if trial is not None and fleet.able([status], trial):
            why = f"{status.name}: {plain(failed[trial.digest])}"
            yield Standing("degraded", trial.digest, None, why)


def _of_silence(matter: Matter, region: str) -> Iterator[Standing]:
    """Only a region that should speak to us directly can be missed."""
    age_s = heard_s(matter.node, region, matter.clock)
    active = matter.view.active(region)
    release = active.release if active else None
    if age_s is None and region in expected(matter.node):
        yield Standing("unknown", release, None, "not heard since this daemon started")
    elif age_s is not None and age_s > Freshness().within_ms / 1000:
        yield Standing("unknown", release, None, f"not heard for {age_s:.0f} s")
