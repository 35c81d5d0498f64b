"""Objects in a bucket: S3 and what speaks like it, Google's, Azure's, or a folder for all.

Every call is retried for a while when the service is throttled, out of order or cut off, and
then raises `Unavailable` that says what to do; nothing a bucket does ends the process. Memory is
bounded: a file goes out in pieces and comes in by ranges. Only here is `obstore` imported, and
this module only where a bucket is configured.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore import exceptions
from obstore.store import ObjectStore, from_url

from hanse.core.claims import Asking, Copy, Delete, Find, Object, Put, Request
from hanse.core.errors import HanseError, InvalidSpec, NotFound, Unavailable
from hanse.storage.place import Place

PIECE_BYTES = 8 * 1024**2
UPLOADS_AT_ONCE = 3  # pieces of one file, so 24 MiB are in memory
LISTED_MAX = 1_000_000
PATIENCE_S, TRIES = 30, 6
REQUEST_S = 60
"""One piece has to pass in this time: some 140 kB/s."""

_DENIED = re.compile(r"\b40[13]\b|AccessDenied|SignatureDoesNotMatch|InvalidAccessKeyId")
_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|The specified bucket does not exist")


class Bucket:
    """Used from any thread."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store, self.name = store, name

    def put(self, key: str, body: bytes = b"") -> None:
        with self._errors("write"):
            obstore.put(self._store, key, body, use_multipart=False)

    def create(self, key: str, body: bytes) -> bool:
        """Whether it was not there; if it was, it stays as it is."""
        with self._errors("write"):
            try:
                obstore.put(self._store, key, body, mode="create")
            except exceptions.AlreadyExistsError:
                return False
        return True

    def upload(self, key: str, file: Path) -> None:
        """All of it or nothing under this key."""
        with self._errors("write"):
            obstore.put(
                self._store, key, file, chunk_size=PIECE_BYTES, max_concurrency=UPLOADS_AT_ONCE
            )

    def read(self, key: str, start: int, length: int) -> bytes:
        """Raises `NotFound`. Fewer bytes where the object ends."""
        with self._errors("read"):
            return bytes(obstore.get_range(self._store, key, start=start, length=length))

    def find(self, prefix: str) -> tuple[Object, ...]:
        found: list[Object] = []
        with self._errors("list"):
            for batch in obstore.list(self._store, prefix, chunk_size=1000):
                found += [
                    Object(each["path"], each["size"], each["last_modified"].timestamp())
                    for each in batch
                ]
                if len(found) > LISTED_MAX:
                    raise Unavailable(
                        f"{self.name} has more than {LISTED_MAX} objects under {prefix}",
                        fix="give the daemons a bucket, or a prefix, of their own",
                    )
        return tuple(sorted(found, key=lambda each: each.key))

    def delete(self, key: str) -> None:
        with self._errors("delete"), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, key)

    def copy(self, source: str, key: str) -> tuple[Object, ...]:
        """The copy, made by the service; nothing if it cannot, or the source is gone."""
        with self._errors("copy"):
            try:
                obstore.copy(self._store, source, key)
                meta = obstore.head(self._store, key)
            except (FileNotFoundError, exceptions.NotSupportedError):
                return ()
            except exceptions.GenericError as error:
                if _status(error).startswith("4"):  # e.g. larger than it copies at once
                    return ()
                raise
        return (Object(key, meta["size"], meta["last_modified"].timestamp()),)

    def carry_out(self, asking: Asking | Any) -> Any:
        """What `core.claims` asks for, one after another."""
        try:
            request = next(asking)
            while True:
                request = asking.send(self._answer(request))
        except StopIteration as end:
            return end.value

    def _answer(self, request: Request) -> tuple[Object, ...]:
        match request:
            case Put(key):
                self.put(key)
            case Delete(key):
                self.delete(key)
            case Copy(source, key):
                return self.copy(source, key)
            case Find(prefix):
                return self.find(prefix)
        return ()

    @contextlib.contextmanager
    def _errors(self, deed: str) -> Iterator[None]:
        """Translate what the client says."""
        try:
            yield
        except HanseError:
            raise
        except (exceptions.BaseError, OSError, ValueError) as error:
            raise self._translated(deed, error) from error

    def _translated(self, deed: str, error: Exception) -> HanseError:
        said = str(error)
        denied = (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)
        if _NO_BUCKET.search(said):
            return Unavailable(
                f"the bucket of {self.name} does not exist",
                fix="create it, or correct blobs in hanse.toml",
            )
        if isinstance(error, denied) or _DENIED.search(_status(error) or said[:2000]):
            return Unavailable(
                f"{self.name} does not let this daemon {deed}",
                fix="check the file that blobs_credentials names, or the environment, and that "
                "its user may list, get, put and delete in this bucket",
            )
        if isinstance(error, FileNotFoundError):
            return NotFound(f"{self.name} has no such object", fix="fetch it from a peer")
        return Unavailable(
            f"cannot {deed} in {self.name}: {_short(said)}",
            fix="check the service and the way to it; it is tried again",
        )


def open_bucket(place: Place) -> Bucket:
    """Asks nobody yet. Raises `InvalidSpec` for what names no bucket."""
    config = {**place.options, **place.secrets()}
    if place.endpoint:
        config["endpoint"] = place.endpoint
    http = place.endpoint.startswith("http://")
    more: dict[str, Any] = {}
    if place.scheme == "file":
        more["mkdir"] = True
    else:
        more["config"] = config
        more["client_options"] = {
            "allow_http": http,
            "timeout": timedelta(seconds=REQUEST_S),
            "connect_timeout": timedelta(seconds=5),
        }
        more["retry_config"] = {
            "max_retries": TRIES,
            "retry_timeout": timedelta(seconds=PATIENCE_S),
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=5),
                "base": 2,
            },
        }
    try:
        return Bucket(from_url(place.url, **more), place.url)
    except (exceptions.BaseError, OSError, ValueError) as error:
        raise InvalidSpec(
            f"blobs: {place.url} cannot be used: {_short(str(error))}",
            fix="see docs/operating.md, A bucket for the blobs",
        ) from error


def _status(error: Exception) -> str:
    """Of an answer that said no, if it was one."""
    found = re.search(r"non-2xx status code: (\d{3})", str(error))
    return found[1] if found else ""


def _short(said: str) -> str:
    """The client tells what it was, and after a line feed all it knows of it."""
    return os.linesep.join(said.splitlines()[:1])[:300]
