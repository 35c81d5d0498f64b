"""Two real daemons; one is killed again and again while everybody writes to it.

After each restart it must hold what it acknowledged (I5) and whatever its peer has received of
it; no log is frozen by faults alone (I13), and trust never falls (I10).
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from publisher import Publisher, releases
from system_federation import REGIONS, Daemon, Federation

from hanse.core.errors import HanseError
from hanse.core.ids import segment

FREEZERS = 2
FORBIDDEN = ('"heads_differ"', '"trust_differs"', '"frame_rejected"', '"broken"', "Traceback")


@dataclass
class Writers:
    """Publish and freeze one model from several threads, until the daemon does not answer."""

    daemon: Daemon
    file: Path
    model: str
    releases: list[str] = field(default_factory=list)
    holds: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        publisher = Publisher(self.daemon, self.file, self.releases, model=segment(self.model))
        publisher.publish()  # freezing needs a model
        works = [publisher.run, *[self._freeze] * FREEZERS]
        self._threads = [threading.Thread(target=work) for work in works]
        for thread in self._threads:
            thread.start()

    def _freeze(self) -> None:
        try:
            while self.freeze_once():
                pass
        except (HanseError, ConnectionError):
            return

    def freeze_once(self) -> bool:
        done = self.daemon.ask("freeze", model=self.model, reason="a drill")
        self.holds.append(done["hold"])
        return True

    def join(self) -> None:
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()


class KillLoop:
    """`acknowledged` counts over all rounds; `folder` has a short path, for the sockets."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._rng = random.Random(seed)
        self._folder = folder
        self.world = Federation(folder)
        self.world.found(nodes=(), regions=REGIONS[:2])
        self.world.start(REGIONS[:2])
        self.victim, self.peer = self.world.daemons.values()
        Publisher(self.victim, folder / "note.bin").upload()
        self.rounds = self.acknowledged = self.restarts = 0

    def kill_under_load(self) -> None:
        """One round: write, SIGKILL at a random moment, now and then again while it boots."""

        def kill() -> None:
            time.sleep(self._rng.uniform(0.03, 0.15))  # any moment will do
            self.victim.kill()

        self._round(kill)
        if self._rng.random() < 0.25:
            self._start()
            time.sleep(self._rng.uniform(0.05, 1.0))
            self.victim.kill()
        self._restart_and_compare()

    def stop_under_load(self) -> int:
        """As a supervisor does; the exit code."""
        codes: list[int] = []
        self._round(lambda: codes.append(self.victim.stop()))
        self._restart_and_compare()
        return codes[0]

    def pause_under_load(self, seconds: float) -> None:
        """SIGSTOP, then SIGCONT: it was away without knowing, and then goes on writing."""

        def pause() -> None:
            assert self.victim.handle is not None
            self.victim.handle.send_signal(signal.SIGSTOP)
            time.sleep(seconds)
            self.victim.handle.send_signal(signal.SIGCONT)
            # Who has waited too long meanwhile has hung up, and may or may not have been heard.
            self.world.until("it writes again", self._writers.freeze_once)
            self.victim.kill()

        self._round(pause)
        self._restart_and_compare()

    def finish(self) -> None:
        """Both agree, and neither has anything to say against the other."""
        self.world.agreed()
        for log in self.world.logs:
            said = log.read_text()
            for word in FORBIDDEN:
                assert word not in said, said[-4000:]

    def close(self) -> None:
        self.world.close()

    def _round(self, end: Callable[[], None]) -> None:
        self.rounds += 1
        model = f"notes-{self.rounds}"
        self._writers = Writers(self.victim, self._folder / "note.bin", model)
        self.world.until("it takes holds", lambda: len(self._writers.holds) > 2)
        end()
        self._writers.join()
        self.acknowledged += len(self._writers.releases) + len(self._writers.holds)

    def _start(self) -> None:
        self.victim.start()
        self.restarts += 1

    def _restart_and_compare(self) -> None:
        writers, trust = self._writers, self.peer.ask("status")["daemon"]["trust_version"]
        received = self._known(self.peer)
        self._start()
        self.world.until("it writes again", lambda: self.victim.writing)
        assert self.victim.ask("status")["daemon"]["trust_version"] >= trust
        known = self._known(self.victim)
        assert {*writers.releases, *writers.holds} <= known, "acknowledged, and lost"
        assert received <= known, "sent, and lost"

    def _known(self, daemon: Daemon) -> set[str]:
        """Releases and holds of this round's model."""
        model = self._writers.model
        try:
            holds = {row["hold"] for row in daemon.ask("holds", model=model)["holds"]}
            return holds | releases(daemon, model)
        except HanseError:
            return set()  # it has not heard of the model yet
