"""Tensors as rows of bytes that compress: integers, their differences, their byte planes.

Two close numbers of one sign differ little as integers too, whatever their type: a float's bits
rise with its value. How little depends on its exponent, which the ancestor tells: in the order of
the ancestor's exponents, elements whose differences are alike stand together, and each stretch
gets a code of its own. For bytes the value itself is that context.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Numbers: TypeAlias = npt.NDArray[Any]
"""Unsigned integers of one width, one for each element."""
_EXPONENT_BITS = {"F64": 11, "F32": 8, "F16": 5, "BF16": 8}


def numbers(data: bytes | memoryview, width: int) -> Numbers:
    return np.frombuffer(data, f"<u{width}")


def differences(new: Numbers, old: Numbers) -> Numbers:
    """Modulo the width, the sign last: 0, -1, 1, -2, … are 0, 1, 2, 3, …"""
    found: Numbers = new - old
    signs: Numbers = found >> _shift(new, new.itemsize * 8 - 1)
    return (found << _one(new)) ^ -signs  # type: ignore[no-any-return]


def applied(found: Numbers, old: Numbers) -> Numbers:
    """The new values whose `differences` from the old ones were found."""
    return old + ((found >> _one(old)) ^ -(found & _one(old)))  # type: ignore[no-any-return]


def order(old: Numbers, dtype: str) -> tuple[Numbers, Numbers]:
    """Positions in the order of what the ancestor's elements tell, and what that is for each."""
    if dtype in _EXPONENT_BITS:
        bits = old.itemsize * 8
        context = ((old << _one(old)) >> _shift(old, bits - _EXPONENT_BITS[dtype])).astype("u2")
    else:
        context = old if old.itemsize == 1 else np.zeros(len(old), np.uint8)
    return np.argsort(context, kind="stable"), context  # a radix sort


def planes(values: Numbers) -> list[Numbers]:
    """One row for each byte of an element, the most significant first."""
    ends = range(values.itemsize * 8 - 8, -1, -8)
    return [(values >> _shift(values, bits)).astype(np.uint8) for bits in ends]


def from_planes(data: Numbers, width: int) -> Numbers:
    first, *rest = data.reshape(width, -1)
    out: Numbers = first.astype(f"<u{width}")
    for row in rest:
        out <<= _shift(out, 8)
        out |= row
    return out


def gaps(positions: Numbers) -> Numbers:
    """Rising positions as bytes: 255 is a gap of 255 that goes on."""
    found = np.diff(positions, prepend=-1) - 1
    long = found // 255
    if not long.any():
        return found.astype(np.uint8)
    ends = np.cumsum(long + 1) - 1
    out = np.full(int(ends[-1]) + 1, 255, np.uint8)
    out[ends] = found % 255
    return out


def positions(data: Numbers) -> Numbers:
    """What `gaps` made these bytes of; a gap that does not end counts for nothing."""
    ends = np.flatnonzero(data != 255)
    return np.cumsum(data, dtype=np.int64)[ends] + np.arange(len(ends))


def _one(values: Numbers) -> Any:
    return values.dtype.type(1)


def _shift(values: Numbers, bits: int) -> Any:
    return values.dtype.type(bits)
