"""The texts say what the code does: every command, setting, limit, event type, error and link.

`python tests/test_docs.py` writes the tables that are made from the code into docs/operating.md.
"""

from __future__ import annotations

import re
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from hanse.cli.errors import EXPLANATIONS
from hanse.cli.main import hanse
from hanse.core import counters, limits
from hanse.core.rollout.spec import parse_spec
from hanse.daemon import config as daemon_config
from hanse.daemon.queries import QUERIES
from hanse.daemon.queries.states import WORST_FIRST
from hanse.daemon.verbs import COMMANDS
from hanse.edge import config as edge_config
from hanse.storage.migrations import MIGRATIONS
from hanse.v1 import event_pb2

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FORMATS = (ROOT / "docs/formats.md").read_text()
OPERATING_PATH = ROOT / "docs/operating.md"
OPERATING = OPERATING_PATH.read_text()


def tracked(*patterns: str) -> list[Path]:
    """Files that git knows or would take, so that a new page is checked before its commit."""
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    return [ROOT / name for name in names if (ROOT / name).is_file()]


PAGES = tracked("*.md")


def commands(group: click.Group = hanse, path: str = "hanse") -> Iterator[tuple[str, Any]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


ALL_COMMANDS = dict(commands())


# -- tables made from the code -----------------------------------------------------------------


def settings_table(settings: Mapping[str, Any]) -> str:
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for name, setting in settings.items():
        default = "required" if setting.default is None else f"`{setting.default!r}`"
        doc = " ".join(setting.doc.split()).replace("|", "\\|")
        lines.append(f"| `{name}` | {default.replace(chr(39), chr(34))} | {doc} |")
    return "\n".join(lines)


def error_table() -> str:
    lines = ["| code | means |", "|---|---|"]
    lines += [f"| {code} | {' '.join(text.split())} |" for code, text in EXPLANATIONS.items()]
    return "\n".join(lines)


def counter_table() -> str:
    lines = ["| counter | counts |", "|---|---|"]
    lines += [f"| `{name}` | {text} |" for name, text in counters.MEANINGS.items()]
    return "\n".join(lines)


TABLES = {
    "counters": counter_table(),
    "daemon-settings": settings_table(daemon_config.SETTINGS),
    "agent-settings": settings_table(edge_config.SETTINGS),
    "error-codes": error_table(),
}


def section(name: str) -> re.Match[str]:
    found = re.search(rf"(<!-- {name}: [^\n]*-->\n)(.*?)(<!-- end -->)", OPERATING, re.DOTALL)
    assert found is not None, f"docs/operating.md has no section {name}"
    return found


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_those_of_the_code(name: str) -> None:
    assert section(name)[2] == TABLES[name] + "\n", "run: python tests/test_docs.py"


# -- the command line --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_every_command_and_option_has_a_help_text(name: str) -> None:
    command = ALL_COMMANDS[name]
    assert (command.help or "").strip()
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert (parameter.help or "").strip(), parameter.opts


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_every_command_is_in_the_list_of_commands(name: str) -> None:
    assert f"`{name}`" in OPERATING.partition("## Commands")[2]


def said_commands() -> Iterator[tuple[str, str]]:
    """Every `hanse ...` in the pages: in code spans and at the beginning of lines of code."""
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        for code in re.findall(r"`(hanse [^`]+)`", text) + re.findall(
            r"^(?:    |\$ )+(?:[A-Z_]+=\S+ )*(hanse [^\n]+)$", text, re.MULTILINE
        ):
            yield page.name, code.partition(" #")[0].strip()


def test_every_command_line_in_the_pages_exists() -> None:
    found = list(said_commands())
    assert len(found) > 50
    for page, line in found:
        words = line.split()
        command: Any = hanse
        rest = words[1:]
        while rest and isinstance(command, click.Group) and not rest[0].startswith("-"):
            if rest[0] in ("COMMAND", "CODE"):
                rest = ["--help"]
                break
            name = rest.pop(0)
            command = command.get_command(click.Context(command), name)
            assert command is not None, f"{page}: {line}"
        known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        known |= {"--help", "-h", "--version"}
        for word in rest:
            if re.fullmatch(r"--?[a-z][a-z-]*", word):
                assert word in known, f"{page}: {word} in {line}"


# -- operating ---------------------------------------------------------------------------------


@pytest.mark.parametrize("state", WORST_FIRST)
def test_every_state_has_a_line_that_says_what_to_do(state: str) -> None:
    assert re.search(rf"^\| {state} \| .+ \|", OPERATING, re.MULTILINE)


def test_every_exit_code_is_explained() -> None:
    from hanse.cli import errors

    codes = re.findall(r"^\| (\d+) \| ", OPERATING.partition("## Exit codes")[2], re.MULTILINE)
    assert [int(code) for code in codes] == list(range(7))
    assert errors.UNREACHABLE == 6


def test_every_log_line_that_is_explained_is_written_somewhere() -> None:
    source = "\n".join(p.read_text() for p in (ROOT / "src/hanse").rglob("*.py"))
    table = OPERATING.partition("## Logs")[2].partition("## ")[0]
    for row in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE):
        for event in re.findall(r"`(\w+)`", row):
            assert f'"{event}"' in source, event


def test_every_error_in_the_logs_is_explained() -> None:
    table = OPERATING.partition("## Logs")[2].partition("## ")[0]
    written = set()
    for path in (ROOT / "src/hanse").rglob("*.py"):
        written |= set(
            re.findall(r"log\.(?:error|exception)\(\s*\"(\w+)\"", path.read_text())
        ) | set(re.findall(r"[Ll]og\(\s*\"error\", \"(\w+)\"", path.read_text()))
    assert len(written) > 10
    assert {event for event in written if f"`{event}`" not in table} == set()


# -- formats -----------------------------------------------------------------------------------


def limit_rows() -> dict[str, tuple[str, str, str]]:
    table = FORMATS.partition("## Limits")[2]
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \| (format|local) \| (.+) \|$", table, re.MULTILINE)
    return {name: (value, kind, breach) for name, value, kind, breach in rows}


def test_the_limits_table_has_every_limit_with_its_value_and_kind() -> None:
    source = (ROOT / "src/hanse/core/limits.py").read_text()
    rows = limit_rows()
    values = {name: value for name, value in vars(limits).items() if name.isupper()}
    assert {name: row[0] for name, row in rows.items()} == {n: str(v) for n, v in values.items()}
    for name, (_, kind, _) in rows.items():
        line = next(each for each in source.splitlines() if each.startswith(f"{name} ="))
        assert ("# format" in line) == (kind == "format"), name


def test_a_limit_that_nothing_reads_is_said_to_be_one() -> None:
    source = "\n".join(
        p.read_text() for p in (ROOT / "src/hanse").rglob("*.py") if p.name != "limits.py"
    )
    for name, (_, _, breach) in limit_rows().items():
        assert (name in source) != ("nothing reads it yet" in breach), name


def test_every_counter_is_counted_somewhere_and_no_other() -> None:
    source = "\n".join(p.read_text() for p in (ROOT / "src/hanse").rglob("*.py"))
    counted = set(re.findall(r"""counters\[([^]]+)\] \+=""", source))
    found = {name for each in counted for name in re.findall(r'"(\w+)"', each)}
    found |= set(re.findall(r'_refuse\("(\w+)"', source))
    assert found == set(counters.MEANINGS)


def test_every_event_type_is_in_the_table_with_its_number_and_fields() -> None:
    for name, number in event_pb2.EventType.items():
        if number == 0:
            continue
        short = name.removeprefix("EVENT_TYPE_")
        row = re.search(rf"^\| {number} \| `{short}` \| ([^|]*)\|", FORMATS, re.MULTILINE)
        assert row is not None, short
        message = "".join(part.title() for part in short.split("_"))
        shape = getattr(event_pb2, message, None)
        fields = [f.name for f in shape.DESCRIPTOR.fields] if shape else []
        assert re.findall(r"`(\w+)`", row[1]) == fields, short


def test_every_field_of_an_event_is_in_the_table() -> None:
    table = FORMATS.partition("## Event\n")[2].partition("## ")[0]
    for field in event_pb2.Event.DESCRIPTOR.fields:
        assert f"`{field.name}`" in table


def test_every_verb_of_the_control_socket_is_listed() -> None:
    table = FORMATS.partition("## Control socket")[2].partition("## ")[0]
    listed = set(re.findall(r"^\| `([a-z.]+)` \|", table, re.MULTILINE))
    assert listed == {
        *COMMANDS,
        *QUERIES,
        "release.file",
        "release.files",
        "release.publish",
        "blob.put",
        "trust.extend",
        "agent.token",
        "agent.revoke",
        "daemon.token",
        "daemon.pending",
        "daemon.refuse",
        "audit.read",
        "audit.reveal",
        "bundle.heads",
        "bundle.export",
        "bundle.import",
        "gc",
        "claim",
    }


def test_every_table_of_the_registry_is_listed() -> None:
    table = FORMATS.partition("## Registry")[2].partition("## ")[0]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| `")]
    listed: dict[str, list[str]] = {}
    for _, names, columns, *_ in rows:
        for name, own in zip(re.findall(r"`(\w+)`", names), columns.split(";"), strict=True):
            listed[name] = re.findall(r"`(\w+)`", own)
    with closing(sqlite3.connect(":memory:")) as database:
        for script in MIGRATIONS:
            database.executescript(script)
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        found = {
            name: [c for (c,) in database.execute("SELECT name FROM pragma_table_info(?)", (name,))]
            for (name,) in tables
        }
    assert listed == found


def plans() -> list[str]:
    return [
        block
        for page in PAGES
        for block in re.findall(r"^```yaml rollout\n(.*?)^```$", page.read_text(), re.M | re.S)
    ]


def test_every_rollout_in_the_pages_is_one() -> None:
    assert plans()
    for plan in plans():
        parse_spec(yaml.safe_load(plan))


def test_every_field_of_a_plan_is_in_the_table() -> None:
    from hanse.core.rollout import spec, steps, templates

    table = FORMATS.partition("| field | value | default | rule |")[2].partition("**Verdicts")[0]
    names = {*spec._SPEC_FIELDS, *steps.STEPS, *templates._METRIC_FIELDS}
    for name in names:
        assert name in table, name


# -- all pages ---------------------------------------------------------------------------------


def slug(title: str) -> str:
    """The anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        assert goal.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", goal.read_text(), re.MULTILINE)
            assert anchor in map(slug, titles), target


FOREIGN = re.compile(
    r"(?<!\w)/(?:home|root|Users|work)/\w|/tmp/\w+/"
    r"|\bpyp[i]\.org|pythonh[o]sted|npmj[s]|crates\.i[o]|proxy\.golang|index-url"
)


def test_no_tracked_text_names_a_machine_path_or_a_package_registry() -> None:
    for path in tracked():
        raw = path.read_bytes()
        if path == Path(__file__) or b"\0" in raw:
            continue
        found = FOREIGN.search(raw.decode(errors="replace"))
        assert found is None, f"{path.relative_to(ROOT)}: {found[0] if found else ''}"


def test_the_readme_shows_the_question_the_picture_and_both_commands() -> None:
    assert "Which version broke, where, and how fast can we roll it back?" in README
    assert "docs/federation.svg" in README
    for script in ("scripts/demo", "scripts/test"):
        assert script in README
        assert (ROOT / script).stat().st_mode & 0o100


def test_the_snippet_of_the_readme_is_python() -> None:
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S)
    compile(snippet, "README.md", "exec")


def test_the_changelog_has_the_version_of_the_package() -> None:
    import tomllib

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.search(
        rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )


def write_tables() -> None:
    text = OPERATING
    for name, table in TABLES.items():
        found = section(name)
        text = text.replace(found[0], f"{found[1]}{table}\n{found[3]}")
    OPERATING_PATH.write_text(text)


if __name__ == "__main__":
    write_tables()
