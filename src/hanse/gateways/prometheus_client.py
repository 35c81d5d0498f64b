"""Asks a Prometheus server for one count at one moment (`/api/v1/query`).

The answer is believed to be a count only if it is exactly that: one series or a scalar, a whole
number, not below zero. Everything else is no answer, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from hanse.core.errors import InvalidSpec, Rejected, Unavailable
from hanse.core.evidence.ratio import COUNT_MAX
from hanse.core.limits import PROMETHEUS_ANSWER_BYTES_MAX, PROMETHEUS_ANSWER_S
from hanse.core.reading import parse_json
from hanse.gateways.http_call import call


@dataclass(frozen=True, slots=True)
class Server:
    """`token`: a file with a bearer token, read for each question, so that it may be renewed."""

    url: str
    token: Path | None = None

    async def count(self, query: str, at_s: float | None = None) -> int:
        """The value of `query`, at a POSIX time if given. Raises `Unavailable` if it is no count,
        `InvalidSpec` for a query that the server cannot read."""
        found = await self._query(query, at_s)
        kind, result = found.get("resultType"), found.get("result")
        if kind == "vector" and isinstance(result, list):
            if not result:
                raise Unavailable("nothing is found")
            if len(result) > 1:
                raise Unavailable(
                    f"{len(result)} series are found: write sum(...) around the query"
                )
            result = result[0].get("value") if isinstance(result[0], dict) else None
        elif kind != "scalar":
            raise Unavailable(f"a {str(kind)[:20]} is no count: write an instant query")
        return _whole(result)

    async def knows(self, metric: str) -> bool:
        """Whether any series of that name was seen in the last hour."""
        found = await self._query(f"count(last_over_time({metric}[1h]))", None)
        return bool(found.get("result"))

    async def _query(self, query: str, at_s: float | None) -> dict[str, Any]:
        asked = {"query": query, "timeout": f"{PROMETHEUS_ANSWER_S:.0f}s"}
        if at_s is not None:
            asked["time"] = f"{at_s:.3f}"
        try:
            status, raw = await call(
                "POST",
                self.url.rstrip("/") + "/api/v1/query",
                urlencode(asked).encode(),
                {"content-type": "application/x-www-form-urlencoded", **self._authorization()},
                within_s=PROMETHEUS_ANSWER_S,
                answer_bytes_max=PROMETHEUS_ANSWER_BYTES_MAX,
            )
        except (OSError, Unavailable) as error:
            raise Unavailable(
                f"Prometheus at {self.url} cannot be asked: {error}", fix="is prometheus_url right?"
            ) from None
        try:
            said = parse_json(raw, "answer", bytes_max=PROMETHEUS_ANSWER_BYTES_MAX)
        except Rejected as error:
            why = f"Prometheus at {self.url} answers {status}, no JSON: {error}"
            raise Unavailable(why) from None
        data = said.get("data") if isinstance(said, dict) else None
        if status == 400 and isinstance(said, dict):
            why = str(said.get("error"))[:200]
            raise InvalidSpec(f"Prometheus cannot read {query[:120]!r}: {why}")
        if status != 200 or not isinstance(data, dict) or said.get("status") != "success":
            raise Unavailable(f"Prometheus at {self.url} answers {status}, no result")
        return data

    def _authorization(self) -> dict[str, str]:
        if self.token is None:
            return {}
        return {"authorization": f"Bearer {self.token.read_text().strip()}"}


def _whole(sample: object) -> int:
    text = sample[1] if isinstance(sample, list) and len(sample) == 2 else None
    try:
        value = float(text) if isinstance(text, str) else float("nan")
    except ValueError:
        value = float("nan")
    if not 0 <= value <= COUNT_MAX or value != int(value):
        raise Unavailable(f"{str(text)[:40]} is no count of events")
    return int(value)
