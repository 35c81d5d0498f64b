"""What a hook is told, whatever kind it is, and how it says that it failed."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass

from hanse.core.errors import Rejected
from hanse.core.ids import Digest, Segment

TYPE = "dev.hanse.model.retrain.v1"


class HookFailed(Rejected):
    """The hook was called and will not answer. The message goes into the result."""


@dataclass(frozen=True, slots=True)
class Asking:
    """One RETRAIN. `key` is its id in hex: equal for every call that is about it."""

    key: str
    federation: str
    region: Segment
    model: Segment
    release: Digest
    version: str
    cause: str
    reason: str
    at_ms: int

    def data(self) -> dict[str, str]:
        return {
            "retrain": self.key,
            "model": self.model,
            "release": str(self.release),
            "version": self.version,
            "region": self.region,
            "cause": self.cause,
            "reason": self.reason,
        }

    def environment(self) -> dict[str, str]:
        return {f"HANSE_{name.upper()}": text for name, text in self.data().items()}

    def cloud_event(self) -> bytes:
        """CloudEvents 1.0, structured JSON; the same bytes however often it is sent."""
        at = datetime.datetime.fromtimestamp(self.at_ms / 1000, datetime.UTC)
        event = {
            "specversion": "1.0",
            "id": self.key,
            "source": f"/hanse/{self.federation}/{self.region}",
            "type": TYPE,
            "subject": self.model,
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "datacontenttype": "application/json",
            "data": self.data(),
        }
        return json.dumps(event, sort_keys=True).encode()
