"""`status.json`: what this node does now, for people on the machine, with no network at all.

Written whenever it changes, whole or not at all; its modification time says since when.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hanse.core.device import Device
from hanse.core.errors import Broken, Conflict
from hanse.core.reading import canonical_json
from hanse.core.telemetry import ModelReport
from hanse.storage.incoming import sync_folder

FILE_NAME = "status.json"
LOCK = "agent.lock"
TRIES = 10


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
    told = {*report.ready, *report.failed, report.running, route.candidate, route.fallback} - {None}
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
        "versions": {str(d): m.version for d in told if d and (m := device.manifest(d))},
    }


def hold(folder: Path) -> int:
    """Until the descriptor is closed. Raises `Conflict` if another agent has the folder."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    for _ in range(TRIES):  # whoever asks whether it runs has it for a moment, too
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return lock
    os.close(lock)
    raise Conflict(f"another agent runs on {folder}", fix="stop it first")


def runs(folder: Path) -> bool:
    """Whether an agent runs on this folder, as the kernel knows."""
    try:
        with (folder / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


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
