"""People change trust and kill a release by files, while daemons run and tell each other."""

from __future__ import annotations

from pathlib import Path

import pytest
from digit_releases import paths
from system_federation import MODEL, REGIONS, Federation, done, hanse

pytestmark = pytest.mark.system
TWO = REGIONS[:2]


def test_two_people_kill_a_release_in_a_federation_that_asks_for_two(folder: Path) -> None:
    world = Federation(folder)
    try:
        world.found(nodes=(), regions=TWO)
        world.start(TWO)
        world.publish(paths()["v1"], "1.0.0")
        home, root = world.founder.home, world.founder.home / "keys/root.key"
        there = world.daemons[TWO[1]]

        # One more release manager, and from then on two have to sign. The root key signs files.
        ada, copy = folder / "ada.key", folder / "copy"
        public = done("trust", "key", ada).strip()
        for number, change in enumerate((
            ("add-person", "ada", public, "--role", "release-manager"),
            ("set-threshold", "release-manager", "2"),
        )):  # fmt: skip
            draft = folder / f"draft-{number}.json"
            done("trust", *change, "--home", home, "--out", draft)
            done("trust", "sign", draft, "--yes", "--key", root, "--home", home)
            assert "running daemon has it" in hanse("trust", "submit", draft, home=home).stderr
        version = len(list((home / "trust").glob("*.json")))
        assert f"trust version {version}" in done("trust", "show", "--home", home)

        # Alone nobody kills; a draft that both have signed does, in every region.
        name = ("release", "kill", f"{MODEL}@1.0.0", "--reason", "wrong answers", "--yes")
        alone = hanse(*name, home=home)
        assert alone.returncode == 1
        assert "1 of 2 people" in alone.stderr
        done(*name, "--draft", copy, home=home)
        done("statement", "sign", copy, "--yes", "--key", ada)
        done("statement", "sign", copy, "--yes", "--key", home / "keys/operator.key")
        done("statement", "submit", copy, home=home)
        world.until(
            "the other region knows that it is killed",
            lambda: [r["state"] for r in there.ask("release.list")["releases"]] == ["killed"],
        )
        assert world.agreed()
        for process in world.daemons.values():
            assert process.stop() == 0
    finally:
        world.close()
