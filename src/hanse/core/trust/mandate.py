"""A mandate: people sign beforehand by which plan a retrained release may roll out by itself.

    {"action": "heal", "model": "ocr-rec", "plan": "sha256:…", "uses": 3}

`plan` is the digest of a plan without what differs each time: its name, generation, release and
predecessor. A daemon that holds a mandate fills these in. It still cannot make a release: the
fold counts such a plan only for one that a publisher has signed as the answer to a RETRAIN of
that same daemon (`catalog.healed`), and at most `uses` generations above the newest plan that
people signed themselves. Whoever takes the signers' role away ends all their mandates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hanse.core import limits
from hanse.core.errors import InvalidSpec, Rejected
from hanse.core.ids import Digest, Segment, segment
from hanse.core.reading import Reader, canonical_json, parse_json
from hanse.core.trust.statements import control_statement

USES_MAX = 100
_METADATA, _SPEC = ("name", "generation"), ("release", "predecessor")


@dataclass(frozen=True, slots=True)
class Mandate:
    model: Segment
    plan: Digest
    uses: int

    def encode(self) -> bytes:
        """The bytes that are signed, as a control statement."""
        return control_statement("heal", self.model, plan=str(self.plan), uses=self.uses)


@lru_cache(maxsize=256)
def parse_mandate(raw: bytes) -> Mandate:
    """Raises `Rejected` for anything but the canonical bytes of one."""
    with Reader(parse_json(raw, "mandate", bytes_max=limits.MANDATE_BYTES_MAX), "mandate") as found:
        found.one_of("action", ("heal",))
        made = Mandate(
            segment(found.text("model"), "model"),
            Digest.parse(found.text("plan")),
            found.integer("uses", low=1, high=USES_MAX),
        )
    if made.encode() != raw:
        raise InvalidSpec("mandate: not in canonical form", fix="make it with hanse heal mandate")
    return made


def template_of(plan: Mapping[str, Any]) -> bytes:
    """The canonical bytes of a plan without what differs each time."""
    metadata = {k: v for k, v in plan["metadata"].items() if k not in _METADATA}
    spec = {k: v for k, v in plan["spec"].items() if k not in _SPEC}
    return canonical_json({**plan, "metadata": metadata, "spec": spec})


def misfit(raw: bytes, model: Segment, spec: bytes) -> str:
    """Why a plan is not the one of this mandate; empty if it is."""
    try:
        mandate = parse_mandate(raw)
        plan = parse_json(spec, "plan", bytes_max=limits.SPEC_BYTES_MAX)
        named = Digest.of(template_of(plan))
    except Rejected as error:
        return f"its mandate cannot be used: {error.message}"
    except (KeyError, TypeError, AttributeError):
        return "its plan has no metadata or spec"
    if mandate.model != model:
        return f"its mandate is for {mandate.model}"
    return "" if named == mandate.plan else "its mandate is for another plan"
