"""From a recognition model's scores to text, and whether that text is right (greedy CTC).

A model emits one class a time step. Class 0 is the blank: it separates doubled letters, so
repeats are dropped first and blanks afterwards: `a a - a b` reads `aab`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def characters(metadata: str) -> tuple[str, ...]:
    """Character of every class, given the model's metadata entry `character`."""
    # Not splitlines(): the list itself holds characters that it takes for line ends.
    return ("", *metadata.split("\n"), " ")


def decode(scores: NDArray[np.float32], characters: tuple[str, ...]) -> str:
    """Text of one line; `scores` is [1, steps, classes], the model's output as it comes."""
    best = scores[0].argmax(axis=-1)
    kept = best[np.diff(best, prepend=0) != 0]
    return "".join(characters[step] for step in kept)


def same(read: str, truth: str) -> bool:
    """Exact match, ignoring spaces, which recognition models place at will."""
    return read.replace(" ", "") == truth.replace(" ", "")
