"""How members misbehave in a run, as data: drawn from the seed, like every other fault.

Vices of members who lie, for as long as the run lasts:

    withhold     frames are dropped at random, and always those to one half of the others
    replay       what was once sent or heard is sent again
    equivocate   a second self with the same key: each half of the others sees another log
    collude      the same, by a member who only witnesses: each half sees its own witness
    steal        events are signed with another daemon's key and told to somebody

Accidents of honest members:

    clone        a copy of the disk is started beside the original, for a while
    restore      the disk is put back as it was some time ago
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Literal, get_args

Lie = Literal["withhold", "replay", "equivocate", "collude", "steal"]
Accident = Literal["clone", "restore"]
LIES: Final = get_args(Lie)
ACCIDENTS: Final = get_args(Accident)
TWO_FACED: Final = ("equivocate", "collude")


@dataclass(frozen=True, slots=True)
class Vice:
    """What one region's daemon does from `at_s` on; which fields count depends on the kind."""

    region: str
    kind: Lie | Accident
    at_s: float
    until_s: float
    share: float = 0.0  # of its frames that are dropped, or followed by an old one
    half: tuple[str, ...] = ()  # regions that are told less, or shown the second face
    victim: str = ""  # whose key was stolen, with `steal`
    back_s: float = 0.0  # how old the disk is that is put back

    @property
    def lies(self) -> bool:
        return self.kind in LIES


def liars(regions: int) -> int:
    """How many of so many daemons may lie: the f of the default witness policy."""
    return (regions - 1) // 3


def doubtful(vices: Sequence[Vice]) -> frozenset[str]:
    """Regions of whose logs there may be two: of the two-faced, and of those whose key is out."""
    two_faced = {v.region for v in vices if v.kind in TWO_FACED}
    return frozenset(two_faced | {v.victim for v in vices if v.kind == "steal"})


def draw_vices(rng: Random, regions: Sequence[str], calm_s: float) -> tuple[Vice, ...]:
    """As many liars as the policy bears, each with one to three vices; perhaps an accident."""
    bad = sorted(rng.sample(list(regions), liars(len(regions))))
    honest = [region for region in regions if region not in bad]
    half = tuple(sorted(rng.sample(honest, rng.randint(1, len(honest) - 1))))
    vices = [
        _lie(rng, region, kind, half, honest, calm_s)
        for region in bad
        for kind in sorted(rng.sample(LIES, rng.randint(1, 3)))
    ]
    if rng.random() < 0.5:
        vices.append(_accident(rng, honest, calm_s))
    return tuple(vices)


def _lie(
    rng: Random,
    region: str,
    kind: Lie,
    half: tuple[str, ...],
    honest: Sequence[str],
    calm_s: float,
) -> Vice:
    """From the first second on as often as not: the first event of a log may be forged too."""
    at_s = rng.choice((0.0, rng.uniform(1, calm_s * 0.7)))
    return Vice(region, kind, at_s, calm_s, rng.uniform(0.1, 0.6), half, rng.choice(list(honest)))


def _accident(rng: Random, honest: Sequence[str], calm_s: float) -> Vice:
    at_s = rng.uniform(5, calm_s * 0.6)
    kind: Accident = rng.choice(ACCIDENTS)
    until_s = at_s + rng.uniform(3, 20)
    return Vice(rng.choice(list(honest)), kind, at_s, until_s, back_s=rng.uniform(0.5, at_s))
