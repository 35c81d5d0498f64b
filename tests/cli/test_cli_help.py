"""What the command line is made of: help everywhere, and nothing imported before its time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from hanse.cli.errors import EXPLANATIONS, code_of
from hanse.cli.main import _NOUNS, hanse, main
from hanse.core import errors
from hanse.daemon.error_codes import CODES, from_mapping, to_mapping


def commands(group: click.Group, path: str = "hanse") -> Iterator[tuple[str, click.Command]]:
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        found = group.get_command(ctx, name)
        assert found is not None
        yield f"{path} {name}", found
        if isinstance(found, click.Group):
            yield from commands(found, f"{path} {name}")


ALL = dict(commands(hanse))


@pytest.mark.parametrize("name", ALL)
def test_every_command_and_every_option_has_help(name):
    command = ALL[name]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


@pytest.mark.parametrize("name", ALL)
def test_help_can_be_asked_of_every_command(name, capsys):
    assert main([*name.split()[1:], "--help"]) == 0
    assert "Usage: hanse" in capsys.readouterr().out


@pytest.mark.parametrize("noun", _NOUNS)
def test_the_table_of_nouns_says_what_the_command_says(noun):
    said = " ".join((ALL[f"hanse {noun}"].help or "").split())
    assert said.startswith(_NOUNS[noun][1].rstrip("."))


def imported_by(*arguments: str) -> set[str]:
    script = (
        "import sys; from hanse.cli.main import main; main(sys.argv[1:]);"
        "print(' '.join(m.partition('.')[0] for m in sys.modules), file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines()[-1].split())


HEAVY = {
    "aiosqlite",
    "asyncio",
    "cryptography",
    "google",
    "grpc",
    "numpy",
    "onnx",
    "onnxruntime",
    "rich",
    "sqlite3",
    "structlog",
    "yaml",
}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["status", "--home", "/nonexistent"],
        ["rollback", "m", "--reason", "r", "--yes", "--home", "/nonexistent"],
        ["rollout", "status", "--home", "/nonexistent"],
        ["lineage", "m", "--home", "/nonexistent"],
        ["release", "list", "--home", "/nonexistent"],
        ["freeze", "m", "--reason", "r", "--home", "/nonexistent"],
        ["daemon", "--help"],
        ["explain"],
    ],
)
def test_everyday_commands_import_nothing_heavy(arguments):
    assert not imported_by(*arguments) & HEAVY


def test_every_kind_of_error_has_a_code_and_every_code_an_explanation():
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.HanseError)
    ]
    for kind in kinds:
        assert code_of(kind("x")) in EXPLANATIONS
    assert set(CODES.values()) <= set(EXPLANATIONS)


@pytest.mark.parametrize("kind", CODES)
def test_an_error_survives_the_way_through_the_socket(kind):
    made = getattr(errors, kind)("what", fix="do that")
    said = to_mapping(made)
    back = from_mapping(said["kind"], said["message"], said["fix"])
    assert (type(back), str(back)) == (type(made), str(made))


def test_explain_knows_every_code_and_no_other(capsys):
    assert main(["explain", "e0106"]) == 0
    assert "E0106" in capsys.readouterr().out
    assert main(["explain", "E9999"]) == 1
