"""Links between processes: dialled while wanted, closed by crashes, cuts and hang-ups.

A link is one stream: its frames end with it. A cut silences it at once, and only after the
keep-alive do both ends learn of it, as with real sockets. A member has one link to another,
whichever of that member's processes (a clone, a second face) is at its end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from hanse.core.gossip.frames import Frame
from hanse.core.ids import MemberId
from hanse.rpc.codec import decode_frame, encode_frame
from hanse.sim.network import Network
from hanse.sim.process import Process
from hanse.sim.timeline import Timeline

KEEP_ALIVE_S = 6.0
REDIAL_S = (0.2, 5.0)
Find = Callable[[Process, MemberId], Process | None]
Place = tuple[str, MemberId]  # a process, by its label, and the member at the other end


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """One open link; each is told from earlier ones between the same two by being another."""

    ends: tuple[Process, Process]

    def places(self) -> tuple[Place, Place]:
        a, b = self.ends
        return _place(a, b), _place(b, a)


class Links:
    """Owned by the world; `find` says which process of a member answers a dialler."""

    def __init__(self, time: Timeline, network: Network, find: Find) -> None:
        self._time, self._network, self._find = time, network, find
        self._open: dict[Place, Stream] = {}
        self._wanted: dict[Place, int] = {}

    # -- wishes ----------------------------------------------------------------

    def want(self, process: Process, peer: MemberId) -> None:
        self._wanted[process.label, peer] = process.boots
        self._later(process, peer, REDIAL_S[0])

    def unwant(self, process: Process, peer: MemberId) -> None:
        """Stop dialling, and drop the stream unless the peer wants it too."""
        self._wanted.pop((process.label, peer), None)
        stream = self._open.get((process.label, peer))
        if stream and not any(place in self._wanted for place in stream.places()):
            self.close(process, peer, "no longer wanted")

    def _later(self, process: Process, peer: MemberId, pause_s: float) -> None:
        wait_s = pause_s * self._time.rng.uniform(0.5, 1.5)
        self._time.after(wait_s, lambda: self._dial(process, peer, pause_s))

    def _dial(self, process: Process, peer: MemberId, pause_s: float) -> None:
        if self._wanted.get((process.label, peer)) != process.boots or process.node is None:
            return
        if (process.label, peer) in self._open:
            return  # when it closes, whoever wants it dials again
        target = self._find(process, peer)
        if target is None or target.node is None or not self._reachable(process, target):
            return self._later(process, peer, min(pause_s * 2, REDIAL_S[1]))
        self._connect(process, target)
        return None

    def _reachable(self, process: Process, target: Process) -> bool:
        taken = _place(target, process) in self._open  # by another process of our member
        return not taken and self._network.joined(process.name, target.name)

    def _connect(self, dialler: Process, target: Process) -> None:
        pair = sorted((dialler, target), key=lambda process: process.origin.member)
        stream = Stream((pair[0], pair[1]))
        self._open.update(dict.fromkeys(stream.places(), stream))
        self._time.record("link", dialler.label, target.label.encode())
        for process, peer in ((dialler, target), (target, dialler)):
            _link_up(process, peer)

    # -- frames ----------------------------------------------------------------

    def send(self, process: Process, peer: MemberId, frame: Frame) -> None:
        stream = self._open.get((process.label, peer))
        if stream is None:
            return
        raw, time = encode_frame(frame), self._time
        a, b = stream.ends
        target = b if a is process else a
        for arrival_s in self._network.arrivals(process.name, target.name, time.now_s):
            time.after(arrival_s - time.now_s, lambda: self._deliver(stream, process, target, raw))

    def peers(self, process: Process) -> list[MemberId]:
        """Members to which this process has a link now, sorted."""
        return sorted(member for label, member in self._open if label == process.label)

    def _deliver(self, stream: Stream, process: Process, target: Process, raw: bytes) -> None:
        if self._open.get(_place(process, target)) is not stream:
            return
        if not self._network.reaches(process.name, target.name):
            return
        self._time.record("frame", target.label, raw)
        peer = process.origin.member
        target.do(lambda node, clock: node.frame(peer, decode_frame(raw), clock))

    # -- endings ---------------------------------------------------------------

    def close(self, process: Process, peer: MemberId, why: str) -> None:
        """Both ends learn of it; whoever still wants the link dials again."""
        stream = self._open.get((process.label, peer))
        if stream is None:
            return
        a, b = stream.ends
        other = b if a is process else a
        self._time.record("unlink", why, process.origin.member.encode() + peer.encode())
        for place in stream.places():
            del self._open[place]
        for end, gone in ((process, other), (other, process)):
            _link_down(end, gone.origin.member)
            if self._wanted.get(_place(end, gone)) == end.boots:
                self._later(end, gone.origin.member, REDIAL_S[0])

    def died(self, process: Process) -> None:
        """The sockets of a dead process close at once; its wishes die with it."""
        for wish in [w for w in self._wanted if w[0] == process.label]:
            del self._wanted[wish]
        for stream in [s for place, s in self._open.items() if place[0] == process.label]:
            self._close(stream, "its process died")

    def check_alive(self) -> None:
        """Watch every stream that a cut has silenced."""
        for stream in dict.fromkeys(self._open.values()):
            if self._silent(stream):
                self._time.after(KEEP_ALIVE_S, partial(self._time_out, stream))

    def _time_out(self, stream: Stream) -> None:
        if self._open.get(stream.places()[0]) is stream and self._silent(stream):
            self._close(stream, "keep-alive timed out")

    def _close(self, stream: Stream, why: str) -> None:
        a, b = stream.ends
        self.close(a, b.origin.member, why)

    def _silent(self, stream: Stream) -> bool:
        a, b = stream.ends
        return not self._network.joined(a.name, b.name)


def _place(process: Process, peer: Process) -> Place:
    return process.label, peer.origin.member


def _link_up(process: Process, peer: Process) -> None:
    process.do(lambda node, clock: node.link_up(peer.origin.member, peer.spki, clock))


def _link_down(process: Process, peer: MemberId) -> None:
    process.do(lambda node, _: node.link_down(peer))
