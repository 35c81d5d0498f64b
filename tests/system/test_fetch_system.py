"""`hanse release fetch` while its daemon is killed: the same command goes on where it stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from digit_releases import paths
from system_federation import MODEL, REGIONS, Federation
from test_transfers_system import weighty

from hanse.cli.main import main
from hanse.core.limits import BLOB_CHUNK_BYTES
from hanse.storage.incoming import Part

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def federation(folder: Path) -> Iterator[Federation]:
    """One region without nodes, started."""
    made = Federation(folder)
    try:
        made.found((), REGIONS[:1])
        made.start(REGIONS[:1])
        yield made
    finally:
        made.close()


def test_a_fetch_goes_on_after_its_daemon_was_killed(
    federation: Federation,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    daemon, to = federation.founder, folder / "fetched"
    model = weighty(paths()["v1"], 0.0, folder / "heavy.onnx")
    size = model.stat().st_size
    federation.publish(model, "1.0.0")
    monkeypatch.setenv("HANSE_HOME", str(daemon.home))
    command = ["release", "fetch", f"{MODEL}@1.0.0", "--to", str(to)]
    append, came = Part.append, list[int]()

    def watched(part: Part, chunk: bytes) -> None:
        append(part, chunk)
        came.append(len(chunk))
        if len(came) == 2:
            daemon.kill()

    monkeypatch.setattr(Part, "append", watched)
    assert main(command) == 6
    assert "it goes on where it stopped" in capsys.readouterr().err
    before = sum(came)
    assert 2 * BLOB_CHUNK_BYTES <= before < size
    assert not (to / model.name).exists()
    assert next(to.glob(f"{model.name}~*.part")).stat().st_size == before

    daemon.start()
    federation.until("it answers again", lambda: daemon.ask("status"))
    assert main(command) == 0
    assert sum(came) == size  # not a byte twice
    assert [path.name for path in to.iterdir()] == [model.name]
    assert (to / model.name).read_bytes() == model.read_bytes()
