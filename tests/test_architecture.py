"""The shape of the code: who imports whom, what the core may touch, how long a file gets."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/hanse"
FILES = sorted(p for p in SOURCE.rglob("*.py") if "v1" not in p.relative_to(SOURCE).parts)
CORE = [p for p in FILES if p.relative_to(SOURCE).parts[0] == "core"]
LINES_MAX = 450

# What would make two runs of one seed differ, or reach past what the core was handed.
MODULES_BANNED = {
    "asyncio", "datetime", "gc", "grpc", "importlib", "io", "locale", "logging", "multiprocessing",
    "os", "pathlib", "secrets", "signal", "socket", "sqlite3", "subprocess", "sys", "tempfile",
    "threading", "time", "uuid", "weakref",
}  # fmt: skip
CALLS_BANNED = {"hash", "id", "input", "open", "print", "eval", "exec", "__import__"}
NAMES_ALLOWED = {"random": {"Random"}}  # the type only: a source of randomness is handed in


def named(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(module, name) pairs; the name is empty where the whole module is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


def breaches(source: str) -> list[str]:
    """What a core module does that it may not do."""
    tree = ast.parse(source)
    found = []
    for module, name in imports(tree):
        top = module.partition(".")[0]
        if top in MODULES_BANNED or (top in NAMES_ALLOWED and name not in NAMES_ALLOWED[top]):
            found.append(f"imports {module} {name}".strip())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in CALLS_BANNED:
                found.append(f"line {node.lineno} calls {node.func.id}")
        elif isinstance(node, ast.AsyncFunctionDef | ast.Await):
            found.append(f"line {node.lineno} is asynchronous")
        elif isinstance(node, ast.FunctionDef) and node.name == "__del__":
            found.append(f"line {node.lineno} acts when it is collected")
    return found


@pytest.mark.parametrize("path", CORE, ids=named)
def test_the_core_reads_no_clock_no_chance_and_no_disk(path: Path) -> None:
    assert breaches(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "from os import urandom",
        "import random",
        "from random import choice",
        "from uuid import uuid4",
        "x = open('a')",
        "x = sorted(y, key=hash); z = hash(y)",
        "async def f(): ...",
    ],
)
def test_a_core_module_that_does_would_be_found(source: str) -> None:
    assert breaches(source)


@pytest.mark.parametrize("path", [p for p in FILES if p.name != "__init__.py"], ids=named)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text()))
    assert text is not None
    assert len(text) > 20


@pytest.mark.parametrize("path", FILES, ids=named)
def test_a_file_is_short_enough_to_be_read(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LINES_MAX


def test_only_the_command_line_prints() -> None:
    for path in FILES:
        if path.relative_to(SOURCE).parts[0] == "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", named(path)


# What turns bytes into code, into files at places that the bytes choose, or into a connection.
LOADERS = {
    "cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "pickle", "_pickle", "shelve",
    "tensorflow", "torch", "xmlrpc",
}  # fmt: skip
LOADING = {
    "yaml.load", "unsafe_load", "full_load", "np.load", "numpy.load", "eval", "exec",
    "unpack_archive", "extract", "extractall", "register_custom_ops_library",
    "register_execution_provider_library",
}  # fmt: skip
DIALLING = {
    "aiohttp", "ftplib", "http.client", "httpx", "requests", "smtplib", "urllib.request", "urllib3",
    "xmlrpc",
}  # fmt: skip
DIALS = {"asyncio.open_connection", "socket.create_connection", "asyncio.create_connection"}


def called(tree: ast.AST) -> Iterator[str]:
    """Names of what is called, such as `yaml.load`; also what a method is called on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


@pytest.mark.parametrize("path", FILES, ids=named)
def test_nothing_loads_what_could_run_or_unpacks_what_could_escape(path: Path) -> None:
    """T31, T32: by no way that a pickle, a library or an archive could take."""
    tree = ast.parse(path.read_text())
    assert not {module.partition(".")[0] for module, _ in imports(tree)} & LOADERS
    calls = set(called(tree))
    if named(path) == "cli/documents.py":
        assert "class Strict(yaml.SafeLoader)" in path.read_text()
        calls.remove("yaml.load")
    endings = {call.rpartition(".")[2] for call in calls}
    assert not (calls | endings) & LOADING


def test_connections_are_opened_where_an_operator_has_written_the_address_down() -> None:
    """T33: by gRPC to whom the trust file lists, by one function to a setting, and by a person."""
    found = set()
    for path in FILES:
        tree = ast.parse(path.read_text())
        modules = {module for module, _ in imports(tree)}
        if modules & DIALLING or set(called(tree)) & DIALS:
            found.add(named(path))
    assert found == {"cli/audit_source.py", "gateways/http_call.py"}


def test_every_room_is_on_the_page_about_the_architecture() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    for room in sorted(p.parent.name for p in SOURCE.glob("*/__init__.py")):
        assert f"| `{room}` |" in page, room
    for part in sorted(p.parent.name for p in SOURCE.glob("core/*/__init__.py")):
        if any(p.name != "__init__.py" for p in (SOURCE / "core" / part).glob("*.py")):
            assert f"`{part}/`" in page, part


def test_imports_go_only_downwards() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [str(linter), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
