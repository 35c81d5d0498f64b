"""Who still needs a release: what stands against retiring it.

A retirement takes nothing away from anybody, so what still leans on the release is named first.
Two regions that speak at the same time can pass each other by; then the release goes on where it
runs, and a region that would have gone back to it goes back further, or keeps what it has.
"""

from __future__ import annotations

from collections.abc import Iterator

from hanse.core.catalog.lineage import rollback_target
from hanse.core.catalog.under_way import under_way
from hanse.core.catalog.view import ModelView, Release


def blocks(view: ModelView, release: Release) -> Iterator[str]:
    """Why it cannot be retired now, a sentence each."""
    digest, version = release.digest, release.version
    if release.killed:
        yield f"{version} is killed: it stays known, so that nothing with its files comes back"
        return
    for head in view.heads:
        if head.release == digest:
            yield f"{head.region} runs it"
    running = under_way(view)
    if running is not None and digest in (running.release, running.predecessor):
        yield f"rollout {running.rollout} is under way with it"
    for head in view.heads:
        target = rollback_target(view, head.release, head.region)
        if target is not None and target.digest == digest:
            serves = view.release(head.release)
            named = serves.version if serves else head.release.short
            yield f"{head.region} would fall back to it from {named}"
    for rollout in view.rollouts:
        if rollout.current:
            rules = rollout.plan.rollback
            if digest in (rules.target, rules.fallback):
                yield f"the plan {rollout.rollout} names it as the way back"
