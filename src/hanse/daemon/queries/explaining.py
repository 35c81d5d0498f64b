"""rollout.explain: why a rollout stands where it stands, and what it would take to go on.

Of our own region we look at the next tick as the machine will: everything that is missing, with
how much there is. Of another region we repeat what it signed last, and say so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from hanse.core.catalog.view import RolloutView
from hanse.core.errors import Conflict, NotFound
from hanse.core.evidence.interval import rate_interval
from hanse.core.evidence.metrics import TESTS, Metric
from hanse.core.evidence.verdict import Reading
from hanse.core.fleet import NodeStatus
from hanse.core.node import Clock, Node
from hanse.core.rollout.needs import ahead, needs
from hanse.core.rollout.plan import Step
from hanse.core.rollout.stimuli import Cause
from hanse.core.rollout.table import State
from hanse.core.rollout.tick import View
from hanse.core.testimony import needed_log_e
from hanse.daemon.queries import readings
from hanse.daemon.queries.matter import Answer, Args, Matter, asked, near, plain
from hanse.daemon.queries.parts import BACK, Part, part, step_text

LOG_E_MAX = 700.0  # beyond it an e-value is no number any more; nobody needs more
NODES_MAX = 20


def rollout_explain(node: Node, clock: Clock, args: Args) -> Answer:
    """rollout.explain {rollout, model?, region?}"""
    name, model, region = asked(args, "rollout.explain", "rollout", "model", "region")
    matter, rollout = _named(node, clock, name, model)
    plan = rollout.plan
    if region is not None and region not in plan.regions:
        raise NotFound(
            f"{rollout.rollout} does not reach region {plain(region, 80)}",
            fix=near(region, plan.regions),
        )
    current = matter.view.current_rollout()
    return {
        **matter.heading(rollout),
        "superseded_by": None if rollout.current or current is None else current.rollout,
        "regions": [
            _region(matter, found)
            for each in plan.regions
            if region in (None, each) and (found := part(matter, rollout, each)) is not None
        ],
    }


def _named(
    node: Node, clock: Clock, name: str | None, model: str | None
) -> tuple[Matter, RolloutView]:
    """The latest generation of that name, of whichever model has it."""
    matters = Matter.all(node, clock, model)
    found = [(m, r) for m in matters for r in m.view.rollouts if r.rollout == name]
    if not found:
        known = [r.rollout for m in matters for r in m.view.rollouts]
        raise NotFound(f"there is no rollout {plain(name or '', 80)}", fix=near(name or "", known))
    models = sorted({m.view.model for m, _ in found})
    if len(models) > 1:
        raise Conflict(
            f"{len(models)} models have a rollout {name}",
            fix=f"say which: --model {' or '.join(models)}",
        )
    return found[-1]


def _region(matter: Matter, found: Part) -> Answer:
    here = found.region == matter.own
    now = matter.clock.now_s
    heard, wall_ms = matter.node.heard(now), matter.clock.wall_ms
    look = matter.node.region.look(matter.view, found.rollout, heard, now, wall_ms)
    view = look if here else None
    wanting = needs(view) if view else ()
    missing = [_need(need.reason, need.text, need.have, need.needed) for need in wanting]
    if not here and found.live:
        missing = [_need(found.reason, found.text)] if found.text else list(_gate(found))
    return {
        "region": found.region,
        "stage": found.stage.name,
        "state": found.state,
        "step": found.step_text,
        "weight": found.weight,
        "since_s": view.progress.elapsed_s(now) if view else None,
        "verdict": found.verdict,
        "reason": found.text,
        "missing": missing,
        "next": _next(view) if view else None,
        "metrics": [_metric(*pair) for pair in found.readings()],
        "together": _together(matter, found) if here else [],
        "unreached": _unreached(matter, found) if here else [],
        "rests_on": "its own counts" if here else "what the region signed last",
        "age_s": found.age_s,
        "event": str(found.event) if found.event else None,
    }


def _gate(found: Part) -> Iterator[Answer]:
    """Of another region that has not begun: the gate, as far as its attestations have come here."""
    requires = found.stage.requires
    if requires is None or found.state not in (State.PENDING, State.GATED):
        return
    regions = found.plan.stage(requires.stage).regions
    quorum, healthy = requires.quorum(len(regions)), set(regions) & set(found.rollout.healthy)
    if len(healthy) < quorum:
        text = f"healthy regions of stage {requires.stage}, as far as is known here"
        yield _need(Cause.GATE, text, len(healthy), quorum)


def _need(reason: str, text: str, have: float | None = None, needed: float | None = None) -> Answer:
    return {
        "reason": str(reason),
        "text": plain(text),
        "have": None if have is None else float(have),
        "needed": None if needed is None else float(needed),
    }


def _next(view: View) -> Answer:
    state, step, now = ahead(view)
    return {"state": state.value if state else "", "step": _text(step), "with_next_tick": now}


def _text(step: Step | None) -> str:
    return step_text(step) if step else ""


def _metric(which: Metric, reading: Reading) -> Answer:
    counts, two = reading.counts, TESTS[which.test].needs_control
    proof = reading.proof_log_e
    return {
        **readings.metric(which, reading),
        "e_harm": _e(reading.harm_log_e),
        "e_proof": None if proof is None else _e(proof),
        "e_needed": _e(reading.needed_log_e),
        "interval_trial": _interval(counts.bad_t, counts.n_t),
        "interval_stable": _interval(counts.bad_c, counts.n_c) if two else None,
    }


def _together(matter: Matter, found: Part) -> list[Answer]:
    needed = _e(needed_log_e(found.rollout.plan))
    return [
        {
            "metric": each.metric,
            "regions": each.regions,
            "e_harm": _e(each.log_e),
            "e_needed": needed,
        }
        for each in matter.node.region.together(found.rollout)
        if each.regions > 1
    ]


def _e(log_e: float) -> float:
    return math.exp(min(log_e, LOG_E_MAX))


def _interval(bad: int, n: int) -> list[float]:
    return [round(edge, 6) for edge in rate_interval(bad, n)]


def _unreached(matter: Matter, found: Part) -> list[Answer]:
    """Nodes last heard with what the region has left: for them the rollback is not over."""
    if found.state not in BACK:
        return []
    now_s, nodes = matter.clock.now_s, matter.node.fleet.nodes
    left = [status for _, status in sorted(nodes.items()) if _serves(matter, found, status)]
    return [
        {"node": s.name, "seen_s": max(0.0, now_s - s.seen_s), "online": s.online(now_s)}
        for s in left[:NODES_MAX]
    ]


def _serves(matter: Matter, found: Part, status: NodeStatus) -> bool:
    """Whether its last word leaves open that it answers with the release, if only as a canary."""
    report, bad = status.models.get(matter.view.model), found.rollout.release
    if report is None:
        return False
    obeys = status.order >= matter.node.region.duty.order
    return report.running == bad or (bad in report.ready and not obeys)
