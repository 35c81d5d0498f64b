"""Who else speaks with one key: what a link and a log tell of a second process of one member."""

from __future__ import annotations

from dataclasses import dataclass, field

from hanse.core.gossip.frames import Hello
from hanse.core.gossip.links import Link
from hanse.core.ids import MemberId, Origin


@dataclass(slots=True)
class Selves:
    """Owned by `gossip.sync`; the node takes `usurped` and `rivals` with every step."""

    boot_nonce: bytes
    """Random, made anew at every start: two at once are two processes."""
    extends: bool = True
    """Whether nobody but we may extend our log now. Set by the node."""
    usurped: list[Origin] = field(default_factory=list)
    """Own logs that somebody else has extended all the same."""
    rivals: dict[MemberId, bytes] = field(default_factory=dict)
    """Peers' words: who else dials them with our key."""
    doubles: dict[MemberId, float] = field(default_factory=dict)
    """Members for whom two processes spoke, and when that was seen last."""

    def greeted(self, link: Link, hello: Hello) -> None:
        link.peer_boot, link.yours = hello.boot_nonce, hello.yours
        if hello.rival_nonce not in (b"", self.boot_nonce):
            self.rivals[link.peer] = hello.rival_nonce

    def extended(self, origin: Origin, me: Origin) -> None:
        """A suffix has entered that we did not write; it verifies, so our key signed it."""
        if self.extends and origin.member == me.member and origin >= me:
            self.usurped.append(origin)

    def second(self, link: Link | None, boot_nonce: bytes, now_s: float) -> bool:
        """Whether a second dial of a member that we have a link with is another process of it."""
        if link is None or not link.peer_boot or boot_nonce in (b"", link.peer_boot):
            return False
        self.doubles[link.peer] = now_s
        return True
