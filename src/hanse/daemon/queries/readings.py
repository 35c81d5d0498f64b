"""Numbers that somebody will act on, each with its n and its age."""

from __future__ import annotations

from hanse.core.catalog.lineage import rollback_target
from hanse.core.catalog.view import Release
from hanse.core.evidence.metrics import TESTS, Metric
from hanse.core.evidence.verdict import Reading
from hanse.core.fleet import NodeStatus
from hanse.core.gossip.overlay import neighbours
from hanse.core.ids import Digest
from hanse.core.node import Clock, Node
from hanse.core.telemetry import Counts
from hanse.daemon.queries.matter import Answer, Matter
from hanse.daemon.queries.parts import Part

OFFLINE_NAMES_MAX = 20


def heard_s(node: Node, region: str, clock: Clock) -> float | None:
    """Seconds since a daemon of that region last spoke to us directly; None: never."""
    if region == node.me.region:
        return 0.0
    members = node.book.chain.current.members
    ages = [
        clock.now_s - node.sync.last_word_s[m.id]
        for m in members
        if m.region == region and m.id in node.sync.last_word_s
    ]
    return max(0.0, min(ages)) if ages else None


def expected(node: Node) -> set[str]:
    """Regions that the overlay links to us, so that their silence says something."""
    current = node.book.chain.current
    ids = [m.id for m in current.members]
    near = neighbours(node.me.member, ids, current.ring_seed) if node.me.member in ids else ()
    return {m.region for m in current.members if m.id in near} | set(node.region.must_hear)


def fall_back(matter: Matter, region: str, part: Part | None) -> Release | None:
    """What a rollback in this region goes to: the stable release of a rollout, else lineage."""
    view, active = matter.view, matter.view.active(region)
    trial = part.rollout.release if part is not None and part.live else None
    if trial is not None and active is not None and active.release != trial:
        return view.release(active.release)
    bad = trial or (active.release if active else None)
    return rollback_target(view, bad, region) if bad is not None else None


def nodes(matter: Matter, last_good: Release | None) -> Answer:
    """The edge nodes of our own region. Those that are silent, and those that cannot run what is
    assigned, are counted nowhere else."""
    fleet, now_s = matter.node.fleet, matter.clock.now_s
    everybody = fleet.online(now_s)
    online = fleet.able(everybody, assigned(matter))
    offline = sorted(fleet.nodes.keys() - {n.name for n in everybody})
    return {
        "on_target": sum(1 for n in online if on_target(matter, n)),
        "cached": sum(1 for n in online if last_good and _holds(matter, n, last_good.digest)),
        "of": len(online),
        "unable": len(everybody) - len(online),
        "offline": len(offline),
        "offline_names": offline[:OFFLINE_NAMES_MAX],
        "age_s": max((now_s - n.seen_s for n in online), default=None),
    }


def assigned(matter: Matter) -> Release | None:
    """What the nodes of our region are told to answer with."""
    told = matter.node.region.duty.told(matter.view.model)
    wanted = (told.active or told.candidate) if told else None
    return matter.view.release(wanted) if wanted else None


def on_target(matter: Matter, status: NodeStatus) -> bool:
    """Whether the node answers with what the region assigned to it."""
    told = matter.node.region.duty.told(matter.view.model)
    report = status.models.get(matter.view.model)
    if told is None:
        return True
    if told.active is not None:
        return report is not None and report.running == told.active
    return report is not None and told.candidate in report.ready


def quality(matter: Matter, release: Digest) -> Answer | None:
    """The highest rate at which something went wrong lately on our own nodes."""
    recent = matter.node.fleet.recent.get(matter.view.model)
    if recent is None or release not in recent.heard_s:
        return None
    age_s = matter.clock.now_s - recent.heard_s[release]
    return _worst(_rates(recent.total(release, matter.clock.now_s)), age_s)


def quality_elsewhere(part: Part | None, active: Digest) -> Answer | None:
    """The same from the counts that another region signed last, if it signed any."""
    if part is None or part.age_s is None:
        return None
    names = {"error": "error-rate", "slow": "slow-rate", "wrong": "wrong-rate"}
    stable = active != part.rollout.release
    found = []
    for metric, reading in part.readings():
        counts = reading.counts
        bad, n = (counts.bad_c, counts.n_c) if stable else (counts.bad_t, counts.n_t)
        if metric.event in names:
            found.append((names[metric.event], bad, n))
    return _worst(found, part.age_s)


def metric(which: Metric, reading: Reading) -> Answer:
    counts, two = reading.counts, TESTS[which.test].needs_control
    return {
        "metric": which.name,
        "test": which.test,
        "bad_trial": counts.bad_t,
        "n_trial": counts.n_t,
        "bad_stable": counts.bad_c if two else None,
        "n_stable": counts.n_c if two else None,
        "harm": reading.harm_log_e,
        "proof": reading.proof_log_e,
        "needed": reading.needed_log_e,
        "dry_run": reading.dry_run,
        "text": reading.text,
    }


def _rates(counts: Counts) -> list[tuple[str, int, int]]:
    return [
        ("error-rate", counts.errors, counts.requests),
        ("slow-rate", counts.slow, counts.requests),
        ("wrong-rate", counts.wrong, counts.labelled),
    ]


def _worst(rates: list[tuple[str, int, int]], age_s: float) -> Answer | None:
    known = [rate for rate in rates if rate[2]]
    if not known:
        return None
    name, bad, n = max(known, key=lambda rate: rate[1] / rate[2])
    return {"metric": name, "bad": bad, "n": n, "age_s": age_s}


def _holds(matter: Matter, status: NodeStatus, release: Digest) -> bool:
    report = status.models.get(matter.view.model)
    return report is not None and (release in report.ready or report.running == release)
