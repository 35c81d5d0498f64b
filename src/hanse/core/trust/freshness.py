"""Whether our view of trust is fresh enough to move forward.

Expired trust still says who belongs: it loads, serves, holds, kills and rolls back (F19). What
it does not allow is to start, to raise a weight or to promote. This clock decides that and
nothing else, and it never runs backwards: once a moment has been seen, a clock that is set
back, before or after a restart, revives nothing (T11).
"""

from __future__ import annotations

from collections.abc import Mapping

from hanse.core.errors import InvalidProof, Rejected
from hanse.core.signing import SigningKey
from hanse.core.step import PutLocal
from hanse.core.trust import instants
from hanse.core.trust.chain import Chain
from hanse.core.trust.members import Members
from hanse.core.trust.timestamp import RENEW_S, Stamp, open_stamp, sign_stamp

SPACE = "trust"
AHEAD_S = 300
"""How far a signer's clock may run ahead of ours."""
KEEP_EVERY_S = 600
RENEW_FILES_S = 14 * instants.DAY_S
"""How long before a file of trust expires its key holders are called."""
_STAMP = "start a daemon that holds the timestamp key, or import a bundle from one"


class Freshness:
    """Owned by the node. `now_s` is Unix time that only grows; `stamp` the newest timestamp."""

    def __init__(self) -> None:
        self.stamp: Stamp | None = None
        self.now_s = 0
        self._floor_s = self._kept_s = 0
        self._kept_raw: bytes | None = None

    def restore(self, kept: Mapping[str, bytes], members: Members) -> None:
        """Take back what was stored. A timestamp that the present keys did not sign is dropped."""
        self._floor_s = self._kept_s = int(kept.get("clock", b"0"))
        if "timestamp" in kept:
            try:
                self.stamp = open_stamp(kept["timestamp"], members)
            except Rejected:
                return
            self._kept_raw = kept["timestamp"]

    def see(self, wall_ms: int) -> None:
        """Take a reading of the clock.

        The floor rises with it only to the end of the newest timestamp, so that a clock that
        was wrong once spoils no timestamp but that one.
        """
        wall_s = wall_ms // 1000
        if self.stamp is not None:
            seen_s = min(wall_s, self.stamp.expires_s + 1)
            self._floor_s = max(self._floor_s, self.stamp.signed_s, seen_s)
        self.now_s = max(self._floor_s, wall_s)

    def offer(self, raw: bytes, members: Members) -> bool:
        """Take a timestamp if it is newer than ours. Raises `Rejected` for one that cannot be."""
        stamp = open_stamp(raw, members)
        if stamp.signed_s > self.now_s + AHEAD_S:
            raise InvalidProof(
                f"a timestamp comes from {stamp.signed_s - self.now_s} s ahead of this clock",
                fix="check the clocks of this machine and of the one that signs timestamps",
            )
        if self.stamp is not None and stamp.signed_s <= self.stamp.signed_s:
            return False
        self.stamp = stamp
        return True

    def renew(self, members: Members, key: SigningKey) -> Stamp | None:
        """A new timestamp by this key, if one is due; it is ours from here on."""
        if key.public not in members.timestamp.keys or members.timestamp.threshold > 1:
            return None
        signed_s, said = 0, (0, b"")
        if self.stamp is not None:
            signed_s = self.stamp.signed_s
            said = (self.stamp.trust_version, self.stamp.trust_digest)
        if self.now_s < signed_s + RENEW_S and said >= (members.version, b""):
            return None
        self.stamp = sign_stamp(members, key, max(self.now_s, signed_s + 1))
        return self.stamp

    def rotated(self, members: Members) -> None:
        """New trust may have taken the key away from whoever signed our timestamp."""
        if self.stamp is not None:
            try:
                open_stamp(self.stamp.raw, members)
            except Rejected:
                self.stamp = None

    def ageing(self, chain: Chain, region: str) -> str:
        """A warning before it matters; the same words until somebody acts."""
        if self.stamp is not None and self.now_s > self.stamp.signed_s + 2 * RENEW_S:
            return f"no new timestamp of trust for two days: {_STAMP}"
        return self._ended(chain, region, self.now_s + RENEW_FILES_S, "is good until")

    def stale(self, chain: Chain, region: str) -> str:
        """Why we may not move forward; empty if we may."""
        stamp, version = self.stamp, chain.current.version
        if stamp is None:
            return "no timestamp of trust has reached us"
        if self.now_s > stamp.expires_s:
            when = instants.to_iso(stamp.expires_s)
            return f"the newest timestamp of trust expired at {when}: {_STAMP}"
        if stamp.trust_version > version:
            return f"trust version {stamp.trust_version} is out and has not reached us"
        if stamp.trust_version == version and stamp.trust_digest != chain.current.digest:
            return f"a timestamp names another trust version {version} than ours"
        return self._ended(chain, region, self.now_s, "expired at")

    def _ended(self, chain: Chain, region: str, at_s: int, verb: str) -> str:
        for role in ("root", "targets", "snapshot", region):
            file = chain.tip.signed.get(f"{role}.json")
            if file is not None and at_s > file.expires_s:
                when = instants.to_iso(file.expires_s)
                return (
                    f"{file.name} of trust version {chain.current.version} {verb} {when}: its key "
                    "holders renew it, hanse trust renew"
                )
        return ""

    def writes(self) -> list[PutLocal]:
        """What has to survive a restart, if it changed enough to be written again."""
        out: list[PutLocal] = []
        raw = self.stamp.raw if self.stamp else None
        if raw != self._kept_raw:
            out.append(PutLocal(SPACE, "timestamp", raw))
        over = self.stamp is not None and self._floor_s > self.stamp.expires_s >= self._kept_s
        if self._floor_s >= self._kept_s + KEEP_EVERY_S or over:
            out.append(PutLocal(SPACE, "clock", str(self._floor_s).encode()))
            self._kept_s = self._floor_s
        self._kept_raw = raw
        return out
