"""A branch that a peer shows is weighed against the stored log by the running daemon."""

from __future__ import annotations

import asyncio

from lonely import chain, lonely

from hanse.core.effects import Compare
from hanse.core.events import Note
from hanse.core.freeze import SPACE
from hanse.core.ids import Segment
from hanse.core.log.checkpoint import Checkpoint, sign_checkpoint
from hanse.core.log.merkle import leaf_hash


async def test_a_branch_that_contradicts_the_stored_log_ends_as_stored_evidence() -> None:
    async with lonely(Segment("eu-north"), chain(1)) as daemon:
        log, key = daemon.node.me, daemon.bundles._key
        await daemon.driver.do(lambda node, _: node.propose(Note("ours")))
        other = b"an event of another branch"
        note = sign_checkpoint(Checkpoint(str(log), 1, leaf_hash(other)), key)
        asked = Compare(log.member, log, 0, (other,), note)
        await daemon.driver.do(lambda node, _: node.sync.effects.append(asked))
        async with asyncio.timeout(5):
            while not await daemon.store.local(SPACE):  # noqa: ASYNC110  # both read the log
                await asyncio.sleep(0)
        assert daemon.node.book.forks[log].index == 0
