"""One file on its way here in parts: whom to ask for which, what to make of what they answer.

    step(now) -> [Ask | Drop]     carry these out, and tell what became of them:
    came, lacks, again            one part that was asked for
    ended, failed                 one batch: all was answered, or the source broke off
    out                           a source that lies, or has nothing for us

- A source has two batches under way at most: the second is there when the first has been sent.
  A batch is what it sends in half a second; the first one is small.
- The one that by its round trip and its pace has a batch here first is asked first. None is asked
  for what the others together would have here before it.
- When nothing is left to ask for, an idle source is asked for what a much slower or silent one
  owes. Whatever comes first counts; what nobody needs any more is dropped.
- A source that fails is left alone for a while, longer each time, and then for good. One that is
  `out` is never asked again.
- What a source would rather have fetched elsewhere it is asked for again, and may name others,
  once whoever it named does not have it; after that it is insisted on. Nobody hurries for that:
  a neighbour that is slow, or waits for the part itself, still spares the source.

Nothing that comes is judged here: a part has come once its digest was right. Times are seconds of
the local monotonic clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

BATCHES_MAX = 2
BATCH_S = 0.5
BATCH_BYTES_FIRST = 4 * 1024**2
BATCH_BYTES_MAX = 32 * 1024**2
BATCH_PARTS_MAX = 512
WINDOW_RUNS = 16
"""Of `BATCH_BYTES_FIRST` each: enough for a crowd to find different ones."""
SLOWER = 2.0
"""So many times longer may a source take than another before that one is asked too."""
USUAL = 1024**2
"""Bytes a second of whom nobody has measured, when it could help out somebody slower."""
PATIENCE_S = 0.5
SILENT_S = 2.0
NEIGHBOUR_SILENT_S = 10.0
POINTED_MAX = 2
"""So often is a source believed that others have a part, then it is insisted on."""
STRIKES_MAX = 4
PAUSE_S = 0.5
PACE_S = 0.2
PACE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Ask:
    batch: int
    source: str
    parts: tuple[int, ...]
    insist: bool = False


@dataclass(frozen=True, slots=True)
class Drop:
    """End this batch: nothing of it is needed any more, or nobody believes its source."""

    batch: int


@dataclass(slots=True)
class _Source:
    rtt_s: float
    only: frozenset[int] | None
    lacks: set[int] = field(default_factory=set)
    elsewhere: dict[int, int] = field(default_factory=dict)  # how often it said so
    batches: int = 0
    strikes: int = 0
    pause_until_s: float = 0.0
    pace: float | None = None  # bytes a second
    counted: int = 0  # bytes since
    since_s: float = 0.0
    heard_s: float = 0.0

    def working(self, now: float, silent_s: float = SILENT_S) -> bool:
        """Whether its pace still says something."""
        return now >= self.pause_until_s and (not self.batches or now - self.heard_s <= silent_s)

    def needs_s(self, size: int, unmeasured: float = float("inf")) -> float:
        """Until so many bytes are here; a source whose pace is unknown is taken for that fast."""
        return self.rtt_s + size / (self.pace or unmeasured)

    def has(self, part: int, *, insist: bool = False) -> bool:
        here = self.only is None or part in self.only
        return here and part not in self.lacks and (insist or part not in self.elsewhere)

    def begin(self, now: float) -> None:
        """From idleness: the first round trip says nothing of the pace."""
        self.counted, self.since_s, self.heard_s = 0, now + self.rtt_s, now

    def count(self, size: int, now: float) -> None:
        self.counted, self.heard_s = self.counted + size, now
        took_s = max(now - self.since_s, 1e-6)
        if self.counted < PACE_BYTES or (took_s < PACE_S and self.pace):
            return  # so little says more of the round trip
        found = self.counted / took_s
        self.pace = found if self.pace is None else (self.pace + found) / 2
        self.counted, self.since_s = 0, now


@dataclass(slots=True)
class _Batch:
    source: str
    left: dict[int, None]  # in the order asked for
    asked_s: float
    heard_s: float
    dropped: bool = False


class Download:
    """`sizes` of all parts; those `missing` are to be fetched, in the order given."""

    def __init__(self, sizes: Sequence[int], missing: Iterable[int]) -> None:
        self._sizes = sizes
        self._waiting = dict.fromkeys(missing)
        self._missing = set(self._waiting)
        self.left_bytes = sum(sizes[part] for part in self._missing)
        self._sources: dict[str, _Source] = {}
        self._out: set[str] = set()
        self._batches: dict[int, _Batch] = {}
        self._number = 0

    @property
    def done(self) -> bool:
        return not self._missing

    @property
    def stuck(self) -> bool:
        """Nobody is left who could have what is missing."""
        return not self._batches and not any(
            source.has(part, insist=True)
            for source in self._sources.values()
            for part in self._waiting
        )

    def join(self, source: str, rtt_s: float, only: Collection[int] | None = None) -> None:
        """Somebody to ask, for all or `only` these parts; whoever is known, for these as well."""
        if source in self._out:
            return
        known = self._sources.get(source)
        if known is None:
            self._sources[source] = _Source(rtt_s, None if only is None else frozenset(only))
        elif known.only is not None:
            known.only = None if only is None else known.only.union(only)
            known.lacks.difference_update(only or ())

    # -- what became of it -------------------------------------------------------

    def came(self, batch: int, part: int, now: float) -> bool:
        """The part is right and kept. Whether it was still missing."""
        asked = self._batches[batch]
        asked.heard_s = now
        if (source := self._sources.get(asked.source)) is not None:
            source.strikes = 0
            source.count(self._sizes[part], now)
        for each in self._batches.values():
            each.left.pop(part, None)
        self._waiting.pop(part, None)
        if part not in self._missing:
            return False
        self._missing.discard(part)
        self.left_bytes -= self._sizes[part]
        return True

    def needs(self, part: int) -> bool:
        return part in self._missing

    def lacks(self, batch: int, part: int, *, elsewhere: bool = False) -> None:
        """It was not sent; `elsewhere`: the source has it, and names others who do."""
        if (source := self._sources.get(self._batches[batch].source)) is not None:
            if elsewhere:
                source.elsewhere[part] = source.elsewhere.get(part, 0) + 1
            else:
                source.lacks.add(part)
        self.again(batch, part)

    def again(self, batch: int, part: int) -> None:
        """It came and could not be used, by no fault of whoever sent it."""
        self._batches[batch].left.pop(part, None)
        self._wait([part])

    def ended(self, batch: int) -> None:
        gone = self._batches.pop(batch)
        if (source := self._sources.get(gone.source)) is not None:
            source.batches -= 1
        self._wait(list(gone.left))

    def failed(self, batch: int, now: float) -> bool:
        """Whether the source is given up by that."""
        name = self._batches[batch].source
        self.ended(batch)
        source = self._sources.get(name)
        if source is None:
            return False
        source.strikes += 1
        source.pause_until_s = now + PAUSE_S * 2**source.strikes
        if source.strikes >= STRIKES_MAX:
            self.out(name)
        return source.strikes >= STRIKES_MAX

    def out(self, source: str) -> None:
        """Its batches are dropped."""
        self._out.add(source)
        self._sources.pop(source, None)

    def _wait(self, parts: Sequence[int]) -> None:
        """Before all others, unless somebody else was asked for them too."""
        asked = {part for batch in self._batches.values() for part in batch.left}
        back = [part for part in parts if part in self._missing and part not in asked]
        self._waiting = dict.fromkeys(back) | self._waiting

    # -- what to do --------------------------------------------------------------

    def step(self, now: float) -> list[Ask | Drop]:
        steps: list[Ask | Drop] = []
        for number, batch in self._batches.items():
            useless = not batch.left or batch.source not in self._sources
            if useless and not batch.dropped:
                batch.dropped = True
                steps.append(Drop(number))
        for _ in range(BATCHES_MAX):
            for name in self._free(now):
                source = self._sources[name]
                if parts := self._choose(name, source, now):
                    steps.append(self._ask(name, source, parts, now))
        return steps

    def _free(self, now: float) -> list[str]:
        """The best first."""
        free = [
            name
            for name, source in self._sources.items()
            if source.batches < BATCHES_MAX and source.pause_until_s <= now
        ]
        return sorted(free, key=self._rank)

    def _rank(self, name: str) -> tuple[int, float, str]:
        source = self._sources[name]
        return source.strikes, source.needs_s(BATCH_BYTES_FIRST), name

    def _choose(self, name: str, source: _Source, now: float) -> list[int]:
        others = {n: o for n, o in self._sources.items() if n != name and o.working(now)}
        better = [other for n, other in others.items() if self._rank(n) < self._rank(name)]
        late = self._late(source, others.values())

        def fits(part: int) -> bool:
            return source.has(part) and not (late and any(other.has(part) for other in better))

        return (
            self._fill(source, filter(fits, self._waiting))
            or self._pointed_nowhere(name, source, now)
            or self._fill(source, self._overdue(name, source, now))
        )

    def _pointed_nowhere(self, name: str, source: _Source, now: float) -> list[int]:
        """What the source said to be elsewhere, and is not; all to be insisted on, or nothing."""
        others = [
            other
            for n, other in self._sources.items()
            if n != name and other.working(now, NEIGHBOUR_SILENT_S)
        ]
        missing = [
            part
            for part in self._waiting
            if part in source.elsewhere and not any(other.has(part) for other in others)
        ]
        again = [part for part in missing if source.elsewhere[part] < POINTED_MAX]
        return self._fill(source, again or missing)

    def _late(self, source: _Source, others: Iterable[_Source]) -> bool:
        """Whether the others would have everything here before it has one batch."""
        together = sum(other.pace or 0.0 for other in others)
        return together > 0 and source.needs_s(self._batch_bytes(source)) > (
            SLOWER * self.left_bytes / together
        )

    def _overdue(self, name: str, source: _Source, now: float) -> list[int]:
        """What the slowest of the others owes, if this one is so much faster."""
        hopeful, late_s = set[int](), dict[int, float]()
        for batch in self._batches.values():
            owner = self._sources.get(batch.source)
            if batch.source == name or owner is None:
                hopeful.update(batch.left)
                continue
            size = sum(self._sizes[part] for part in batch.left)
            patience_s = SLOWER * source.needs_s(size, max(owner.pace or 0.0, USUAL))
            theirs_s = size / owner.pace if owner.pace else float("inf")
            silent_s = now - batch.heard_s
            silent = silent_s > PATIENCE_S + patience_s
            slow = now - batch.asked_s > PATIENCE_S + patience_s and theirs_s > patience_s
            if not (silent or slow):
                hopeful.update(batch.left)
            if silent_s <= NEIGHBOUR_SILENT_S:
                hopeful.update(source.elsewhere.keys() & batch.left.keys())
            for part in batch.left:
                late_s[part] = min(theirs_s, late_s.get(part, theirs_s))
        found = [p for p in late_s if p not in hopeful and source.has(p, insist=True)]
        return sorted(found, key=lambda part: (-late_s[part], part))

    def _fill(self, source: _Source, parts: Iterable[int]) -> list[int]:
        chosen, room = list[int](), self._batch_bytes(source)
        for part in parts:
            if chosen and (self._sizes[part] > room or len(chosen) == BATCH_PARTS_MAX):
                break
            chosen.append(part)
            room -= self._sizes[part]
        return chosen

    def _batch_bytes(self, source: _Source) -> int:
        if source.pace is None:
            return BATCH_BYTES_FIRST
        return min(int(source.pace * BATCH_S), BATCH_BYTES_MAX)

    def _ask(self, name: str, source: _Source, parts: list[int], now: float) -> Ask:
        if not source.batches:
            source.begin(now)
        source.batches += 1
        self._number += 1
        self._batches[self._number] = _Batch(name, dict.fromkeys(parts), now, now)
        for part in parts:
            self._waiting.pop(part, None)
        insist = any(source.elsewhere.get(part, 0) >= POINTED_MAX for part in parts)
        return Ask(self._number, name, tuple(parts), insist)


def scattered(parts: Sequence[int], sizes: Sequence[int], chance: Random) -> list[int]:
    """Runs of neighbouring parts, out of order within a window: those who start together ask for
    different ones first, and yet the file grows from its beginning, so that it can be hashed
    while it comes."""
    runs, room = list[list[int]](), 0
    for part in parts:
        if room <= 0:
            runs.append([])
            room = BATCH_BYTES_FIRST
        runs[-1].append(part)
        room -= sizes[part]
    for begin in range(0, len(runs), WINDOW_RUNS):
        window = runs[begin : begin + WINDOW_RUNS]
        chance.shuffle(window)
        runs[begin : begin + WINDOW_RUNS] = window
    return [part for run in runs for part in run]
