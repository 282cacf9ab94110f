"""The numbers of a sketch as bytes, and back, by a range coder.

Every number becomes binary decisions, whose probabilities both ends count up as they go. Counts are
whole numbers, so that every machine reads a packet alike. One function a style serves both ends:
with numbers it writes them, without it reads them. Thumbnails, what is sent where time matters, are
written by `_sketch_kernels`, which comes to the same bytes sooner.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from megdt.codecs.sketch_styles import CELLS, COLOURS, DEPTH, count_cells
from megdt.errors import CodecError
from megdt.records import Style


def write_numbers(numbers: NDArray[np.int32], style: Style, level: int) -> bytes:
    """What `simplify` has kept, as bytes."""
    if style == "thumbnail":
        from megdt.codecs._sketch_kernels import decide_thumbnail

        return _encode(*decide_thumbnail(numbers, np.array(_bands())))
    writer = _Writer()
    _CODERS[style](level, numbers, writer)
    return writer.finish()


def read_numbers(body: bytes, style: Style, level: int) -> NDArray[np.int32]:
    """What `write_numbers` has written.

    Raises:
        CodecError: If no numbers are written like that. Other damage gives other numbers.
    """
    return _CODERS[style](level, None, _Reader(body))


class _Coder(Protocol):
    def bit(self, context: Any, value: int) -> int:
        """One decision under what is known already; `value` is the writer's alone."""
        ...


class _Counts:
    """How often each context was followed by a one."""

    def __init__(self) -> None:
        self._seen: dict[Any, list[int]] = {}  # twice the ones and all, with one of each ahead

    def probability(self, context: Any) -> int:
        """Of a one, in 4096ths."""
        ones, total = self._seen.setdefault(context, [1, 2])
        return min(max((ones << 12) // total, 32), 4064)

    def add(self, context: Any, value: int) -> None:
        seen = self._seen[context]
        seen[0] += 2 * value
        seen[1] += 2
        if seen[1] > 254:  # what was seen long ago counts less
            seen[0], seen[1] = seen[0] >> 1 | 1, seen[1] >> 1


class _Writer:
    def __init__(self) -> None:
        self._counts = _Counts()
        self._values: list[int] = []
        self._probabilities: list[int] = []

    def bit(self, context: Any, value: int) -> int:
        self._values.append(value)
        self._probabilities.append(self._counts.probability(context))
        self._counts.add(context, value)
        return value

    def finish(self) -> bytes:
        return _encode(np.array(self._values, np.int32), np.array(self._probabilities, np.int32))


def _encode(values: NDArray[np.int32], probabilities: NDArray[np.int32]) -> bytes:
    """Decisions as bytes, each under the probability of a one, in 4096ths."""
    from constriction import stream

    encoder = stream.queue.RangeEncoder()
    encoder.encode(values, stream.model.Bernoulli(perfect=False), probabilities / 4096)
    # The reader takes zeros where nothing is left.
    written: bytes = encoder.get_compressed().astype(">u4").tobytes().rstrip(b"\0")
    return written


class _Reader:
    def __init__(self, body: bytes) -> None:
        from constriction import stream

        words = np.frombuffer(body + bytes(-len(body) % 4), ">u4").astype(np.uint32)
        self._decoder = stream.queue.RangeDecoder(words)
        self._counts = _Counts()

    def bit(self, context: Any, value: int) -> int:
        del value
        model = _model(self._counts.probability(context))
        try:
            found = int(self._decoder.decode(model))
        except AssertionError as error:  # constriction's word for what no encoder writes
            raise CodecError(
                "sketch payload holds what no sketch is coded as; it is damaged"
            ) from error
        self._counts.add(context, found)
        return found


@cache
def _model(probability: int) -> Any:
    from constriction import stream

    return stream.model.Bernoulli(probability / 4096, perfect=False)


def _code_thumbnail(
    level: int, numbers: NDArray[np.int32] | None, coder: _Coder
) -> NDArray[np.int32]:
    """Plane by plane, coarse to fine; known are the cells before, and what lies above in scale."""
    del level
    result = np.zeros((CELLS, CELLS, 3), np.int32) if numbers is None else numbers
    for plane in range(3):
        for depth, top, left, size in _bands():
            band = result[top : top + size, left : left + size, plane]
            about = (depth, plane > 0, top > 0 and left > 0)
            if not coder.bit(("any", about), int(band.any())):
                continue
            parents: list[list[int]] | None = None
            if depth < DEPTH - 1:
                y, x, half = top // 2, left // 2, size // 2
                parents = (result[y : y + half, x : x + half, plane] != 0).tolist()
            values = band.tolist()
            above = [0] * (size + 2)
            for y in range(size):
                row = [0] * (size + 2)
                for x in range(size):
                    near = 2 * (row[x] + above[x + 1]) + above[x] + above[x + 2]
                    parent = parents[y // 2][x // 2] if parents else False
                    found = _code_number(coder, (about, min(near, 5), parent), values[y][x])
                    values[y][x] = found
                    row[x + 1] = min(abs(found), 2)
                above = row
            band[:] = values
    return result


def _bands() -> list[tuple[int, int, int, int]]:
    """Depth, top, left and size of a transform's bands, coarse to fine."""
    bands = [(DEPTH, 0, 0, CELLS >> DEPTH)]
    for depth in reversed(range(DEPTH)):
        half = CELLS >> depth + 1
        bands += [(depth, 0, half, half), (depth, half, 0, half), (depth, half, half, half)]
    return bands


def _code_number(coder: _Coder, context: Any, value: int) -> int:
    """Zero or not, the sign, and how far it goes beyond one: one by one, then by doubling."""
    if not coder.bit(context, int(value != 0)):
        return 0
    negative, wanted = coder.bit("sign", int(value < 0)), abs(value)
    size = 1
    while size < 12 and coder.bit(("more", context[0], min(size, 4)), int(wanted > size)):
        size += 1
    if size == 12:
        bits, rest = 0, wanted - size + 1
        while bits < 11 and coder.bit(("double", bits), int(rest >> bits + 1 > 0)):
            bits += 1
        size += (1 << bits) + _code_index(coder, "rest", bits, rest - (1 << bits)) - 1
    return -size if negative else size


def _code_layout(level: int, numbers: NDArray[np.int32] | None, coder: _Coder) -> NDArray[np.int32]:
    """The palette, then row by row: as above, as on the left, as above ahead, or the label."""
    cells = count_cells("layout", level)
    given = [0] * (3 * COLOURS + cells**2) if numbers is None else numbers.tolist()
    result = [_code_index(coder, "palette", 5, value) for value in given[: 3 * COLOURS]]
    above = [0] * (cells + 2)
    for start in range(3 * COLOURS, len(given), cells):
        row = [above[1]]
        for x, value in enumerate(given[start : start + cells], 1):
            left, corner, up, ahead = row[-1], above[x - 1], above[x], above[x + 1]
            around = (left == up, up == ahead, left == corner, up == corner)
            if coder.bit(("up", around), int(value == up)):
                row.append(up)
            elif left != up and coder.bit(("left", around), int(value == left)):
                row.append(left)
            elif ahead not in (up, left) and coder.bit("ahead", int(value == ahead)):
                row.append(ahead)
            else:
                # A damaged packet may name a label that is not there.
                row.append(min(_code_index(coder, "label", 4, value), COLOURS - 1))
        result += row[1:]
        above = [*row, row[-1]]
    return np.array(result, np.int32)


def _code_index(coder: _Coder, name: str, bits: int, value: int) -> int:
    """A number of so many bits, the highest first, each under those before it."""
    node = 1
    for place in reversed(range(bits)):
        node = 2 * node + coder.bit((name, bits, node), value >> place & 1)
    return node - (1 << bits)


def _code_edges(level: int, numbers: NDArray[np.int32] | None, coder: _Coder) -> NDArray[np.int32]:
    """Row by row; known are seven cells on the left and above."""
    cells = count_cells("edges", level)
    given = np.zeros((cells, cells), np.int32) if numbers is None else numbers
    result = []
    second = above = [0] * (cells + 4)
    for values in given.tolist():
        row = [0] * (cells + 4)
        for x, value in enumerate(values, 2):
            known = (
                row[x - 2], row[x - 1], above[x - 1], above[x], above[x + 1], above[x + 2],
                second[x],
            )  # fmt: skip
            row[x] = coder.bit(known, value)
        result.append(row[2:-2])
        second, above = above, row
    return np.array(result, np.int32)


_CODERS: dict[Style, Callable[[int, NDArray[np.int32] | None, _Coder], NDArray[np.int32]]] = {
    "edges": _code_edges,
    "layout": _code_layout,
    "thumbnail": _code_thumbnail,
}
