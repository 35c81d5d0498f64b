"""Files that are still on their way here, for whoever may have the parts that have come.

Whoever waits for a part learns when it has come. What is read here was hashed when it came, and is
hashed again by whoever sends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from hanse.core.errors import Broken, NotFound
from hanse.core.ids import Digest
from hanse.parts.recipe import Recipe


class Reads(Protocol):
    def read(self, start: int, length: int) -> bytes: ...


class Coming:
    """One file. For one event loop, but for `read`."""

    def __init__(self, recipe: Recipe, bytes_here: Reads) -> None:
        self.recipe = recipe
        self.read = bytes_here.read
        self._numbers: dict[Digest, list[int]] = {}
        for number, part in enumerate(recipe.parts):
            self._numbers.setdefault(part.digest, []).append(number)
        self._here: set[int] = set()
        self._news = asyncio.Event()

    def came(self, number: int) -> None:
        """This part has come, and so has every other that is equal."""
        self._here.update(self._numbers[self.recipe.parts[number].digest])
        self.over()

    def over(self) -> None:
        """Let those who wait look again."""
        self._news.set()
        self._news = asyncio.Event()

    async def has(self, number: int, until_s: float) -> bool:
        """Whether it is here, or comes until then by the loop's time, before the file is whole."""
        try:
            async with asyncio.timeout_at(until_s):
                while number not in self._here:
                    await self._news.wait()
        except TimeoutError:
            pass
        return number in self._here


class Underway:
    """By digest; a file is here from its recipe on until it has its name or is given up."""

    def __init__(self) -> None:
        self._files: dict[Digest, Coming] = {}

    @contextmanager
    def coming(self, recipe: Recipe, bytes_here: Reads) -> Iterator[Coming]:
        found = self._files[recipe.digest] = Coming(recipe, bytes_here)
        try:
            yield found
        finally:
            if self._files.get(recipe.digest) is found:
                del self._files[recipe.digest]
            found.over()

    def get(self, digest: Digest) -> Coming | None:
        return self._files.get(digest)

    def read(self, digest: Digest, start: int, length: int) -> bytes:
        """Raises `NotFound` if it is not under way."""
        found = self._files.get(digest)
        try:
            if found is not None:
                return found.read(start, length)
        except Broken:
            if self._files.get(digest) is found:
                raise
            # it was closed meanwhile
        raise NotFound(f"{digest} is not on its way here", fix="ask again")
