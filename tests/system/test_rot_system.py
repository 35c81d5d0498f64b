"""A bit flips on a daemon's disk: it is found, fetched again from another region, and told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from digit_releases import paths
from rot import flip
from system_federation import MODEL, Federation, done

from hanse.core.ids import Digest

pytestmark = pytest.mark.system
HERE, THERE = "eu-north", "us-east"


def test_what_rots_is_fetched_from_another_region_and_told(folder: Path) -> None:
    federation = Federation(folder)
    federation.found(nodes=(), regions=(HERE, THERE))
    daemon = federation.daemons[THERE]
    settings = (daemon.home / "hanse.toml").read_text()
    usual = "# scrub_interval_s = 604800.0"
    assert usual in settings
    (daemon.home / "hanse.toml").write_text(settings.replace(usual, "scrub_interval_s = 1.0"))
    try:
        federation.start((HERE, THERE))
        federation.publish(paths()["v1"], "1.0.0")
        federation.until("the release is known there", lambda: there(daemon.home))
        done("release", "pin", f"{MODEL}@1.0.0", "--reason", "audit", home=daemon.home)
        raw = paths()["v1"].read_bytes()
        digest = Digest.of(raw)
        path = daemon.home / "blobs/blobs/sha256" / digest.hex[:2] / digest.hex[2:]
        federation.until("it is here", path.exists)
        flip(path, 8 * 1000)

        def healed() -> list[dict[str, Any]]:
            found = daemon.ask("status")["daemon"]["damage"]
            return [each for each in found if each["healed"]]

        (found,) = federation.until("it is found and healed", healed)
        assert found["digest"] == str(digest)
        assert path.read_bytes() == raw
        assert "made good in the last week: 1" in done("status", home=daemon.home)
        assert daemon.ask("counters")["counters"]["blobs_damaged"] == 1
        logged = [json.loads(line) for line in daemon.log.read_text().splitlines()]
        assert {"blob_damaged", "blob_healed"} <= {line["event"] for line in logged}
        daemon.kill()
        daemon.start()
        federation.until("it is still told", healed)
    finally:
        federation.close()


def there(home: Path) -> bool:
    return f"{MODEL}@1.0.0" in done("release", "list", "-o", "name", home=home)
