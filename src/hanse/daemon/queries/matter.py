"""What a question is about: one model, as its view and the signed events behind it.

A name that nobody knows is answered with the names that are near it, because the question is
most often asked by somebody who is in a hurry and has mistyped.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from hanse.core.catalog.facts import Record
from hanse.core.catalog.view import ModelView, Release, RolloutView
from hanse.core.errors import Conflict, InvalidSpec, NotFound
from hanse.core.events import Body, ReleaseRecord, RolloutIntent
from hanse.core.ids import Digest, EventId, Segment
from hanse.core.node import Clock, Node
from hanse.core.reading import Reader
from hanse.core.situation import Execution
from hanse.core.trust.authority import signed_by

Args = Mapping[str, Any]
Answer = dict[str, Any]
B = TypeVar("B", bound=Body)


@dataclass(frozen=True, slots=True)
class Matter:
    """One model at one moment; its valid events in the order that all daemons share."""

    node: Node
    clock: Clock
    view: ModelView
    by_id: Mapping[EventId, Record]

    @classmethod
    def of(cls, node: Node, clock: Clock, model: str | None) -> Matter:
        """Raises `NotFound` with near names, `InvalidSpec` without a name."""
        if model is None:
            raise InvalidSpec("model: missing", fix="name the model")
        view = node.catalog.views.get(Segment(model))
        if view is None:
            raise NotFound(
                f"there is no model {plain(model, 80)}", fix=near(model, node.catalog.views)
            )
        records = node.catalog.records(view.model)
        return cls(node, clock, view, {record.id: record for record in records})

    @classmethod
    def all(cls, node: Node, clock: Clock, model: str | None = None) -> list[Matter]:
        """Every model, or the one that is named."""
        names = [model] if model is not None else sorted(node.catalog.views)
        return [cls.of(node, clock, name) for name in names]

    # -- people, times, names --------------------------------------------------

    def by(self, record: Record) -> str:
        """The people whose signature the event carries; empty if a daemon spoke for itself."""
        members = self.node.book.chain.at(record.event.header.trust_version)
        if members is None:
            return ""
        found = signed_by(record.event, record.origin, members)
        return ", ".join(sorted(members.name_of(m) for m in found))

    def record(self, id_: EventId) -> Record | None:
        return self.by_id.get(id_)

    def at_ms(self, id_: EventId) -> int | None:
        record = self.record(id_)
        return record.event.header.hlc_ms if record else None

    def latest(self, kind: type[B], **fields: object) -> tuple[Record, B] | None:
        """The author's last event of a kind whose body has these fields."""
        found = None
        for record in self.records:
            body = record.event.body
            if isinstance(body, kind) and all(getattr(body, k) == v for k, v in fields.items()):
                found = record, body
        return found

    def version(self, digest: Digest) -> str:
        release = self.view.release(digest)
        return release.version if release else digest.short

    def ref(self, digest: Digest | None) -> Answer | None:
        if digest is None:
            return None
        release = self.view.release(digest)
        return {"release": str(digest), "version": release.version if release else ""}

    def heading(self, rollout: RolloutView) -> Answer:
        """What every answer about a rollout begins with."""
        return {
            "model": self.view.model,
            "rollout": rollout.rollout,
            "generation": rollout.generation,
            "release": self.ref(rollout.release),
            "predecessor": self.ref(rollout.predecessor),
        }

    # -- what the question names -----------------------------------------------

    def release(self, version: str | None, digest: str | None) -> Release:
        """By digest, else by version. Raises `NotFound`, or `Conflict` if several carry it."""
        releases = self.view.releases
        if digest is not None:
            found = [r for r in releases if str(r.digest) == digest]
        elif version is not None:
            found = list(self.view.versions(version))
        else:
            raise InvalidSpec("version: missing", fix="name a version or a release digest")
        if len(found) > 1:
            digests = ", ".join(str(r.digest) for r in found)
            raise Conflict(
                f"{len(found)} releases of {self.view.model} carry version {version}",
                fix=f"name one by its digest: {digests}",
            )
        if not found:
            named = plain(digest or version or "", 80)
            known = [str(r.digest) for r in releases] if digest else [r.version for r in releases]
            raise NotFound(f"{self.view.model} has no release {named}", fix=near(named, known))
        return found[0]

    def execution(self, rollout: RolloutView) -> Execution | None:
        """Our own region's part, if it has begun."""
        return self.node.region.execution(self.view, rollout)

    @property
    def records(self) -> Iterable[Record]:
        return self.by_id.values()

    @property
    def own(self) -> Segment:
        return self.node.region.name


def asked(args: Args, verb: str, *keys: str) -> tuple[str | None, ...]:
    """The texts of a request, in the order of `keys`; absent, null and empty are None."""
    with Reader(args, verb) as reader:
        return tuple(reader.text(key, None) or None for key in keys)


def near(name: str, known: Iterable[str]) -> str:
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known: {', '.join(names[:10])}" if names else "none is known here yet"


def plain(text: str, chars_max: int = 480) -> str:
    """Text that others wrote, on one line and without what could steer a terminal (T42)."""
    line = "".join(c if c.isprintable() else " " for c in text[:chars_max])
    return " ".join(line.split())


def in_time(records: Iterable[Record]) -> Iterator[Record]:
    """Oldest first by the authors' clocks, which are good for reading and for nothing else."""

    def key(record: Record) -> tuple[int, bool, tuple[object, ...]]:
        # Within one millisecond the cause comes first: nothing can precede a release or a plan.
        first = isinstance(record.event.body, ReleaseRecord | RolloutIntent)
        return (record.event.header.hlc_ms, not first, record.key)

    return iter(sorted(records, key=key))
