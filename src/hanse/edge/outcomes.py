"""How outputs become a text that another release or a late label can agree with.

- `argmax`: the index of the largest value along the last axis, one a row, comma-separated.
- `label`: the elements themselves, comma-separated.
- `ctc-text`: the best class at each step, repeats merged, class 0 (blank) dropped. The classes
  are: blank, the lines of the model's metadata `character`, then a space.

Texts are compared without spaces: recognisers differ in them where readers do not mind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hanse.core.catalog.manifest import Manifest
from hanse.core.errors import Rejected

Array = npt.NDArray[Any]
Reader = Callable[[Mapping[str, Array]], str]
TEXT_MAX = 256


def outcome_reader(manifest: Manifest, metadata: Mapping[str, str]) -> Reader | None:
    """The reader that the manifest asks for; None if answers are not compared.

    Raises `Rejected` if the model lacks the metadata for it.
    """
    kind, output = manifest.outcome.kind, manifest.outcome.output
    if kind == "none":
        return None
    if kind == "ctc-text":
        if "character" not in metadata:
            raise Rejected(
                "outcome ctc-text needs the model metadata 'character'",
                fix="export the model with its character list, or publish another outcome",
            )
        classes = ["", *metadata["character"].split("\n"), " "]
        return lambda outputs: ctc_text(outputs[output], classes)
    if kind == "argmax":
        return lambda outputs: ",".join(map(str, outputs[output].argmax(-1).ravel().tolist()))
    return lambda outputs: ",".join(map(_element, outputs[output].ravel().tolist()))


def ctc_text(scores: Array, classes: list[str]) -> str:
    """`scores`: [rows, steps, classes] or [steps, classes]; rows are joined by line feeds."""
    best = scores.argmax(-1).reshape(-1, scores.shape[-2])
    changes = np.ones(best.shape, dtype=bool)
    changes[:, 1:] = best[:, 1:] != best[:, :-1]
    keep = changes & (best != 0)
    return "\n".join(
        "".join(classes[i] if i < len(classes) else "\ufffd" for i in row[kept].tolist())
        for row, kept in zip(best, keep, strict=True)
    )


def comparable(text: str) -> str:
    """What two texts must have in common to count as the same; long ones become a digest."""
    folded = text.replace(" ", "").strip()
    if len(folded) <= TEXT_MAX:
        return folded
    return hashlib.sha256(folded.encode(errors="replace")).hexdigest()


def is_finite(outputs: Mapping[str, Array]) -> bool:
    """False if any floating-point output holds NaN or an infinity."""
    return all(a.dtype.kind != "f" or bool(np.isfinite(a).all()) for a in outputs.values())


def _element(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
