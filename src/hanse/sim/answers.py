"""How good the answers of a release are in one region: a model of nature, not of a network.

A release may be fine everywhere and bad in one region, which is what Hanse is for. Labels say
some seconds later, and only for some answers, whether they were right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from hanse.core.telemetry import Counts, Pairs

LABELLED = 0.5
LABEL_DELAY_S = (3.0, 12.0)


@dataclass(frozen=True, slots=True)
class Quality:
    """Chances per answer."""

    error: float = 0.004
    right: float = 0.97
    slow: float = 0.01


GOOD = Quality()
BAD = Quality(error=0.2, right=0.7, slow=0.05)
NOTHING_BUT_ERRORS = Quality(error=1.0)


@dataclass(frozen=True, slots=True)
class Nature:
    """`bad` names the (version, region) pairs in which a release does not work."""

    bad: Mapping[tuple[str, str], Quality] = field(default_factory=dict)
    from_s: float = 0.0
    """The second from which it is bad; before, it is as good as the others."""
    lies: Mapping[tuple[str, str], Quality] = field(default_factory=dict)
    """What a node says of a version, whatever is so: its own (version, node)."""

    def quality(self, version: str, region: str, node: str, now_s: float) -> Quality:
        found = self.bad.get((version, region), GOOD) if now_s >= self.from_s else GOOD
        return self.lies.get((version, node), found)


def answer(rng: Random, quality: Quality, requests: int) -> tuple[Counts, Counts]:
    """Counts of the answers, and those of the labels that will come for them."""
    errors = _some(rng, requests, quality.error)
    slow = _some(rng, requests, quality.slow)
    labelled = _some(rng, requests - errors, LABELLED)
    wrong = _some(rng, labelled, 1 - quality.right)
    return Counts(requests, errors, slow), Counts(labelled=labelled, wrong=wrong)


def compare(rng: Random, old: Quality, new: Quality, requests: int) -> Pairs:
    """Both releases answer the same requests; two wrong answers rarely agree."""
    agree = 0
    for _ in range(requests):
        right = rng.random() < old.right, rng.random() < new.right
        agree += all(right)
    return Pairs(agree=agree, disagree=requests - agree)


def _some(rng: Random, of: int, chance: float) -> int:
    return sum(rng.random() < chance for _ in range(of))
