"""The standing orders of a rollout: rollback, freshness, deadlines, propagation.

`freshness.otherwise` and `propagation.onLocalRollback` accept only `hold`, `freshness.heardFrom`
only `requires`, `nodes.offline` only `exclude`. They are in the document because its readers ask
for them; a plan that goes on regardless cannot be written.
"""

from __future__ import annotations

from typing import Literal

from hanse.core.ids import Digest
from hanse.core.limits import LAST_GOOD_MAX, NODES_MAX
from hanse.core.rollout.fields import (
    Fields,
    Parser,
    digest,
    duration_ms,
    duration_text,
    fail,
    number,
    one_of,
    share,
    whole,
)
from hanse.core.rollout.plan import Deadline, Freshness, NodeRules, Propagation, Rollback


def parse_rollback(value: object, path: str) -> Rollback:
    fields = Fields.of(value, path, ("target", "window", "fallback", "prefetch"))
    default = Rollback()
    return Rollback(
        fields.optional("target", _target, default.target),
        fields.optional("window", _window, default.window_revisions),
        fields.optional("fallback", _fallback, default.fallback),
        fields.optional("prefetch", whole(1, LAST_GOOD_MAX), default.prefetch),
    )


def rollback_mapping(rollback: Rollback) -> dict[str, object]:
    window = rollback.window_revisions
    return {
        "target": str(rollback.target),
        **({} if window is None else {"window": {"revisions": window}}),
        "fallback": str(rollback.fallback),
        "prefetch": rollback.prefetch,
    }


def parse_freshness(value: object, path: str) -> Freshness:
    fields = Fields.of(value, path, ("heardFrom", "within", "telemetry", "otherwise"))
    fields.optional("heardFrom", one_of("requires"), "requires")
    fields.optional("otherwise", one_of("hold"), "hold")
    default = Freshness()
    return Freshness(
        fields.optional("within", duration_ms(1), default.within_ms),
        fields.optional("telemetry", duration_ms(1), default.telemetry_ms),
    )


def freshness_mapping(freshness: Freshness) -> dict[str, object]:
    return {
        "heardFrom": "requires",
        "within": duration_text(freshness.within_ms),
        "telemetry": duration_text(freshness.telemetry_ms),
        "otherwise": "hold",
    }


def parse_deadline(value: object, path: str) -> Deadline:
    fields = Fields.of(value, path, ("step", "stage", "onExceeded"))
    return Deadline(
        fields.optional("step", _some(duration_ms(1)), None),
        fields.optional("stage", _some(duration_ms(1)), None),
        fields.optional("onExceeded", _on_exceeded, "hold"),
    )


def deadline_mapping(deadline: Deadline) -> dict[str, object]:
    lengths = {"step": deadline.step_ms, "stage": deadline.stage_ms}
    written = {key: duration_text(ms) for key, ms in lengths.items() if ms is not None}
    return {**written, "onExceeded": deadline.on_exceeded}


def parse_nodes(value: object, path: str) -> NodeRules:
    known = ("assign", "minOnline", "offline", "failing", "silentAfterUpdate", "onExceeded")
    fields = Fields.of(value, path, known)
    fields.optional("offline", one_of("exclude"), "exclude")
    return NodeRules(
        fields.optional("assign", _assign, "request"),
        fields.optional("minOnline", whole(0, NODES_MAX), 0),
        fields.optional("failing", share, NodeRules().failing_share),
        fields.optional("silentAfterUpdate", _some(duration_ms(1000)), None),
        fields.optional("onExceeded", _on_exceeded, "rollback"),
    )


def nodes_mapping(nodes: NodeRules) -> dict[str, object]:
    silent = (
        {} if nodes.silent_ms is None else {"silentAfterUpdate": duration_text(nodes.silent_ms)}
    )
    return {
        "assign": nodes.assign,
        "minOnline": nodes.min_online,
        "offline": "exclude",
        "failing": nodes.failing_share,
        **silent,
        "onExceeded": nodes.on_exceeded,
    }


def parse_watch(value: object, path: str) -> float | None:
    """`watch: {factor: 1.5}`, or `watch: none` to leave a promoted release alone."""
    if value == "none":
        return None
    fields = Fields.of(value, path, ("factor",))
    return fields.required("factor", number(1, 100), "1.5")


def watch_mapping(factor: float | None) -> object:
    return "none" if factor is None else {"factor": factor}


def parse_propagation(value: object, path: str) -> Propagation:
    fields = Fields.of(value, path, ("onLocalRollback", "quarantineQuorum"))
    fields.optional("onLocalRollback", one_of("hold"), "hold")
    quorum = fields.optional("quarantineQuorum", _some(whole(1, 1000)), None)
    return Propagation(quorum)


def propagation_mapping(propagation: Propagation) -> dict[str, object]:
    quorum = propagation.quarantine_quorum
    return {"onLocalRollback": "hold", **({} if quorum is None else {"quarantineQuorum": quorum})}


def _target(value: object, path: str) -> Literal["lastHealthy", "predecessor"] | Digest:
    if value == "lastHealthy":
        return "lastHealthy"
    if value == "predecessor":
        return "predecessor"
    return _named(value, path, "lastHealthy, predecessor")


def _fallback(value: object, path: str) -> Literal["disable"] | Digest:
    return "disable" if value == "disable" else _named(value, path, "disable")


def _named(value: object, path: str, words: str) -> Digest:
    """A digest; a misspelt word gets the list of words, a damaged digest what is wrong with it."""
    if isinstance(value, str) and value.startswith("sha256:"):
        return digest(value, path)
    raise fail(path, f"{value!r:.80} is not known", f"write {words} or sha256:...")


def _window(value: object, path: str) -> int | None:
    fields = Fields.of(value, path, ("revisions",))
    return fields.required("revisions", whole(1, 100), "3")


def _assign(value: object, path: str) -> Literal["request", "node"]:
    return "node" if one_of("request", "node")(value, path) == "node" else "request"


def _on_exceeded(value: object, path: str) -> Literal["hold", "rollback"]:
    return "rollback" if one_of("hold", "rollback")(value, path) == "rollback" else "hold"


def _some(parse: Parser[int]) -> Parser[int | None]:
    return parse
