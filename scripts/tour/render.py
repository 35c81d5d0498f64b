"""Rendered text lines whose labels are known, in four fonts and five camera qualities.

Every image is seeded by itself, from (seed, font, degradation, index): a slice is the same
whichever other slices ran before it, and `start` continues a slice where another call ended.
The order of `PHRASES`, `FONTS` and `DEGRADATIONS` is part of the recipe, because seeds hold
positions in it. BASIC layout is fixed because Pillow's default depends on the host.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from random import Random
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from tour import material

Degradation = Literal["clean", "lowres", "noise", "blur", "jpeg"]

FONTS: tuple[material.FontName, ...] = get_args(material.FontName)
DEGRADATIONS: tuple[Degradation, ...] = get_args(Degradation)
PHRASES = (
    *("invoice", "serial", "LOT", "batch", "2026-10-17", "No. 48213", "SN-", "edge-node"),
    *("Total 129.95", "temp 21.5C", "voltage", "REV B", "model v2", "Kenya", "Lima", "OSLO-7"),
)
HEIGHT = 48
FONT_PX = 34
MARGIN_PX = 12
NOISE_SIGMA = 90
JPEG_QUALITY = 8


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One labelled sample; `tensor` is float32 [1, 3, 48, width], BGR, in -1..1."""

    text: str
    tensor: NDArray[np.float32]


def lines(
    seed: int,
    font: material.FontName,
    degradation: Degradation,
    n: int,
    start: int = 0,
) -> Iterator[Line]:
    """Samples `start` to `start + n` of one slice. Raises as `material.font` does."""
    typeface = _typeface(font)
    place = (seed, FONTS.index(font), DEGRADATIONS.index(degradation))
    for index, text in enumerate(islice(_texts(seed), start, start + n), start):
        image = _degraded(_drawn(text, typeface), degradation, (*place, index))
        yield Line(text, _tensor(image))


def _texts(seed: int) -> Iterator[str]:
    random = Random(seed)
    while True:
        first, second = random.choice(PHRASES), random.choice(PHRASES)
        yield f"{first} {second} {random.randint(100, 99999)}"


@cache
def _typeface(font: material.FontName) -> ImageFont.FreeTypeFont:
    path = material.font(font)
    return ImageFont.truetype(path, FONT_PX, layout_engine=ImageFont.Layout.BASIC)


def _drawn(text: str, typeface: ImageFont.FreeTypeFont) -> Image.Image:
    size = (int(typeface.getlength(text)) + 2 * MARGIN_PX, HEIGHT)
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).text((MARGIN_PX, 3), text, fill="black", font=typeface)
    return image


def _degraded(
    image: Image.Image, degradation: Degradation, seeds: tuple[int, ...]
) -> Image.Image | NDArray[np.uint8]:
    match degradation:
        case "clean":
            return image
        case "lowres":
            return image.resize((image.width // 4, image.height // 4)).resize(image.size)
        case "noise":
            pixels = np.asarray(image, np.float64)
            noise = np.random.default_rng(seeds).normal(0, NOISE_SIGMA, pixels.shape)
            return np.clip(pixels + noise, 0, 255).astype(np.uint8)
        case "blur":
            return image.filter(ImageFilter.GaussianBlur(3))
        case "jpeg":
            file = io.BytesIO()
            image.save(file, "JPEG", quality=JPEG_QUALITY)
            return Image.open(file)


def _tensor(image: Image.Image | NDArray[np.uint8]) -> NDArray[np.float32]:
    # Lines are drawn at the height that the models want, so the recipe's resize is the identity.
    pixels = np.asarray(image, np.float32)[:, :, ::-1].transpose(2, 0, 1)
    return np.ascontiguousarray((pixels[np.newaxis] / 255 - 0.5) / 0.5)
