"""Progress bars: on a terminal only, and never among the data."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


@contextmanager
def files_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function that is told how many of how many are done."""
    with click.progressbar(
        length=1, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as bar:
        at = 0

        def told(done: int, of: int) -> None:
            nonlocal at
            bar.length = max(of, 1)
            bar.update(done - at)
            at = done

        yield told
