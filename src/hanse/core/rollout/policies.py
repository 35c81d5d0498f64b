"""The standing orders of a rollout: rollback, freshness, deadlines, propagation.

`freshness.otherwise` and `propagation.onLocalRollback` accept only `hold`, `freshness.heardFrom`
only `requires`, `nodes.offline` only `exclude`. They are in the document because its readers ask
for them; a plan that goes on regardless cannot be written.
"""

from __future__ import annotations

from typing import Final, Literal

from hanse.core.ids import Digest
from hanse.core.limits import LAST_GOOD_MAX, NODES_MAX
from hanse.core.rollout.fields import (
    Fields,
    Parser,
    Word,
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

_TARGETS: Final[tuple[Literal["lastHealthy", "predecessor"], ...]] = ("lastHealthy", "predecessor")
_FALLBACKS: Final[tuple[Literal["disable"], ...]] = ("disable",)


def parse_rollback(value: object, path: str) -> Rollback:
    fields = Fields.of(value, path, ("target", "window", "fallback", "prefetch"))
    default = Rollback()
    return Rollback(
        fields.optional("target", _word_or_digest(_TARGETS), default.target),
        fields.optional("window", _window, default.window_revisions),
        fields.optional("fallback", _word_or_digest(_FALLBACKS), default.fallback),
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
        fields.optional("step", duration_ms(1), None),
        fields.optional("stage", duration_ms(1), None),
        fields.optional("onExceeded", one_of("hold", "rollback"), "hold"),
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
        fields.optional("assign", one_of("request", "node"), "request"),
        fields.optional("minOnline", whole(0, NODES_MAX), 0),
        fields.optional("failing", share, NodeRules().failing_share),
        fields.optional("silentAfterUpdate", duration_ms(1000), None),
        fields.optional("onExceeded", one_of("hold", "rollback"), "rollback"),
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
    quorum = fields.optional("quarantineQuorum", whole(1, 1000), None)
    return Propagation(quorum)


def propagation_mapping(propagation: Propagation) -> dict[str, object]:
    quorum = propagation.quarantine_quorum
    return {"onLocalRollback": "hold", **({} if quorum is None else {"quarantineQuorum": quorum})}


def _word_or_digest(words: tuple[Word, ...]) -> Parser[Word | Digest]:
    """A misspelt word gets the list of words, a damaged digest what is wrong with it."""

    def parse(value: object, path: str) -> Word | Digest:
        for word in words:
            if value == word:
                return word
        if isinstance(value, str) and value.startswith("sha256:"):
            return digest(value, path)
        fix = f"write {', '.join(words)} or sha256:..."
        raise fail(path, f"{value!r:.80} is not known", fix)

    return parse


def _window(value: object, path: str) -> int:
    fields = Fields.of(value, path, ("revisions",))
    return fields.required("revisions", whole(1, 100), "3")
