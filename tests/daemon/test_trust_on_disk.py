"""Whatever is done to the trust on a daemon's disk, it starts with the true one or not (T45)."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import json
import sqlite3
from pathlib import Path
from random import Random

import pytest

from hanse.core.errors import HanseError
from hanse.core.trust.chain import Chain, replay, sign
from hanse.daemon import ceremony, run
from hanse.daemon.config import load
from hanse.daemon.trust_folder import add_file, read_files
from hanse.storage.sqlite import SqliteEventStore

NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture
async def home(tmp_path: Path) -> Path:
    """A daemon's home with two trust versions, in the folder and in the database."""
    home = tmp_path / "home"
    ceremony.init(home, "acme", "eu-north", "127.0.0.1:7420", "", NOW)
    files = read_files(home / "trust")
    request = ceremony.join(tmp_path / "us", files, "us-east", "127.0.0.1:7421", "", NOW)
    root = ceremony.root_keys([home / "keys/root.key"])
    add_file(home / "trust", 2, ceremony.admit(request, files, root, NOW))
    await trusted(home)
    return home


async def trusted(home: Path) -> Chain:
    """What a start of the daemon makes of what it finds."""
    store = await SqliteEventStore.open(home / "data")
    try:
        return await run._trust(load(home), store)
    finally:
        await store.close()


def stored(home: Path) -> list[bytes]:
    with sqlite3.connect(home / "data/registry.sqlite3") as database:
        return [row[0] for row in database.execute("SELECT raw FROM trust_file ORDER BY version")]


def store(home: Path, version: int, raw: bytes) -> None:
    with sqlite3.connect(home / "data/registry.sqlite3") as database:
        database.execute("UPDATE trust_file SET raw = ? WHERE version = ?", (raw, version))


def put(home: Path, version: int, raw: bytes) -> None:
    (home / f"trust/{version:05d}.json").write_bytes(raw)


async def true_or_refused(home: Path, truth: Chain) -> bool:
    """True if the daemon refused to start; it has not believed anything else in any case."""
    try:
        chain = await trusted(home)
    except HanseError:
        return True
    assert chain.versions[: len(truth.versions)] == truth.versions[: len(chain.versions)]
    return False


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("where", [store, put], ids=["database", "folder"])
async def test_any_byte_changed_changes_nothing(home: Path, version: int, where: object) -> None:
    truth, whole = replay(tuple(stored(home))), stored(home)[version - 1]
    dice, refused = Random(version), 0
    for _ in range(25):
        at = dice.randrange(len(whole))
        changed = whole[:at] + bytes([whole[at] ^ 1 << dice.randrange(8)]) + whole[at + 1 :]
        where(home, version, changed)  # type: ignore[operator]
        refused += await true_or_refused(home, truth)
    where(home, version, whole)  # type: ignore[operator]
    assert refused >= 20 or where is put  # the folder's copy is not even looked at
    assert (await trusted(home)).versions == truth.versions


def rewritten(raw: bytes) -> bytes:
    """The same bundle in which somebody has given its daemons other addresses."""
    bundle = json.loads(raw)
    for name, content in bundle["files"].items():
        text = base64.b64decode(content)
        bundle["files"][name] = base64.b64encode(text.replace(b":742", b":666")).decode()
    return json.dumps(bundle, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize("version", [1, 2])
async def test_a_member_that_was_edited_into_the_cache_is_never_one(
    home: Path, version: int
) -> None:
    truth, whole = replay(tuple(stored(home))), stored(home)
    forged = rewritten(whole[version - 1])
    assert forged != whole[version - 1]
    store(home, version, forged)
    assert await true_or_refused(home, truth)
    put(home, version, forged)  # nor when both copies agree
    assert await true_or_refused(home, truth)


async def test_a_version_that_fits_and_that_nobody_signed_is_never_one(home: Path) -> None:
    truth = replay(tuple(stored(home)))
    lie = dataclasses.replace(truth.current, ring_seed="another")
    forged = sign(lie, (), replay(truth.files[:1]))
    store(home, 2, forged)
    put(home, 2, forged)
    assert await true_or_refused(home, truth)


async def test_another_federations_chain_does_not_take_the_place_of_ours(
    home: Path, tmp_path: Path
) -> None:
    ceremony.init(tmp_path / "other", "acme", "eu-north", "127.0.0.1:6666", "", NOW)
    (other,) = read_files(tmp_path / "other/trust")
    truth = replay(tuple(stored(home)))
    store(home, 1, other)
    assert await true_or_refused(home, truth)


async def test_what_was_deleted_comes_back_from_the_other_place(home: Path) -> None:
    truth = replay(tuple(stored(home)))
    with sqlite3.connect(home / "data/registry.sqlite3") as database:
        database.execute("DELETE FROM trust_file")
    assert (await trusted(home)).versions == truth.versions
    (home / "trust/00002.json").unlink()
    assert (await trusted(home)).versions == truth.versions
