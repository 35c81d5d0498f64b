"""The adapter of turns to an event loop: it waits, it lets go, it forgets who left."""

from __future__ import annotations

import asyncio

from hanse.rpc.pacing import Pace


async def test_without_a_limit_nobody_waits() -> None:
    pace = Pace()
    for _ in range(1000):
        await pace.take("a", 2**30)


async def test_what_is_owed_is_waited_for_and_who_leaves_is_forgotten() -> None:
    pace = Pace(1000)
    await pace.take("a", 100_000)  # a hundred seconds are owed
    leaving = asyncio.create_task(pace.take("a", 1))
    staying = asyncio.create_task(pace.take("b", 1))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert not staying.done()
    assert len(pace._waiting) == 1
    staying.cancel()
    await asyncio.gather(staying, return_exceptions=True)
    assert not pace._waiting
    assert pace._turns is not None
    assert pace._turns.wait_s(0.0) is None


async def test_a_small_limit_lets_everybody_through_in_the_end() -> None:
    pace = Pace(10_000_000)
    await asyncio.gather(*(pace.take(who, 50_000) for who in "abcd" for _ in range(10)))
