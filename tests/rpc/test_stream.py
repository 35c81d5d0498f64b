"""The bounds of one link, apart from any transport."""

from __future__ import annotations

import asyncio

import pytest

from hanse.core.errors import Unavailable
from hanse.core.gossip.frames import Announce
from hanse.core.ids import MemberId, Origin, Segment
from hanse.rpc.stream import SendQueue, about

LOG = Origin(Segment("hansa"), Segment("eu-north"), MemberId("0" * 32), 1)


def queue_of(size: int) -> SendQueue:
    return SendQueue(size, 10**6, announces_max=64)


async def taken(queue: SendQueue, count: int) -> list[bytes]:
    return [await queue.get() for _ in range(count)]


async def test_a_full_queue_drops_its_oldest_hint_and_keeps_every_answer() -> None:
    queue = queue_of(4)
    assert queue.put(b"answer 1", hint=False)
    assert queue.put(b"hint 1", hint=True)
    assert queue.put(b"hint 2", hint=True)
    assert queue.put(b"answer 2", hint=False)
    assert not queue.put(b"hint 3", hint=True)
    assert not queue.put(b"answer 3", hint=False)
    assert await taken(queue, 4) == [b"answer 1", b"answer 2", b"hint 3", b"answer 3"]


async def test_a_queue_of_answers_refuses_a_hint_and_ends_at_an_answer() -> None:
    queue = queue_of(2)
    queue.put(b"answer 1", hint=False)
    queue.put(b"answer 2", hint=False)
    assert not queue.put(b"hint", hint=True)
    with pytest.raises(Unavailable):
        queue.put(b"answer 3", hint=False)
    assert await taken(queue, 2) == [b"answer 1", b"answer 2"]


async def test_a_reader_of_an_empty_queue_waits_for_the_next() -> None:
    queue = queue_of(2)
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.put(b"first", hint=False)
    assert await waiting == b"first"


async def test_of_one_log_only_the_newest_announce_waits() -> None:
    queue = queue_of(10)
    for number in range(5):
        assert queue.put(b"%d" % number, hint=True, about="log a")
        assert queue.put(b"answer %d" % number, hint=False)
    queue.put(b"other", hint=True, about="log b")
    assert await taken(queue, len(queue)) == [
        *(b"answer %d" % n for n in range(4)), b"4", b"answer 4", b"other",
    ]  # fmt: skip


def test_cosignatures_of_an_older_head_leave_newer_news_where_it_waits() -> None:
    news = Announce(LOG, b"note of 120", 100, (b"event",) * 20)
    cosigned = Announce(LOG, b"note of 90 and its witnesses", 90)
    assert about(news) != about(cosigned) != about(Announce(LOG, b"note of 120", 120))
    assert about(news) == about(Announce(LOG, b"note of 121", 120, (b"event",)))


async def test_so_many_announces_wait_and_no_more() -> None:
    queue = SendQueue(100, 10**6, announces_max=3)
    for number in range(3):
        assert queue.put(b"%d" % number, hint=True, about=f"log {number}")
    assert queue.put(b"answer", hint=False)
    assert not queue.put(b"3", hint=True, about="log 3")
    assert queue.put(b"3 again", hint=True, about="log 3")  # takes the place of its own
    assert await taken(queue, len(queue)) == [b"1", b"2", b"answer", b"3 again"]


async def test_a_queue_is_full_at_so_many_bytes() -> None:
    queue = SendQueue(100, 1000, announces_max=64)
    assert queue.put(bytes(400), hint=True)
    assert queue.put(bytes(600), hint=False)
    assert queue.bytes == 1000
    assert not queue.put(b"x", hint=False)  # the hint has gone
    assert queue.bytes == 601
    with pytest.raises(Unavailable):
        queue.put(bytes(400), hint=False)
    await taken(queue, 2)
    assert queue.bytes == 0
    assert queue.put(bytes(2000), hint=False)  # alone, any message finds room
