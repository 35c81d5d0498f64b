"""A cut ends what one log may say: signed by the root threshold, it binds everybody for ever.

`(size, root)` names the branch that is meant: a daemon that holds other leaves below `size`
drops them and pulls those that give `root`. Events from `void_from` on are void everywhere,
even those that were final, and so is whatever their author adds later (T14).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hanse.core.encoding import strict_base64, to_base64
from hanse.core.errors import InvalidSpec
from hanse.core.ids import Origin
from hanse.core.log.merkle import SIZE_MAX
from hanse.core.reading import Reader


@dataclass(frozen=True, slots=True)
class Cut:
    """Events `void_from ..` of `origin` are void; below `size` the leaves have `root` (32 B)."""

    origin: Origin
    size: int
    root: bytes
    void_from: int

    def encode(self) -> dict[str, Any]:
        return {
            "origin": str(self.origin),
            "size": self.size,
            "root": to_base64(self.root),
            "void_from": self.void_from,
        }


def parse_cut(value: Any, path: str) -> Cut:
    with Reader(value, path) as reader:
        size = reader.integer("size", high=SIZE_MAX)
        root = strict_base64(reader.text("root"))
        if root is None or len(root) != 32:
            raise InvalidSpec(f"{path}.root: expected the base64 of 32 bytes")
        return Cut(
            Origin.parse(reader.text("origin")),
            size,
            root,
            reader.integer("void_from", high=size),
        )
