"""T17: another strict verifier agrees with ours, and nothing else in Hanse verifies."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

from fuzz.signatures import check

SOURCE = Path(__file__).parents[2] / "src/hanse"
MUTATIONS = 20_000


def test_another_verifier_agrees_on_every_mutated_signature() -> None:
    rng = Random("ed25519")  # the same every time
    stood = sum(check(rng) for _ in range(MUTATIONS))
    assert MUTATIONS / 20 < stood < MUTATIONS / 4


def test_only_one_module_verifies_ed25519() -> None:
    """TLS has its own; what decides state goes through `core.signing`."""
    using = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if re.search(r"Ed25519(?:Public|Private)Key|\bnacl\b|verify_signature", path.read_text())
    }
    assert using == {"core/signing.py"}
