"""The bytes of one part on their way to somebody who may hold a part of an ancestor.

    payload = 0x01 ‖ method ‖ [digest of the base, 32 bytes] ‖ [count, 4 bytes] ‖ body

    method        body                                                    base  count
    0 raw         the part
    1 packed      zstd of the part
    2 planes      zstd of lead ‖ byte planes of the elements
    3 against     zstd of the part, the base being its dictionary           x
    4 dense       zstd of lead' ‖ byte planes of the differences, ordered   x
    5 sparse      zstd of lead' ‖ gaps ‖ byte planes of the differences     x     x

Differences are those of `numbers`, of elements to elements of the base; *ordered* by what the
base says of each; *sparse* has only those that are not zero, and between which they lie. lead' is
the lead minus that of the base, byte by byte. Type, lead and size come from the recipes, which
both sides hold.

What a payload claims is checked before memory is taken for it: a frame of zstd tells its size.
What comes out is hashed, so `decode` returns the part or raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import zstandard

from hanse.core.errors import InvalidProof
from hanse.core.ids import Digest
from hanse.parts import numbers
from hanse.parts.recipe import Part

VERSION = 1
_NOISE_LEVEL, _TEXT_LEVEL, _GAPS_LEVEL = 1, 9, 19
"""Differences hold nothing that repeats: looking for it costs time and even bytes."""
_PIECE_MIN = 2048
"""Elements of one context that are worth a code of their own, about 100 bytes."""


class Method(IntEnum):
    RAW = 0
    PACKED = 1
    PLANES = 2
    AGAINST = 3
    DENSE = 4
    SPARSE = 5


RAW = bytes([VERSION, Method.RAW])
"""The head of a payload that is the part as it is."""
BASED = (Method.AGAINST, Method.DENSE, Method.SPARSE)


@dataclass(frozen=True, slots=True)
class Base:
    """A part that both sides hold, and its bytes."""

    part: Part
    data: bytes | memoryview


BaseOf = Callable[[Digest], Base | None]


def encode(part: Part, data: bytes | memoryview, base: Base | None = None) -> bytes:
    """The smallest payload of this part for somebody who holds `base`; the same every time."""
    ways = [_head(Method.RAW) + bytes(data)]
    if part.tensor is None:
        ways.append(_head(Method.PACKED) + _packed([data], _TEXT_LEVEL))
    else:
        lead, elements = _elements(part, data)
        level = _TEXT_LEVEL if part.tensor.width == 1 else _NOISE_LEVEL
        ways.append(_head(Method.PLANES) + _packed([lead, *numbers.planes(elements)], level))
    if base is not None:
        ways.append(
            _difference(part, data, base) if alike(part, base.part) else _against(data, base)
        )
    return min(ways, key=len)


def alike(part: Part, base: Part) -> bool:
    """Whether the elements of one can be subtracted from those of the other."""
    one, other = part.tensor, base.tensor
    return (
        one is not None
        and other is not None
        and one.dtype == other.dtype
        and part.size - one.lead == base.size - other.lead
    )


def _difference(part: Part, data: bytes | memoryview, base: Base) -> bytes:
    lead, new = _elements(part, data)
    old_lead, old = _elements(base.part, base.data)
    lead = lead - _fitted(old_lead, len(lead))
    found = numbers.differences(new, old)
    if np.count_nonzero(found) <= len(found) // 4:
        changed = np.flatnonzero(found)
        pieces = [lead, numbers.gaps(changed), *numbers.planes(found[changed])]
        head = _head(Method.SPARSE, base.part.digest) + len(changed).to_bytes(4, "little")
        return head + _packed(pieces, _GAPS_LEVEL)
    assert part.tensor is not None
    where, context = numbers.order(old, part.tensor.dtype)
    ends = _far_apart(np.flatnonzero(np.diff(context[where])) + 1)
    pieces = [lead]
    for plane in numbers.planes(found[where]):
        pieces += np.split(plane, ends)
    return _head(Method.DENSE, base.part.digest) + _packed(pieces, _NOISE_LEVEL)


def _against(data: bytes | memoryview, base: Base) -> bytes:
    window = max(10, (len(data) + len(base.data)).bit_length())
    parameters = zstandard.ZstdCompressionParameters.from_level(_TEXT_LEVEL, window_log=window)
    packer = zstandard.ZstdCompressor(dict_data=_dictionary(base), compression_params=parameters)
    return _head(Method.AGAINST, base.part.digest) + packer.compress(data)


def base_of(payload: bytes) -> Digest | None:
    """The part that must be there to decode it. Raises `InvalidProof` if it is no payload."""
    if len(payload) < 2 or payload[0] != VERSION or payload[1] > max(Method):
        raise InvalidProof("a payload of unknown form", fix="upgrade, or ask another peer")
    if payload[1] not in BASED:
        return None
    if len(payload) < 34:
        raise InvalidProof("a payload that ends in its head", fix="ask another peer")
    return Digest.from_bytes(payload[2:34])


def decode(part: Part, payload: bytes, held: BaseOf = lambda digest: None) -> bytes:
    """The bytes of the part. Raises `InvalidProof` if this is not what the payload holds."""
    digest = base_of(payload)
    base = held(digest) if digest else None
    if digest and base is None:
        raise InvalidProof(f"a payload against {digest}, which is not here", fix="ask for it whole")
    if len(payload) > part.size + 2:
        raise InvalidProof("a payload larger than its part", fix="ask another peer")
    data = _decoded(part, Method(payload[1]), payload, base)
    if len(data) != part.size or Digest.of(data) != part.digest:
        raise InvalidProof(f"a payload does not hold {part.digest}", fix="ask another peer")
    return data


def _decoded(part: Part, method: Method, payload: bytes, base: Base | None) -> bytes:
    body = memoryview(payload)[34 if base else 2 :]
    if method is Method.RAW:
        return bytes(body)
    if method is Method.PACKED:
        return _unpacked(body, part.size)
    if method is Method.AGAINST and base:
        return _unpacked(body, part.size, _dictionary(base))
    if part.tensor is None:
        raise InvalidProof("numbers where the recipe has none", fix="ask another peer")
    if base is None:
        raw = _unpacked(body, part.size)
        return _joined(
            part, raw, numbers.from_planes(_bytes(raw, part.tensor.lead), part.tensor.width)
        )
    if not alike(part, base.part):
        raise InvalidProof("differences to another kind of tensor", fix="ask another peer")
    return _sum(part, method, body, base)


def _sum(part: Part, method: Method, body: memoryview, base: Base) -> bytes:
    assert part.tensor is not None
    lead_size, width = part.tensor.lead, part.tensor.width
    old_lead, old = _elements(base.part, base.data)
    if method is Method.DENSE:
        raw = _unpacked(body, part.size)
        where, _ = numbers.order(old, part.tensor.dtype)
        found = np.empty_like(old)
        found[where] = numbers.from_planes(_bytes(raw, lead_size), width)
    else:
        count = int.from_bytes(body[:4], "little")
        if count > len(old):
            raise InvalidProof("more differences than elements", fix="ask another peer")
        fixed = lead_size + count * width
        raw = _unpacked(body[4:], fixed, spare=count + len(old) // 255)
        middle = len(raw) - count * width
        where = numbers.positions(_bytes(raw, lead_size)[: middle - lead_size])
        if len(where) != count or (count and where[-1] >= len(old)):
            raise InvalidProof("differences beyond the last element", fix="ask another peer")
        found = np.zeros_like(old)
        found[where] = numbers.from_planes(_bytes(raw, middle), width)
    lead = _bytes(raw, 0)[:lead_size] + _fitted(old_lead, lead_size)
    return _joined(part, lead.tobytes(), numbers.applied(found, old))


# -- pieces ------------------------------------------------------------------------------------


def _head(method: Method, base: Digest | None = None) -> bytes:
    return bytes([VERSION, method]) + (base.raw if base else b"")


def _bytes(raw: bytes, start: int) -> numbers.Numbers:
    return np.frombuffer(raw, np.uint8)[start:]


def _elements(part: Part, data: bytes | memoryview) -> tuple[numbers.Numbers, numbers.Numbers]:
    assert part.tensor is not None
    view = memoryview(data)
    lead = np.frombuffer(view[: part.tensor.lead], np.uint8)
    return lead, numbers.numbers(view[part.tensor.lead :], part.tensor.width)


def _joined(part: Part, lead: bytes, elements: numbers.Numbers) -> bytes:
    assert part.tensor is not None
    return lead[: part.tensor.lead] + elements.tobytes()


def _fitted(lead: numbers.Numbers, size: int) -> numbers.Numbers:
    out = np.zeros(size, np.uint8)
    out[: len(lead)] = lead[:size]
    return out


def _far_apart(ends: numbers.Numbers) -> list[int]:
    kept = [0]
    for end in ends.tolist():
        if end - kept[-1] >= _PIECE_MIN:
            kept.append(end)
    return kept[1:]


def _packed(pieces: Iterable[bytes | memoryview | numbers.Numbers], level: int) -> bytes:
    """One frame that tells its size, each piece in blocks, and so with codes, of its own."""
    views = [memoryview(piece).cast("B") for piece in pieces if len(piece)]  # type: ignore[arg-type]  # arrays are buffers
    packer = zstandard.ZstdCompressor(level=level).compressobj(size=sum(map(len, views)))
    out = []
    for view in views:
        out += [packer.compress(view), packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)]
    return b"".join([*out, packer.flush()])


def _unpacked(
    frame: memoryview,
    size: int,
    dictionary: zstandard.ZstdCompressionDict | None = None,
    *,
    spare: int = 0,
) -> bytes:
    """Exactly what one frame holds: `size` bytes, or up to `spare` more."""
    try:
        claimed = zstandard.frame_content_size(frame)
        if not size <= claimed <= size + spare:
            raise InvalidProof(f"{claimed} bytes are packed, not {size}", fix="ask another peer")
        opener = zstandard.ZstdDecompressor(dict_data=dictionary)
        return opener.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise InvalidProof(f"packed bytes are damaged: {error}", fix="ask another peer") from error


def _dictionary(base: Base) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(bytes(base.data), dict_type=zstandard.DICT_TYPE_RAWCONTENT)
