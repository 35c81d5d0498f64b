"""All models together: facts come in, one model at a time is folded again, views go out."""

from __future__ import annotations

from hashlib import sha256

from hanse.core.catalog.facts import ModelFacts, Record
from hanse.core.catalog.fold import activations, fold
from hanse.core.catalog.view import Activation, ModelView
from hanse.core.events import BlobDrop, BlobHave, ReleaseRecord, model_of
from hanse.core.ids import Digest, EventId, Segment
from hanse.core.log.merkle import leaf_hash, root_of
from hanse.core.logbook import Entry
from hanse.core.step import PutIndex, PutView, Write


class Catalog:
    """Owned by the node. Views change only in `refold`, so one step sees one state."""

    def __init__(self, quarantine_quorum: int) -> None:
        self.views: dict[Segment, ModelView] = {}
        self.quarantine_quorum = quarantine_quorum
        self._facts: dict[Segment, ModelFacts] = {}
        self._digests: dict[Segment, bytes] = {}
        self._dirty: set[Segment] = set()
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
        facts.add(Record(entry.id, entry.origin, entry.event))
        self._dirty.add(model)

    def refold(self) -> tuple[Write, ...]:
        """Fold the models that changed; what to store of their views."""
        writes: list[Write] = []
        for model in sorted(self._dirty):
            before = self.views.get(model)
            view = fold(model, self._facts[model], self.quarantine_quorum)
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
        self._dirty.clear()
        return tuple(writes)

    def stored_views(self) -> tuple[Write, ...]:
        """Everything derived, anew: what a store whose views were dropped needs."""
        self._dirty |= set(self._facts)
        self.views.clear()
        return self.refold()

    def rejudge(self, quarantine_quorum: int) -> None:
        """A new members file may change the quorum: every model is folded again."""
        if quarantine_quorum != self.quarantine_quorum:
            self.quarantine_quorum = quarantine_quorum
            self._dirty |= set(self._facts)

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

    def records(self, model: Segment) -> list[Record]:
        """Every record of a model in the shared order, for `why` and for auditors."""
        facts = self._facts.get(model)
        return sorted(facts.records.values(), key=lambda r: r.key) if facts else []

    def activations(self, model: Segment) -> dict[EventId, tuple[Record, Activation]]:
        """Every activation of a model that counts, the replaced ones too, for auditors."""
        return activations(self._facts[model], self.quarantine_quorum)

    @property
    def state_digest(self) -> bytes:
        """RFC 6962 root over the view digests in model order; equal on equal events."""
        return root_of(
            leaf_hash(model.encode() + b"\0" + digest)
            for model, digest in sorted(self._digests.items())
        )

    def _note_blobs(self, member: str, body: BlobHave | BlobDrop) -> None:
        for digest in body.digests:
            holders = self._serves.setdefault(digest, set())
            if isinstance(body, BlobHave):
                holders.add(member)
            else:
                holders.discard(member)
