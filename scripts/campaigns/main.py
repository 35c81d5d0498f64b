"""`scripts/campaign`: run long tests on fresh seeds, count what was done, stop at a failure.

A campaign is a module here with `rounds(seed)`: it yields, after each round, what was counted
in it, and raises when a promise was broken. Rounds go on until the time is over, or the
campaign has an end of its own.
"""

from __future__ import annotations

import argparse
import importlib
import math
import random
import sys
import time
import traceback
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Final

# What the campaigns run lies beside the tests.
_TESTS = Path(__file__).resolve().parents[2] / "tests"
sys.path[:0] = [str(_TESTS), str(_TESTS / "system")]

MINUTES: Final = {
    "disk": 15.0,
    "blobs": 5.0,
    "worlds": 10.0,
    "calls": 120.0,
    "kills": 20.0,
    "mutants": 60.0,
    "seeds": 30.0,
    "liars": 30.0,
    "healing": 20.0,
    "signatures": 60.0,
    "fuzz": 400.0,
}
"""How long each campaign goes on, unless told otherwise."""
TELL_S = 60.0


def main() -> int:
    asked = _arguments()
    seed = random.SystemRandom().randrange(2**32) if asked.seed is None else asked.seed
    failed = [
        name
        for name in asked.names or MINUTES
        if not run(name, _minutes(asked, name), seed, asked.count or sys.maxsize)
    ]
    print(f"campaigns failed: {', '.join(failed)}" if failed else "campaigns: nothing was broken")
    return 1 if failed else 0


def _minutes(asked: argparse.Namespace, name: str) -> float:
    """So long, or for as long as the rounds take that were asked for."""
    return float(asked.minutes or (math.inf if asked.count else MINUTES[name]))


def run(name: str, minutes: float, seed: int, count: int) -> bool:
    """Whether every round kept every promise."""
    counted: Counter[str] = Counter()
    began = told = time.monotonic()
    try:
        rounds = importlib.import_module(f"campaigns.{name}").rounds(seed)
        for round_ in islice(rounds, count):
            counted.update(round_)
            now = time.monotonic()
            if now - told > TELL_S:
                told = now
                _tell(name, counted, now - began)
            if now - began > minutes * 60:
                break
    except Exception:
        traceback.print_exc()
        print(f"{name}: FAILED after {_said(counted)}; repeat: {name} --seed {seed}", flush=True)
        return False
    _tell(name, counted, time.monotonic() - began)
    return True


def _tell(name: str, counted: Counter[str], seconds: float) -> None:
    print(f"{name}: {_said(counted)} in {seconds / 60:.1f} min", flush=True)


def _said(counted: Counter[str]) -> str:
    return ", ".join(f"{number} {what}" for what, number in counted.items()) or "nothing"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/campaign")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MINUTES))
    parser.add_argument("--minutes", type=float, help="for each campaign")
    parser.add_argument("--count", type=int, help="end after so many rounds, however long it takes")
    parser.add_argument("--seed", type=int, help="as a failure printed it; default: a fresh one")
    asked = parser.parse_args()
    if unknown := [name for name in asked.names if name not in MINUTES]:
        parser.error(f"no such campaign: {', '.join(unknown)}; there are {', '.join(MINUTES)}")
    return asked


if __name__ == "__main__":
    sys.exit(main())
