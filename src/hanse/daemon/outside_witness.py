"""Has a witness outside the federation cosign this daemon's log, where `witness_url` names one.

For federations of two regions, whose witnesses alone cannot tell a region that is cut off from
one that lies. The key of the witness stands in the policy of the trust chain, so every daemon
counts its word; only the author asks for it. Nothing waits here but this task: a witness that
is slow, silent or hostile costs the finality that it would have given, and nothing else.
"""

from __future__ import annotations

import asyncio
import re

import structlog

from hanse.core.errors import Conflict, InvalidProof, NotPermitted, Rejected, Unavailable
from hanse.core.ids import Origin
from hanse.core.limits import WITNESS_LOOK_S, WITNESS_PAUSE_MAX_S
from hanse.core.log.checkpoint import Checkpoint
from hanse.core.log.note import Note
from hanse.core.log.proofs import Proof, consistency_path
from hanse.core.log.tiles import Tile, hashes_of, subtrees
from hanse.core.log.witness import Status, Submission
from hanse.core.node import Node
from hanse.daemon.driver import Driver
from hanse.gateways.log_files import LogFiles
from hanse.gateways.witness_client import add_checkpoint

log = structlog.get_logger("hanse.daemon")
_SIZE = re.compile(r"(0|[1-9][0-9]{0,18})\n")


class OutsideWitness:
    """`watch` never ends by itself. Nothing is stored: the witness tells what it remembers."""

    def __init__(self, driver: Driver, files: LogFiles, url: str) -> None:
        self._driver, self._files, self._url = driver, files, url
        self._known: tuple[str, int] = ("", 0)  # a log of ours, and its size at the witness

    async def watch(self) -> None:
        pause_s, said = WITNESS_LOOK_S, ""
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self.look()
                pause_s, said = WITNESS_LOOK_S, ""
            except (Rejected, Unavailable) as error:
                pause_s = min(WITNESS_PAUSE_MAX_S, 2 * pause_s)
                if said != str(error):
                    said = str(error)
                    log.warning("outside_witness", url=self._url, why=said, fix=error.fix)

    async def look(self) -> None:
        """Have our newest head cosigned if it is not final. Raises `Rejected`, `Unavailable`."""
        note = await self._driver.do(lambda node, _: node.finality.proposed())
        if note is None:
            return
        head = Checkpoint.parse(Note.parse(note).text)
        if self._known == (head.origin, head.size):
            return
        old = self._known[1] if self._known[0] == head.origin else 0
        status, answer = await self._ask(head, note, old)
        if status == Status.CONFLICT:
            status, answer = await self._ask(head, note, _remembered(answer, head, old))
        if status != Status.OK:
            raise NotPermitted(
                f"the witness refused our head of {head.size} with {status}",
                fix=_FIXES.get(status, "ask its operator"),
            )
        raw = note + answer
        await self._driver.do(lambda node, _: _cosigned(node, head, raw))
        self._known = (head.origin, head.size)

    async def _ask(self, head: Checkpoint, note: bytes, old: int) -> tuple[int, bytes]:
        proof = await self._proof(Origin.parse(head.origin), old, head.size)
        return await add_checkpoint(self._url, Submission(old, proof, note, head).render())

    async def _proof(self, origin: Origin, old: int, size: int) -> Proof:
        """Which tiles it takes shows when they are missing: about one a level."""
        kept: dict[Tile, tuple[bytes, ...]] = {}
        while True:
            try:
                return consistency_path(subtrees(size, kept.__getitem__), old, size)
            except KeyError as missing:
                tile: Tile = missing.args[0]
                file = await self._files.read(f"log/{origin}/{tile.path}")
                kept[tile] = hashes_of(tile, file.data)


def _remembered(answer: bytes, head: Checkpoint, old: int) -> int:
    """The size in a 409. Raises `InvalidProof` or `Conflict`."""
    found = _SIZE.fullmatch(answer.decode("ascii", "replace"))
    if found is None:
        raise InvalidProof("the witness answered a conflict without the size that it knows")
    size = int(found[1])
    if size > head.size or size == old:
        raise Conflict(
            f"the witness knows another log of this name, with {size} events; ours has {head.size}",
            fix="was this disk set back, or does a second daemon run with its keys?",
        )
    return size


def _cosigned(node: Node, head: Checkpoint, raw: bytes) -> None:
    """Take the lines in as those of any witness. Raises `Rejected` if one does not stand."""
    note = Note.parse(raw)
    asked = node.finality.policy.keys
    if not any(line.is_by(key) for line in note.signatures[1:] for key in asked):
        raise NotPermitted(
            "the witness that answered is not in the witness policy",
            fix="add its key in the next trust version, or correct witness_url",
        )
    node.finality.heard(Origin.parse(head.origin), raw, node.me.member)


_FIXES: dict[int, str] = {
    Status.NOT_FOUND: "tell its operator the name and the key of this log",
    Status.FORBIDDEN: "tell its operator the present key of this log",
    Status.UNPROCESSABLE: "it knows another log of this name: was this disk set back?",
}
