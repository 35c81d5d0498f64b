"""Pickles, told by their bytes. Nothing here, or anywhere else in Hanse, loads one (T32).

A pickle is a program: its instructions import what they name and call it. PyTorch's archives hold
some that only put tensors together again; these are known by what they name, and all others are
refused.
"""

from __future__ import annotations

import pickletools
import re
from contextlib import suppress
from typing import IO, Final

BYTES_MAX: Final = 16 * 1024**2
_PROTOCOLS: Final = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_SOME: Final = 2  # instructions that random bytes may look like
_CALLS_THE_UNKNOWN: Final = {"INST", "OBJ", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"}
_OF_TENSORS: Final = re.compile(
    r"torch\._utils _rebuild_(tensor|tensor_v2|parameter)"
    r"|torch (\w{1,20}Storage|Size|device|dtype|[a-z]+[0-9]+)|collections OrderedDict"
)


def is_pickle(head: bytes) -> bool:
    """Whether a file that begins so is a pickle of protocol 2 or later: all that anybody writes."""
    if not head.startswith(_PROTOCOLS):
        return False
    read = 0
    with suppress(Exception):  # it goes on after the head, or is no pickle: nothing says which
        for _ in pickletools.genops(head):
            read += 1
    return read > _SOME


def only_tensors(stream: IO[bytes]) -> bool:
    """Whether this pickle names nothing but tensors and what holds them."""
    raw = stream.read(BYTES_MAX + 1)
    if len(raw) > BYTES_MAX:
        return False
    try:
        for instruction, argument, _ in pickletools.genops(raw):
            if instruction.name in _CALLS_THE_UNKNOWN:
                return False
            if instruction.name == "GLOBAL" and not _OF_TENSORS.fullmatch(str(argument)):
                return False
    except Exception:  # as above
        return False
    return True
