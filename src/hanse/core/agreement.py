"""Do daemons that hold the same make the same of it? If not, one of them is wrong (T50).

Each says now and then, signed, which state it computed from which logs. Equal logs (and so
equal trust, whose digest is part of theirs) with unequal states are a defect somewhere, and
nobody can tell from inside in whom. So whoever notices raises an alarm and makes no forward
move until the two agree again. It never goes back because of it.

Daemons do not reach the same logs at the same moment: a short history of our own states is
kept, and words about logs that we do not hold yet wait for us to get there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from hanse.core import limits
from hanse.core.errors import InvalidSpec
from hanse.core.ids import MemberId


@dataclass(frozen=True, slots=True)
class Attest:
    """State `state` was computed from logs and trust of digest `heads`; 32 bytes each."""

    heads: bytes
    state: bytes

    @classmethod
    def read(cls, said: Mapping[str, object]) -> Attest:
        """From the body of a status. Raises `InvalidSpec`."""
        try:
            found = cls(bytes.fromhex(str(said["heads"])), bytes.fromhex(str(said["state"])))
        except (KeyError, ValueError):
            raise InvalidSpec("an attestation names its logs and its state") from None
        if len(found.heads) != 32 or len(found.state) != 32:
            raise InvalidSpec("an attestation consists of two digests of 32 bytes")
        return found

    def say(self) -> dict[str, str]:
        return {"heads": self.heads.hex(), "state": self.state.hex()}


class Agreement:
    """Owned by `bulletin`; members are compared with ourselves, not with each other."""

    def __init__(self) -> None:
        self.differing: dict[MemberId, Attest] = {}
        """Members with another state than ours for the logs that they named."""
        self._ours: OrderedDict[bytes, bytes] = OrderedDict()
        self._theirs: dict[MemberId, Attest] = {}
        self._alarms: list[MemberId] = []

    def reached(self, ours: Attest) -> None:
        """We have just computed this."""
        self._ours[ours.heads] = ours.state
        self._ours.move_to_end(ours.heads)
        while len(self._ours) > limits.STATES_REMEMBERED:
            self._ours.popitem(last=False)
        for member, theirs in self._theirs.items():
            self._compare(member, theirs)

    def heard(self, member: MemberId, theirs: Attest) -> None:
        self._theirs[member] = theirs
        self._compare(member, theirs)

    def alarms(self) -> list[MemberId]:
        """Members that have begun to differ since the last call."""
        new, self._alarms = self._alarms, []
        return new

    def _compare(self, member: MemberId, theirs: Attest) -> None:
        ours = self._ours.get(theirs.heads)
        if ours is None:
            return
        if ours == theirs.state:
            self.differing.pop(member, None)
            return
        if member not in self.differing:
            self._alarms.append(member)
        self.differing[member] = theirs
