"""Options that many commands share, so that they are called the same everywhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from hanse.cli.output import FORMS


def default_home() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return Path(base) / "hanse"


_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False)

home = click.option(
    "--home",
    type=_FOLDER,
    envvar="HANSE_HOME",
    default=default_home,
    show_default="~/.local/share/hanse",
    show_envvar=True,
    help="The daemon's folder.",
)
agent_home = click.option(
    "--home",
    type=_FOLDER,
    envvar="HANSE_AGENT_HOME",
    required=True,
    show_envvar=True,
    help="The edge node's folder.",
)
output = click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(FORMS),
    default="table",
    show_default=True,
    help="How to print the answer.",
)
key = click.option(
    "--key",
    type=_FILE,
    envvar="HANSE_KEY",
    show_envvar=True,
    help="Your signing key.  [default: keys/operator.key in the daemon's folder]",
)
draft = click.option(
    "--draft",
    type=_FILE,
    help="Write it there unsigned, for several people: hanse statement sign, then submit.",
)
yes = click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
reason = click.option(
    "--reason", help="Why, for the record. Asked for on a terminal, required elsewhere."
)


@dataclass(frozen=True, slots=True)
class Signing:
    """How a command is signed and for which daemon; see `signed`."""

    home: Path
    key: Path | None
    draft: Path | None
    form: str

    def ask(self, verb: str, args: Mapping[str, Any]) -> None:
        """Have it signed and tell the daemon, see `statement.ask`. That is not light to import."""
        from hanse.cli import statement

        statement.ask(self.home, verb, args, self.key, self.draft, self.form)


def signed(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that people sign; it is given them as one `Signing`."""

    @wraps(command)
    def gathered(
        *, home: Path, key: Path | None, draft: Path | None, form: str, **rest: Any
    ) -> Any:
        return command(signing=Signing(home, key, draft, form), **rest)

    return draft(key(home(output(gathered))))


def pairs(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """A callback: NAME=VALUE texts become a mapping."""
    found = {}
    for value in values:
        key, separator, text = value.partition("=")
        if not key or not separator:
            raise click.BadParameter(f"{value!r}: write NAME=VALUE")
        found[key] = text
    return found


def duration_s(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """A callback: `30s`, `10m`, `2h` become seconds."""
    from hanse.core.errors import InvalidSpec
    from hanse.core.rollout.fields import duration_ms

    if value is None:
        return None
    try:
        return duration_ms(1)(value, "duration") / 1000
    except InvalidSpec as error:
        raise click.BadParameter(str(error)) from None


timeout = click.option(
    "--timeout",
    callback=duration_s,
    default="10m",
    metavar="DURATION",
    show_default=True,
    help="With --watch: give up waiting after this long (exit 4).",
)


def release_name(_: click.Context, __: click.Parameter, value: str) -> dict[str, str]:
    """A callback: `MODEL[@VERSION]` or `MODEL@sha256:…` become the arguments of a verb."""
    model, separator, version = value.partition("@")
    if not model or (separator and not version):
        raise click.BadParameter("write MODEL@VERSION, such as ocr-rec@4.0.0")
    if not separator:
        return {"model": model}
    return {"model": model, "release" if version.startswith("sha256:") else "version": version}


def exact_release(ctx: click.Context, parameter: click.Parameter, value: str) -> dict[str, str]:
    """A callback: as `release_name`, but the version has to be said."""
    named = release_name(ctx, parameter, value)
    if len(named) == 1:
        raise click.BadParameter(f"which version? write {value}@VERSION")
    return named


def ask_reason(given: str | None) -> str:
    """The reason, asked for on a terminal. Raises a usage error elsewhere."""
    if given:
        return given
    if not sys.stdin.isatty():
        raise click.UsageError("--reason is required: say why, for the record")
    return str(click.prompt("reason", err=True))


def confirm(sure: bool, name: str, what: str) -> None:
    """Severe actions are confirmed by typing the name. Raises `click.Abort`."""
    click.echo(what, err=True)
    if sure:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked here: confirm with --yes")
    if click.prompt(f"type {name} to continue", err=True) != name:
        raise click.Abort


def operator() -> str:
    """How the person at this terminal is called on this machine."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def signing_key(home_folder: Path, chosen: Path | None) -> Any:
    """The person's key. Raises `NotFound` or `NotPermitted` with what to do."""
    from hanse.core.signing import SigningKey
    from hanse.daemon.private_files import read_seed

    return SigningKey(read_seed(chosen or home_folder / "keys/operator.key"))
