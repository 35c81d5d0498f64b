"""lineage: what each release was made from, and where each of them runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hanse.core.catalog.residency import may_lie
from hanse.core.catalog.view import Release
from hanse.core.ids import Digest
from hanse.core.node import Clock, Node
from hanse.daemon.queries.matter import Answer, Args, Matter, asked
from hanse.daemon.queries.parts import newest_part


def lineage(node: Node, clock: Clock, args: Args) -> Answer:
    """lineage {model, version? | release?}"""
    model, version, digest = asked(args, "lineage", "model", "version", "release")
    matter = Matter.of(node, clock, model)
    parents = {r.digest: [p.release for p in r.manifest.parents] for r in matter.view.releases}
    if version is None and digest is None:
        shown = {*parents, *(p for found in parents.values() for p in found)}
    else:
        start = matter.release(version, digest).digest
        children: dict[Digest, list[Digest]] = {}
        for child, found in parents.items():
            for parent in found:
                children.setdefault(parent, []).append(child)
        shown = _reach(start, parents) | _reach(start, children)
    regions = _regions(matter)
    ordered = list(_parents_first(shown, parents))
    return {
        "model": matter.view.model,
        "nodes": [_node(matter, d, regions.get(d, {})) for d in ordered],
        "edges": [
            {"child": str(d), "parent": str(p.release), "relation": p.relation}
            for d in ordered
            if (release := matter.view.release(d)) is not None
            for p in release.manifest.parents
            if p.release in shown
        ],
    }


def _reach(start: Digest, onward: dict[Digest, list[Digest]]) -> set[Digest]:
    seen, waiting = {start}, [start]
    while waiting:
        fresh = [d for d in onward.get(waiting.pop(), ()) if d not in seen]
        seen.update(fresh)
        waiting += fresh
    return seen


def _parents_first(
    shown: Iterable[Digest], parents: dict[Digest, list[Digest]]
) -> Iterator[Digest]:
    """A digest covers its parents' digests, so there is no cycle; unknown ones come first."""
    order = {digest: i for i, digest in enumerate(parents)}  # by counter, as the view has them
    done: set[Digest] = set()
    stack = sorted(shown, key=lambda d: (order.get(d, -1), d), reverse=True)
    wanted = set(stack)
    while stack:
        digest = stack.pop()
        if digest in done:
            continue
        before = [p for p in parents.get(digest, ()) if p in wanted and p not in done]
        if before:
            stack += [digest, *before]
        else:
            done.add(digest)
            yield digest


def _regions(matter: Matter) -> dict[Digest, dict[str, str]]:
    """Per release, what it is in each region: active before canary, held and proven."""
    found: dict[Digest, dict[str, str]] = {}
    for release in matter.view.releases:
        words = dict.fromkeys(release.proven, "proven") | dict.fromkeys(release.held, "held")
        found[release.digest] = words
    for region in matter.node.book.chain.current.regions:
        part = newest_part(matter, region.name)
        if part is not None and part.live and part.exposed:
            found.setdefault(part.rollout.release, {})[region.name] = "canary"
    for head in matter.view.heads:
        found.setdefault(head.release, {})[head.region] = "active"
    return found


def _node(matter: Matter, digest: Digest, regions: dict[str, str]) -> Answer:
    release = matter.view.release(digest)
    if release is None:
        return _unrecorded(matter, digest)
    record = matter.record(release.recorded)
    return {
        "release": str(digest),
        "version": release.version,
        "counter": release.counter,
        "parents": [
            {"release": str(p.release), "relation": p.relation} for p in release.manifest.parents
        ],
        "regions": dict(sorted(regions.items())),
        "training_data": _training_data(release),
        "residency": _residency(matter, release),
        "barred": release.barred,
        "retired": release.retired,
        "proven": list(release.proven),
        "by": matter.by(record) if record else "",
    }


def _unrecorded(matter: Matter, digest: Digest) -> Answer:
    """A parent that this model does not record; another model may, and then gives its version."""
    found = matter.node.catalog.find(digest)
    return {
        "release": str(digest),
        "version": f"{found[0]}@{found[1].version}" if found else "",
        "counter": found[1].counter if found else 0,
        "parents": [],
        "regions": {},
        "training_data": [],
        "residency": [],
        "barred": False,
        "retired": "",
        "proven": [],
        "by": "",
    }


def _residency(matter: Matter, release: Release) -> list[str]:
    members = matter.node.book.chain.current
    found = [str(r.name) for r in members.regions if may_lie(release, r.name, members)]
    return ["*"] if len(found) == len(members.regions) else found


def _training_data(release: Release) -> list[str]:
    data = release.manifest.training_data
    return [f"{d.name}={d.digest}" if d.digest else d.name for d in data]
