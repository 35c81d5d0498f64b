"""`status.json`: what this node does now, for people on the machine, with no network at all.

Written whenever it changes, whole or not at all; its modification time says since when.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hanse.core.device import Device
from hanse.core.errors import Broken
from hanse.core.reading import canonical_json
from hanse.core.telemetry import ModelReport
from hanse.storage.incoming import sync_folder

FILE_NAME = "status.json"


def describe(device: Device) -> dict[str, Any]:
    """The assignment that the node obeys and the state of each model."""
    assignment = device.assignment
    return {
        "epoch": assignment.epoch if assignment else None,
        "serial": assignment.serial if assignment else None,
        "models": [_model(device, report) for report in device.report()],
    }


def _model(device: Device, report: ModelReport) -> dict[str, Any]:
    route = device.route(report.model)
    manifest = device.manifest(report.running) if report.running else None
    return {
        "model": report.model,
        "running": str(report.running) if report.running else None,
        "version": manifest.version if manifest else None,
        "interim": report.interim,
        "candidate": str(route.candidate) if route.candidate else None,
        "weight_bp": route.canary_bp,
        "shadow_bp": route.shadow_bp,
        "rollout": route.rollout,
        "generation": route.generation,
        "warm_fallback": str(route.fallback) if route.fallback else None,
        "ready": [str(d) for d in report.ready],
        "failed": {str(d): reason for d, reason in report.failed.items()},
    }


class StatusFile:
    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._last = b""

    def write(self, document: Mapping[str, Any]) -> None:
        """Blocks for a small write; does nothing if nothing has changed."""
        raw = canonical_json(document) + b"\n"
        if raw != self._last:
            replace_file(self._path, raw, durable=False)
            self._last = raw


def replace_file(path: Path, raw: bytes, *, durable: bool) -> None:
    """Replace a file whole. Raises `Broken` if the disk refuses."""
    new = path.with_suffix(".new")
    try:
        with new.open("wb") as file:
            file.write(raw)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        new.replace(path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        raise Broken(f"cannot write {path.name}: {error}", fix="check the disk") from error
