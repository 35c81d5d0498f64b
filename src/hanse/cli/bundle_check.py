"""Checking a folder against an OpenSSF model signing bundle, with a public key and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hanse.cli.manifest_builder import digest_of
from hanse.core.errors import NotFound, Rejected
from hanse.core.limits import MODEL_SIGNATURE_BYTES_MAX
from hanse.core.model_signing import Signed, open_bundle, public_key

Found = tuple[str, bool, str]
"""What was looked at, whether it stands, and more about it."""
_GIT = (".git", ".gitattributes", ".github", ".gitignore")  # left out by the OpenSSF's tool too


def check_bundle(model: Path, bundle: Path, key: Path, apart: tuple[Path, ...]) -> Iterator[Found]:
    """The signature, then every file: one that nobody signed is as wrong as one that is missing.

    `apart` are files beside the model's that are none of it.
    """
    try:
        signed = open_bundle(_read(bundle), public_key(_read(key)))
    except Rejected as error:
        yield "bundle", False, str(error)
        return
    yield "bundle", True, f"{signed.name}, {len(signed.files)} files, signed by {key.name}"
    ours = {path.resolve() for path in (bundle, key, *apart)}
    here = dict(_files(model, signed, ours))
    for name, digest in sorted(signed.files.items()):
        path = here.pop(name, None)
        if path is None:
            yield name, False, "missing"
        elif digest_of(path) != digest:
            yield name, False, f"has other bytes than {digest}"
        else:
            yield name, True, str(digest)
    for name in sorted(here):
        yield name, False, "nobody signed it"


def _files(model: Path, signed: Signed, ours: set[Path]) -> Iterator[tuple[str, Path]]:
    """By path below the model. A symbolic link is no file: it is missing, or nobody signed it."""
    if model.is_file():
        yield model.name, model
        return
    left_out = (*_GIT, *signed.ignored)
    for path in model.rglob("*"):
        name = path.relative_to(model).as_posix()
        if any(name == each or name.startswith(f"{each}/") for each in left_out):
            continue
        if path.is_symlink():
            yield f"{name} (a symbolic link)", path
        elif path.is_file() and path.resolve() not in ours:
            yield name, path


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MODEL_SIGNATURE_BYTES_MAX + 1)
    except OSError:
        raise NotFound(f"cannot read {path}", fix="check the path") from None
