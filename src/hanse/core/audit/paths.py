"""The paths of the auditor's door and of an exported folder, and the index that begins them.

The index is the file `logs`, the only name that is known beforehand:

    {"federation": …, "final": {origin: size}, "forked": [origin, …], "logs": {origin: size},
     "schema": 1, "timestamp": whether there is one, "trust_versions": n}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hanse.core import limits
from hanse.core.errors import InvalidSpec
from hanse.core.ids import Origin, Segment, segment
from hanse.core.log.merkle import SIZE_MAX
from hanse.core.log.tiles import tiles_of
from hanse.core.reading import Reader, canonical_json, parse_json

TIMESTAMP = "trust/timestamp.json"
"""The newest TUF timestamp that is known."""


@dataclass(frozen=True, slots=True)
class Index:
    """What there is: every log with its size and how far it is final, and of trust what."""

    federation: Segment
    logs: Mapping[Origin, int]
    final: Mapping[Origin, int]
    trust: int
    timestamp: bool = False
    forked: tuple[Origin, ...] = ()
    """Logs of which there is evidence that they have forked."""

    @property
    def trust_versions(self) -> range:
        return range(1, self.trust + 1)

    def encode(self) -> bytes:
        return canonical_json(
            {
                "federation": self.federation,
                "final": {str(origin): size for origin, size in self.final.items()},
                "forked": [str(origin) for origin in self.forked],
                "logs": {str(origin): size for origin, size in self.logs.items()},
                "schema": 1,
                "timestamp": self.timestamp,
                "trust_versions": self.trust,
            }
        )

    def paths(self) -> Iterator[str]:
        """Every file that the index promises, itself first."""
        yield "logs"
        yield from map(trust_path, self.trust_versions)
        if self.timestamp:
            yield TIMESTAMP
        yield from map(evidence_path, self.forked)
        for origin, size in self.logs.items():
            yield log_path(origin, "checkpoint")
            if origin in self.final:
                yield log_path(origin, "final")
            yield from (log_path(origin, tile.path) for tile in tiles_of(size))


def trust_path(version: int) -> str:
    return f"trust/{version:05d}.json"


def evidence_path(origin: Origin) -> str:
    return f"evidence/{origin}.json"


def log_path(origin: Origin, name: str) -> str:
    return f"log/{origin}/{name}"


def parse_index(raw: bytes) -> Index:
    """Raises `InvalidSpec` or `InvalidName`; the bytes must be the canonical ones."""
    document = parse_json(raw, "logs", bytes_max=limits.INDEX_BYTES_MAX)
    with Reader(document, "logs") as reader:
        reader.integer("schema", low=1, high=1)
        federation = segment(reader.text("federation"), "federation")
        trust = reader.integer("trust_versions", high=99_999)
        stamped = reader.flag("timestamp", False)
        logs, final = _sizes(reader, "logs"), _sizes(reader, "final")
        forked = reader.items("forked", _origin, count_max=limits.FORKED_LOGS_MAX)
    index = Index(federation, logs, final, trust, stamped, forked)
    if index.encode() != raw or not final.keys() <= logs.keys():
        raise InvalidSpec("logs: not in canonical form")
    return index


def _origin(value: object, path: str) -> Origin:
    if not isinstance(value, str):
        raise InvalidSpec(f"{path}: expected an origin")
    return Origin.parse(value)


def _sizes(reader: Reader, key: str) -> dict[Origin, int]:
    sizes = reader.raw(key)
    if not isinstance(sizes, dict) or not all(
        type(size) is int and 0 < size <= SIZE_MAX for size in sizes.values()
    ):
        raise InvalidSpec(f"logs.{key}: expected a mapping of sizes above 0 by origin")
    return {Origin.parse(name): size for name, size in sorted(sizes.items())}
