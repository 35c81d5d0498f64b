"""What daemons tell each other about trust: versions, timestamps, and that two versions differ.

A version that follows ours is adopted and passed on. Two different files of one version, both
rightly signed, are an alarm: we keep the one that came first and nobody moves forward, until a
version that the root has signed follows one of the two (T15, T16). Whoever holds the other one
then takes the line that the root chose. A peer that merely says that it has another version
alarms nobody: the file itself has to stand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hanse.core.effects import Log
from hanse.core.errors import InvalidProof, Rejected
from hanse.core.gossip.frames import Frame, Hello, Ping, Timestamp, TrustFile
from hanse.core.gossip.trust_parts import Gathering, parts_of
from hanse.core.ids import MemberId
from hanse.core.logbook import Logbook
from hanse.core.signing import SigningKey
from hanse.core.step import DropTrust, PutLocal, PutTrust, Write
from hanse.core.trust.chain import Chain, extend, replay
from hanse.core.trust.freshness import SPACE, Freshness

BACK = 8
"""How many versions back a difference is looked for; also tries that each peer has a minute."""
OFFER_AGAIN_S = 3600
_RIVAL = "rival/"


class TrustExchange:
    """Owned by sync. `writes` is what the stimuli since the last step want stored."""

    def __init__(
        self,
        book: Logbook,
        region: str,
        send: Callable[[MemberId, Frame], None],
        peers: Callable[[], Sequence[MemberId]],
    ) -> None:
        self.freshness = Freshness()
        self.key: SigningKey | None = None  # for timestamps, if this daemon holds one
        self.rival: Chain | None = None
        self.replaced = False  # another line took the place of ours: judge everything anew
        self.writes: list[Write] = []
        self.alarms: list[Log] = []
        self._warned = ""
        self._book, self._region = book, region
        self._send, self._peers = send, peers
        self._parts = Gathering()
        self._told: dict[MemberId, tuple[int, int]] = {}
        self._tries: dict[MemberId, int] = {}
        self._tries_until_s = 0

    def restore(self, kept: Mapping[str, bytes]) -> None:
        """Take back what was stored under `SPACE`; the other line is verified again."""
        self.freshness.restore(kept, self._book.chain.current)
        rivals = sorted((int(k.removeprefix(_RIVAL)), k) for k in kept if k.startswith(_RIVAL))
        for version, key in rivals:
            try:
                self.rival = self._other_line(version, kept[key])
            except Rejected:
                return  # it was of a line that has been settled since

    @property
    def stale(self) -> str:
        """Why nobody here may move forward; empty if nothing is in the way."""
        if self.rival is not None:
            version, other = self.rival.current.version, self.rival.current.digest.hex()[:12]
            return (
                f"two trust versions {version} are signed, ours and {other}: a version that "
                "the root signs has to follow one of them"
            )
        return self.freshness.stale(self._book.chain, self._region)

    @property
    def warning(self) -> str:
        """What stops forward moves, or soon will."""
        return self.stale or self.freshness.ageing(self._book.chain, self._region)

    def tick(self) -> None:
        """Sign a timestamp, if one is due and the key is here; say once what is in the way."""
        if self.key is not None:
            stamp = self.freshness.renew(self._book.chain.current, self.key)
            if stamp is not None:
                self._tell_stamp(None)
        why = self.warning
        if why != self._warned:
            self._warned = why
            self._alarm("warning", "trust_stale" if why else "trust_fresh", why=why)

    def forget(self, peer: MemberId) -> None:
        self._parts.forget(peer)
        self._told.pop(peer, None)

    def take(self) -> list[Write]:
        out, self.writes = [*self.writes, *self.freshness.writes()], []
        return out

    # -- frames --------------------------------------------------------------------

    def hello(self, peer: MemberId, hello: Hello) -> None:
        """A peer says under which trust it acts: send what it lacks, or what we hold instead."""
        chain = self._book.chain
        ours = chain.at(hello.trust_version)
        if ours is None:
            return
        if ours.digest == hello.trust_digest:
            return self._send_files(peer, hello.trust_version)
        self._alarm("warning", "trust_differs", peer=peer, version=ours.version)
        return self._send_files(peer, max(0, hello.trust_version - BACK))

    def greeted(self, peer: MemberId) -> None:
        self._told.pop(peer, None)
        self._offer(peer)

    def ping(self, peer: MemberId, ping: Ping) -> None:
        """A peer that would not take our timestamp may take it later: once an hour is enough."""
        stamp = self.freshness.stamp
        if stamp is not None and ping.timestamp_s < stamp.signed_s:
            self._offer(peer)

    def _offer(self, peer: MemberId) -> None:
        stamp, now_s = self.freshness.stamp, self.freshness.now_s
        said, at_s = self._told.get(peer, (0, 0))
        if stamp is not None and (said != stamp.signed_s or now_s >= at_s + OFFER_AGAIN_S):
            self._told[peer] = (stamp.signed_s, now_s)
            self._send(peer, Timestamp(stamp.raw))

    def timestamp(self, peer: MemberId | None, frame: Timestamp) -> None:
        if self.freshness.offer(frame.raw, self._book.chain.current):
            self._tell_stamp(peer)

    def file(self, peer: MemberId, frame: TrustFile) -> None:
        newest = self._book.chain.current.version
        if newest - BACK < frame.version <= newest + 1:
            whole = self._parts.take(peer, frame)
            if whole is not None:
                self._received(peer, frame.version, whole)

    # -- versions ------------------------------------------------------------------

    def extend(self, raw: bytes, source: MemberId | None) -> None:
        """Adopt the next version and tell everybody but whoever told us. Raises `Rejected`."""
        before = self._book.chain.current
        self._book.chain = extend(self._book.chain, raw)
        current = self._book.chain.current
        self.writes.append(PutTrust(current.version, raw))
        self._adopted(current.root_version > before.root_version)
        for peer in self._peers():
            if peer != source:
                self._send_files(peer, current.version - 1)

    def _adopted(self, by_root: bool) -> None:
        self._book.stalled.clear()
        self.freshness.rotated(self._book.chain.current)
        if by_root and self.rival is not None:
            newest = self.rival.current.version
            self.writes += [PutLocal(SPACE, f"{_RIVAL}{v}", None) for v in range(1, newest + 1)]
            self.rival = None

    def _received(self, peer: MemberId, version: int, raw: bytes) -> None:
        chain = self._book.chain
        if version <= chain.current.version:
            return self._other(peer, version, raw)
        if self.rival is None or self.rival.current.version != version - 1:
            return self.extend(raw, peer)
        try:
            return self.extend(raw, peer)
        except InvalidProof:
            line = extend(self.rival, raw)
        by_root = line.current.root_version > line.versions[-2].root_version
        return self._switch(line) if by_root else self._note_rival(peer, line, raw)

    def _other(self, peer: MemberId, version: int, raw: bytes) -> None:
        """A file of a version that we hold: ours, or proof that there are two."""
        chain = self._book.chain
        settled = chain.current.root_version > chain.versions[version - 1].root_version
        if settled or raw == chain.files[version - 1]:
            return
        if self.rival is not None and raw in self.rival.files:
            return
        self._bound_tries(peer)
        line = self._other_line(version, raw)
        if line.current.digest != chain.versions[version - 1].digest:
            self._note_rival(peer, line, raw)

    def _other_line(self, version: int, raw: bytes) -> Chain:
        """The chain that ends with this file of `version`. Raises `Rejected` if there is none."""
        if self.rival is not None and self.rival.current.version == version - 1:
            return extend(self.rival, raw)
        return extend(replay(self._book.chain.files[: version - 1]), raw)

    def _bound_tries(self, peer: MemberId) -> None:
        """To look at an old version costs a replay, and anybody may send one."""
        if self.freshness.now_s >= self._tries_until_s:
            self._tries_until_s = self.freshness.now_s + 60
            self._tries.clear()
        self._tries[peer] = self._tries.get(peer, 0) + 1
        if self._tries[peer] > BACK:
            raise InvalidProof("too many old trust versions from this peer")

    def _note_rival(self, peer: MemberId, line: Chain, raw: bytes) -> None:
        """Two versions stand: keep both, tell everybody, and show ours to whoever has the other."""
        self.rival = line
        version = line.current.version
        self.writes.append(PutLocal(SPACE, f"{_RIVAL}{version}", raw))
        other = line.current.digest.hex()
        self._alarm("error", "trust_forked", peer=peer, version=version, other=other)
        if version <= self._book.chain.current.version:
            self._send_file(peer, version, self._book.chain.files[version - 1])
        for third in self._peers():
            if third != peer:
                self._send_file(third, version, raw)

    def _switch(self, line: Chain) -> None:
        """The root has settled it, and not for our line."""
        ours = self._book.chain.versions
        fork = next(i for i, m in enumerate(line.versions) if m.digest != ours[i].digest)
        self._book.chain, self.replaced = line, True
        self.writes.append(DropTrust(fork))
        self.writes += [PutTrust(v, raw) for v, raw in enumerate(line.files, 1) if v > fork]
        self._adopted(by_root=True)
        for peer in self._peers():
            self._send_files(peer, fork)

    # -- sending -------------------------------------------------------------------

    def _send_files(self, peer: MemberId, after: int) -> None:
        for version, raw in enumerate(self._book.chain.files[after:], start=after + 1):
            self._send_file(peer, version, raw)

    def _send_file(self, peer: MemberId, version: int, raw: bytes) -> None:
        for part in parts_of(version, raw):
            self._send(peer, part)

    def _alarm(self, level: str, event: str, **fields: str | int) -> None:
        self.alarms.append(Log(level, event, tuple(sorted(fields.items()))))

    def _tell_stamp(self, source: MemberId | None) -> None:
        for peer in self._peers():
            if peer != source:
                self._offer(peer)
