"""release.list, release.show, release.prepare: what was published, by whom, where it runs."""

from __future__ import annotations

from hanse.core.catalog.view import Release
from hanse.core.dsse import join
from hanse.core.events import ReleaseRecord
from hanse.core.ids import segment
from hanse.core.node import Clock, Node
from hanse.core.trust.authority import demand
from hanse.daemon.queries.matter import Answer, Args, Matter, asked


def release_list(node: Node, clock: Clock, args: Args) -> Answer:
    """release.list {model?}"""
    (model,) = asked(args, "release.list", "model")
    return {
        "releases": [
            _row(matter, release)
            for matter in Matter.all(node, clock, model)
            for release in reversed(matter.view.releases)
        ]
    }


def release_show(node: Node, clock: Clock, args: Args) -> Answer:
    """release.show {model, version | release}"""
    model, version, digest = asked(args, "release.show", "model", "version", "release")
    matter = Matter.of(node, clock, model)
    release = matter.release(version, digest)
    record = matter.record(release.recorded)
    body, known = record.event.body if record else None, matter.view.release
    assert record is not None
    assert isinstance(body, ReleaseRecord)
    return {
        **_row(matter, release),
        "manifest": body.manifest.decode(),
        "envelope": _envelope(matter, release).decode(errors="replace"),
        "trust_version": record.event.header.trust_version,
        "parent_versions": {
            str(parent.release): found.version if (found := known(parent.release)) else ""
            for parent in release.manifest.parents
        },
    }


def release_prepare(node: Node, clock: Clock, args: Args) -> Answer:
    """release.prepare {model}: a model that nobody knows yet begins at 1."""
    (model,) = asked(args, "release.prepare", "model")
    view = node.catalog.views.get(segment(model or "", "model"))
    return {"counter": max((r.counter for r in view.releases), default=0) + 1 if view else 1}


def _row(matter: Matter, release: Release) -> Answer:
    record = matter.record(release.recorded)
    return {
        "model": matter.view.model,
        "release": str(release.digest),
        "version": release.version,
        "counter": release.counter,
        "state": release.state,
        "proven": list(release.proven),
        "held": list(release.held),
        "active": sorted({a.region for a in matter.view.heads if a.release == release.digest}),
        "size": sum(file.size for file in release.manifest.files),
        "parents": [str(parent.release) for parent in release.manifest.parents],
        "by": matter.by(record) if record else "",
        "recorded_by": release.recorded_by,
        "event": str(release.recorded),
        "at_ms": matter.at_ms(release.recorded) or 0,
        "local": release.digest in matter.node.region.local,
    }


def _envelope(matter: Matter, release: Release) -> bytes:
    """The publishers' envelope: those that ride on the event and verify, as one."""
    record = matter.record(release.recorded)
    members = matter.node.book.chain.at(record.event.header.trust_version) if record else None
    if record is None or members is None:
        return b""
    asks = demand(record.event.body, record.origin, members)
    found = [raw for raw in record.event.header.attestations if asks and asks.signers((raw,))]
    return join(found) if found else b""
