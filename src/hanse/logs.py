"""Logs, one JSON object a line on standard error for people and machines alike; and how a process
ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Coroutine
from typing import Any, TextIO, cast

import structlog

from hanse.core.errors import Broken, HanseError

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class _Lossy:
    """Standard error, where a line that does not fit is lost: a full disk is no reason to end."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()


def run_to_the_end(work: Coroutine[Any, Any, None], log: structlog.stdlib.BoundLogger) -> int:
    """Run a process's work; its exit code for the shell. With 70 it is to be started again."""
    try:
        asyncio.run(work)
    except Broken as error:
        log.error("broken", why=str(error))
        return 70
    except HanseError as error:
        log.error("cannot_run", why=str(error))
        return 1
    except Exception:
        # A mistake of ours. What is in memory may be wrong; what is on disk was stored before.
        log.exception("broken", why="an error that nobody expected: please report it")
        return 70
    return 0


def configure(level: str) -> None:
    """Set the process-wide log format; called once by whoever owns the process."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(sort_keys=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Lossy())),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
