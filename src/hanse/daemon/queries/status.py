"""status: what is broken, since when, where, and what a rollback would go to."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import metadata

from hanse.core.catalog.view import Release
from hanse.core.damage import Damage
from hanse.core.gossip.statuses import HEALTH
from hanse.core.ids import Segment
from hanse.core.limits import SHOWN_MS_MAX
from hanse.core.node import Clock, Node
from hanse.core.room import Room
from hanse.daemon.queries.logs import logs
from hanse.daemon.queries.matter import Answer, Args, Matter, asked
from hanse.daemon.queries.parts import newest_part
from hanse.daemon.queries.readings import fall_back, heard_s, nodes, quality, quality_elsewhere
from hanse.daemon.queries.states import WORST_FIRST, Standing, standing

DAY_MS = 86_400_000


def status(node: Node, clock: Clock, args: Args) -> Answer:
    """status {model?}"""
    (model,) = asked(args, "status", "model")
    models = [_model(matter) for matter in Matter.all(node, clock, model)]
    models.sort(key=lambda m: (WORST_FIRST.index(m["state"]), m["model"]))
    return {
        "at_ms": clock.wall_ms,
        "daemon": _daemon(node, clock),
        "peers": _peers(node, clock),
        "members": _members(node, clock),
        "logs": logs(node, clock),
        "models": models,
        "fetching": [each.to_mapping() for each in node.fetching],
        "counters": dict(node.counters),
    }


def counters(node: Node, _: Clock, args: Args) -> Answer:
    """counters {}"""
    asked(args, "counters")
    return {"counters": dict(node.counters)}


def _model(matter: Matter) -> Answer:
    found = [_region(matter, r.name) for r in matter.node.book.chain.current.regions]
    found.sort(key=lambda pair: (pair[1].rank, pair[0]["region"]))
    own = matter.own
    last_good = fall_back(matter, own, newest_part(matter, own))
    return {
        "model": matter.view.model,
        "state": found[0][0]["state"] if found else "empty",
        "sentence": _sentence(matter, found, last_good),
        "last_good": matter.ref(last_good.digest) if last_good else None,
        "regions": [row for row, _ in found],
    }


def _region(matter: Matter, region: Segment) -> tuple[Answer, Standing]:
    part, active = newest_part(matter, region), matter.view.active(region)
    stands, here = standing(matter, region, part), region == matter.own
    rate = None
    if active is not None:
        elsewhere = quality_elsewhere(part, active.release)
        rate = quality(matter, active.release) if here else elsewhere
    row = {
        "region": region,
        "state": stands.state,
        "since_ms": stands.since_ms,
        "active": matter.ref(active.release) if active else None,
        "nodes": nodes(matter, fall_back(matter, region, part)) if here else None,
        "quality": rate,
        "rollout": part.rollout.rollout if part is not None and part.live else None,
        "reason": stands.reason,
        "heard_s": heard_s(matter.node, region, matter.clock),
    }
    return row, stands


def _sentence(
    matter: Matter, found: list[tuple[Answer, Standing]], last_good: Release | None
) -> str:
    """Such as `ocr-rec 4.0.0 FAILING ap-south since 03:02 UTC | last good 3.0.0, cached on …`."""
    if not found:
        return f"{matter.view.model}: the federation has no regions"
    worst = found[0][1]
    alike = [(r, s) for r, s in found if (s.state, s.release) == (worst.state, worst.release)]
    version = f" {matter.version(worst.release)}" if worst.release else ""
    names = " ".join(r["region"] for r, _ in alike)
    text = f"{matter.view.model}{version} {worst.state.upper()} {names}"
    times = [s.since_ms for _, s in alike if s.since_ms is not None]
    if times and worst.state not in ("healthy", "empty"):
        text += f" since {_clock_time(min(times), matter.clock.wall_ms)}"
    return f"{text} | {_way_back(matter, worst, last_good)}"


def _way_back(matter: Matter, worst: Standing, last_good: Release | None) -> str:
    here = nodes(matter, last_good)
    active = matter.view.active(matter.own)
    part = newest_part(matter, matter.own)
    undone = active is not None and active.release != worst.release and not (part and part.live)
    if undone and active is not None:
        version = matter.version(active.release)
        return f"{version} serves in {matter.own} on {here['on_target']}/{here['of']} nodes"
    if last_good is None:
        return "no release to fall back to"
    return f"last good {last_good.version}, cached on {here['cached']}/{here['of']} nodes"


def _clock_time(at_ms: int, now_ms: int) -> str:
    """The time of day, and the date too when that was more than a day ago."""
    at = datetime.fromtimestamp(min(at_ms, SHOWN_MS_MAX) / 1000, UTC)
    return f"{at:%H:%M} UTC" if now_ms - at_ms < DAY_MS else f"{at:%Y-%m-%d %H:%M} UTC"


def _peers(node: Node, clock: Clock) -> Answer:
    current = node.book.chain.current
    others = [m for m in current.members if m.id != node.me.member]
    ages = [heard_s(node, r.name, clock) for r in current.regions if r.name != node.me.region]
    return {
        "connected": len({link.peer for link in node.sync.proven()}),
        "of": len(others),
        "oldest_s": max((a for a in ages if a is not None), default=None),
    }


def _members(node: Node, clock: Clock) -> list[Answer]:
    """What each daemon last said of itself, and whether its state contradicts ours."""
    current, bulletin = node.book.chain.current, node.bulletin
    differing = bulletin.differing(current)
    return [
        {
            "member": member,
            "region": heard.status.origin.region,
            "said_s": max(0.0, (clock.wall_ms - heard.at_ms) / 1000),
            "nodes_online": heard.said.get("online"),
            "nodes_known": heard.said.get("known"),
            "differs": member in differing,
        }
        for heard in bulletin.statuses.of(HEALTH, current)
        for member in [heard.status.origin.member]
    ]


def _daemon(node: Node, clock: Clock) -> Answer:
    current = node.book.chain.current
    member, head = current.member(node.me.member), node.book.heads.get(node.me)
    return {
        "federation": node.me.federation,
        "region": node.me.region,
        "member": node.me.member,
        "origin": str(node.me),
        "address": member.address if member else "",
        "trust_version": current.version,
        "trust_stale": node.sync.trust.warning,
        "log_size": node.book.size(node.me),
        "final_size": head.final_size if head else 0,
        "phase": node.recovery.phase.value,
        "why": node.recovery.why,
        "fix": node.recovery.fix,
        "state_digest": node.catalog.state_digest.hex(),
        "waits": [why for _, why in node.region.barriers],
        "started_ms": node.started_ms or clock.wall_ms,
        "disk": _disk(node.room),
        "damage": [_damage(each) for each in node.damage],
        "version": _VERSION,
    }


def _disk(room: Room | None) -> Answer | None:
    if room is None:
        return None
    return {
        "level": room.level,
        "free_bytes": room.free_bytes,
        "total_bytes": room.total_bytes,
        "reserve_kept": room.reserve_kept,
    }


def _damage(found: Damage) -> Answer:
    return {
        "digest": str(found.digest),
        "what": found.what,
        "at_ms": found.at_ms,
        "healed": found.healed,
    }


def _version() -> str:
    try:
        return metadata.version("hanse")
    except metadata.PackageNotFoundError:
        return "unknown"


_VERSION = _version()
