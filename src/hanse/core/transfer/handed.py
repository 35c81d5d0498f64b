"""What a daemon remembers of parts that it gave to nodes of its region, or told them where to get.

Two copies of a part leave; whoever asks for it within the next ten minutes is told which nodes
have it or are getting it. Who then insists gets it: a neighbour that has gone, is slow or lies
costs a detour, never the part. Those that led nowhere are not named again for that part.

    asked for the 1st and 2nd time    send it, remember the node
    for the 3rd time and so on        name up to three of the newest eight, remember this node too
    nobody to name, or it insists     send it

Forgetting is harmless: then a part leaves once more. A node that nobody can reach serves nobody
and is not remembered. Times are the local monotonic clock, in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from hanse.core.ids import Digest, Segment

COPIES = 2
LATELY_S = 600.0
NAMED_MAX = 3
NODES_REMEMBERED = 8
PARTS_REMEMBERED = 16_384

K = TypeVar("K")
V = TypeVar("V")


@dataclass(slots=True)
class _Handed:
    """Of one part: when its last copies left, who has it or is getting it, whom others were told.

    The newest come last.
    """

    left_s: tuple[float, ...] = ()
    nodes: dict[Segment, float] = field(default_factory=dict)
    told: dict[Segment, tuple[Segment, ...]] = field(default_factory=dict)


class Handed:
    """`reachable` says of a node whether others can reach it now."""

    def __init__(self, reachable: Callable[[Segment], bool], chance: Random) -> None:
        self._reachable, self._chance = reachable, chance
        self._parts: dict[tuple[Digest, int], _Handed] = {}

    def elsewhere(
        self,
        node: Segment,
        file: Digest,
        parts: Sequence[int],
        now_s: float,
        *,
        insist: bool = False,
        whole: Collection[Segment] = (),
    ) -> Mapping[int, tuple[Segment, ...]]:
        """Whom to ask for which of these parts; what is not in the answer is to be sent.

        `whole` are nodes that hold all of the file.
        """
        holders = self._chance.sample(sorted(whole), min(len(whole), NODES_REMEMBERED))
        places: dict[Segment, float] = {}  # one order for all parts, so that a batch stays together
        found = {}
        for part in parts:
            handed = self._of(file, part)
            if insist:
                for named in handed.told.pop(node, ()):
                    handed.nodes.pop(named, None)
            elif chosen := self._choose(handed, node, holders, places, now_s):
                found[part] = chosen
                _put(handed.told, node, chosen)
            if part not in found:
                handed.left_s = (*handed.left_s, now_s)[-COPIES:]
            if self._reachable(node):
                _put(handed.nodes, node, now_s)
        return found

    def _choose(
        self,
        handed: _Handed,
        node: Segment,
        holders: Sequence[Segment],
        places: dict[Segment, float],
        now_s: float,
    ) -> tuple[Segment, ...]:
        lately_s = now_s - LATELY_S
        if sum(1 for left_s in handed.left_s if left_s > lately_s) < COPIES:
            return ()
        recent = [n for n, when_s in handed.nodes.items() if when_s > lately_s]
        possible = {n for n in (*recent, *holders) if n != node and self._reachable(n)}
        for each in sorted(possible):
            places.setdefault(each, self._chance.random())
        return tuple(sorted(possible, key=lambda n: places[n])[:NAMED_MAX])

    def _of(self, file: Digest, part: int) -> _Handed:
        found = self._parts.pop((file, part), None) or _Handed()
        _put(self._parts, (file, part), found, PARTS_REMEMBERED)
        return found


def _put(kept: dict[K, V], key: K, value: V, count_max: int = NODES_REMEMBERED) -> None:
    """The newest stand last; the oldest goes when there are too many."""
    kept.pop(key, None)
    kept[key] = value
    if len(kept) > count_max:
        del kept[next(iter(kept))]
