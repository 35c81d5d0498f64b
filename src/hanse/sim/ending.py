"""What must hold at the end of a run: nothing acknowledged is lost, and the fold is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from hanse.core.catalog.lineage import rollback_target
from hanse.core.catalog.view import ModelView
from hanse.core.freeze import SPACE
from hanse.core.ids import EventId, Origin
from hanse.core.log.merkle import leaf_hash
from hanse.core.reading import parse_json
from hanse.sim.process import CODEC, Process, done
from hanse.sim.reference import Fact, agreed


def lost(processes: Iterable[Process], acknowledged: Mapping[EventId, str]) -> Iterator[str]:
    """Acknowledged events that are not in every store exactly once, with who wrote them."""
    for process in processes:
        times = Counter(leaf_hash(raw) for _, raw in _events(process))
        for event, name in acknowledged.items():
            if times[event.raw] != 1:
                yield f"{process.name} has {event} of {name} {times[event.raw]} times"


def misread(processes: Sequence[Process]) -> Iterator[str]:
    """Views that are not what the naive reference makes of the same events."""
    seen: set[bytes] = set()
    for process in processes:
        assert process.node is not None
        if (heads := process.node.book.digest) in seen:
            continue  # equal logs, and so equal states: that was seen to with every step
        seen.add(heads)
        facts = _facts(process)
        for model, view in process.node.catalog.views.items():
            quorum, labels = process.node.catalog.quarantine_quorum, process.node.book.labels_at(1)
            expected = agreed(model, facts, quorum, process.name, labels or {})
            if (found := told(view, process.name)) != expected:
                different = [k for k in expected if expected[k] != found[k]]
                yield f"{process.name} differs from the reference in {different}"


def _facts(process: Process) -> list[Fact]:
    facts: list[Fact] = []
    trust: dict[Origin, int] = {}
    final = {head.origin: head.final_size for head in done(process.store.heads())}
    proofs = (
        parse_json(raw, "proof", bytes_max=2**20)
        for raw in done(process.store.local(SPACE)).values()
    )
    forked = {Origin.parse(proof["origin"]): proof["index"] for proof in proofs}
    for origin, raw in _events(process):
        event = CODEC.decode(raw)
        lowered = event.header.trust_version < trust.get(origin, 0)
        trust[origin] = max(event.header.trust_version, trust.get(origin, 0))
        void = event.header.seq >= max(final[origin], forked.get(origin, 2**63))
        if event.body is not None and not lowered and not void:
            sure = event.header.seq < final[origin]
            facts.append(Fact(EventId(leaf_hash(raw)), origin, event.header, event.body, sure))
    return facts


def told(view: ModelView, region: str) -> dict[str, Any]:
    """A view in the words of the reference."""
    targets = {r.digest: rollback_target(view, r.digest, region) for r in view.releases}
    return {
        "killed": sorted(str(r.digest) for r in view.releases if r.killed),
        "quarantined": sorted(str(r.digest) for r in view.releases if r.quarantined),
        "held": {str(r.digest): list(r.held) for r in view.releases},
        "proven": {str(r.digest): list(r.proven) for r in view.releases},
        "proven_final": {str(r.digest): list(r.proven_final) for r in view.releases},
        "final": sorted(str(r.digest) for r in view.releases if r.final),
        "floor": view.floor,
        "retired": sorted(str(r.digest) for r in view.releases if r.retired == "retired"),
        "heads": sorted((a.region, str(a.release), a.id.raw.hex()) for a in view.heads),
        "targets": {str(d): str(t.digest) if t else None for d, t in targets.items()},
    }


def _events(process: Process) -> list[tuple[Origin, bytes]]:
    return [
        (head.origin, raw)
        for head in done(process.store.heads())
        for raw in done(process.store.events(head.origin, 0, head.size, 2**60))
    ]


def events_of(process: Process) -> Iterator[bytes]:
    return (raw for _, raw in _events(process))
