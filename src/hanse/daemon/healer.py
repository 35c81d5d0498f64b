"""Sees a RETRAIN through to its result, however often the daemon is started meanwhile.

    RETRAIN stored -> hook, with the event's id as its key -> a release that names the key
        -> its files here -> checks -> RETRAIN_RESULT

Nothing of it is remembered but what is in the log. So a daemon that dies anywhere begins again at
the first place that is not done: a release that names the key is there, or the hook is called
once more with the same key. `release.publish` takes one release for a key, never two.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from hanse.core.catalog.healed import answers
from hanse.core.catalog.view import HealingView, ModelView, Release
from hanse.core.effects import FetchRelease, Heal
from hanse.core.errors import Rejected, Unavailable
from hanse.core.events import RetrainResult
from hanse.core.ids import Digest, EventId, Segment
from hanse.core.limits import SHOWN_MS_MAX
from hanse.core.node import Node
from hanse.daemon.checks import check
from hanse.daemon.driver import Driver
from hanse.daemon.healing_file import Command, Heals, HttpCall, Pipeline
from hanse.daemon.hooks import command, web
from hanse.daemon.hooks.asking import Asking, HookFailed
from hanse.daemon.queries.matter import plain
from hanse.storage.blobs import Blobs

log = structlog.get_logger("hanse.healing")
LOOK_S = 0.5
RUN_LOOK_S = 10.0
AGAIN_S, AGAIN_MAX_S = 2.0, 60.0
ARRIVES_S = 60.0
REASON_BYTES_MAX = 480


class Late(Rejected):
    """No release that answers was here in time."""


@dataclass(frozen=True, slots=True)
class Found:
    """One RETRAIN as the views have it now."""

    healing: HealingView
    asking: Asking
    worse: Release
    child: Release | None


class Healer:
    """Owned by the composition root; one task a RETRAIN."""

    def __init__(
        self,
        driver: Driver,
        blobs: Blobs,
        home: Path,
        heals: Mapping[Segment, Heals],
        fetch: Callable[[FetchRelease], None],
    ) -> None:
        self._driver, self._blobs, self._home = driver, blobs, home
        self._heals, self._fetch = heals, fetch
        self._tasks: dict[EventId, asyncio.Task[None]] = {}

    def heal(self, effect: Heal) -> None:
        if effect.model in self._heals and effect.retrain not in self._tasks:
            task = asyncio.create_task(self._see_through(effect))
            self._tasks[effect.retrain] = task
            task.add_done_callback(lambda _: self._tasks.pop(effect.retrain, None))

    async def close(self) -> None:
        """Hooks that run are ended; the next start calls them again."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _see_through(self, effect: Heal) -> None:
        pause_s = AGAIN_S
        while True:
            try:
                await self._once(effect, self._heals[effect.model])
            except Unavailable as error:
                log.warning("healing_waits", retrain=str(effect.retrain), why=str(error))
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, AGAIN_MAX_S)
            except Exception:
                # A mistake of ours: it must not end the daemon, and a restart tries again.
                log.exception("healing_failed", retrain=str(effect.retrain))
                return
            else:
                return

    async def _once(self, effect: Heal, heals: Heals) -> None:
        """Raises `Unavailable` for what may work later."""
        deadline = time.monotonic() + heals.deadline_s
        found = await self._look(effect)
        if found is None or found.healing.outcome:
            return
        try:
            child = found.child or await self._asked(effect, heals, deadline)
            await self._brought(effect, heals, child, deadline)
            said = await check(child.manifest, found.worse.manifest, heals, self._blobs)
            outcome, digest = "passed", child.digest
        except HookFailed as error:
            outcome, said, digest = "failed", str(error), None
        except Late as error:
            outcome, said, digest = "late", str(error), None
        except Rejected as error:
            outcome, said = "refused", str(error)
            latest = await self._look(effect)
            digest = latest.child.digest if latest and latest.child else None
        await self._tell(effect, found, outcome, digest, said)

    async def _asked(self, effect: Heal, heals: Heals, deadline: float) -> Release:
        """Call the hook, and wait for what it publishes. Raises `HookFailed` or `Late`."""
        try:
            return await self._called(effect, heals, deadline)
        except (HookFailed, Late):
            raise
        except Rejected as error:  # its token cannot be read, say: no word about any release
            raise HookFailed(str(error)) from None

    async def _called(self, effect: Heal, heals: Heals, deadline: float) -> Release:
        found = await self._look(effect)
        assert found is not None
        asking = found.asking
        log.info("hook_called", model=asking.model, retrain=asking.key, cause=asking.cause)
        match heals.hook:
            case Command():
                said = await command.run(heals.hook, asking, self._home)
                log.info("hook_ended", model=asking.model, retrain=asking.key, said=said)
                deadline = min(deadline, time.monotonic() + ARRIVES_S)
                return await self._published(effect, deadline, said)
            case HttpCall():
                await web.post_event(heals.hook, asking)
                return await self._published(effect, deadline, "it took the event")
            case _:
                run_id = await web.start_run(heals.hook, asking)
                return await self._of_run(effect, heals.hook, run_id, deadline)

    async def _of_run(self, effect: Heal, hook: Pipeline, run_id: str, deadline: float) -> Release:
        while (state := await web.run_state(hook, run_id)) not in web.OVER:
            until = min(deadline, time.monotonic() + RUN_LOOK_S)
            try:
                return await self._published(effect, until, f"run {run_id} is {state}")
            except Late:
                if time.monotonic() >= deadline:
                    raise
        raise HookFailed(f"run {run_id} is {state}")

    async def _published(self, effect: Heal, deadline: float, said: str) -> Release:
        while True:
            found = await self._look(effect)
            if found is not None and found.child is not None:
                return found.child
            if time.monotonic() >= deadline:
                raise Late(f"no release names this retraining; {said}")
            await asyncio.sleep(LOOK_S)

    async def _brought(self, effect: Heal, heals: Heals, child: Release, deadline: float) -> None:
        """Have its files here, and for a comparison those of the one before."""
        wanted = [child.digest]
        if heals.heldout is not None and (found := await self._look(effect)) is not None:
            wanted.append(found.worse.digest)
        for release in wanted:
            self._fetch(FetchRelease(effect.model, release))
        while not await self._driver.do(lambda node, _: set(wanted) <= node.region.local):
            if time.monotonic() >= deadline:
                raise Late("its files did not arrive in time")
            await asyncio.sleep(LOOK_S)

    async def _tell(
        self, effect: Heal, found: Found, outcome: str, child: Digest | None, said: str
    ) -> None:
        """Store the result. While this daemon may not write it waits: the hook has had its turn."""
        reason = plain(said).encode()[:REASON_BYTES_MAX].decode(errors="ignore")
        body = RetrainResult(
            effect.model, found.asking.region, effect.retrain, outcome, child, reason
        )
        while True:
            try:
                await self._driver.do(lambda node, _: node.propose(body))
            except Unavailable as error:
                log.warning("healing_waits", retrain=str(effect.retrain), why=str(error))
                await asyncio.sleep(AGAIN_S)
            else:
                break
        log.info("retrained", model=effect.model, outcome=outcome, why=reason)

    async def _look(self, effect: Heal) -> Found | None:
        return await self._driver.do(lambda node, _: look(node, effect))


def look(node: Node, effect: Heal) -> Found | None:
    """None once the log that asked is not ours to speak in any more."""
    view = node.catalog.views.get(effect.model)
    healing = next((h for h in view.healings if h.id == effect.retrain), None) if view else None
    worse = view.release(healing.release) if view and healing else None
    if view is None or healing is None or worse is None:
        return None
    record = node.catalog.record(effect.model, healing.id)
    asking = Asking(
        healing.id.raw.hex(),
        node.me.federation,
        healing.region,
        view.model,
        worse.digest,
        worse.version,
        healing.cause,
        healing.reason,
        min(record.event.header.hlc_ms, SHOWN_MS_MAX) if record else 0,
    )
    child = answer_to(view, healing)
    return Found(healing, asking, worse, child)


def answer_to(view: ModelView, healing: HealingView) -> Release | None:
    """The first that its publisher made for it."""
    return next((r for r in view.releases if answers(healing, r.manifest)), None)
