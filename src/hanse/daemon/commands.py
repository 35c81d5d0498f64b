"""What a person may ask a daemon to do, as stimuli for its node.

Each function checks what can be checked, proposes events and returns a finisher: the driver
calls it once the events are stored, so that no answer is given before they are durable.
Every answer says what undoes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hanse.core import limits
from hanse.core.catalog.healed import LABEL as RETRAIN_LABEL
from hanse.core.catalog.lineage import rollback_target
from hanse.core.catalog.manifest import Manifest, parse_manifest
from hanse.core.catalog.view import ModelView, Release, RolloutView
from hanse.core.errors import Conflict, InvalidSpec, NotFound, NotPermitted
from hanse.core.events import (
    BlobHave,
    FloorRaise,
    Hold,
    HoldLift,
    Kill,
    ReleaseRecord,
    Rollback,
    RolloutControl,
    check_plain,
    check_text,
)
from hanse.core.ids import Digest, EventId, Segment, segment
from hanse.core.node import Node, Ticket
from hanse.core.retention import pin_of
from hanse.core.rollout.table import TERMINAL
from hanse.daemon.private_values import check_clear, keep
from hanse.storage.blobs import Blobs

Answer = Callable[[], dict[str, Any]]
Args = Mapping[str, Any]


def publish(node: Node, blobs: Blobs, args: Args, private: Sequence[str] = ()) -> Answer:
    """Record a release whose files are all in the blob store.

    `private` names what this region does not let out in clear.
    """
    raw, envelope = text_of(args, "manifest").encode(), text_of(args, "envelope").encode()
    manifest = parse_manifest(raw)
    check_plain(raw.decode(), "the manifest")
    missing = [f.name for f in manifest.files if not blobs.has(f.digest)]
    if missing:
        raise Conflict(
            f"these files have not been uploaded: {', '.join(missing)}", fix="upload them first"
        )
    check_clear(manifest, private)
    release = Digest.of(raw)
    view = node.catalog.views.get(manifest.model)
    if release in node.region.keeping.tombstones:
        return _brought_back(node, blobs, manifest, release)
    _check_new(view, manifest, release)
    counter = _counter(args, view)
    ticket = node.propose(
        ReleaseRecord(manifest.model, manifest.version, counter, raw), attestations=[envelope]
    )
    keep(node, release, manifest, args.get("openings") or {})
    _have(node, blobs, manifest, release)
    return lambda: {
        "event": event_of(ticket),
        "release": str(release),
        "undo": "nothing runs it yet, and a release is never unpublished: start no rollout of it",
    }


def control_rollout(node: Node, args: Args) -> Answer:
    """Pause, resume or abort, everywhere or in one region."""
    action, region = text_of(args, "action"), str(args.get("region") or "")
    if action not in ("pause", "resume", "abort"):
        raise InvalidSpec(f"{action!r} is not a word on a rollout", fix="pause, resume or abort")
    view = model_view(node, text_of(args, "model"))
    rollout = find_rollout(view, args.get("rollout"))
    envelope = args.get("envelope")
    ticket = node.propose(
        RolloutControl(
            view.model,
            rollout.rollout,
            rollout.generation,
            action,
            segment(region, "region") if region else "",
            check_text(str(args.get("reason") or ""), "reason"),
        ),
        supersedes=_pauses(node, rollout, region) if action == "resume" else (),
        attestations=[str(envelope).encode()] if envelope else (),
    )
    undo = {
        "pause": f"hanse rollout resume {view.model} {rollout.rollout}",
        "resume": f"hanse rollout pause {view.model} {rollout.rollout} --reason ...",
        "abort": "an aborted rollout is closed; start a new one of the same release",
    }[action]
    return lambda: {"event": event_of(ticket), "undo": undo}


def roll_back(node: Node, args: Args) -> Answer:
    """Take the region off its release: local records suffice, no peer is asked (invariant 8)."""
    view = model_view(node, text_of(args, "model"))
    reason = check_text(f"{text_of(args, 'reason')} (by {args.get('by') or 'operator'})", "reason")
    region = node.me.region
    running = _exposed(node, view)
    active = view.active(region)
    bad = running.release if running else active.release if active else None
    if bad is None:
        raise Conflict(f"nothing of {view.model} runs in {region}", fix="see hanse status")
    target = _chosen(view, region, args.get("to")) or _back_from(view, region, bad)
    if target is None:
        raise Conflict(
            f"no ancestor of {_name(view, bad)} is proven and free of holds",
            fix="name one with --to, or start a rollout of a good release",
        )
    tickets = [node.propose(Hold(view.model, region, bad, reason))]
    if running is not None:
        word = RolloutControl(
            view.model, running.rollout, running.generation, "abort", region, reason
        )
        tickets.append(node.propose(word))
    if active is not None and active.release == bad:
        tickets.append(
            node.propose(Rollback(view.model, region, active.id, bad, target.digest, reason))
        )
    return lambda: {
        "event": event_of(tickets[-1]),
        "region": region,
        "from": {"release": str(bad), "version": _name(view, bad)},
        "to": {"release": str(target.digest), "version": target.version},
        "undo": f"hanse unfreeze {view.model} --hold {_hex(tickets[0])[:12]}, "
        f"then a new rollout of {_name(view, bad)}",
    }


def freeze(node: Node, args: Args) -> Answer:
    """Stop forward moves of a model in this region. Rolling back stays possible."""
    model = segment(text_of(args, "model"), "model")
    model_view(node, model)
    reason = check_text(text_of(args, "reason"), "reason")
    until = args.get("until_ms")
    ticket = node.propose(
        Hold(model, node.me.region, None, reason, expires_ms=int(until) if until else 0)
    )
    return lambda: {
        "event": event_of(ticket),
        "hold": _hex(ticket),
        "undo": f"hanse unfreeze {model} --hold {_hex(ticket)[:12]}",
    }


def unfreeze(node: Node, args: Args) -> Answer:
    """Lift one of this region's holds; needs an operator's signature."""
    view = model_view(node, text_of(args, "model"))
    try:
        hold = EventId(bytes.fromhex(text_of(args, "hold")))
    except ValueError:
        raise InvalidSpec("a hold is named by 64 hex digits", fix="see hanse status") from None
    if not any(h.id == hold and h.region == node.me.region for h in view.holds):
        raise NotFound(
            f"{node.me.region} has no such hold on {view.model}",
            fix=f"hanse unfreeze {view.model} names those that it has",
        )
    ticket = node.propose(
        HoldLift(view.model, hold, check_text(str(args.get("reason") or ""), "reason")),
        attestations=[envelope_of(args)],
    )
    return lambda: {
        "event": event_of(ticket),
        "undo": f"hanse freeze {view.model} --reason ...",
    }


def kill(node: Node, args: Args) -> Answer:
    """Kill a release for ever. Needs neither fresh trust nor peers."""
    view, release = named_release(node, args)
    body = Kill(view.model, release.digest, check_text(text_of(args, "reason"), "reason"))
    ticket = node.propose(body, attestations=[envelope_of(args)])
    return lambda: {
        "event": event_of(ticket),
        "release": str(release.digest),
        "undo": "a kill is for ever; publish a new release with other model files",
    }


def raise_floor(node: Node, args: Args) -> Answer:
    """Bar every release of a model with a lower counter."""
    view, counter = model_view(node, text_of(args, "model")), args.get("counter")
    highest = max((r.counter for r in view.releases), default=0)
    if type(counter) is not int or not view.floor < counter <= highest:
        raise Conflict(
            f"the floor of {view.model} is {view.floor} and its newest release {highest}",
            fix="name a release above the floor",
        )
    reason = check_text(text_of(args, "reason"), "reason")
    ticket = node.propose(FloorRaise(view.model, counter, reason), attestations=[envelope_of(args)])
    return lambda: {
        "event": event_of(ticket),
        "floor": counter,
        "undo": f"hanse trust floor {view.model} {view.floor} --lower, with the root keys",
    }


def model_view(node: Node, model: str) -> ModelView:
    view = node.catalog.views.get(Segment(model))
    if view is None:
        known = ", ".join(sorted(node.catalog.views)) or "none yet"
        raise NotFound(f"there is no model {model[:80]!r}", fix=f"known models: {known}")
    return view


def named_release(node: Node, args: Args) -> tuple[ModelView, Release]:
    """The release that `model` and `release`, a digest, name. Raises `NotFound`."""
    view, digest = model_view(node, text_of(args, "model")), Digest.parse(text_of(args, "release"))
    release = view.release(digest)
    if release is None:
        raise NotFound(f"{view.model} has no release {digest.short}", fix="see release list")
    return view, release


def find_rollout(view: ModelView, name: object) -> RolloutView:
    """The named rollout, or the current one. The latest generation of that name counts."""
    found = [r for r in view.rollouts if not name or r.rollout == name]
    if not found:
        known = ", ".join(sorted({r.rollout for r in view.rollouts})) or "none yet"
        raise NotFound(f"{view.model} has no rollout {name!r}", fix=f"known: {known}")
    return found[-1]


def _check_new(view: ModelView | None, manifest: Manifest, release: Digest) -> None:
    for known in view.releases if view else ():
        if known.digest == release:
            raise Conflict(
                f"{manifest.model}@{manifest.version} is published already", fix="nothing to do"
            )
        if known.version == manifest.version:
            raise Conflict(
                f"version {manifest.version} of {manifest.model} is another release",
                fix="releases never change: publish under a new version",
            )
        key = manifest.labels.get(RETRAIN_LABEL)
        if key is not None and known.manifest.labels.get(RETRAIN_LABEL) == key:
            raise Conflict(
                f"retraining {key[:12]} is answered by {known.version} already",
                fix="nothing to do: a hook that is called again has published before",
            )


def _counter(args: Args, view: ModelView | None) -> int:
    counter = args.get("counter")
    highest = max((r.counter for r in view.releases), default=0) if view else 0
    if type(counter) is not int or counter != highest + 1:
        raise Conflict(f"the next release counter is {highest + 1}", fix="prepare again and sign")
    return counter


def _brought_back(node: Node, blobs: Blobs, manifest: Manifest, release: Digest) -> Answer:
    """Its record stands; only the files had been removed."""
    ticket = _have(node, blobs, manifest, release)
    return lambda: {
        "event": event_of(ticket),
        "release": str(release),
        "undo": "it was published before; hanse gc removes its files again when nothing reaches it",
    }


def _have(node: Node, blobs: Blobs, manifest: Manifest, release: Digest) -> Ticket:
    """Its files are here, and stay."""
    ticket = node.propose(BlobHave(manifest.model, tuple(f.digest for f in manifest.files)[:256]))
    for file in manifest.files:
        blobs.pin(file.digest, pin_of(release))
    node.region.have(release)
    return ticket


def _pauses(node: Node, rollout: RolloutView, region: str) -> list[EventId]:
    """The pauses that a resume of this scope ends: its own and, if everywhere, all."""
    found = []
    for record in node.catalog.records(_model_of(node, rollout)):
        body = record.event.body
        if (
            isinstance(body, RolloutControl)
            and body.action == "pause"
            and (body.rollout, body.generation) == (rollout.rollout, rollout.generation)
            and (not region or body.region in ("", region))
        ):
            found.append(record.id)
    return found[-limits.SUPERSEDES_MAX :]


def _model_of(node: Node, rollout: RolloutView) -> Segment:
    return next(m for m, view in node.catalog.views.items() if rollout in view.rollouts)


def _exposed(node: Node, view: ModelView) -> RolloutView | None:
    """The rollout that is under way here, if it has reached any traffic."""
    for rollout in reversed(view.rollouts):
        execution = node.region.execution(view, rollout)
        if execution and execution.progress.state not in TERMINAL and execution.progress.exposed:
            return rollout
    return None


def _back_from(view: ModelView, region: str, bad: Digest) -> Release | None:
    active = view.active(region)
    if active is not None and active.release != bad:
        return view.release(active.release)
    return rollback_target(view, bad, region)


def _chosen(view: ModelView, region: str, to: object) -> Release | None:
    if not to:
        return None
    found = [r for r in view.releases if to in (r.version, str(r.digest))]
    if not found:
        raise NotFound(
            f"{view.model} has no release {to!r}", fix=f"see hanse release list {view.model}"
        )
    if len(found) > 1:
        raise Conflict(f"{to} names several releases", fix="name its digest")
    release = found[0]
    if release.barred or not release.proven:
        raise NotPermitted(
            f"{release.version} is {release.state}: a rollback goes to a proven release only",
            fix="choose another with --to, or start a rollout",
        )
    if not release.fit(region):
        raise NotPermitted(
            f"nothing that {region} wrote vouches for {release.version}, and no witnesses do yet",
            fix="choose another with --to, or wait until its record and proof are final",
        )
    return release


def _name(view: ModelView, digest: Digest) -> str:
    release = view.release(digest)
    return release.version if release else digest.short


def text_of(args: Args, key: str) -> str:
    value = args.get(key)
    if not isinstance(value, str) or not value:
        raise InvalidSpec(f"{key}: missing", fix=f"give {key} as a text")
    return value


def envelope_of(args: Args) -> bytes:
    return text_of(args, "envelope").encode()


def event_of(ticket: Ticket) -> str:
    return str(ticket.event)


def _hex(ticket: Ticket) -> str:
    assert ticket.event is not None
    return ticket.event.raw.hex()
