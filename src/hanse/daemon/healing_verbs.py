"""Giving this daemon a mandate, and taking it away."""

from __future__ import annotations

import json

from hanse.core.errors import Conflict, InvalidSpec, NotPermitted
from hanse.core.events import RolloutIntent
from hanse.core.healing import Mandated, instance
from hanse.core.ids import Digest, segment
from hanse.core.node import Node
from hanse.core.rollout.spec import canonical
from hanse.core.trust.authority import demand
from hanse.core.trust.mandate import Mandate, misfit
from hanse.daemon.commands import Answer, Args, envelope_of, text_of

_SOME, _OTHER = Digest.of(b"some release"), Digest.of(b"its predecessor")


def mandate(node: Node, args: Args) -> Answer:
    """Hold this mandate; it is checked as every daemon will check what is started under it."""
    model = segment(text_of(args, "model"), "model")
    if model not in node.region.healing.policies:
        raise Conflict(
            f"nothing retrains {model} here",
            fix="declare its hook in healing.toml and start the daemon again",
        )
    template, uses = text_of(args, "plan").encode(), args.get("uses")
    if type(uses) is not int:
        raise InvalidSpec("uses: expected a whole number", fix="say how many rollouts it is for")
    statement = Mandate(model, Digest.of(template), uses).encode()
    given = Mandated(statement, envelope_of(args), template)
    try:
        spec = instance(given, 1, _SOME, _OTHER)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError):
        raise InvalidSpec(
            "plan: not a plan without its release", fix="hanse heal mandate"
        ) from None
    raw = canonical(spec)
    if why := misfit(statement, model, raw):
        raise InvalidSpec(
            f"this mandate fits no plan: {why}", fix="make it with hanse heal mandate"
        )
    if node.me.region not in spec.regions:
        raise Conflict(
            f"the plan does not name {node.me.region}", fix="a region heals what it runs itself"
        )
    members = node.book.chain.current
    body = RolloutIntent(model, spec.name, 1, _SOME, _OTHER, raw, statement)
    asked = demand(body, node.me, members)
    if missing := asked.unmet([given.envelope], members) if asked else "":
        raise NotPermitted(
            f"nobody would accept what is started under it: {missing}",
            fix="have people who hold this role sign it: --draft FILE, hanse statement sign",
        )
    node.region.healing.mandate(model, given)
    return lambda: {
        "model": model,
        "uses": uses,
        "undo": f"hanse heal revoke {model}",
    }


def revoke(node: Node, args: Args) -> Answer:
    """Hold no mandate any more. A rollout that is under way goes on."""
    model = segment(text_of(args, "model"), "model")
    if model not in node.region.healing.mandates:
        raise Conflict(f"there is no mandate for {model}", fix="nothing to do")
    node.region.healing.mandate(model, None)
    return lambda: {"model": model, "undo": f"hanse heal mandate {model} --plan ..."}
