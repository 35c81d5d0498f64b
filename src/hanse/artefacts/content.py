"""What a file of a release is, by its bytes and not by its name.

A release holds models, and data that go with them. Refused are files that run code when somebody
loads them: pickles, archives of pickles, programs and libraries, settings that name a library
(T31, T32); and archives with names that lead out of the folder where somebody unpacks them (T28).
Nothing is unpacked here, or anywhere else in Hanse.
"""

from __future__ import annotations

import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import IO, BinaryIO, Final

from hanse.artefacts import npz
from hanse.artefacts.pickles import is_pickle, only_tensors
from hanse.core.errors import InvalidSpec, Rejected, TooLarge
from hanse.core.limits import GOLDEN_BYTES_MAX
from hanse.core.reading import parse_json

GOLDEN: Final = "golden"
"""Beside the formats of variants, what a file may be in a release."""
HEAD_BYTES: Final = 1024
MEMBERS_MAX: Final = 10_000
CONFIG_BYTES_MAX: Final = 64 * 1024**2
_HEADER_BYTES_MAX: Final = 100 * 1024**2  # as the format itself says
_PROGRAMS: Final = (
    b"\x7fELF", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe",
    b"\xca\xfe\xba\xbe", b"!<arch>\n",
)  # fmt: skip
_LIBRARY: Final = re.compile(r"\.(so|dll|dylib|pyd|a)(\.[0-9.]+)?$", re.IGNORECASE)
_CONFIG: Final = re.compile(r"\.(json|pbtxt|ya?ml|toml|xml|ini|cfg|conf)$", re.IGNORECASE)
_NAMES_A_LIBRARY: Final = re.compile(
    r"\b(custom_ops?_librar(y|ies)|op_library_filename|register_custom_ops)\b", re.IGNORECASE
)
_ESCAPED: Final = re.compile(r"\\u00([0-9a-fA-F]{2})|\\x([0-9a-fA-F]{2})|\\([0-7]{3})")
_PICKLED: Final = re.compile(r"\.(pkl|pickle|joblib)$", re.IGNORECASE)


def check_content(name: str, file: BinaryIO, role: str) -> None:
    """Refuse a file that is not what it stands for. `role`: a format, `GOLDEN` or nothing.

    Raises `InvalidSpec` or `TooLarge`. An ONNX file is read whole by `onnx_walk` besides.
    """
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if _LIBRARY.search(name) or head.startswith(_PROGRAMS) or _is_windows_program(head):
        raise InvalidSpec(
            f"{name} is a program or a library", fix="publish models and their data alone"
        )
    if is_pickle(head):
        raise InvalidSpec(
            f"{name} is a pickle, which runs code when it is loaded",
            fix="export it to ONNX or safetensors",
        )
    _ROLES.get(role, _anything)(name, file)


def _anything(name: str, file: BinaryIO) -> None:
    _check_zip(name, file)
    _check_tar(name, file)
    if _CONFIG.search(name):
        _check_config(name, file)


def _is_windows_program(head: bytes) -> bool:
    at = int.from_bytes(head[0x3C:0x40], "little")
    return head[:2] == b"MZ" and head[at : at + 4] == b"PE\0\0"


def _check_safetensors(name: str, file: BinaryIO) -> None:
    """The form itself is the defence: a header of JSON, then numbers, and not a byte more."""
    try:
        why = _no_safetensors(file)
    except Rejected as error:
        why = str(error)
    if why:
        raise InvalidSpec(f"{name} is no safetensors file: {why}", fix="save it with safetensors")


def _no_safetensors(file: BinaryIO) -> str:
    size = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(_HEADER_BYTES_MAX, size - 8):
        return "it does not begin with the length of a header"
    header = parse_json(file.read(length), "its header", bytes_max=_HEADER_BYTES_MAX)
    if not isinstance(header, Mapping):
        return "its header is no mapping"
    places = []
    for key, entry in header.items():
        match entry:
            case {"dtype": str(), "shape": list(), "data_offsets": [int(low), int(high)]}:
                places.append((low, high))
            case _ if key != "__metadata__":
                return f"{key[:40]!r} does not say where it lies"
    end = 0
    for low, high in sorted(places):
        if low != end or high < low:
            return "its tensors leave a gap or lie upon each other"
        end = high
    return "" if 8 + length + end == size else "there are other bytes than those of its tensors"


def _check_export(name: str, file: BinaryIO) -> None:
    """What torch.export writes: JSON, numbers and tensors in an archive that packs nothing.

    Its example inputs are archives again, of what torch.save writes.
    """
    if not _check_zip(name, file, tensors=2):
        raise InvalidSpec(f"{name} is no archive of torch.export", fix="write it with its save()")


def _check_plan(name: str, file: BinaryIO) -> None:
    """Its form is nobody's but TensorRT's; it is at least nothing else."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if not head.strip() or head.lstrip()[:1] in (b"{", b"<") or _check_zip(name, file):
        raise InvalidSpec(f"{name} is no TensorRT plan", fix="write it with trtexec --saveEngine")


def _check_golden(name: str, file: BinaryIO) -> None:
    npz.listed(file, name, bytes_max=GOLDEN_BYTES_MAX)


def _check_zip(name: str, file: IO[bytes], *, tensors: int = 0) -> bool:
    """Whether it is a zip archive. Refuse one that leads out of its folder or holds pickles.

    `tensors`: so many archives deep, pickles of tensors are what is expected.
    """
    try:
        archive = zipfile.ZipFile(file)
    # What zipfile raises for bytes that are no archive, or one of a kind that it does not know.
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False
    entries = archive.infolist()
    _check_members(name, (entry.filename for entry in entries))
    for entry in entries:
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise InvalidSpec(f"{name} holds a link", fix="publish plain files")
        packed = entry.compress_type != zipfile.ZIP_STORED
        if tensors and packed:
            raise InvalidSpec(f"{name} is packed, and a variant is not", fix="write it again")
        named = _PICKLED.search(entry.filename) is not None
        if (packed and named) or (not packed and _holds_code(name, archive, entry, tensors, named)):
            raise InvalidSpec(
                f"{name} holds a pickle or a program: {entry.filename[:80]}",
                fix="export it to ONNX or safetensors",
            )
    return True


def _holds_code(
    name: str, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, tensors: int, named: bool
) -> bool:
    try:
        with archive.open(entry) as stream:
            head = stream.read(HEAD_BYTES)
            stream.seek(0)
            if named or is_pickle(head):
                return not tensors or not only_tensors(stream)
            if tensors > 1 and head.startswith(b"PK\x03\x04"):
                return not _check_zip(f"{name}/{entry.filename[:80]}", stream, tensors=1)
    # As above, and `RuntimeError` for an entry that is encrypted.
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        return True  # it is not what the directory says
    return head.startswith((*_PROGRAMS, b"PK\x03\x04"))


def _check_tar(name: str, file: BinaryIO) -> None:
    file.seek(0)
    if file.read(HEAD_BYTES)[257:262] != b"ustar":
        return
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            members = [archive.next() for _ in range(MEMBERS_MAX + 1)]
    except (tarfile.TarError, OSError, ValueError, EOFError):
        raise InvalidSpec(f"{name} is a damaged archive", fix="publish plain files") from None
    found = [member for member in members if member is not None]
    _check_members(name, [member.name for member in found])
    if not all(member.isfile() or member.isdir() for member in found):
        raise InvalidSpec(f"{name} holds links or devices", fix="publish plain files")


def _check_members(name: str, members: Iterable[str]) -> None:
    for number, member in enumerate(members):
        parts = member.replace("\\", "/").split("/")
        if number >= MEMBERS_MAX:
            raise TooLarge(f"{name} holds more than {MEMBERS_MAX} files", fix="publish plain files")
        if member.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in member:
            raise InvalidSpec(
                f"{name} would write outside the folder in which it is unpacked: {member[:80]!r}",
                fix="publish plain files",
            )


def _check_config(name: str, file: BinaryIO) -> None:
    """Settings of other servers in which a library is named that they would load."""
    file.seek(0)
    raw = file.read(CONFIG_BYTES_MAX + 1)
    if len(raw) > CONFIG_BYTES_MAX:
        raise TooLarge(f"{name} has more than {CONFIG_BYTES_MAX} bytes", fix="give it another name")
    found = _NAMES_A_LIBRARY.search(_ESCAPED.sub(_unescaped, raw.decode(errors="replace")))
    if found:
        raise InvalidSpec(
            f"{name} says {found[0]}, which loads a library", fix="remove that setting"
        )


def _unescaped(match: re.Match[str]) -> str:
    hex_digits = match[1] or match[2]
    return chr(int(hex_digits, 16) if hex_digits else int(match[3], 8))


_ROLES: Final[Mapping[str, Callable[[str, BinaryIO], None]]] = {
    "onnx": lambda name, file: None,
    "safetensors": _check_safetensors,
    "torch-export": _check_export,
    "tensorrt-plan": _check_plan,
    GOLDEN: _check_golden,
}
