"""All models together: facts come in, one model at a time is folded again, views go out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import sha256

from hanse.core.catalog.facts import ModelFacts, Record
from hanse.core.catalog.finals import EVERYTHING, WITNESSED, Finals
from hanse.core.catalog.fold import NO_FLOORS, activations, fold
from hanse.core.catalog.view import Activation, ModelView, Release
from hanse.core.events import BlobDrop, BlobHave, ReleaseRecord, model_of
from hanse.core.ids import Digest, EventId, Origin, Segment
from hanse.core.log.merkle import leaf_hash, root_of
from hanse.core.logbook import Entry
from hanse.core.rollout.places import Places, nowhere
from hanse.core.step import PutIndex, PutView, Write
from hanse.core.trust.members import Floors


class Catalog:
    """Owned by the node. Views change only in `refold`, so one step sees one state."""

    def __init__(
        self,
        quarantine_quorum: int,
        finals: Finals = EVERYTHING,
        floors: Floors = NO_FLOORS,
        places: Places = nowhere,
    ) -> None:
        self.views: dict[Segment, ModelView] = {}
        self.quarantine_quorum = quarantine_quorum
        self.finals = finals
        self.floors = floors
        self._places = places  # a version of trust, once known, never says anything else
        self._facts: dict[Segment, ModelFacts] = {}
        self._digests: dict[Segment, bytes] = {}
        self._state_digest: bytes | None = None
        self._dirty: set[Segment] = set()
        self._not_final: dict[Origin, dict[Segment, int]] = {}
        """The first event of each log and model whose finality the fold still waits for."""
        self._serves: dict[Digest, set[str]] = {}

    def add(self, entry: Entry) -> None:
        """Take an event that has entered its log. Void events change nothing."""
        if entry.void:
            return
        body = entry.event.body
        model = model_of(body)
        if model is None:
            return
        if isinstance(body, BlobHave | BlobDrop):
            self._note_blobs(entry.origin.member, body)
            return
        facts = self._facts.setdefault(model, ModelFacts())
        record = Record(entry.id, entry.origin, entry.event)
        facts.add(record)
        self._dirty.add(model)
        if isinstance(body, WITNESSED) and not self.finals.covers(record):
            self._not_final.setdefault(entry.origin, {}).setdefault(model, entry.event.header.seq)

    def remove(self, origin: Origin) -> None:
        """Forget what one log says. Views change with the next `refold`."""
        self._not_final.pop(origin, None)
        for model, facts in self._facts.items():
            if facts.remove(origin):
                self._dirty.add(model)

    def refold(self) -> tuple[Write, ...]:
        """Fold the models that changed; what to store of their views."""
        writes: list[Write] = []
        for model in sorted(self._dirty):
            before = self.views.get(model)
            facts = self._facts[model]
            if not facts.records:  # all that was said of it is void: as if it had never been
                del self._facts[model]
                self._digests.pop(model, None)
                self.views.pop(model, None)
                continue
            view = fold(
                model, facts, self.quarantine_quorum, self.finals, self.floors, self._places
            )
            document = view.encode()
            self.views[model] = view
            self._digests[model] = sha256(document).digest()
            writes.append(PutView(model, self._digests[model], document))
            known = {r.digest for r in before.releases} if before else set()
            writes += [
                PutIndex(
                    str(r.digest),
                    model,
                    r.version,
                    tuple(str(p.release) for p in r.manifest.parents),
                )
                for r in view.releases
                if r.digest not in known
            ]
        if self._dirty:
            self._state_digest = None
        self._dirty.clear()
        return tuple(writes)

    def stored_views(self) -> tuple[Write, ...]:
        """Everything derived, anew: what a store whose views were dropped needs."""
        self._dirty |= set(self._facts)
        self.views.clear()
        return self.refold()

    def finalise(self, sizes: Mapping[Origin, int]) -> None:
        """Logs became final up to these sizes: models that wait for one of them change."""
        self.finals = replace(self.finals, sizes={**self.finals.sizes, **sizes})
        for origin, size in sizes.items():
            waiting = self._not_final.get(origin, {})
            for model in [m for m, seq in waiting.items() if seq < size]:
                self._dirty.add(model)
                later = self._waits_from(model, origin, size)
                if later is None:
                    del waiting[model]
                else:
                    waiting[model] = later

    def _waits_from(self, model: Segment, origin: Origin, size: int) -> int | None:
        seqs = (
            record.event.header.seq
            for record in self._facts[model].records.values()
            if record.origin == origin and isinstance(record.event.body, WITNESSED)
        )
        return min((seq for seq in seqs if seq >= size), default=None)

    def rejudge(self, quarantine_quorum: int, finals: Finals, floors: Floors = NO_FLOORS) -> None:
        """A new trust version may change quorums, policy and floors: then all is folded again."""
        asked = (quarantine_quorum, finals, floors)
        if asked == (self.quarantine_quorum, self.finals, self.floors):
            return
        self.quarantine_quorum, self.finals, self.floors = asked
        self._dirty |= set(self._facts)
        self._not_final.clear()
        for model, facts in self._facts.items():
            for record in facts.records.values():
                if isinstance(record.event.body, WITNESSED) and not finals.covers(record):
                    first = self._not_final.setdefault(record.origin, {})
                    seq = record.event.header.seq
                    first[model] = min(seq, first.get(model, seq))

    def serves(self, digest: Digest) -> list[str]:
        """Members that said they have this blob: a hint, never authority."""
        return sorted(self._serves.get(digest, ()))

    def find(self, release: Digest) -> tuple[Segment, ReleaseRecord] | None:
        """The record of a release, whichever model it belongs to."""
        for model in sorted(self._facts):
            for _, body in self._facts[model].of(ReleaseRecord):
                if body.release == release:
                    return model, body
        return None

    def release(self, digest: Digest) -> Release | None:
        """What is known of a release, whichever model it belongs to."""
        found = self.find(digest)
        return self.views[found[0]].release(digest) if found else None

    def records(self, model: Segment) -> list[Record]:
        """Every record of a model in the shared order, for `why` and for auditors."""
        facts = self._facts.get(model)
        return sorted(facts.records.values(), key=lambda r: r.key) if facts else []

    def record(self, model: Segment, id_: EventId) -> Record | None:
        facts = self._facts.get(model)
        return facts.records.get(id_) if facts else None

    def activations(self, model: Segment) -> dict[EventId, tuple[Record, Activation]]:
        """Every activation of a model that counts, the replaced ones too, for auditors."""
        return activations(self._facts[model], self.quarantine_quorum, self.finals, self._places)

    @property
    def state_digest(self) -> bytes:
        """RFC 6962 root over the view digests in model order; equal on equal events."""
        if self._state_digest is None:
            self._state_digest = root_of(
                leaf_hash(model.encode() + b"\0" + digest)
                for model, digest in sorted(self._digests.items())
            )
        return self._state_digest

    def _note_blobs(self, member: str, body: BlobHave | BlobDrop) -> None:
        for digest in body.digests:
            holders = self._serves.setdefault(digest, set())
            if isinstance(body, BlobHave):
                holders.add(member)
            else:
                holders.discard(member)


def latest_views(views: Iterable[Write]) -> list[Write]:
    """A model folded twice in one step is stored once, as it ended."""
    latest: dict[tuple[type, str], Write] = {}
    for write in views:
        latest[type(write), getattr(write, "release", getattr(write, "model", ""))] = write
    return list(latest.values())
