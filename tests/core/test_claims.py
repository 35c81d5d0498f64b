"""Daemons that share a bucket, in every order and with pauses: what one relies on stays."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core import claims
from hanse.core.claims import Asking, Copy, Delete, Find, Object, Objects, Put, Request
from hanse.core.ids import Digest, MemberId

BLOB = Digest.of(b"weights")
MEMBERS = [MemberId(letter * 32) for letter in "abc"]


class Bucket:
    def __init__(self) -> None:
        self.objects: dict[str, int] = {}

    def answer(self, request: Request) -> Objects:
        match request:
            case Put(key):
                self.objects[key] = 0
            case Delete(key):
                self.objects.pop(key, None)
            case Copy(source, key):
                if source not in self.objects:
                    return ()
                self.objects[key] = self.objects[source]
                return (Object(key, self.objects[key], 0.0),)
            case Find(prefix):
                found = sorted(key for key in self.objects if key.startswith(prefix))
                return tuple(Object(key, self.objects[key], 0.0) for key in found)
        return ()


@dataclass
class Daemon:
    """Relies on the blob and gives it up, again and again; may die between any two requests."""

    member: MemberId
    bucket: Bucket
    rng: Random
    relies_on: tuple[str, ...] = ()
    deeds: int = 0
    _asking: Asking | None = None
    _removing: bool = False
    _last: Objects = ()
    seen: set[str] = field(default_factory=set)

    def step(self) -> None:
        if self._asking is None:
            self.deeds += 1
            self._removing = self.rng.random() < 0.5
            if self._removing:
                self.relies_on = ()  # from here on it may go
                self._asking = claims.give_up(BLOB, self.member)
            elif not self.relies_on:
                self._asking = claims.rely(BLOB, self.member, self._nonce())
            else:
                return
            request = next(self._asking)
        elif self.rng.random() < 0.03:
            self._asking = None  # killed: what it had asked for was done
            found = carried_out(self.bucket, claims.look(self.member))
            self.relies_on = tuple(each.key for each in found.relied.get(BLOB, ()))
            return
        else:
            try:
                request = self._asking.send(self._last)
            except StopIteration as end:
                self._asking = None
                if not self._removing:
                    self._rely(end.value)
                return
        self.seen.add(type(request).__name__)
        self._last = self.bucket.answer(request)

    def _rely(self, found: Objects) -> None:
        if not found:
            key = claims.copy_key(BLOB, self._nonce())
            self.bucket.objects[key] = 7  # uploaded
            self.relies_on = (key,)
        else:
            self.relies_on = tuple(each.key for each in found)

    def _nonce(self) -> str:
        return f"{self.rng.getrandbits(64):016x}"


def run(seed: int, daemons: int, steps: int = 400) -> list[Daemon]:
    rng = Random(seed)
    bucket = Bucket()
    found = [Daemon(MEMBERS[i], bucket, Random(f"{seed}/{i}")) for i in range(daemons)]
    for _ in range(steps):
        one = rng.choice(found)
        for _ in range(rng.choice((1, 1, 2, 9))):  # the others stand still meanwhile
            one.step()
        for each in found:
            lost = [key for key in each.relies_on if key not in bucket.objects]
            assert not lost, (seed, each.member[:1])
    return found


@given(st.integers(0, 2**32), st.integers(1, 3))
def test_what_a_daemon_relies_on_stays_whatever_the_others_remove(seed: int, daemons: int) -> None:
    run(seed, daemons)


def test_every_request_was_tried() -> None:
    seen = set[str]()
    for seed in range(10):
        for daemon in run(seed, 3):
            seen |= daemon.seen
    assert seen == {"Put", "Delete", "Find", "Copy"}


def found_a_loss() -> bool:
    for seed in range(200):
        try:
            run(seed, 3)
        except AssertionError:
            return True
    return False


def test_who_lists_the_copies_after_the_pins_loses_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(digest: Digest, member: MemberId) -> Asking:
        yield Delete(claims.pin_key(digest, member))
        yield Put(claims.going_key(digest, member))
        pins = yield Find(claims.pin_key(digest))
        copies = yield Find(claims.copy_key(digest))
        for copy in () if pins else copies:
            yield Delete(copy.key)
        yield Delete(claims.going_key(digest, member))
        return pins

    monkeypatch.setattr(claims, "give_up", careless)
    assert found_a_loss()


def test_who_marks_nothing_loses_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(digest: Digest, member: MemberId) -> Asking:
        yield Delete(claims.pin_key(digest, member))
        copies = yield Find(claims.copy_key(digest))
        pins = yield Find(claims.pin_key(digest))
        for copy in () if pins else copies:
            yield Delete(copy.key)
        return pins

    monkeypatch.setattr(claims, "give_up", careless)
    assert found_a_loss()


def test_the_last_one_takes_the_bytes_with_it() -> None:
    bucket = Bucket()
    bucket.objects[claims.copy_key(BLOB, "1")] = 7
    for member in MEMBERS[:2]:
        assert carried_out(bucket, claims.rely(BLOB, member, "2"))
    assert [claims.owner_of(o.key) for o in carried_out(bucket, claims.give_up(BLOB, MEMBERS[0]))]
    assert claims.copy_key(BLOB, "1") in bucket.objects
    assert carried_out(bucket, claims.give_up(BLOB, MEMBERS[1])) == ()
    assert bucket.objects == {}


def test_a_look_tells_what_is_whose() -> None:
    bucket = Bucket()
    blobs = [Digest.of(bytes([n])) for n in range(4)]
    for n, blob in enumerate(blobs):
        bucket.objects[claims.copy_key(blob, f"{n}")] = n
    mine, both, doubtful, left = blobs
    for digest, member in ((mine, 0), (both, 0), (both, 1), (doubtful, 0)):
        bucket.objects[claims.pin_key(digest, MEMBERS[member])] = 0
    bucket.objects[claims.going_key(mine, MEMBERS[0])] = 0  # of our own earlier life
    bucket.objects[claims.going_key(doubtful, MEMBERS[1])] = 0
    found = carried_out(bucket, claims.look(MEMBERS[0]))
    assert set(found.relied) == {mine, both}
    assert [copy.size for copy in found.relied[both]] == [1]
    assert set(found.pinned) == {mine, both, doubtful}
    assert found.doubtful == (doubtful,)
    assert found.unfinished == (mine,)
    assert found.others == {both: (MEMBERS[1],)}
    assert set(found.left) == {left}


def carried_out(bucket: Bucket, asking: Generator[Request, Objects, Any]) -> Any:
    answer: Objects = ()
    try:
        request = next(asking)
        while True:
            answer = bucket.answer(request)
            request = asking.send(answer)
    except StopIteration as end:
        return end.value
