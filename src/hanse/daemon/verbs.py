"""The verbs of the control socket, wired to the node.

Commands change something and are answered once their events are stored; queries read the
node between two steps, so each sees one state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from hanse.core.catalog.fold import read_plan
from hanse.core.catalog.manifest import parse_manifest
from hanse.core.errors import InvalidSpec
from hanse.core.ids import Digest
from hanse.core.limits import FILE_BYTES_MAX
from hanse.core.node import Clock, Node
from hanse.daemon import approvals, commands, healing_verbs, lifecycle, retention, starting
from hanse.daemon.audit_verbs import audit_verbs
from hanse.daemon.bundle_verbs import bundle_verbs
from hanse.daemon.bundles import Bundles
from hanse.daemon.control import Handler, Progress, plain, upload
from hanse.daemon.driver import Driver
from hanse.daemon.examining import Examiner
from hanse.daemon.private_values import PrivateValues
from hanse.daemon.prometheus import Prometheus, configured
from hanse.daemon.queries import QUERIES
from hanse.daemon.queries.planning import weigh
from hanse.daemon.retention import Retention
from hanse.gateways.log_files import LogFiles
from hanse.storage.blobs import Blobs

SAY_S = 5.0  # a large file takes longer than a caller waits in silence
Command = Callable[[Node, Mapping[str, Any]], commands.Answer]


class Services(NamedTuple):
    """What some verbs need beside the node: made once, by the composition root."""

    files: LogFiles
    bundles: Bundles
    private: PrivateValues
    private_fields: tuple[str, ...] = ()
    prometheus: Prometheus | None = None
    retention: Retention | None = None


COMMANDS: Mapping[str, Command] = {
    "rollout.start": starting.start_rollout,
    "rollout.control": commands.control_rollout,
    "rollout.approve": approvals.approve,
    "rollback": commands.roll_back,
    "freeze": commands.freeze,
    "unfreeze": commands.unfreeze,
    "release.kill": commands.kill,
    "release.floor": commands.raise_floor,
    "release.retire": lifecycle.retire,
    "release.pin": retention.pin,
    "release.unpin": retention.unpin,
    "heal.mandate": healing_verbs.mandate,
    "heal.revoke": healing_verbs.revoke,
}


def table(driver: Driver, blobs: Blobs, services: Services) -> dict[str, Handler]:
    """Every verb by name."""
    verbs: dict[str, Handler] = {
        name: _command(driver, command) for name, command in COMMANDS.items()
    }
    verbs |= {name: _query(driver, query) for name, query in QUERIES.items()}
    verbs["release.publish"] = _publish(
        blobs,
        _command(
            driver, lambda node, args: commands.publish(node, blobs, args, services.private_fields)
        ),
    )
    verbs["rollout.plan"] = _plan(blobs, verbs["rollout.plan"])
    verbs["rollout.start"] = _start(services.prometheus, verbs["rollout.start"])
    verbs["blob.put"] = _blob_put(blobs)
    verbs["trust.extend"] = _trust_extend(driver)
    verbs["claim"] = _claim(driver)
    if services.retention is not None:
        verbs["gc"] = _collect(driver, services.retention)
    return verbs | audit_verbs(services.files, services.private) | bundle_verbs(services.bundles)


def _command(driver: Driver, command: Command) -> Handler:
    async def handle(args: dict[str, Any]) -> Mapping[str, Any]:
        await driver.recovered()
        answer = await driver.do(lambda node, _clock: command(node, args))
        return answer()

    return plain(handle)


def _publish(blobs: Blobs, record: Handler) -> Handler:
    """A release whose files are all here is recorded once they have been looked at."""
    examiner = Examiner(blobs)

    async def handle(
        args: dict[str, Any], progress: Progress, stream: asyncio.StreamReader
    ) -> Mapping[str, Any]:
        manifest = parse_manifest(commands.text_of(args, "manifest").encode())
        if all(blobs.has(file.digest) for file in manifest.files):
            looking = asyncio.create_task(examiner.check(manifest))
            while not (await asyncio.wait({looking}, timeout=SAY_S))[0]:
                await progress({"examining": manifest.version})
            looking.result()
        return await record(args, progress, stream)

    return handle


def _plan(blobs: Blobs, plan: Handler) -> Handler:
    async def handle(
        args: dict[str, Any], progress: Progress, stream: asyncio.StreamReader
    ) -> Mapping[str, Any]:
        found = await plan(args, progress, stream)
        await asyncio.to_thread(weigh, found["nodes"], blobs.known_recipe)
        return found

    return handle


def _start(prometheus: Prometheus | None, start: Handler) -> Handler:
    """What Prometheus can say against a plan is asked before the node is."""

    async def handle(
        args: dict[str, Any], progress: Progress, stream: asyncio.StreamReader
    ) -> Mapping[str, Any]:
        plan = read_plan(commands.text_of(args, "spec").encode())
        if (asked := configured(prometheus, plan)) is not None:
            await asked.check(plan)
        return await start(args, progress, stream)

    return handle


def _query(
    driver: Driver, query: Callable[[Node, Clock, Mapping[str, Any]], Mapping[str, Any]]
) -> Handler:
    async def handle(args: dict[str, Any]) -> Mapping[str, Any]:
        def look(node: Node, clock: Clock) -> Mapping[str, Any] | Exception:
            try:
                return query(node, clock, args)
            except Exception as error:
                # Whoever only looks has changed nothing: no reason to end the process.
                return error

        found = await driver.do(look)
        if isinstance(found, Exception):
            raise found
        return found

    return plain(handle)


def _blob_put(blobs: Blobs) -> Handler:
    async def handle(
        args: dict[str, Any], progress: Progress, stream: asyncio.StreamReader
    ) -> Mapping[str, Any]:
        digest, size = Digest.parse(str(args.get("digest"))), args.get("size")
        if type(size) is not int or not 0 < size <= FILE_BYTES_MAX:
            raise InvalidSpec(f"size: expected 1 to {FILE_BYTES_MAX} bytes")
        if blobs.has(digest):
            await asyncio.to_thread(blobs.renew, digest)
            return {"digest": str(digest), "size": size, "stored": False}
        writer = await asyncio.to_thread(blobs.writer, size, digest)
        try:
            await asyncio.to_thread(_skip_part, writer)
            await progress({"send": True})
            async for chunk in upload(stream, size):
                await asyncio.to_thread(writer.write, chunk)
            await asyncio.to_thread(writer.commit)
        except BaseException:
            await asyncio.to_thread(writer.abort)
            raise
        return {"digest": str(digest), "size": size, "stored": True}

    return handle


def _collect(driver: Driver, retention: Retention) -> Handler:
    async def handle(
        args: dict[str, Any], progress: Progress, _: asyncio.StreamReader
    ) -> Mapping[str, Any]:
        await driver.recovered()
        return await retention.asked(args, progress)

    return handle


def _skip_part(writer: Any) -> None:
    """An upload comes whole: what an earlier one left behind is not continued."""
    if writer.offset:
        raise InvalidSpec("part of this file is here already", fix="try again")


def _trust_extend(driver: Driver) -> Handler:
    async def handle(args: dict[str, Any]) -> Mapping[str, Any]:
        raw = str(args.get("file") or "").encode()

        def extend(node: Node, _clock: Clock) -> dict[str, Any]:
            node.extend_trust(raw)
            current = node.book.chain.current
            return {"version": current.version, "members": len(current.members)}

        return await driver.do(extend)

    return plain(handle)


def _claim(driver: Driver) -> Handler:
    def claim(node: Node, _clock: Clock) -> dict[str, Any]:
        before = node.recovery.why
        node.claim()
        return {"log": str(node.me), "was": before}

    return plain(lambda _: driver.do(claim))
