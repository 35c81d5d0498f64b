"""why: the answer in one sentence with its numbers, then what it rests on, then the events.

The question is asked at night, after the bleeding has stopped. So it begins with what happened
to the release in that region, by whose decision, and what serves there now.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from hanse.core.catalog.facts import Record
from hanse.core.catalog.view import Release
from hanse.core.errors import NotFound
from hanse.core.events import Hold, Kill, Rollback, RolloutReport
from hanse.core.evidence.verdict import Reason
from hanse.core.ids import Digest
from hanse.core.node import Clock, Node
from hanse.core.rollout.table import State
from hanse.daemon.queries import readings
from hanse.daemon.queries.causes import Judged, cause, harm, held, killed
from hanse.daemon.queries.matter import Answer, Args, Matter, asked, in_time, near, plain
from hanse.daemon.queries.moments import timeline, what
from hanse.daemon.queries.parts import BACK, Part, newest_part


def why(node: Node, clock: Clock, args: Args) -> Answer:
    """why {model, version? | release?, region?}"""
    keys = ("model", "version", "release", "region")
    model, version, digest, region = asked(args, "why", *keys)
    matter = Matter.of(node, clock, model)
    regions = [r.name for r in node.book.chain.current.regions]
    if region is not None and region not in regions:
        raise NotFound(f"there is no region {plain(region, 80)}", fix=near(region, regions))
    named = None if version is None and digest is None else matter.release(version, digest)
    release, where = _subject(matter, named, region)
    found = newest_part(matter, where, release.digest)
    judged = list(found.readings()) if found is not None else []
    decided = [pair for pair in judged if pair[1].harmful and not pair[1].dry_run]
    return {
        "model": matter.view.model,
        "version": release.version,
        "release": str(release.digest),
        "region": where,
        "sentences": [
            _answer(matter, release, where, found, decided),
            *_grounds(matter, release, found, decided or judged),
        ],
        "metrics": [readings.metric(*pair) for pair in decided or judged],
        "timeline": timeline(matter, release.digest),
    }


# -- what is asked about -------------------------------------------------------


def _subject(matter: Matter, named: Release | None, region: str | None) -> tuple[Release, str]:
    """The release and region that went wrong last, our own region before others."""
    wrong = [
        (digest, where)
        for digest, where in map(_went_wrong, in_time(matter.records))
        if digest is not None
        and (named is None or digest == named.digest)
        and (region is None or where == region)
        and matter.view.release(digest) is not None
    ]
    if wrong:
        digest = named.digest if named is not None else wrong[-1][0]
        places = [where for d, where in wrong if d == digest]
        place = matter.own if matter.own in places else places[-1]
        release = matter.view.release(digest)
    else:
        place = region or matter.own
        release = named or _latest(matter, place)
    if release is None:
        raise NotFound(f"{matter.view.model} has no release yet", fix="publish one first")
    return release, place


def _went_wrong(record: Record) -> tuple[Digest | None, str]:
    region = str(record.origin.region)
    match record.event.body:
        case Kill(release=release) | Hold(release=release) | Rollback(from_release=release):
            return release, region
        case RolloutReport() as body if body.state in BACK or (
            body.state == State.HELD and body.reason.partition(":")[0] == Reason.WORSE
        ):
            return body.release, region
        case _:
            return None, region


def _latest(matter: Matter, region: str) -> Release | None:
    """Nothing went wrong: what is being rolled out, else what is active, else what is newest."""
    current, active = matter.view.current_rollout(), matter.view.active(region)
    for digest in (current and current.release, active and active.release):
        if digest and (found := matter.view.release(digest)) is not None:
            return found
    return matter.view.releases[-1] if matter.view.releases else None


# -- the answer ----------------------------------------------------------------


def _answer(
    matter: Matter,
    release: Release,
    region: str,
    found: Part | None,
    decided: Judged,
) -> str:
    version, view = release.version, matter.view
    active = view.active(region)
    undone = matter.latest(Rollback, from_release=release.digest, region=region)
    serves = active is not None and active.release == release.digest
    back = found is not None and found.state in BACK
    if release.killed:
        now = _now(matter, region, again=True)
        return f"{version} was killed{killed(matter, release)}; {now}"
    if (undone is not None or back) and not serves:
        moving = found is not None and found.state == State.ROLLING_BACK
        done = "is being rolled back" if moving else "was rolled back"
        by = cause(matter, release, region, found, decided)
        return f"{version} {done} in {region} {by}; {_now(matter, region, again=True)}"
    if found is not None and found.live:
        name, steps = found.rollout.rollout, f" at {found.step_text}" if found.step_text else ""
        told = decided and found.reason != Reason.ONE_NODE  # its own words name the node
        text = harm(decided) if told else found.text
        because = f": {text}" if text else ""
        return f"{version} is {found.state} in {region} under {name}{steps}{because}"
    if serves and active is not None:
        bars = f", although it is {release.state}" if release.barred else ""
        doubt = found is not None and found.watching and found.reason == Reason.ONE_NODE
        word = f"; {found.text}" if found is not None and doubt else ""
        since = f"{version} serves in {region} since its {active.cause}{bars}"
        return f"{since}; {_now(matter, region)}{word}"
    if release.barred:
        return f"{version} does not serve in {region}: it is {release.state}{held(matter, release)}"
    return f"{version} does not serve in {region}: no rollout has brought it there"


def _now(matter: Matter, region: str, *, again: bool = False) -> str:
    """What answers there now; our own nodes are counted, those of others are not known here."""
    active = matter.view.active(region)
    if active is None:
        return "no release is active there"
    version = matter.version(active.release)
    if region != matter.own:
        return f"{version} is active there"
    here = readings.nodes(matter, None)
    away = f", {here['offline']} offline" if here["offline"] else ""
    word = "serves again" if again else "serves"
    return f"{version} {word} on {here['on_target']}/{here['of']} nodes{away}"


# -- what it rests on ----------------------------------------------------------


def _grounds(matter: Matter, release: Release, found: Part | None, judged: Judged) -> Iterator[str]:
    for metric, reading in judged:
        if metric.dry_run:
            continue
        odds = round(math.exp(reading.needed_log_e))
        numbers = f"{reading.harm_log_e:.1f} of {reading.needed_log_e:.1f} needed"
        yield (
            f"{metric.name}: evidence of harm {numbers}; "
            f"a release within its margin reaches that at most once in {odds}"
        )
    if found is not None:
        intent = matter.record(found.rollout.id)
        how = "started by itself under a mandate of" if found.rollout.mandated else "signed by"
        by = f", {how} {matter.by(intent)}" if intent else ""
        yield f"The plan is {found.rollout.rollout}, generation {found.rollout.generation}{by}"
        if found.event is not None:
            whose = "our own counts" if found.region == matter.own else "its signed report"
            yield f"What is said of {found.region} rests on {whose}; last report {found.event}"
    for healing in matter.view.healings:
        if release.digest in (healing.release, healing.child):
            answer = f" by {matter.version(healing.child)}" if healing.child else ""
            came = (
                f"{healing.outcome}{answer}: {plain(healing.why)}" if healing.outcome else "waits"
            )
            yield f"{healing.region} had {matter.version(healing.release)} retrained: {came}"
    for hold in matter.view.holds:
        record = matter.record(hold.id)
        if hold.release == release.digest and record is not None:
            yield f"In {hold.region}: {what(matter, record)} ({hold.id})"
