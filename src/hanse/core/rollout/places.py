"""Which regions a stage reaches that names them by their labels.

    regions: {matchLabels: {tier: standard}, maxParallel: 2}

Labels of regions stand in the trust file, signed like everything in it. A plan with such a stage
cites one trust version in `metadata.trustVersion`, under its own signatures, and every daemon
resolves it from that version: a later one, whenever it arrives, moves nobody into a plan or out
of it. Regions are taken in the order of their names; one that an earlier stage reaches already
stays there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hanse.core.errors import InvalidSpec
from hanse.core.ids import Segment
from hanse.core.limits import LABELS_MAX
from hanse.core.rollout.fields import LIST_MAX, Fields, fail, label, name, whole

if TYPE_CHECKING:
    from hanse.core.rollout.plan import RolloutSpec

Labels = Mapping[Segment, Mapping[str, str]]
"""Of every region of a trust version."""
Places = Callable[[int], Labels | None]
"""The labels of a trust version; None for one that is not known."""


def nowhere(_: int) -> Labels | None:
    return None


@dataclass(frozen=True, slots=True)
class Selector:
    """Regions that carry all these labels; at most `parallel` of them have begun and not ended."""

    match: tuple[tuple[Segment, str], ...]
    parallel: int | None = None

    def selects(self, labels: Mapping[str, str]) -> bool:
        return all(labels.get(key) == value for key, value in self.match)


def parse_selector(value: object, path: str) -> Selector:
    fields = Fields.of(value, path, ("matchLabels", "maxParallel"))
    return Selector(
        fields.required("matchLabels", _match, "{tier: standard}"),
        fields.optional("maxParallel", whole(1, LIST_MAX), None),
    )


def selector_mapping(selector: Selector) -> dict[str, object]:
    parallel = {} if selector.parallel is None else {"maxParallel": selector.parallel}
    return {"matchLabels": dict(selector.match), **parallel}


def resolve(spec: RolloutSpec, labels: Labels) -> RolloutSpec:
    """The plan with the regions of every stage. Raises `InvalidSpec` for a stage that reaches
    nobody, or that waits for more regions than there are."""
    taken = {region for stage in spec.stages if stage.select is None for region in stage.regions}
    stages = []
    for i, stage in enumerate(spec.stages):
        if (select := stage.select) is None:
            stages.append(stage)
            continue
        found = (r for r in sorted(labels) if select.selects(labels[r]) and r not in taken)
        regions = tuple(found)
        if not 0 < len(regions) <= LIST_MAX:
            wanted = ", ".join(f"{key}={value}" for key, value in select.match)
            raise fail(
                f"spec.stages[{i}].regions",
                f"{len(regions)} regions carry {wanted} and are in no other stage",
                f"write labels that 1 to {LIST_MAX} regions have: hanse trust show",
            )
        taken |= set(regions)
        stages.append(replace(stage, regions=regions))
    resolved = replace(spec, stages=tuple(stages))
    check_quorums(resolved)
    return resolved


def check_quorums(spec: RolloutSpec) -> None:
    """Refuse to wait for more regions than a stage has, as far as they are known."""
    by_name = {stage.name: stage for stage in spec.stages}
    for i, stage in enumerate(spec.stages):
        if stage.requires is None or not by_name[stage.requires.stage].regions:
            continue
        regions = len(by_name[stage.requires.stage].regions)
        if stage.requires.quorum(regions) > regions:
            raise fail(
                f"spec.stages[{i}].requires.healthy",
                f"{stage.requires.healthy} of {regions} regions can never be healthy",
                f"write all, majority or 1 to {regions}",
            )


def _match(value: object, path: str) -> tuple[tuple[Segment, str], ...]:
    if not isinstance(value, Mapping) or not 0 < len(value) <= LABELS_MAX:
        raise fail(path, "is not a mapping of labels", "write {tier: standard}")
    pairs = [(name(key, path), label(text, f"{path}.{key}")) for key, text in value.items()]
    return tuple(sorted(pairs))


def parse_labels(pairs: Mapping[str, str], path: str) -> dict[str, str]:
    """Labels of a region, as the trust file carries them. Raises `InvalidSpec`."""
    if len(pairs) > LABELS_MAX:
        raise InvalidSpec(f"{path}: more than {LABELS_MAX} labels", fix="remove some")
    return {name(key, path): label(text, f"{path}.{key}") for key, text in sorted(pairs.items())}
