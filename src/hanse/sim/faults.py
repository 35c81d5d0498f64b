"""What goes wrong in a run, as data: drawn from the seed first, then only carried out.

A plan says the weather, the clocks, who is cut off when, and who crashes when and how:

    before    the step's store never reached the disk; nothing of it was sent or acknowledged
    after     the step was stored, and so acknowledged; nothing of it was sent
    between   the step was stored, and half of its frames were sent
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final, Literal

from hanse.sim.network import CLEAR, Weather
from hanse.sim.vices import Vice, draw_vices

YEAR_MS: Final = 365 * 24 * 3600 * 1000
CALM_S: Final = 240.0
"""Every fault of a drawn plan is over by then; what follows must converge."""

SHORT_S: Final = 40.0
"""The same for runs with liars, of which there are many."""

Moment = Literal["before", "after", "between"]


@dataclass(frozen=True, slots=True)
class Cut:
    """Nothing passes from `inside` to the other regions, nor back unless `one_way`."""

    at_s: float
    until_s: float
    inside: tuple[str, ...]
    one_way: bool = False


@dataclass(frozen=True, slots=True)
class Crash:
    """The first step of `region` with something to store, from `at_s` on.

    `at_publish` waits for a step that carries out an operator's word. Down for `down_s`.
    """

    at_s: float
    region: str
    moment: Moment
    down_s: float
    at_publish: bool = False


@dataclass(frozen=True, slots=True)
class Skew:
    """A wall clock that is wrong by `offset_ms`, and a monotonic one that runs too fast.

    With `swing_s` the wall clock jumps between too late and too early, each for so long.
    """

    offset_ms: int = 0
    drift: float = 0.0
    swing_s: float = 0.0

    def wrong_ms(self, now_s: float) -> int:
        early = self.swing_s and int(now_s / self.swing_s) % 2
        return -self.offset_ms if early else self.offset_ms


@dataclass(frozen=True, slots=True)
class FaultPlan:
    name: str = "none"
    weather: Weather = CLEAR
    cuts: tuple[Cut, ...] = ()
    crashes: tuple[Crash, ...] = ()
    skews: Mapping[str, Skew] = field(default_factory=dict)
    vices: tuple[Vice, ...] = ()
    calm_s: float = 0.0


def draw(kind: str, seed: int, regions: Sequence[str]) -> FaultPlan:
    """The plan of one seed. Raises `KeyError` for a kind that is not in `KINDS`."""
    rng = Random(f"faults/{kind}/{seed}")  # noqa: S311  # a simulation repeats itself on purpose
    return replace(KINDS[kind](rng, regions), name=kind)


def _none(rng: Random, regions: Sequence[str]) -> FaultPlan:
    return FaultPlan()


def _default(rng: Random, regions: Sequence[str]) -> FaultPlan:
    """Some of everything."""
    return FaultPlan(
        weather=_bad_weather(rng),
        cuts=tuple(_cut(rng, regions) for _ in range(rng.randint(1, 3))),
        crashes=tuple(_crash(rng, regions) for _ in range(rng.randint(2, 4))),
        skews={region: _skew(rng, 5000) for region in regions},
        calm_s=CALM_S,
    )


def _crashes(rng: Random, regions: Sequence[str]) -> FaultPlan:
    """Daemons die around their writes, above all right after a publish."""
    return FaultPlan(
        weather=replace(_bad_weather(rng), loss=0.02),
        crashes=tuple(
            replace(_crash(rng, regions), at_publish=i % 2 == 0, at_s=rng.uniform(0, 90))
            for i in range(6)
        ),
        calm_s=120.0,
    )


def _partitions(rng: Random, regions: Sequence[str]) -> FaultPlan:
    return FaultPlan(
        weather=_bad_weather(rng),
        cuts=tuple(_cut(rng, regions) for _ in range(6)),
        calm_s=CALM_S,
    )


def _storm(rng: Random, regions: Sequence[str]) -> FaultPlan:
    """Weather alone: a fifth of all frames lost, many doubled and out of order."""
    return FaultPlan(weather=Weather(0.12, 1.0, 0.2, 0.1, 0.3), calm_s=CALM_S)


def _clocks(rng: Random, regions: Sequence[str]) -> FaultPlan:
    """Wall clocks that are years apart, monotonic ones that drift."""
    return FaultPlan(skews={region: _skew(rng, 10 * YEAR_MS) for region in regions})


def _byzantine(rng: Random, regions: Sequence[str]) -> FaultPlan:
    """As many liars as the witness policy bears, in bad weather; some clocks are years off."""
    mad = rng.sample(list(regions), rng.randint(0, len(regions)))
    return FaultPlan(
        weather=_bad_weather(rng),
        cuts=(_short(_cut(rng, regions)),),
        crashes=(replace(_crash(rng, regions), at_s=rng.uniform(2, SHORT_S - 15)),),
        skews={r: replace(_skew(rng, 10 * YEAR_MS), swing_s=rng.uniform(1, 30)) for r in mad},
        vices=draw_vices(rng, regions, SHORT_S),
        calm_s=SHORT_S,
    )


def _short(cut: Cut) -> Cut:
    at_s = cut.at_s * SHORT_S / CALM_S
    return replace(cut, at_s=at_s, until_s=min(SHORT_S, at_s + (cut.until_s - cut.at_s) / 2))


KINDS: Final[Mapping[str, Callable[[Random, Sequence[str]], FaultPlan]]] = {
    "none": _none,
    "default": _default,
    "crashes": _crashes,
    "partitions": _partitions,
    "storm": _storm,
    "clocks": _clocks,
    "byzantine": _byzantine,
}


def _bad_weather(rng: Random) -> Weather:
    loss = rng.choice((0.0, 0.01, 0.05))
    return Weather(rng.uniform(0.02, 0.12), rng.uniform(0.2, 0.8), loss, 0.02, 0.02)


def _cut(rng: Random, regions: Sequence[str]) -> Cut:
    at_s = rng.uniform(5, CALM_S - 60)
    inside = rng.sample(list(regions), rng.randint(1, max(1, len(regions) // 2)))
    until_s = min(CALM_S, at_s + rng.uniform(5, 60))
    return Cut(at_s, until_s, tuple(sorted(inside)), rng.random() < 0.25)


def _crash(rng: Random, regions: Sequence[str]) -> Crash:
    moments: tuple[Moment, ...] = ("before", "after", "between")
    return Crash(
        rng.uniform(2, CALM_S - 40),
        rng.choice(list(regions)),
        rng.choice(moments),
        rng.uniform(1, 20),
        rng.random() < 0.3,
    )


def _skew(rng: Random, offset_ms: int) -> Skew:
    return Skew(rng.randint(-offset_ms, offset_ms), rng.uniform(-1e-3, 1e-3))
