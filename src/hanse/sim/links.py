"""Links between processes: dialled while wanted, closed by crashes, cuts and hang-ups.

A link is one stream: its frames end with it. A cut silences it at once, and only after the
keep-alive do both ends learn of it, as with real sockets.
"""

from __future__ import annotations

from collections.abc import Mapping
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


@dataclass(frozen=True, slots=True)
class Stream:
    """One open link; `number` tells it from earlier ones between the same two."""

    number: int
    ends: tuple[MemberId, MemberId]


class Links:
    """Owned by the world."""

    def __init__(
        self, time: Timeline, network: Network, processes: Mapping[MemberId, Process]
    ) -> None:
        self._time, self._network, self._processes = time, network, processes
        self._open: dict[tuple[MemberId, MemberId], Stream] = {}
        self._wanted: dict[tuple[MemberId, MemberId], int] = {}
        self._count = 0

    # -- wishes ----------------------------------------------------------------

    def want(self, process: Process, peer: MemberId) -> None:
        self._wanted[process.origin.member, peer] = process.boots
        self._later(process, peer, REDIAL_S[0])

    def unwant(self, process: Process, peer: MemberId) -> None:
        """Stop dialling, and drop the stream unless the peer wants it too."""
        self._wanted.pop((process.origin.member, peer), None)
        if (peer, process.origin.member) not in self._wanted:
            self.close(process.origin.member, peer, "no longer wanted")

    def _later(self, process: Process, peer: MemberId, pause_s: float) -> None:
        wait_s = pause_s * self._time.rng.uniform(0.5, 1.5)
        self._time.after(wait_s, lambda: self._dial(process, peer, pause_s))

    def _dial(self, process: Process, peer: MemberId, pause_s: float) -> None:
        me, target = process.origin.member, self._processes.get(peer)
        if self._wanted.get((me, peer)) != process.boots or process.node is None:
            return
        if _pair(me, peer) in self._open:
            return  # when it closes, whoever wants it dials again
        reachable = self._network.joined(process.name, target.name) if target else False
        if target is None or target.node is None or not reachable:
            return self._later(process, peer, min(pause_s * 2, REDIAL_S[1]))
        self._connect(process, target)
        return None

    def _connect(self, dialler: Process, target: Process) -> None:
        self._count += 1
        pair = _pair(dialler.origin.member, target.origin.member)
        self._open[pair] = Stream(self._count, pair)
        self._time.record("link", dialler.name, target.name.encode())
        for process, peer in ((dialler, target), (target, dialler)):
            _link_up(process, peer)

    # -- frames ----------------------------------------------------------------

    def send(self, process: Process, peer: MemberId, frame: Frame) -> None:
        stream, target = self._open.get(_pair(process.origin.member, peer)), self._processes[peer]
        if stream is None:
            return
        raw, time = encode_frame(frame), self._time
        for arrival_s in self._network.arrivals(process.name, target.name, time.now_s):
            time.after(arrival_s - time.now_s, lambda: self._deliver(stream, process, target, raw))

    def _deliver(self, stream: Stream, process: Process, target: Process, raw: bytes) -> None:
        if self._open.get(stream.ends) is not stream:
            return
        if not self._network.reaches(process.name, target.name):
            return
        self._time.record("frame", target.name, raw)
        peer = process.origin.member
        target.do(lambda node, clock: node.frame(peer, decode_frame(raw), clock))

    # -- endings ---------------------------------------------------------------

    def close(self, a: MemberId, b: MemberId, why: str) -> None:
        """Both ends learn of it; whoever still wants the link dials again."""
        if self._open.pop(_pair(a, b), None) is None:
            return
        self._time.record("unlink", why, a.encode() + b.encode())
        for me, peer in ((a, b), (b, a)):
            process = self._processes[me]
            _link_down(process, peer)
            if self._wanted.get((me, peer)) == process.boots:
                self._later(process, peer, REDIAL_S[0])

    def died(self, process: Process) -> None:
        """The sockets of a dead process close at once; its wishes die with it."""
        me = process.origin.member
        for wish in [w for w in self._wanted if w[0] == me]:
            del self._wanted[wish]
        for pair in [p for p in self._open if me in p]:
            self.close(*pair, "its process died")

    def check_alive(self) -> None:
        """Watch every stream that a cut has silenced."""
        for pair, stream in list(self._open.items()):
            if self._silent(pair):
                self._time.after(KEEP_ALIVE_S, partial(self._time_out, stream))

    def _time_out(self, stream: Stream) -> None:
        if self._open.get(stream.ends) is stream and self._silent(stream.ends):
            self.close(*stream.ends, "keep-alive timed out")

    def _silent(self, pair: tuple[MemberId, MemberId]) -> bool:
        a, b = (self._processes[end].name for end in pair)
        return not self._network.joined(a, b)


def _pair(a: MemberId, b: MemberId) -> tuple[MemberId, MemberId]:
    return (a, b) if a < b else (b, a)


def _link_up(process: Process, peer: Process) -> None:
    process.do(lambda node, clock: node.link_up(peer.origin.member, peer.spki, clock))


def _link_down(process: Process, peer: MemberId) -> None:
    process.do(lambda node, _: node.link_down(peer))
