"""How the answers of two releases, or an answer and a late label, are compared.

The release declares the kind of its answers (`outcome` in the manifest); a new kind is a class here
and a row in `_KINDS`. A comparator reads outputs once into a small `Answer` that can wait in memory
for its label, and then says three things about two answers:

- `agrees`: do they say the same, within what the release declared?
- `distance`: how far apart are they, 0 to 1? Against a label this is the loss.
- `cell`: which two classes did they name? For the confusion of old and new.

| kind | distance |
|---|---|
| argmax | largest difference of a class's probability, where both have probabilities; else 0 or 1 |
| label | 0 or 1 |
| text, ctc-text | edits for each character, words for each word in long texts |
| number | difference over the sum of magnitudes, mean over the values |
| boxes | 1 - F1 of boxes matched by class and overlap |
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

import numpy as np

from hanse.core.catalog.manifest import Manifest, Outcome
from hanse.core.errors import Rejected
from hanse.core.telemetry import confusion_cell
from hanse.edge.outcomes import TEXT_MAX, Array, comparable, ctc_text, elements

CLASSES_MAX: Final = 64
VALUES_MAX: Final = 64
BOXES_MAX: Final = 100
EDITS_MAX: Final = 64

Box = tuple[float, float, float, float, int]


@dataclass(frozen=True, slots=True)
class Answer:
    """What is kept of an answer or a label: a text that people may see, and numbers behind it."""

    text: str
    values: tuple[float, ...] = ()
    boxes: tuple[Box, ...] = ()
    words: str = ""
    """The beginning of a text as it was, for counting edits; `text` may be folded to a digest."""


class Comparator(Protocol):
    """Pure; `old` is the reference: the stable release's answer, or the label."""

    def read(self, outputs: Mapping[str, Array]) -> Answer:
        """Raises `ValueError` or `IndexError` for outputs that cannot be compared."""
        ...

    def truth(self, label: str) -> Answer:
        """Raises `Rejected` for a label that means nothing to this kind."""
        ...

    def agrees(self, old: Answer, new: Answer) -> bool: ...
    def distance(self, old: Answer, new: Answer) -> float: ...
    def cell(self, old: Answer, new: Answer) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Labels:
    """Elements as texts, equal or not; the base of all kinds that say a text."""

    outcome: Outcome

    def read(self, outputs: Mapping[str, Array]) -> Answer:
        return Answer(comparable(",".join(elements(outputs[self.outcome.output]))))

    def truth(self, label: str) -> Answer:
        return Answer(comparable(label))

    def agrees(self, old: Answer, new: Answer) -> bool:
        return old.text == new.text

    def distance(self, old: Answer, new: Answer) -> float:
        return float(old.text != new.text)

    def cell(self, old: Answer, new: Answer) -> str | None:
        """Of two classes that are written as numbers, as most are."""
        if not (_is_class(old.text) and _is_class(new.text)):
            return None
        return confusion_cell(int(old.text), int(new.text))


@dataclass(frozen=True, slots=True)
class Argmax(Labels):
    def read(self, outputs: Mapping[str, Array]) -> Answer:
        scores = outputs[self.outcome.output]
        text = comparable(",".join(map(str, scores.argmax(-1).ravel().tolist())))
        classes = scores.shape[-1]
        single = scores.size == classes and classes <= CLASSES_MAX
        return Answer(text, _probabilities(scores.ravel()) if single else ())

    def distance(self, old: Answer, new: Answer) -> float:
        if old.values and len(old.values) == len(new.values):
            return max(abs(a - b) for a, b in zip(old.values, new.values, strict=True))
        return float(old.text != new.text)


@dataclass(frozen=True, slots=True)
class Texts(Labels):
    to_text: Callable[[Array], str]

    def read(self, outputs: Mapping[str, Array]) -> Answer:
        return self.truth(self.to_text(outputs[self.outcome.output]))

    def truth(self, label: str) -> Answer:
        return Answer(comparable(label), words=label[:TEXT_MAX].strip())

    def distance(self, old: Answer, new: Answer) -> float:
        if old.text == new.text:
            return 0.0
        return edit_distance(old.words, new.words) or 1 / TEXT_MAX  # they differ further on

    def cell(self, old: Answer, new: Answer) -> str | None:
        return None


@dataclass(frozen=True, slots=True)
class Numbers:
    """Numbers agree within `atol + rtol * |old|`, like golden outputs."""

    outcome: Outcome
    separator: ClassVar[str] = ","

    def read(self, outputs: Mapping[str, Array]) -> Answer:
        values = outputs[self.outcome.output].ravel()[:VALUES_MAX]
        return _numbers(tuple(float(value) for value in values))

    def truth(self, label: str) -> Answer:
        try:
            values = tuple(map(float, label.split(self.separator)))
        except ValueError:
            values = (math.nan,)
        if len(values) > VALUES_MAX or not all(map(math.isfinite, values)):
            raise Rejected(
                f"label {label[:40]!r} is not a number", fix="send numbers, separated by commas"
            )
        return _numbers(values)

    def agrees(self, old: Answer, new: Answer) -> bool:
        atol, rtol = self.outcome.atol, self.outcome.rtol
        return len(old.values) == len(new.values) and all(
            abs(a - b) <= atol + rtol * abs(a) for a, b in zip(old.values, new.values, strict=True)
        )

    def distance(self, old: Answer, new: Answer) -> float:
        if len(old.values) != len(new.values):
            return 1.0
        apart = [
            abs(a - b) / (abs(a) + abs(b)) if a != b else 0.0
            for a, b in zip(old.values, new.values, strict=True)
        ]
        return sum(apart) / max(1, len(apart))

    def cell(self, old: Answer, new: Answer) -> str | None:
        return None


@dataclass(frozen=True, slots=True)
class Boxes:
    """One output of rows (x1, y1, x2, y2, score, class); rows below `score` are no detections.

    A label is JSON: a list of [x1, y1, x2, y2, class].
    """

    outcome: Outcome

    def read(self, outputs: Mapping[str, Array]) -> Answer:
        rows = outputs[self.outcome.output].reshape(-1, 6)
        kept = rows[rows[:, 4] >= self.outcome.score][:BOXES_MAX].tolist()
        return _boxes(tuple((x1, y1, x2, y2, int(c)) for x1, y1, x2, y2, _, c in kept))

    def truth(self, label: str) -> Answer:
        try:
            rows = json.loads(label)
            found = tuple((*map(float, row[:4]), int(row[4])) for row in rows if len(row) == 5)
        except (ValueError, TypeError, RecursionError):
            rows, found = None, ()
        if not isinstance(rows, list) or len(found) != len(rows) or len(rows) > BOXES_MAX:
            raise Rejected(
                f"label {label[:40]!r} is no list of boxes", fix="send [[x1, y1, x2, y2, class]]"
            )
        return _boxes(found)  # type: ignore[arg-type]  # four numbers and a class each

    def agrees(self, old: Answer, new: Answer) -> bool:
        return self.distance(old, new) <= self.outcome.within

    def distance(self, old: Answer, new: Answer) -> float:
        if not old.boxes and not new.boxes:
            return 0.0
        return 1 - 2 * _matched(old.boxes, new.boxes, self.outcome.iou) / (
            len(old.boxes) + len(new.boxes)
        )

    def cell(self, old: Answer, new: Answer) -> str | None:
        return None


def comparator(manifest: Manifest, metadata: Mapping[str, str]) -> Comparator | None:
    """What the manifest asks for; None if answers are not compared.

    Raises `Rejected` if the model lacks the metadata for it.
    """
    make = _KINDS.get(manifest.outcome.kind)
    return make(manifest.outcome, metadata) if make else None


def _ctc(outcome: Outcome, metadata: Mapping[str, str]) -> Comparator:
    if "character" not in metadata:
        raise Rejected(
            "outcome ctc-text needs the model metadata 'character'",
            fix="export the model with its character list, or publish another outcome",
        )
    classes = ["", *metadata["character"].split("\n"), " "]
    return Texts(outcome, lambda scores: ctc_text(scores, classes))


def _text(outcome: Outcome, _: Mapping[str, str]) -> Comparator:
    return Texts(outcome, lambda found: "\n".join(elements(found)))


_KINDS: Final[Mapping[str, Callable[[Outcome, Mapping[str, str]], Comparator]]] = {
    "argmax": lambda outcome, _: Argmax(outcome),
    "label": lambda outcome, _: Labels(outcome),
    "ctc-text": _ctc,
    "text": _text,
    "number": lambda outcome, _: Numbers(outcome),
    "boxes": lambda outcome, _: Boxes(outcome),
}


def edit_distance(old: str, new: str) -> float:
    """Edits over the length of the longer text; of words where that is long. 0 to 1."""
    if old == new:
        return 0.0
    a: Sequence[Any] = old
    b: Sequence[Any] = new
    if max(len(a), len(b)) > EDITS_MAX:
        a, b = old.split()[:EDITS_MAX], new.split()[:EDITS_MAX]
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1] / max(len(a), len(b), 1)


def _is_class(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 6


def _probabilities(scores: Array) -> tuple[float, ...]:
    """Scores that add up to one are probabilities already; others go through a softmax."""
    values = scores.astype(np.float64)
    if values.min() < 0 or abs(values.sum() - 1) > 1e-3:
        values = np.exp(values - values.max())
        values = values / values.sum()
    return tuple(values.tolist())


def _numbers(values: tuple[float, ...]) -> Answer:
    return Answer(",".join(f"{value:.6g}" for value in values), values)


def _boxes(boxes: tuple[Box, ...]) -> Answer:
    return Answer(f"{len(boxes)} boxes", boxes=boxes)


def _matched(old: Sequence[Box], new: Sequence[Box], iou_min: float) -> int:
    """How many boxes find a partner of their class; the best overlaps first."""
    overlaps = sorted(
        (
            (-overlap, i, j)
            for i, a in enumerate(old)
            for j, b in enumerate(new)
            if a[4] == b[4] and (overlap := _iou(a, b)) >= iou_min
        )
    )
    used_old: set[int] = set()
    used_new: set[int] = set()
    for _, i, j in overlaps:
        if i not in used_old and j not in used_new:
            used_old.add(i)
            used_new.add(j)
    return len(used_old)


def _iou(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    inside = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inside
    return inside / union if union > 0 else 0.0
