"""Which reports of edge nodes have been counted, also across a restart.

A report that was not acknowledged comes again under its number, perhaps to the next process.
The numbers are stored in the very transaction that stores what the counts led to, so each
report counts there once or, if the process dies in between, not at all.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping

from hanse.core import limits
from hanse.core.ids import Segment, segment
from hanse.core.reading import canonical_json
from hanse.core.step import PutLocal, Write

SPACE = "counted"


class Counted:
    """Owned by the fleet. Of each node the last few boots, of each boot the highest number."""

    def __init__(self) -> None:
        self._nodes: OrderedDict[Segment, dict[bytes, int]] = OrderedDict()
        self._changed: set[Segment] = set()

    def restore(self, stored: Mapping[str, bytes]) -> None:
        for node, raw in stored.items():
            boots = json.loads(raw)
            self._nodes[segment(node)] = {bytes.fromhex(boot): seq for boot, seq in boots}

    def last(self, node: Segment, boot: bytes) -> int | None:
        """The number up to which the reports of this boot have been counted."""
        return self._nodes.get(node, {}).get(boot)

    def count(self, node: Segment, boot: bytes, seq: int) -> None:
        boots = self._nodes.setdefault(node, {})
        boots.pop(boot, None)
        boots[boot] = seq
        while len(boots) > limits.BOOTS_COUNTED:
            del boots[next(iter(boots))]
        self._nodes.move_to_end(node)
        self._changed.add(node)
        while len(self._nodes) > limits.NODES_MAX:
            self._changed.add(self._nodes.popitem(last=False)[0])

    def writes(self) -> list[Write]:
        """For the step that stores what was made of the counts since the last one."""
        writes: list[Write] = []
        for node in sorted(self._changed):
            boots = self._nodes.get(node)
            value = canonical_json([[b.hex(), n] for b, n in boots.items()]) if boots else None
            writes.append(PutLocal(SPACE, node, value))
        self._changed.clear()
        return writes
