"""What an inference request and its answer are, before and after any wire format.

Tensors are bytes here (row-major, little-endian; BYTES as in the Open Inference Protocol: each
element a 4-byte length and its bytes), so that neither the wire nor the runtime is needed to
speak about them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hanse.core.catalog.manifest import Tensor
from hanse.core.errors import InvalidSpec
from hanse.core.ids import Digest

RANK_MAX = 16
ITEM_BYTES = {
    "BOOL": 1,
    "INT8": 1,
    "UINT8": 1,
    "INT16": 2,
    "UINT16": 2,
    "FP16": 2,
    "INT32": 4,
    "UINT32": 4,
    "FP32": 4,
    "INT64": 8,
    "UINT64": 8,
    "FP64": 8,
}


@dataclass(frozen=True, slots=True)
class RawTensor:
    """A tensor whose bytes fit its shape; nothing else can be constructed."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes

    def __post_init__(self) -> None:
        if len(self.shape) > RANK_MAX or any(n < 0 for n in self.shape):
            raise InvalidSpec(f"input {self.name[:80]!r}: shape {self.shape} is not possible")
        if self.datatype == "BYTES":
            count = len(split_bytes(self.data))
        elif self.datatype in ITEM_BYTES:
            count, rest = divmod(len(self.data), ITEM_BYTES[self.datatype])
            count = -1 if rest else count
        else:
            raise InvalidSpec(f"input {self.name[:80]!r}: unknown datatype {self.datatype[:20]!r}")
        if count != math.prod(self.shape):
            raise InvalidSpec(
                f"input {self.name[:80]!r}: {len(self.data)} bytes are not "
                f"{self.datatype} of shape {list(self.shape)}"
            )


@dataclass(frozen=True, slots=True)
class Answer:
    """`role`: stable, canary, explicit (the caller named the version) or fallback (the release
    that should have answered failed, and the good one stood in)."""

    outputs: tuple[RawTensor, ...]
    release: Digest
    version: str
    role: str
    rollout: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Which release answers a unit, before anything is computed, and why.

    `reason`: static (there is nothing to choose), split (by the unit's bucket), target (the
    request takes no part in the rollout), explicit (the caller named the version).
    """

    release: Digest
    version: str
    role: str
    reason: str
    rollout: str = ""
    generation: int = 0


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What callers may know of a model; `versions` are those loaded now, the stable one first.

    `counts` are answers, failures and nanoseconds of computing since the process started.
    """

    name: str
    ready: bool
    versions: tuple[str, ...] = ()
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    release: Digest | None = None
    counts: tuple[int, int, int] = (0, 0, 0)


def join_bytes(elements: list[bytes]) -> bytes:
    return b"".join(len(each).to_bytes(4, "little") + each for each in elements)


def split_bytes(data: bytes) -> list[bytes]:
    """The elements of a BYTES tensor. Raises `InvalidSpec` if lengths and bytes disagree."""
    elements, at = [], 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        if at + 4 > len(data) or end > len(data):
            raise InvalidSpec("a BYTES tensor ends inside an element")
        elements.append(data[at + 4 : end])
        at = end
    return elements
