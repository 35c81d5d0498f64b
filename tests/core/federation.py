"""A small federation for tests: three regions, their keys, and logs that are valid."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hanse.core import events
from hanse.core.catalog.catalog import Catalog
from hanse.core.catalog.healed import LABEL
from hanse.core.catalog.manifest import File, Manifest, Parent, Variant
from hanse.core.catalog.view import ModelView
from hanse.core.events import Body, Event
from hanse.core.ids import Digest, EventId, Origin, member_id, segment, version
from hanse.core.logbook import Logbook, header
from hanse.core.rollout.spec import canonical, parse_spec
from hanse.core.signing import SigningKey
from hanse.core.step import AppendEvents
from hanse.core.trust import chain, statements
from hanse.core.trust.mandate import Mandate, template_of
from hanse.core.trust.members import Member, Members, Person, Region
from hanse.rpc.codec import EventCodec

PEM = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"
REGIONS = ("eu", "us", "ap")
MODEL = segment("ocr")
CODEC = EventCodec()


def key(name: str) -> SigningKey:
    return SigningKey(Digest.of(name.encode()).raw)


ROOT, OPERATOR = key("root"), key("operator")


def origin(region: str, incarnation: int = 1) -> Origin:
    salt = f"{incarnation:08x}" if incarnation > 1 else ""
    member = member_id(key(region).public)
    return Origin(segment("acme"), segment(region), member, incarnation, salt)


def members(**changes: Any) -> Members:
    roles = ("publisher", "release-manager", "operator")
    return replace(
        Members(
            segment("acme"),
            1,
            (ROOT.public,),
            1,
            "seed",
            tuple(Region(segment(r), PEM) for r in REGIONS),
            tuple(Member(segment(r), key(r).public, PEM, f"{r}:7421") for r in REGIONS),
            (Person("operator", OPERATOR.public, roles, ("*",)),),
        ),
        **changes,
    )


CHAIN = chain.replay((chain.sign(members(), (ROOT,)),))


def manifest(
    name: str,
    parents: Iterable[Digest] = (),
    weights: str = "",
    answers: EventId | None = None,
) -> Manifest:
    """`answers` names the RETRAIN that the release was trained for."""
    file = File(segment("model.onnx"), Digest.of(f"weights {weights or name}".encode()), 9)
    return Manifest(
        MODEL,
        version(name),
        (file,),
        (Variant(segment("onnx"), "onnx", file.name),),
        (),
        (),
        parents=tuple(Parent(p, "retrained-from") for p in parents),
        labels={LABEL: answers.raw.hex()} if answers else {},
    )


def plan(
    release: Digest,
    generation: int,
    predecessor: Digest | None = None,
    regions: Sequence[str] = REGIONS,
    **spec: Any,
) -> bytes:
    steps = [
        {"setWeight": 50},
        {"analysis": {"templates": ["safety"], "minSamples": 10}},
        {"setWeight": 100},
    ]
    metric = {
        "name": "errors",
        "test": "one-arm",
        "event": "error",
        "slo": "5%",
        "provenBelow": "5%",
    }
    stages: list[dict[str, Any]] = [{"name": "all", "regions": list(regions), "steps": steps}]
    document = {
        "apiVersion": "hanse.dev/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": f"r-{generation}", "model": MODEL, "generation": generation},
        "spec": {
            "release": str(release),
            "predecessor": str(predecessor) if predecessor else None,
            "stages": stages,
            "templates": {"safety": {"alpha": 0.01, "metrics": [metric]}},
            **spec,
        },
    }
    return canonical(parse_spec(document))


def control(action: str, **scope: str | int) -> bytes:
    return statements.sign_control(statements.control_statement(action, MODEL, **scope), [OPERATOR])


@dataclass
class Author:
    """Writes one log. `appends` are what peers and stores receive, in order."""

    region: str
    hlc_ms: int = 1_000
    book: Logbook = field(default_factory=lambda: Logbook(CODEC, CHAIN))
    appends: list[AppendEvents] = field(default_factory=list)

    @property
    def origin(self) -> Origin:
        return origin(self.region)

    def write(
        self, *bodies: Body, attest: Sequence[bytes] = (), supersedes: Sequence[EventId] = ()
    ) -> EventId:
        """One group commit; returns the id of its last event."""
        raws = []
        for i, body in enumerate(bodies):
            seq = self.book.size(self.origin) + i
            head = header(self.origin, seq, self.book.chain, bytes(32), self.hlc_ms)
            head = head._replace(attestations=tuple(attest), supersedes=tuple(supersedes))
            raws.append(CODEC.encode(Event(head, body)))
        append, entries = self.book.author(self.origin, key(self.region), tuple(raws))
        self.appends.append(append)
        return entries[-1].id

    # -- the events that need a person ------------------------------------------

    def release(self, made: Manifest, counter: int) -> Digest:
        raw = made.encode()
        digest = Digest.of(raw)
        name = f"{made.model}@{made.version}"
        signed = statements.sign_release(name, digest, counter, [OPERATOR])
        body = events.ReleaseRecord(made.model, made.version, counter, raw)
        self.write(body, attest=[signed])
        return digest

    def mandated(self, raw: bytes, uses: int = 2, **changed: Any) -> EventId:
        """A plan that a daemon starts by itself, under a mandate for exactly such plans."""
        spec = parse_spec(json.loads(raw))
        plan = Digest.of(template_of(json.loads(raw)))
        statement = replace(Mandate(MODEL, plan, uses), **changed).encode()
        body = events.RolloutIntent(
            spec.model,
            spec.name,
            spec.generation,
            spec.release,
            spec.predecessor,
            raw,
            statement,
        )
        return self.write(body, attest=[statements.sign_control(statement, [OPERATOR])])

    def retrain(self, release: Digest, hold: EventId, cause: str = "serving") -> EventId:
        return self.write(events.Retrain(MODEL, segment(self.region), release, hold, cause, "w"))

    def result(self, asked: EventId, outcome: str, release: Digest | None = None) -> EventId:
        body = events.RetrainResult(MODEL, segment(self.region), asked, outcome, release)
        return self.write(body)

    def retire(self, release: Digest, phase: str = "retired") -> EventId:
        signed = control("retire", release=str(release), phase=phase)
        body = events.ReleaseRetire(MODEL, release, phase, "old")
        return self.write(body, attest=[signed])

    def intent(self, raw: bytes) -> EventId:
        spec = parse_spec(json.loads(raw))
        signed = statements.sign_control(statements.rollout_statement(spec.model, raw), [OPERATOR])
        body = events.RolloutIntent(
            spec.model, spec.name, spec.generation, spec.release, spec.predecessor, raw
        )
        return self.write(body, attest=[signed])

    def promote(
        self, raw: bytes, manifest_size: int, counter: int, replaced: Sequence[EventId] = ()
    ) -> EventId:
        spec = parse_spec(json.loads(raw))
        body = events.Promote(
            MODEL,
            segment(self.region),
            spec.release,
            manifest_size,
            counter,
            spec.name,
            spec.generation,
        )
        return self.write(body, supersedes=replaced)

    def healthy(self, raw: bytes) -> EventId:
        spec = parse_spec(json.loads(raw))
        proof = Digest.of(b"evidence").raw
        body = events.Healthy(
            MODEL,
            spec.release,
            spec.name,
            spec.generation,
            segment(self.region),
            Digest.of(raw).raw,
            proof,
        )
        return self.write(body)

    def hold(self, release: Digest | None, reason: str = "worse") -> EventId:
        return self.write(events.Hold(MODEL, segment(self.region), release, reason))

    def lift(self, hold: EventId) -> EventId:
        return self.write(
            events.HoldLift(MODEL, hold), attest=[control("lift", hold=hold.raw.hex())]
        )

    def kill(self, release: Digest) -> EventId:
        signed = control("kill", release=str(release))
        return self.write(events.Kill(MODEL, release, "bad"), attest=[signed])

    def floor(self, counter: int) -> EventId:
        body = events.FloorRaise(MODEL, counter, "too old")
        return self.write(body, attest=[control("floor", counter=counter)])

    def rollback(self, active: EventId, bad: Digest, to: Digest) -> EventId:
        return self.write(events.Rollback(MODEL, segment(self.region), active, bad, to, "worse"))


class Reader:
    """A daemon without a network: a log book and a catalog that take appends."""

    def __init__(self, quorum: int = 2) -> None:
        self.book = Logbook(CODEC, CHAIN)
        self.catalog = Catalog(quorum)

    def take(self, append: AppendEvents) -> None:
        head = append.head
        added = self.book.extend(head.origin, append.start, append.events, head.note)
        for entry in added[1] if added else ():
            self.catalog.add(entry)

    def read(self, authors: Iterable[Author]) -> Reader:
        for author in authors:
            for append in author.appends:
                self.take(append)
        self.catalog.refold()
        return self

    @property
    def view(self) -> ModelView:
        self.catalog.refold()
        return self.catalog.views[MODEL]
