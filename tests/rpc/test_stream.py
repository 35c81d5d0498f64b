"""The bounds of one link, apart from any transport."""

from __future__ import annotations

import asyncio

import pytest

from hanse.core.errors import Unavailable
from hanse.rpc.stream import SendQueue, TokenBucket


async def taken(queue: SendQueue, count: int) -> list[bytes]:
    return [await queue.get() for _ in range(count)]


async def test_a_full_queue_drops_its_oldest_hint_and_keeps_every_answer() -> None:
    queue = SendQueue(4)
    assert queue.put(b"answer 1", hint=False)
    assert queue.put(b"hint 1", hint=True)
    assert queue.put(b"hint 2", hint=True)
    assert queue.put(b"answer 2", hint=False)
    assert not queue.put(b"hint 3", hint=True)
    assert not queue.put(b"answer 3", hint=False)
    assert await taken(queue, 4) == [b"answer 1", b"answer 2", b"hint 3", b"answer 3"]


async def test_a_queue_of_answers_refuses_a_hint_and_ends_at_an_answer() -> None:
    queue = SendQueue(2)
    queue.put(b"answer 1", hint=False)
    queue.put(b"answer 2", hint=False)
    assert not queue.put(b"hint", hint=True)
    with pytest.raises(Unavailable):
        queue.put(b"answer 3", hint=False)
    assert await taken(queue, 2) == [b"answer 1", b"answer 2"]


async def test_a_reader_of_an_empty_queue_waits_for_the_next() -> None:
    queue = SendQueue(2)
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.put(b"first", hint=False)
    assert await waiting == b"first"


async def test_a_bucket_gives_its_burst_at_once_and_then_keeps_the_pace() -> None:
    bucket = TokenBucket(per_s=10, burst=3)
    begin_s = bucket._then_s
    assert [bucket._take(begin_s) for _ in range(3)] == [0, 0, 0]
    assert bucket._take(begin_s) == pytest.approx(0.1)
    assert bucket._take(begin_s) == pytest.approx(0.2)
    assert bucket._take(begin_s + 0.5) == 0
    assert [bucket._take(begin_s + 100) for _ in range(3)] == [0, 0, 0]
    assert bucket._take(begin_s + 100) == pytest.approx(0.1)
