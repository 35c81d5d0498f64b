"""release.uses: who still runs a release, and what stands against retiring it."""

from __future__ import annotations

from collections.abc import Iterator

from hanse.core.catalog.lifecycle import blocks
from hanse.core.catalog.view import Release
from hanse.core.node import Clock, Node
from hanse.daemon.queries.matter import Answer, Args, Matter, asked
from hanse.daemon.queries.readings import heard_s


def release_uses(node: Node, clock: Clock, args: Args) -> Answer:
    """release.uses {model, version | release}"""
    model, version, digest = asked(args, "release.uses", "model", "version", "release")
    matter = Matter.of(node, clock, model)
    release = matter.release(version, digest)
    return {
        "model": matter.view.model,
        "release": str(release.digest),
        "version": release.version,
        "state": release.state,
        "retired": release.retired,
        "regions": list(_regions(matter, release)),
        "nodes": list(_nodes(matter, release)),
        "blocks": list(blocks(matter.view, release)),
    }


def _regions(matter: Matter, release: Release) -> Iterator[Answer]:
    for head in matter.view.heads:
        if head.release == release.digest:
            yield {
                "region": head.region,
                "since_ms": matter.at_ms(head.id) or 0,
                "heard_s": heard_s(matter.node, head.region, matter.clock),
            }


def _nodes(matter: Matter, release: Release) -> Iterator[Answer]:
    """Of our own region, also those that are silent now; of others only they know."""
    for name, status in sorted(matter.node.fleet.nodes.items()):
        report = status.models.get(matter.view.model)
        if report is not None and release.digest in (report.running, *report.ready):
            yield {
                "node": name,
                "runs": report.running == release.digest,
                "online": status.online(matter.clock.now_s),
                "seen_s": max(0.0, matter.clock.now_s - status.seen_s),
            }
