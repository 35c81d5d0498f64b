"""How outputs become texts.

`ctc-text`: the best class at each step, repeats merged, class 0 (blank) dropped. The classes are:
blank, the lines of the model's metadata `character`, then a space. Texts are compared without
spaces: recognisers differ in them where readers do not mind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
TEXT_MAX = 256


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


def elements(found: Array) -> list[str]:
    """Every element as a text, in the order of memory."""
    return [
        value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        for value in found.ravel().tolist()
    ]
