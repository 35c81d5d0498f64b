"""What the facts say of healing: who asked for a better model, and what answered.

The release that answers says so itself: its publisher signed it with the label `hanse.retrain`,
which names the event, and with the release that was worse among its parents. So neither side
can do without the other: a daemon cannot pick a release of its own choice, and a publisher
cannot start a rollout.
"""

from __future__ import annotations

from collections.abc import Mapping

from hanse.core.catalog.facts import ModelFacts
from hanse.core.catalog.manifest import Manifest
from hanse.core.catalog.view import HealingView
from hanse.core.events import ReleaseRetire, Retrain, RetrainResult
from hanse.core.ids import Digest, EventId, MemberId

LABEL = "hanse.retrain"


def healings(facts: ModelFacts) -> tuple[HealingView, ...]:
    """In the order that all daemons share. The first result by who asked is the one."""
    results: dict[tuple[EventId, MemberId], RetrainResult] = {}
    for record, said in facts.of(RetrainResult):
        results.setdefault((said.retrain, record.origin.member), said)
    found = []
    for record, asked in facts.of(Retrain):
        result = results.get((record.id, record.origin.member))
        found.append(
            HealingView(
                record.id,
                record.origin,
                asked.region,
                asked.release,
                asked.hold,
                asked.cause,
                asked.reason,
                result.outcome if result else "",
                result.release if result else None,
                result.reason if result else "",
            )
        )
    return tuple(found)


def answers(healing: HealingView, manifest: Manifest) -> bool:
    """Whether its publisher signed this release as the answer."""
    named = manifest.labels.get(LABEL) == healing.id.raw.hex()
    return named and any(p.release == healing.release for p in manifest.parents)


def mandated(
    found: tuple[HealingView, ...], manifests: Mapping[Digest, Manifest]
) -> frozenset[tuple[MemberId, Digest]]:
    """Which daemon may start which release under a mandate."""
    permitted = set()
    for healing in found:
        child = healing.child
        if child is None or healing.outcome != "passed" or child not in manifests:
            continue
        if answers(healing, manifests[child]):
            permitted.add((healing.log.member, child))
    return frozenset(permitted)


def retired(facts: ModelFacts) -> dict[Digest, str]:
    """How far each release is retired. Nothing takes it back, and `retired` is the further."""
    found: dict[Digest, str] = {}
    for _, said in facts.of(ReleaseRetire):
        found[said.release] = max(found.get(said.release, ""), said.phase)
    return found
