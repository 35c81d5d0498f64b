"""Errors and gRPC status codes, translated both ways in this one place.

The text of an error travels with its fix, so a person at the other end reads what to do.
`Broken` is not translated: it must reach whoever ends this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NoReturn, TypeVar

import grpc

from hanse.core import errors
from hanse.core.errors import HanseError, Rejected, Unavailable

Context = grpc.aio.ServicerContext[Any, Any]
Service = TypeVar("Service")
Request = TypeVar("Request")
Response = TypeVar("Response")

_DETAILS_MAX = 2000  # a status travels in a header, and headers are bounded
_CODES: tuple[tuple[type[HanseError], grpc.StatusCode], ...] = (
    (errors.NotPermitted, grpc.StatusCode.PERMISSION_DENIED),
    (errors.NotFound, grpc.StatusCode.NOT_FOUND),
    (errors.Conflict, grpc.StatusCode.ALREADY_EXISTS),
    (errors.TooLarge, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.Rejected, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.Unavailable, grpc.StatusCode.UNAVAILABLE),
)
_ERRORS: dict[grpc.StatusCode, type[HanseError]] = {code: error for error, code in _CODES}


def code_of(error: Rejected | Unavailable) -> grpc.StatusCode:
    return next(code for kind, code in _CODES if isinstance(error, kind))


def error_of(code: grpc.StatusCode, details: str | None, whom: str) -> HanseError:
    """What the other side's status means to us; every code that is no verdict is weather."""
    return _ERRORS.get(code, Unavailable)(f"{whom}: {details or code.name.lower()}")


async def refuse(context: Context, error: Rejected | Unavailable) -> NoReturn:
    await context.abort(code_of(error), str(error)[:_DETAILS_MAX])
    raise AssertionError("abort returned")


def translated(
    handler: Callable[[Service, Request, Context], Awaitable[Response]],
) -> Callable[[Service, Request, Context], Awaitable[Response]]:
    """Make a handler answer `Rejected` and `Unavailable` with their status and text."""

    @functools.wraps(handler)
    async def answer(service: Service, request: Request, context: Context) -> Response:
        try:
            return await handler(service, request, context)
        except (Rejected, Unavailable) as error:
            await refuse(context, error)

    return answer


@contextlib.contextmanager
def call_errors(whom: str) -> Iterator[None]:
    """Translate what gRPC raises for a call of ours that was refused, lost or ended."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise error_of(error.code(), error.details(), whom) from None
    except asyncio.CancelledError:
        reraise_if_ours()
        raise Unavailable("the channel was closed") from None


def reraise_if_ours() -> None:
    """Inside `except CancelledError`: pass on a task's own cancellation, and only that.

    grpc raises the same class when merely the call was cancelled, by either side.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
