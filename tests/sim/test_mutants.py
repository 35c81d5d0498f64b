"""The simulator sees what is broken on purpose: a run that cannot fail proves nothing.

Each mutant takes one defence away; some seed with liars, one of the first, must tell. The rarest
shows in one of ten.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from hanse.core import finality, logbook, quorum
from hanse.core.catalog import fold
from hanse.core.errors import HanseError
from hanse.core.gossip.sync import Sync
from hanse.core.gossip.trust_exchange import TrustExchange
from hanse.core.log.policy import Policy, parse_policy
from hanse.core.trust import chain
from hanse.sim.oracle import Violated
from hanse.sim.run import run

Patch = Callable[[pytest.MonkeyPatch], None]
SEEDS = 80


def quorum_less_one(patch: pytest.MonkeyPatch) -> None:
    """Two of four witnesses: one liar makes two histories final."""

    def weaker(text: str) -> Policy:
        return parse_policy(re.sub(r"group regions (\d+)", _less, text))

    def _less(found: re.Match[str]) -> str:
        return f"group regions {int(found[1]) - 1}"

    for module in (quorum, finality):
        patch.setattr(module, "read_policy", weaker)


@dataclass(frozen=True)
class AnyRoot:
    """Equal to every root."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


def root_unchecked(patch: pytest.MonkeyPatch) -> None:
    real = logbook.open_checkpoint

    def lenient(*args: Any) -> Any:
        found = real(*args)
        object.__setattr__(found, "root", AnyRoot())
        return found

    patch.setattr(logbook, "open_checkpoint", lenient)


def stolen_word_counts(patch: pytest.MonkeyPatch) -> None:
    """A daemon's key alone says whatever it likes."""
    patch.setattr(logbook.Logbook, "judged", lambda self, entry: entry)


def last_writer_wins(patch: pytest.MonkeyPatch) -> None:
    """Of a region's activations the one with the latest clock is in force."""
    real = fold._heads

    def latest(facts: Any, releases: Any, specs: Any, floor: int) -> Any:
        newest: dict[str, Any] = {}
        for record, activation in fold._moves(facts, releases, specs).values():
            at_ms, before = record.event.header.hlc_ms, newest.get(activation.region)
            if before is None or before[0] < at_ms:
                newest[activation.region] = (at_ms, activation)
        real(facts, releases, specs, floor)
        return tuple(activation for _, activation in (newest[r] for r in sorted(newest)))

    patch.setattr(fold, "_heads", latest)


def forwards_what_is_old(patch: pytest.MonkeyPatch) -> None:
    real = Sync._announce

    def echoing(self: Sync, link: Any, frame: Any, now_s: float) -> None:
        real(self, link, frame, now_s)
        for other in self.proven():
            if other.peer != link.peer and frame.events:
                self._send(other.peer, frame)

    patch.setattr(Sync, "_announce", echoing)


def trust_goes_back(patch: pytest.MonkeyPatch) -> None:
    """A trust file that comes again is taken for the next one."""
    real = TrustExchange.file

    def gullible(self: TrustExchange, peer: Any, frame: Any) -> None:
        files = self._book.chain.files
        if frame.version < self._book.chain.current.version and frame.parts == 1:
            self._book.chain = chain.replay(files[: frame.version])
        else:
            real(self, peer, frame)

    patch.setattr(TrustExchange, "file", gullible)


MUTANTS: list[Patch] = [
    quorum_less_one,
    root_unchecked,
    stolen_word_counts,
    last_writer_wins,
    forwards_what_is_old,
    trust_goes_back,
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_defence_that_is_gone_is_missed(mutant: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    for seed in range(SEEDS):
        try:
            run(seed, 4, "byzantine")
        except (Violated, HanseError):
            return
    pytest.fail(f"{SEEDS} seeds see nothing")
