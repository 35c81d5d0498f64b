"""How many bytes take a node from one release to the next, against what else would do it."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import bsdiff4

from hanse.core.ids import Digest
from hanse.parts.chunks import cuts
from hanse.parts.payload import Base, decode, encode
from hanse.parts.plan import bases
from hanse.parts.recipe import Part, Recipe, parse_recipe, split
from measure.pairs import Pair, pairs
from measure.table import markdown

LINK_BYTES_PER_S = 100e6 / 8


@dataclass(frozen=True)
class Update:
    size: int
    encode_s: float
    rebuild_s: float


def run() -> str:
    rows = []
    for pair in pairs():
        rows.append(_row(pair))
        print(*rows[-1], sep=" | ", flush=True)
    header = (
        "from A to B", "B, MB", *PEERS, "**Hanse**", "bar",
        "encode s", "rebuild s", "saved s",
    )  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return (
        "### Bytes to update\n\n"
        "What travels to a node that holds A until it holds B, as a share of B; in brackets the "
        "seconds in which a peer encodes it, one run. Peers hold both files; chunks are those of "
        "64 kB by content that A lacks, as they are. Hanse: the recipe against that of A and a "
        "payload for each part that A lacks, rebuilt and compared with B. *Encode* and *rebuild*: "
        "CPU time of one thread, A and B being split; *rebuild* hashes every part and the file. "
        "*Saved*: what a link of 100 Mbit/s need not carry of B, in seconds. *Tuned by r*: "
        "Gaussian noise of r times its standard deviation on each tensor, a stand-in. –: not run, "
        "as it takes minutes a pair or is not installed. Peak memory, models and all: "
        f"{peak} MB. {', '.join(_versions())}.\n\n" + markdown(header, rows)
    )


def _row(pair: Pair) -> list[str]:
    ours = update(pair.old, pair.new)
    size = len(pair.new)
    return [
        pair.name,
        f"{size / 1e6:.1f}",
        *(
            "–" if name in pair.without else _shown(peer, pair.old, pair.new)
            for name, peer in PEERS.items()
        ),
        f"**{_share(ours.size, size)}**",
        pair.bar,
        f"{ours.encode_s:.2f}",
        f"{ours.rebuild_s:.3f}",
        f"{(size - ours.size) / LINK_BYTES_PER_S:.2f}",
    ]


def update(old: bytes, new: bytes) -> Update:
    """What a peer and a node do, each by itself; the new file is rebuilt and compared."""
    before, after = split(old), split(new)
    have, wanted = _held(before, old), _held(after, new)
    start = time.process_time()
    recipe_of = {each: Base(Part(Digest.of(raw), len(raw)), raw) for each, raw in
                 ((each, each.encode()) for each in (before, after))}  # fmt: skip
    told, known = recipe_of[after], recipe_of[before]
    recipe = encode(told.part, told.data, known)
    alike = bases(after, before)
    payloads = {
        digest: encode(
            each.part, each.data, have[alike[digest].digest] if digest in alike else None
        )
        for digest, each in wanted.items()
        if digest not in have
    }
    encoded = time.process_time()
    target = parse_recipe(decode(told.part, recipe, lambda digest: known))
    whole = _rebuilt(target, have, payloads)
    done = time.process_time()
    assert whole == new
    sent = len(recipe) + sum(map(len, payloads.values()))
    return Update(sent, encoded - start, done - encoded)


def _rebuilt(
    recipe: Recipe, have: Mapping[Digest, Base], payloads: Mapping[Digest, bytes]
) -> bytes:
    """Every part and the file are hashed, as a node does."""
    parts: list[bytes | memoryview] = []
    for part in recipe.parts:
        if held := have.get(part.digest):
            assert Digest.of(held.data) == part.digest
            parts.append(held.data)
        else:
            parts.append(decode(part, payloads[part.digest], have.get))
    whole = b"".join(parts)
    assert Digest.of(whole) == recipe.digest
    return whole


def _held(recipe: Recipe, data: bytes) -> dict[Digest, Base]:
    found, at, view = {}, 0, memoryview(data)
    for part in recipe.parts:
        found[part.digest] = Base(part, view[at : at + part.size])
        at += part.size
    return found


def _versions() -> Iterator[str]:
    for tool, option in (("zstd", "--version"), ("xdelta3", "-V")):
        if shutil.which(tool):
            said = subprocess.run([tool, option], capture_output=True, text=True, check=False)
            found = re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr)
            yield f"{tool} {found[0] if found else '?'}"
    yield from (f"{package} {version(package)}" for package in ("bsdiff4", "zstandard"))


# -- peers -------------------------------------------------------------------------------------


def _shown(peer: Callable[[bytes, bytes], int | None], old: bytes, new: bytes) -> str:
    start = time.perf_counter()
    size = peer(old, new)
    took = time.perf_counter() - start
    return "–" if size is None else f"{_share(size, len(new))} ({took:.1f})"


def _share(size: int, whole: int) -> str:
    return f"{size} B" if size < 1000 else f"{size / whole:.4f}"


def _command(*words: str) -> Callable[[bytes, bytes], int | None]:
    """Size of what a command writes to OUT, with the files OLD and NEW at hand."""

    def run(old: bytes, new: bytes) -> int | None:
        if shutil.which(words[0]) is None:
            return None
        with tempfile.TemporaryDirectory() as folder:
            paths = {name: Path(folder, name) for name in ("OLD", "NEW", "OUT")}
            paths["OLD"].write_bytes(old)
            paths["NEW"].write_bytes(new)
            filled = [word.format(**paths) for word in words]
            subprocess.run(filled, check=True, capture_output=True)
            return paths["OUT"].stat().st_size

    return run


def _chunks(old: bytes, new: bytes) -> int:
    def of(data: bytes) -> dict[Digest, int]:
        ends = list(cuts(memoryview(data)))
        return {Digest.of(data[a:b]): b - a for a, b in zip([0, *ends], ends, strict=False)}

    held = of(old)
    return sum(size for digest, size in of(new).items() if digest not in held)


PEERS: dict[str, Callable[[bytes, bytes], int | None]] = {
    "zstd -19": _command("zstd", "-19", "-q", "{NEW}", "-o", "{OUT}"),
    "zstd -19 --patch-from": _command(
        "zstd", "-19", "-q", "--long=27", "--patch-from={OLD}", "{NEW}", "-o", "{OUT}"
    ),
    "bsdiff4": lambda old, new: len(bsdiff4.diff(old, new)),
    "xdelta3 -9": _command(
        "xdelta3", "-9", "-S", "lzma", "-B", "134217728", "-e", "-s", "{OLD}", "{NEW}", "{OUT}"
    ),
    "64 kB chunks": _chunks,
}
