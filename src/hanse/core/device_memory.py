"""What an edge node remembers across restarts, so that it serves again with no network at all.

The assignment's own bytes, what it denied to itself, what it was serving, and how often a
release that is not proven yet was tried: a release that takes the process down with it is
found by counting the starts that it did not survive.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hanse.core import limits
from hanse.core.assignment import ASSIGNMENT_BYTES_MAX, Assignment, parse_assignment, read_digest
from hanse.core.errors import InvalidSpec
from hanse.core.ids import Digest, Segment, segment
from hanse.core.reading import Reader, canonical_json, parse_json
from hanse.core.telemetry import REASON_BYTES_MAX

# The assignment stands in it as a text, whose quotes and line feeds are escaped once more.
MEMORY_BYTES_MAX = 4 * ASSIGNMENT_BYTES_MAX
_ENTRIES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Denial:
    """This node refuses to route to a release for the rest of one generation."""

    model: Segment
    generation: int
    reason: str


@dataclass(slots=True)
class Memory:
    """Owned and changed by one `Device` only.

    `raw` is the assignment as it was signed. `running` maps a model to what answered last,
    `kept` holds the manifests of those that the assignment no longer names.
    """

    assignment: Assignment | None = None
    raw: bytes = b""
    denied: dict[Digest, Denial] = field(default_factory=dict)
    running: dict[Segment, Digest] = field(default_factory=dict)
    kept: dict[Digest, bytes] = field(default_factory=dict)
    proven: set[Digest] = field(default_factory=set)
    trials: dict[Digest, int] = field(default_factory=dict)

    def encode(self) -> bytes:
        return canonical_json(
            {
                "schema": 1,
                "assignment": self.raw.decode() if self.assignment else None,
                "denied": [
                    {
                        "release": str(d),
                        "model": denial.model,
                        "generation": denial.generation,
                        "reason": denial.reason,
                    }
                    for d, denial in self.denied.items()
                ],
                "running": {model: str(d) for model, d in self.running.items()},
                "kept": {str(d): raw.decode() for d, raw in self.kept.items()},
                "proven": sorted(map(str, self.proven)),
                "trials": {str(d): count for d, count in self.trials.items()},
            }
        )


def parse_memory(raw: bytes) -> Memory:
    """Read what `Memory.encode` wrote. Raises `Rejected` if the file is damaged."""
    with Reader(parse_json(raw, "state", bytes_max=MEMORY_BYTES_MAX), "state") as reader:
        reader.integer("schema", low=1, high=1)
        text = reader.raw("assignment")
        signed = text.encode() if isinstance(text, str) else b""
        running = reader.pairs("running", count_max=_ENTRIES_MAX)
        kept = reader.pairs("kept", count_max=_ENTRIES_MAX, bytes_max=limits.MANIFEST_BYTES_MAX)
        trials = reader.child("trials")
        memory = Memory(
            parse_assignment(signed) if signed else None,
            signed,
            dict(reader.items("denied", _denial, count_max=_ENTRIES_MAX)),
            {segment(model): Digest.parse(d) for model, d in running.items()},
            {Digest.parse(d): manifest.encode() for d, manifest in kept.items()},
            set(reader.items("proven", read_digest, count_max=_ENTRIES_MAX)),
            {Digest.parse(d): trials.integer(d) for d in list(reader.raw("trials"))},
        )
    if any(Digest.of(manifest) != d for d, manifest in memory.kept.items()):
        raise InvalidSpec("state.kept: a manifest does not have its digest")
    return memory


def _denial(value: Any, path: str) -> tuple[Digest, Denial]:
    with Reader(value, path) as reader:
        return Digest.parse(reader.text("release")), Denial(
            segment(reader.text("model"), f"{path}.model"),
            reader.integer("generation"),
            reader.text("reason", bytes_max=REASON_BYTES_MAX),
        )
