"""Carries out the vices of a plan: who runs a second self, whose frames an adversary takes.

A liar is a real node with its own keys. Two-faced members run two processes from one moment
on, each of which deals with one half of the others: what either half sees is consistent. All
liars of a run share the halves, so they stand by each other's stories.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import partial
from random import Random
from typing import Final

from hanse.core.errors import Rejected
from hanse.core.gossip.frames import Frame
from hanse.core.ids import MemberId, Segment
from hanse.sim.adversary import Adversary
from hanse.sim.links import Links
from hanse.sim.process import Process, Surroundings, done
from hanse.sim.thief import forge, words
from hanse.sim.vices import TWO_FACED, Vice
from hanse.storage.memory import Disk

PAUSE_S: Final = (1.0, 6.0)  # between two lies
AWAY_S: Final = (0.5, 3.0)  # while a disk is put back


class Misdeeds:
    """Owned by the world; `doubles` are the processes beside the members' own."""

    def __init__(
        self,
        world: Surroundings,
        links: Links,
        processes: Mapping[Segment, Process],
        vices: tuple[Vice, ...],
    ) -> None:
        self._world, self._links, self._processes, self._vices = world, links, processes, vices
        self._rng = Random(f"byzantine/{world.seed}")  # noqa: S311  # repeatable on purpose
        self._adversaries: dict[str, Adversary] = {}
        self.doubles: list[Process] = []
        for vice in vices:
            if vice.kind == "restore":
                world.after(vice.at_s - vice.back_s, partial(self._remember, vice))
            world.after(vice.at_s, partial(self._begin, vice))

    # -- who is who --------------------------------------------------------------

    def honest(self, process: Process) -> bool:
        return not any(v.region == process.name and v.lies for v in self._vices)

    def answers(self, dialler: Process, member: MemberId) -> Process | None:
        """Which process of a member this one reaches."""
        everyone = [*self._processes.values(), *self.doubles]
        mine = [p for p in everyone if p.origin.member == member and p.deals_with(dialler)]
        return next((p for p in mine if p.node is not None), None)

    def sends(self, process: Process, peer: MemberId, frame: Frame) -> list[Frame]:
        adversary = self._adversaries.get(process.label)
        target = self.answers(process, peer)
        return adversary.sends(frame, target.name) if adversary and target else [frame]

    # -- deeds -------------------------------------------------------------------

    def _begin(self, vice: Vice) -> None:
        process = self._processes[Segment(vice.region)]
        self._world.record(vice.kind, process.label)
        match vice.kind:
            case "withhold" | "replay":
                self._adversary(process).begin(vice)
            case "equivocate" | "collude":
                self._split(process, vice)
            case "steal":
                self._steal(process, vice)
            case "clone":
                self._clone(process, vice)

    def _adversary(self, process: Process) -> Adversary:
        seed = f"adversary/{self._world.seed}/{process.label}"
        made = Adversary(Random(seed))  # noqa: S311  # repeatable on purpose
        return self._adversaries.setdefault(process.label, made)

    def _split(self, process: Process, vice: Vice) -> None:
        """From now on one half of the others sees another self of this member."""
        if process.faces is None:
            two_faced = {v.region for v in self._vices if v.kind in TWO_FACED}
            twin = self._double(process)
            twin.new = True  # a liar asks nobody before it writes
            process.faces = frozenset(self._processes) - set(vice.half)
            twin.faces = frozenset(vice.half) | {f"{region}~2" for region in two_faced}
            for region in vice.half:
                member = self._processes[Segment(region)].origin.member
                self._links.close(process, member, "shown another face")
            twin.boot()
        if vice.kind == "equivocate":
            faces = [process, *(d for d in self.doubles if d.name == process.name)]
            self._lie(faces, vice)

    def _double(self, process: Process) -> Process:
        twin = process.double(2 + sum(d.name == process.name for d in self.doubles))
        self.doubles.append(twin)
        return twin

    def _lie(self, faces: list[Process], vice: Vice) -> None:
        """Each self writes what it likes, under the numbers that the other uses too."""
        for face in faces:
            if face.node is not None:
                with contextlib.suppress(Rejected):  # its own software writes nothing void
                    face.propose(words(self._rng, face.node, face.origin))
        self._again(vice, partial(self._lie, faces, vice))

    def _steal(self, process: Process, vice: Vice) -> None:
        victim = self._processes[Segment(vice.victim)]
        peers = self._links.peers(process)
        if process.node is not None and peers:
            size = process.node.book.size(victim.origin)
            log = done(process.store.events(victim.origin, 0, size, 2**60))
            forged = forge(self._rng, process.node, victim.origin, victim.key, log)
            self._links.send(process, self._rng.choice(peers), forged)
        self._again(vice, partial(self._steal, process, vice))

    def _again(self, vice: Vice, deed: partial[None]) -> None:
        pause_s = self._rng.uniform(*PAUSE_S)
        if self._world.now_s + pause_s < vice.until_s:
            self._world.after(pause_s, deed)

    # -- accidents ---------------------------------------------------------------

    def _clone(self, process: Process, vice: Vice) -> None:
        twin = self._double(process)
        twin.boot()
        self._world.after(vice.until_s - vice.at_s, partial(self._stop, twin))

    def _stop(self, process: Process) -> None:
        process.crash(process.store.crash())

    def _remember(self, vice: Vice) -> None:
        process = self._processes[Segment(vice.region)]
        self._world.after(vice.back_s, partial(self._put_back, process, process.store.snapshot()))

    def _put_back(self, process: Process, disk: Disk) -> None:
        if process.node is not None:
            process.crash(process.store.crash(disk))
            self._world.set_back(process)
            self._world.after(self._rng.uniform(*AWAY_S), process.boot)
