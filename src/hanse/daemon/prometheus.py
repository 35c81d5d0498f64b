"""Asks the Prometheus server beside this daemon for what plans declare, and hands it to the node.

Both arms of a metric are asked as of one moment.
A query that fails is told as such; nothing here decides what that means.
"""

from __future__ import annotations

import asyncio
import re
import time

import structlog

from hanse.core import limits
from hanse.core.declared import Answer, Ask, declared, fill
from hanse.core.errors import HanseError, InvalidSpec
from hanse.core.rollout.plan import RolloutSpec
from hanse.core.rollout.templates import PLACEHOLDERS
from hanse.daemon.driver import Driver
from hanse.gateways.prometheus_client import Server

log = structlog.get_logger("hanse.daemon")
_SELECTOR = re.compile(r"\b([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?=\{)")
_TEXT = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|`[^`]*`")
_BY = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^()]*\)")


class Prometheus:
    """Owned by the composition root."""

    def __init__(self, driver: Driver, server: Server) -> None:
        self._driver, self._server = driver, server

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(limits.PROMETHEUS_S)
            await self.look()

    async def look(self) -> None:
        """Ask once for everything that is wanted now."""
        asks = await self._driver.do(lambda node, _: node.region.asks())
        if asks:
            answers = [await self._answer(each) for each in asks[: limits.PROMETHEUS_ASKS_MAX]]
            await self._driver.tell(lambda node, clock: node.region.counted(answers, clock.now_s))

    async def check(self, plan: RolloutSpec) -> None:
        """Refuse a plan whose queries cannot be read, or name metrics that nobody knows.

        Raises `InvalidSpec`, or `Unavailable` if the server cannot be asked.
        """
        for metric in declared(plan):
            for field, query in (("bad", metric.bad), ("total", metric.total)):
                where = f"spec.templates: metric {metric.name}.prometheus.{field}"
                names = selectors(query)
                if not names:
                    raise InvalidSpec(
                        f"{where}: no metric is named", fix='write NAME{release="$release"}'
                    )
                for name in names:
                    if not await self._server.knows(name):
                        raise InvalidSpec(
                            f"{where}: Prometheus has seen no {name} in the last hour",
                            fix="correct the name, or have it exported before the rollout",
                        )
                await self._check_readable(where, query)

    async def _check_readable(self, where: str, query: str) -> None:
        try:
            await self._server.count(fill(query, dict.fromkeys(PLACEHOLDERS, "x")))
        except InvalidSpec as error:
            raise InvalidSpec(f"{where}: {error.message}", fix="write PromQL") from None
        except HanseError:
            pass  # it can be read, and nothing has these labels yet

    async def _answer(self, asked: Ask) -> Answer:
        at_s = time.time()
        counts = []
        try:
            for bad, total in asked.queries:
                # Bad ones first: what is scraped in between may only lower their share.
                failed = await self._server.count(bad, at_s)
                counts.append((failed, await self._server.count(total, at_s)))
        except HanseError as error:
            log.warning("metric_not_counted", metric=asked.metric, why=str(error))
            return Answer(asked, None, error.message)
        return Answer(asked, tuple(counts))


def selectors(query: str) -> tuple[str, ...]:
    """The metrics that a query names before braces, each once."""
    return tuple(dict.fromkeys(_SELECTOR.findall(_without_texts(query))))


def _without_texts(query: str) -> str:
    return _BY.sub("", _TEXT.sub('""', query))


def configured(prometheus: Prometheus | None, plan: RolloutSpec) -> Prometheus | None:
    """Who checks this plan, if it asks for anything. Raises `InvalidSpec` if there is nobody."""
    names = [metric.name for metric in declared(plan)]
    if prometheus is None and names:
        raise InvalidSpec(
            f"metric {', '.join(names)}: this daemon asks no Prometheus",
            fix="set prometheus_url in its hanse.toml, or enter the plan at a daemon that has one",
        )
    return prometheus if names else None
