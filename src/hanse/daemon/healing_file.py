"""What an operator declares about healing: `healing.toml` in the daemon's home, a table a model.

    [ocr-rec]
    causes = ["undone", "serving"]            # default: these and "trial"
    cooldown = "1h"                           # after each retraining, whatever became of it
    budget = 3                                # so many retrainings ...
    window = "7d"                             # ... within this long
    deadline = "6h"                           # until the release must be there and checked
    heldout = "heldout.npz"                   # labelled data that no training sees
    heldout_min = "80%"                       # of it the release must get right at least

    [ocr-rec.command]                         # exactly one of command, http and kubeflow
    argv = ["/opt/train/retrain", "--fast"]   # no shell
    folder = "/opt/train"
    timeout = "2h"
    environment = {HANSE_KEY = "/etc/hanse/publisher.key"}

Nothing of it ever comes from the network: the file names what this host will run.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hanse.core.errors import NotFound, NotPermitted
from hanse.core.events import RETRAIN_CAUSES
from hanse.core.healing import BUDGET_MAX, Policy
from hanse.core.ids import Segment
from hanse.core.rollout.fields import (
    Fields,
    Parser,
    duration_ms,
    fail,
    listed,
    name,
    one_of,
    share,
    whole,
)
from hanse.storage.settings import read_toml

FILE_NAME = "healing.toml"
_URL = re.compile(r"https?://[A-Za-z0-9.\[\]:-]{1,260}(/[A-Za-z0-9._~/?&=%-]{0,400})?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Command:
    argv: tuple[str, ...]
    folder: Path
    timeout_s: float
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HttpCall:
    """A CloudEvent to this address; with a secret it is signed as Standard Webhooks say."""

    url: str
    timeout_s: float
    attempts: int
    secret: Path | None
    token: Path | None


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A run of a Kubeflow pipeline, by the v2beta1 API below `url`."""

    url: str
    timeout_s: float
    attempts: int
    token: Path | None
    pipeline_id: str
    version_id: str
    experiment_id: str
    service_account: str
    parameters: Mapping[str, str]


Hook = Command | HttpCall | Pipeline


@dataclass(frozen=True, slots=True)
class Heals:
    """One model's table."""

    policy: Policy
    hook: Hook
    deadline_s: float
    heldout: Path | None
    heldout_min: float


def load(home: Path) -> dict[Segment, Heals]:
    """Every table; none without the file. Raises `InvalidSpec`, `NotFound` or `NotPermitted`."""
    path = home / FILE_NAME
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return {}
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NotPermitted(
            f"{path} names what this daemon runs, and others may write it",
            fix=f"run: chmod go-w {path}",
        )
    document = read_toml(path)
    return {name(model, FILE_NAME): _heals(home, model, document[model]) for model in document}


def _heals(home: Path, model: str, value: object) -> Heals:
    kinds = {"command": _command, "http": _http, "kubeflow": _pipeline}
    known = ("causes", "cooldown", "budget", "window", "deadline", "heldout", "heldout_min")
    fields = Fields.of(value, model, (*known, *kinds))
    named = [kind for kind in kinds if kind in fields.values]
    if len(named) != 1:
        said = " and ".join(named) or "none"
        raise fail(model, f"it declares {said}", f"write one of {', '.join(kinds)}")
    (kind,) = named
    heldout = fields.optional("heldout", _file(home), None)
    return Heals(
        Policy(
            fields.optional("causes", listed(one_of(*RETRAIN_CAUSES)), RETRAIN_CAUSES),
            fields.optional("cooldown", _seconds, 3600.0),
            fields.optional("budget", whole(1, BUDGET_MAX), 3),
            fields.optional("window", _seconds, 7 * _DAY_S),
        ),
        kinds[kind](home, Fields.of(fields.values[kind], f"{model}.{kind}", _KEYS[kind])),
        fields.optional("deadline", _seconds, _DAY_S / 4),
        heldout,
        fields.optional("heldout_min", share, 0.0),
    )


_CALL = ("url", "timeout", "attempts", "token")
_KEYS = {
    "command": ("argv", "folder", "timeout", "environment"),
    "http": (*_CALL, "secret"),
    "kubeflow": (
        *_CALL,
        "pipeline_id",
        "pipeline_version_id",
        "experiment_id",
        "service_account",
        "parameters",
    ),
}


def _command(home: Path, fields: Fields) -> Hook:
    argv = fields.required("argv", listed(_text), '["/opt/train/retrain"]')
    if not Path(argv[0]).is_absolute():
        raise fail(fields.at("argv"), f"{argv[0]!r} is no absolute path", "write all of it")
    return Command(
        argv,
        home / fields.required("folder", _text, '"/opt/train"'),
        fields.optional("timeout", _seconds, 3600.0),
        fields.optional("environment", _texts, {}),
    )


def _http(home: Path, fields: Fields) -> Hook:
    secret = fields.optional("secret", _file(home), None)
    return HttpCall(*_call(fields), secret, fields.optional("token", _file(home), None))


def _pipeline(home: Path, fields: Fields) -> Hook:
    return Pipeline(
        *_call(fields),
        fields.optional("token", _file(home), None),
        fields.required("pipeline_id", _text, '"9a7f…"'),
        fields.optional("pipeline_version_id", _text, ""),
        fields.optional("experiment_id", _text, ""),
        fields.optional("service_account", _text, ""),
        fields.optional("parameters", _texts, {}),
    )


def _call(fields: Fields) -> tuple[str, float, int]:
    return (
        fields.required("url", _address, '"https://trainer.example"'),
        fields.optional("timeout", _seconds, 30.0),
        fields.optional("attempts", whole(1, 100), 8),
    )


def _seconds(value: object, path: str) -> float:
    return duration_ms(1)(value, path) / 1000


def _text(value: object, path: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 4096 or "\0" in value:
        raise fail(path, f"{value!r:.40} is no text", "write a text in quotes")
    return value


def _texts(value: object, path: str) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > 64:
        raise fail(path, "is no table of texts", 'write {NAME = "value"}')
    for key in value:
        if not _VARIABLE.fullmatch(key):
            raise fail(f"{path}.{key}", "is no name", "write letters, digits and _")
    return {key: _text(each, f"{path}.{key}") for key, each in value.items()}


def _address(value: object, path: str) -> str:
    text = _text(value, path)
    if not _URL.fullmatch(text):
        raise fail(path, f"{text[:80]!r} is no URL", "begin it with https://")
    return text.rstrip("/")


def _file(home: Path) -> Parser[Path | None]:
    def parse(value: object, path: str) -> Path | None:
        found = home / _text(value, path)
        if not found.is_file():
            raise NotFound(f"{path}: there is no file {found}", fix="check the path")
        return found

    return parse
