"""What each style of sketch keeps of a picture, and how that looks.

`simplify` makes whole numbers of a picture, at one of 128 levels of coarseness; `draw` makes a
picture of the numbers, by whole-number arithmetic, so that it looks alike on every machine.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from megdt.records import Style

LEVELS = 128
"""How coarse a sketch can be; 0 keeps the most."""

CELLS = 64
"""Cells along the side of a thumbnail and of the finest layout, whatever the size of the picture;
the finest edges have twice as many."""

COLOURS = 10
"""Of a layout."""

DEPTH = 4
"""How many times the wavelet transform of a thumbnail halves it."""


def simplify(pixels: NDArray[np.uint8], style: Style, level: int) -> NDArray[np.int32]:
    """What a style keeps of a picture at a level, as whole numbers.

    Args:
        pixels: RGB. [height, width, 3]
        style: What is kept.
        level: From 0, the finest, to LEVELS - 1.

    Returns:
        A thumbnail's quantised wavelet coefficients [CELLS, CELLS, 3]; a layout's palette and
        labels in one row; whether a cell of the edges is ink [cells, cells].
    """
    cells = count_cells(style, level)
    image = Image.fromarray(pixels).resize((cells, cells), Image.Resampling.BOX)
    small = np.asarray(image).astype(np.int32)
    if style == "thumbnail":
        return _quantise(analyse(_to_luma(small)), level)
    return _segment(small, level) if style == "layout" else _outline(small, level)


def draw(numbers: NDArray[np.int32], style: Style, level: int, size_px: int) -> NDArray[np.uint8]:
    """What `simplify` has kept, as a picture. [size_px, size_px, 3]"""
    cells = count_cells(style, level)
    if style == "thumbnail":
        small = _from_luma(synthesise(_dequantise(numbers, level)))
    elif style == "layout":
        palette, labels = np.split(numbers, [3 * COLOURS])
        small = _widen(palette).reshape(COLOURS, 3)[labels].reshape(cells, cells, 3)
    else:  # black ink on white paper
        small = np.where(numbers[..., None], 0, 255).repeat(3, 2)
    soft = Image.Resampling.BICUBIC if style == "thumbnail" else Image.Resampling.NEAREST
    image = Image.fromarray(np.clip(small, 0, 255).astype(np.uint8))
    return np.asarray(image.resize((size_px, size_px), soft))


def count_cells(style: Style, level: int) -> int:
    """Cells along the side of a style's grid: layouts and edges have half as many every 32 levels."""
    if style == "thumbnail":
        return CELLS
    return (2 * CELLS if style == "edges" else CELLS) >> level // 32


# A thumbnail is its wavelet transform, which has no blocks and is exact in whole numbers.

# Sixteenths by which a step of one coefficient shows in the picture, root sum of squares: of the
# last means, and of details along one and along both directions, fine to coarse.
_MEANS, _ONE, _BOTH = 171, (17, 25, 47, 91), (12, 15, 25, 49)


def analyse(planes: NDArray[np.int32]) -> NDArray[np.int32]:
    """The reversible 5/3 wavelet transform, means top left. [cells, cells, planes]

    References:
        ITU-T T.800 (JPEG 2000), annex F.
    """
    result = planes.copy()
    for depth in range(DEPTH):
        size = len(planes) >> depth
        part = result[:size, :size]
        for _ in range(2):  # along one direction, then along the other
            even, odd = part[0::2], part[1::2]
            detail = odd - ((even + np.concatenate((even[1:], even[-1:]))) >> 1)
            mean = even + ((np.concatenate((detail[:1], detail[:-1])) + detail + 2) >> 2)
            part = np.concatenate((mean, detail)).swapaxes(0, 1)
        result[:size, :size] = part
    return result


def synthesise(coefficients: NDArray[np.int32]) -> NDArray[np.int32]:
    """The way back from `analyse`. [cells, cells, planes]"""
    result = coefficients.copy()
    for depth in reversed(range(DEPTH)):
        size = len(coefficients) >> depth
        part = result[:size, :size]
        for _ in range(2):
            part = part.swapaxes(0, 1)
            mean, detail = part[: size // 2], part[size // 2 :]
            even = mean - ((np.concatenate((detail[:1], detail[:-1])) + detail + 2) >> 2)
            odd = detail + ((even + np.concatenate((even[1:], even[-1:]))) >> 1)
            part = np.stack((even, odd), 1).reshape(part.shape)
        result[:size, :size] = part
    return result


def _to_luma(rgb: NDArray[np.int32]) -> NDArray[np.int32]:
    """RGB to luma and two colour differences, reversibly (YCoCg-R). [..., 3]"""
    red, green, blue = np.moveaxis(rgb, -1, 0)
    orange = red - blue
    middle = blue + (orange >> 1)
    leaf = green - middle
    return np.stack((middle + (leaf >> 1) - 128, orange, leaf), -1)


def _from_luma(planes: NDArray[np.int32]) -> NDArray[np.int32]:
    luma, orange, leaf = np.moveaxis(planes, -1, 0)
    middle = luma + 128 - (leaf >> 1)
    blue = middle - (orange >> 1)
    return np.stack((blue + orange, leaf + middle, blue), -1)


@cache
def find_steps(level: int) -> NDArray[np.int32]:
    """Quantisation step of every coefficient, in eighths. [CELLS, CELLS, 3]"""
    base = 32 * ((16 + level % 16) << level // 16)  # 4 to 992 grey levels, in 128ths
    steps = np.full((CELLS, CELLS, 3), base // _MEANS, np.int32)
    for depth in range(DEPTH):
        half = CELLS >> depth + 1
        first, second = slice(0, half), slice(half, 2 * half)
        steps[first, second] = steps[second, first] = base // _ONE[depth]
        steps[second, second] = base // _BOTH[depth]
    steps[..., 1:] *= 2  # colour differences have twice the range, and are seen less
    return np.maximum(steps, 8)  # whole coefficients have no finer step than one


def _quantise(coefficients: NDArray[np.int32], level: int) -> NDArray[np.int32]:
    return np.sign(coefficients) * (np.abs(coefficients) * 8 // find_steps(level))


def _dequantise(numbers: NDArray[np.int32], level: int) -> NDArray[np.int32]:
    # Small coefficients are the more frequent: not half a step is added, but 3/8.
    steps = find_steps(level)
    size = (np.abs(numbers) * steps + 3 * steps // 8) // 8
    signed: NDArray[np.int32] = np.sign(numbers) * size
    return signed


# A layout is a palette of 5 bits a colour channel, and a label a cell.


def _segment(pixels: NDArray[np.int32], level: int) -> NDArray[np.int32]:
    """The palette, then the labels; the higher the level, the more a border costs."""
    image = Image.fromarray(pixels.astype(np.uint8))
    found = image.quantize(COLOURS, Image.Quantize.MEDIANCUT, kmeans=8).getpalette() or []
    palette = np.zeros((COLOURS, 3), np.int32)
    palette.flat[: len(found)] = np.array(found[: palette.size]) >> 3
    distance = np.square(pixels[:, :, None] - _widen(palette)).sum(-1)
    labels = distance.argmin(-1)
    border = 100 * 1.25 ** (level % 32)
    parity = np.indices(labels.shape).sum(0) % 2
    for turn in range(12):
        # Half of the cells take their best label at a time, while their neighbours stand still.
        padded = np.pad(labels, 1, mode="edge")
        around = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
        unlike = sum((a[..., None] != np.arange(COLOURS)).astype(np.int64) for a in around)
        labels = np.where(parity == turn % 2, (distance + border * unlike).argmin(-1), labels)
    return np.concatenate((palette.ravel(), labels.ravel())).astype(np.int32)


def _widen(five_bits: NDArray[np.int32]) -> NDArray[np.int32]:
    return five_bits << 3 | five_bits >> 2


# Edges are ink or paper in every cell.


def _outline(pixels: NDArray[np.int32], level: int) -> NDArray[np.int32]:
    """Ink where colour changes the most along the direction of its change (Sobel's gradient)."""
    padded = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), mode="edge")
    across = padded[:, 2:] - padded[:, :-2]
    across = np.square(across[:-2] + 2 * across[1:-1] + across[2:]).sum(-1)
    down = padded[2:] - padded[:-2]
    down = np.square(down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]).sum(-1)
    strength = across + down
    around = np.pad(strength, 1)
    # Of two that are as strong, the second is ink.
    before = np.where(down > across, around[:-2, 1:-1], around[1:-1, :-2])
    after = np.where(down > across, around[2:, 1:-1], around[1:-1, 2:])
    threshold = (40 * 1.09 ** (level % 32)) ** 2
    ridge = (strength >= before) & (strength > after) & (strength > threshold)
    # Crumbs are no outline: an edge has ink in two of the eight cells around it.
    near = np.pad(ridge, 1).astype(np.int32)
    rows = near[:-2] + near[1:-1] + near[2:]
    company = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    ink: NDArray[np.int32] = (ridge & (company >= 3)).astype(np.int32)
    return ink
