"""What a region's nodes are told to serve: the view and our place in a rollout, as one order.

The assignment is rebuilt from scratch each time and sent only when it says something new; its
serial rises by one then. The epoch is the incarnation of our log: a daemon that lost its
counter has opened a new incarnation, so its nodes still know the newer word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Protocol

from hanse.core import limits
from hanse.core.assignment import (
    Assignment,
    ModelAssignment,
    Source,
    parse_assignment,
    signed_bytes,
)
from hanse.core.audience import EVERYBODY
from hanse.core.catalog.lineage import (
    brought_by,
    rollback_target,
    rollback_targets,
    warm_targets,
)
from hanse.core.catalog.view import ModelView, Release
from hanse.core.effects import PublishAssignment
from hanse.core.ids import Digest, Origin, Segment
from hanse.core.rollout.plan import RolloutSpec
from hanse.core.rollout.progress import Progress
from hanse.core.rollout.spec import salt_of
from hanse.core.rollout.table import TERMINAL, State
from hanse.core.signing import SigningKey
from hanse.core.step import PutLocal, Write
from hanse.core.trust.members import Members

SPACE = "duty"
SERIAL_MAX = 2**52
SLOW_LABEL = "slow_ms"
_NOT_YET = (State.PENDING, State.GATED, State.ROLLING_BACK)


class Executing(Protocol):
    """As much of `region.Execution` as an assignment needs."""

    @property
    def plan(self) -> RolloutSpec: ...
    @property
    def progress(self) -> Progress: ...


def assign(
    view: ModelView, region: Segment, execution: Executing | None, local: set[Digest]
) -> ModelAssignment | None:
    """What the nodes of `region` serve of one model; None while there is nothing to serve."""
    active = _active(view, region)
    candidate = execution if execution is not None and _offered(execution, local) else None
    if active is None and candidate is None:
        return None
    plan, progress = (candidate.plan, candidate.progress) if candidate else (None, None)
    release = plan.release if plan else None
    if active is not None and release == active.digest:
        plan = progress = release = None
    return ModelAssignment(
        model=view.model,
        active=active.digest if active else None,
        candidate=release,
        rollout=plan.name if plan else "",
        generation=plan.generation if plan else 0,
        weight_bp=progress.weight_percent * 100 if progress else 0,
        shadow_bp=progress.shadow_percent * 100 if progress else 0,
        salt=salt_of(plan) if plan else "",
        last_good=_last_good(view, region, active, plan, local),
        barred=_barred(view, region, active),
        slow_ms=_slow_ms(view, release or (active.digest if active else None)),
        audience=plan.audience if plan else EVERYBODY,
        whole_nodes=plan is not None and plan.nodes.assign == "node",
    )


def _active(view: ModelView, region: Segment) -> Release | None:
    """The region's activation; a killed or quarantined one gives way to its target."""
    head = view.active(region)
    release = view.release(head.release) if head else None
    if release is not None and (release.killed or release.quarantined):
        return rollback_target(view, release.digest, region)
    return release


def _offered(execution: Executing, local: set[Digest]) -> bool:
    progress = execution.progress
    return (
        progress.active not in _NOT_YET
        and progress.state not in TERMINAL
        and execution.plan.release in local
    )


def _last_good(
    view: ModelView,
    region: Segment,
    active: Release | None,
    trial: RolloutSpec | None,
    local: set[Digest],
) -> tuple[Digest, ...]:
    """Where to go back to from what is active, then what else the plan on trial keeps on disks."""
    found: list[Release] = []
    if active is not None:
        plan = brought_by(view, active.digest, region)
        count = plan.rollback.prefetch if plan else 1
        found += islice(rollback_targets(view, active.digest, region), count)
    if trial is not None:
        found += (r for r in warm_targets(view, trial, region) if r != active)
    there = dict.fromkeys(r.digest for r in found if r.digest in local)
    return tuple(there)[: limits.LAST_GOOD_MAX]


def _barred(view: ModelView, region: Segment, active: Release | None) -> tuple[Digest, ...]:
    """What no node here may route to. Another region's hold is that region's own affair."""
    return tuple(
        r.digest
        for r in view.releases
        if r.killed or r.quarantined or (region in r.held and r is not active)
    )[-256:]


def _slow_ms(view: ModelView, release: Digest | None) -> int | None:
    found = view.release(release) if release else None
    text = found.manifest.labels.get(SLOW_LABEL, "") if found else ""
    slow_ms = int(text[:9]) if text.isascii() and text.isdigit() else 0
    return slow_ms or None


def _within_reach(obeyed: tuple[int, int], order: tuple[int, int]) -> tuple[int, int]:
    """A node that lies must not use up the numbers: near the end of serials an epoch begins."""
    epoch, serial = obeyed
    if not order[0] <= epoch <= order[0] + limits.MEMBER_LOGS_MAX:
        return order
    return (epoch, serial) if serial < SERIAL_MAX else (epoch + 1, 0)


class Duty:
    """The last assignment that this daemon signed. Owned by the region."""

    def __init__(self, me: Origin, key: SigningKey) -> None:
        self.me, self._key = me, key
        self._last: Assignment | None = None
        self._raw = b""

    @property
    def order(self) -> tuple[int, int]:
        """Of the last assignment, or where a new incarnation of our log begins."""
        return max(self._last.order if self._last else (0, 0), (self.me.incarnation, 0))

    def told(self, model: Segment) -> ModelAssignment | None:
        """What the nodes were last told about one model."""
        models = self._last.models if self._last else ()
        return next((m for m in models if m.model == model), None)

    def restore(self, stored: Mapping[str, bytes]) -> PublishAssignment | None:
        """Take back the last assignment, so that serials never fall and nodes hear it again."""
        raw = stored.get("assignment")
        if raw is None:
            return None
        self._last, self._raw = parse_assignment(raw), raw
        return self._signed()

    def publish(
        self,
        models: Sequence[ModelAssignment],
        views: Mapping[Segment, ModelView],
        members: Members,
        obeyed: tuple[int, int] = (0, 0),
    ) -> PublishAssignment | None:
        """Sign an assignment if it says something new. Raises `Rejected` if it is too large.

        `obeyed` is the newest order that a node says it obeys. It is ahead of ours after our
        disk was restored, and nodes would take everything that we say for old news.
        """
        releases = {
            digest: release.manifest.encode()
            for model in models
            for digest in model.named
            if (release := views[model.model].release(digest)) is not None
        }
        sources = tuple(
            Source(m.address, m.region, m.tls_cert_pem)
            for m in sorted(members.members, key=lambda m: (m.id != self.me.member, m.id))
        )[:64]
        home = members.region(self.me.region)
        edge_ca_pem = home.edge_ca_pem if home else ""
        last, order = self._last, max(self.order, _within_reach(obeyed, self.order))
        if (
            last
            and last.order >= order
            and (last.models, last.releases, last.sources, last.edge_ca_pem)
            == (tuple(models), releases, sources, edge_ca_pem)
        ):
            return None
        epoch, serial = order
        assignment = Assignment(
            self.me.federation,
            self.me.region,
            epoch,
            serial + 1,
            tuple(models),
            releases,
            sources,
            edge_ca_pem,
        )
        self._raw, self._last = assignment.encode(), assignment
        return self._signed()

    def writes(self) -> list[Write]:
        return [PutLocal(SPACE, "assignment", self._raw)]

    def _signed(self) -> PublishAssignment:
        return PublishAssignment(self._raw, self._key.sign(signed_bytes(self._raw)))
