"""The bit-plane coder of the progressive seed codec; numba compiles it, so import it where it runs.

Why not `constriction`, which the rest of the field uses: its decoder takes its symbols either one by
one from Python or all at once, so a context may not look at the symbol before. Here each decision
sees its neighbours of the same pass, and a whole seed of 256 pixels takes some milliseconds. Its
streams are also whole 32-bit words, where this one may be cut after any byte.

All of it is integer arithmetic: every machine decodes alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.errors import MissingExtraError

try:
    from numba import njit
except ImportError:
    raise MissingExtraError("progressive seeds need numba; pip install 'megdt[sim]'") from None

ENCODE, DECODE, TRACE = 0, 1, 2
CONTEXTS = 8
"""The most tables that one decision is looked up in."""

PLANES = 16
_LEVELS = 6
_BANDS = 3 * (_LEVELS - 1) + 1

# One table after the other in one array of logits; entry 0 is nothing.
_S0 = 1
_S1 = _S0 + 4 * _BANDS * PLANES
_S2 = _S1 + 4 * 8 * 8 * 6
_S3 = _S2 + _LEVELS * 8 * 8
_S4 = _S3 + 4 * _LEVELS * 27
_S5 = _S4 + 12 * 8 * 5
_S6 = _S5 + 10 * 10
_S7 = _S6 + 4 * _LEVELS * 12
_G0 = _S7 + 4 * _LEVELS * 8
_G1 = _G0 + 4 * _BANDS * 8
_G2 = _G1 + 4 * _LEVELS * 9
_G3 = _G2 + 4 * _LEVELS * 27
_R0 = _G3 + 4 * _LEVELS * 3
_R1 = _R0 + 4 * _LEVELS * PLANES
_R2 = _R1 + 4 * 12
_R3 = _R2 + 8 * 8
_T0 = _R3 + 4 * 8 * 8
ENTRIES = _T0 + PLANES

CLASSES = np.array(
    [0, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5]
    + [6] * 9 + [7] * 12 + [8] * 20 + [9] * 30 + [10] * 60 + [11] * 122,
    np.int64,
)  # fmt: skip

# logits are in 1 / 256; a probability never leaves 1 .. 65535 of 65536
_CLIP = 2815
SQUASH = np.array(
    [min(65535, max(1, round(65536 / (1 + np.exp(-x / 256))))) for x in range(-_CLIP, _CLIP + 1)],
    np.int64,
)

# coder state
_LOW, _RANGE, _CACHE, _PENDING, _POSITION, _CODE, _PADDED, _FIRST = range(8)
_TOP = 1 << 24
_MASK = (1 << 32) - 1


@njit(cache=True)
def _shift(state: NDArray[Any], out: NDArray[Any]) -> None:
    """Move the top byte out; a run of 255 waits, because a carry may still go through it."""
    if state[_LOW] < 0xFF000000 or state[_LOW] > _MASK:
        carry = state[_LOW] >> 32
        byte = state[_CACHE]
        while state[_PENDING] > 0:
            if state[_FIRST]:
                state[_FIRST] = 0  # nothing stands before the first byte
            elif state[_POSITION] < out.size:
                out[state[_POSITION]] = (byte + carry) & 255
                state[_POSITION] += 1
            byte = 255
            state[_PENDING] -= 1
        state[_CACHE] = (state[_LOW] >> 24) & 255
    state[_PENDING] += 1
    state[_LOW] = (state[_LOW] << 8) & _MASK


@njit(cache=True)
def _encode(state: NDArray[Any], out: NDArray[Any], bit: int, one: int) -> None:
    bound = (state[_RANGE] >> 16) * one
    if bit:
        state[_RANGE] = bound
    else:
        state[_LOW] += bound
        state[_RANGE] -= bound
    while state[_RANGE] < _TOP:
        state[_RANGE] <<= 8
        _shift(state, out)


@njit(cache=True)
def _read(state: NDArray[Any], data: NDArray[Any]) -> None:
    state[_CODE] = (state[_CODE] << 8) & _MASK
    if state[_POSITION] < data.size:
        state[_CODE] |= data[state[_POSITION]]
        state[_POSITION] += 1
    else:
        state[_PADDED] += 1


@njit(cache=True)
def _decode(state: NDArray[Any], data: NDArray[Any], one: int) -> int:
    """The next bit, or -1 where it depends on bytes that did not arrive."""
    bound = (state[_RANGE] >> 16) * one
    bit = 1 if state[_CODE] < bound else 0
    if state[_PADDED] > 0:
        if state[_PADDED] > 3:
            return -1
        last = state[_CODE] + (1 << (8 * state[_PADDED])) - 1
        if (1 if last < bound else 0) != bit or last >= state[_RANGE]:
            return -1
    if bit:
        state[_RANGE] = bound
    else:
        state[_CODE] -= bound
        state[_RANGE] -= bound
    while state[_RANGE] < _TOP:
        state[_RANGE] <<= 8
        _read(state, data)
    return bit


@njit(cache=True)
def _decide(
    mode: int, bit: int, used: int, context: NDArray[Any], logits: NDArray[Any],
    squash: NDArray[Any], state: NDArray[Any], data: NDArray[Any], traced: NDArray[Any],
) -> int:  # fmt: skip
    if mode == TRACE:
        row = traced[state[_POSITION]]
        for k in range(used):
            row[k] = context[k]
        for k in range(used, CONTEXTS):
            row[k] = 0
        row[CONTEXTS] = bit
        state[_POSITION] += 1
        return bit
    logit = 0
    for k in range(used):
        logit += logits[context[k]]
    one = squash[min(max(logit, -_CLIP), _CLIP) + _CLIP]
    if mode == ENCODE:
        _encode(state, data, bit, one)
        return bit
    return _decode(state, data, one)


@njit(cache=True)
def _significance(
    c: int, i: int, p: int, band: int, level: int, orient: int, stride: int, parent: int,
    pstride: int, sib1: int, sib2: int, size: int, row8: int, active: int, classes: NDArray[Any],
    known: NDArray[Any], context: NDArray[Any],
) -> None:  # fmt: skip
    """The contexts of whether a coefficient is as large as this plane."""
    h = (known[i - 1] >> p) + (known[i + 1] >> p)
    v = (known[i - stride] >> p) + (known[i + stride] >> p)
    d = (known[i - stride - 1] >> p) + (known[i - stride + 1] >> p)
    d += (known[i + stride - 1] >> p) + (known[i + stride + 1] >> p)
    up = known[parent] >> p
    around = (known[parent - 1] >> p) + (known[parent + 1] >> p)
    around += (known[parent - pstride] >> p) + (known[parent + pstride] >> p)
    beside = (known[sib1] >> p) + (known[sib2] >> p)
    base = i - c * size
    others, code, far = 0, 0, 0
    for k in range(4):
        if k != c:
            j = base + k * size
            r = known[j] >> p
            others += r
            code = 3 * code + (0 if r == 0 else (1 if r < 6 else 2))
            far += (known[j - 1] >> p) + (known[j + 1] >> p)
            far += (known[j - stride] >> p) + (known[j + stride] >> p)
    near = min(2 * (h + v) + d, 271)
    context[0] = _S0 + (c * _BANDS + band) * PLANES + p
    context[1] = (
        _S1
        + ((orient * 8 + min(classes[min(h, 271)], 7)) * 8 + min(classes[min(v, 271)], 7)) * 6
        + min(classes[min(d, 271)], 5)
    )
    context[2] = (
        _S2 + (level * 8 + min(classes[min(up, 271)], 7)) * 8 + min(classes[min(beside, 271)], 7)
    )
    context[3] = _S3 + (c * _LEVELS + level) * 27 + code
    context[4] = (
        _S4
        + (classes[near] * 8 + min(classes[min(others, 271)], 7)) * 5
        + min(classes[min(up, 271)], 4)
    )
    context[5] = _S5 + min(classes[min(around, 271)], 9) * 10 + min(classes[min(far, 271)], 9)
    context[6] = _S6 + (c * _LEVELS + level) * 12 + active
    context[7] = _S7 + (c * _LEVELS + level) * 8 + row8


@njit(cache=True)
def code_planes(
    mode: int, magnitude: NDArray[Any], negative: NDArray[Any], bands: NDArray[Any], size: int,
    known: NDArray[Any], depth: NDArray[Any], first: NDArray[Any], logits: NDArray[Any],
    squash: NDArray[Any], classes: NDArray[Any], thresholds: NDArray[Any],
    data: NDArray[Any], traced: NDArray[Any],
) -> tuple[int, bool]:  # fmt: skip
    """Encode, decode or trace all planes from the most important decision on.

    Args:
        mode: ENCODE, DECODE or TRACE.
        magnitude: Of each coefficient, in the smallest step; written when decoding. [cells]
        negative: Whether it is below zero; written when decoding. [cells]
        bands: level, orientation, first cell, height, width, parent, 2 siblings; coarse first.
            [bands, 8]
        size: Cells of one channel, borders included.
        known: Twice the magnitude as both ends know it so far; zeros. [cells]
        depth: The plane down to which a coefficient is known; PLANES where not at all. [cells]
        first: The plane in which it became significant, or -1. [cells]
        logits: The tables. [ENTRIES]
        squash: SQUASH.
        classes: The classes of neighbours' sums.
        thresholds: Logits above which a coefficient belongs to the first passes of a plane.
        data: Bytes to write or to read.
        traced: Contexts and bit of each decision, when tracing. [decisions, CONTEXTS + 1]

    Returns:
        Bytes written, or decisions traced; and whether all planes are complete.
    """
    state = np.zeros(8, np.int64)
    state[_RANGE], state[_PENDING], state[_FIRST] = _MASK, 1, 1
    if mode == DECODE:
        for _ in range(4):
            _read(state, data)
    context = np.zeros(CONTEXTS, np.int64)
    count = np.zeros((bands.shape[0], 4), np.int64)
    passes = thresholds.size
    largest = 0
    if mode != DECODE:
        for i in range(magnitude.size):
            largest = max(largest, magnitude[i])
    top = PLANES - 1
    while top > 0:
        context[0] = _T0 + top
        bit = 1 if largest >> top else 0
        bit = _decide(mode, bit, 1, context, logits, squash, state, data, traced)
        if bit < 0:
            return 0, False
        if bit:
            break
        top -= 1
    for p in range(top, -1, -1):
        # Passes: significance where it is likely, refinement, the remaining significance.
        for step in range(passes + 2):
            refining = step == passes
            for b in range(bands.shape[0]):
                level, orient, start = bands[b, 0], bands[b, 1], bands[b, 2]
                height, width, stride = bands[b, 3], bands[b, 4], bands[b, 4] + 2
                up = bands[b, 5]
                pstart, pstride = 0, 1
                if up >= 0:
                    pstart, pstride = bands[up, 2], bands[up, 4] + 2
                s1, s2 = bands[b, 6], bands[b, 7]
                area = height * width
                for y in range(height):
                    row8 = 8 * y // height
                    for x in range(width):
                        cell = start + y * stride + x
                        for c in range(4):
                            i = c * size + cell
                            if depth[i] == p:
                                continue
                            if refining != (first[i] >= 0):
                                continue
                            parent, sib1, sib2 = c * size + 1, c * size + 1, c * size + 1
                            if up >= 0:
                                py = min(y >> 1, bands[up, 3] - 1)
                                px = min(x >> 1, bands[up, 4] - 1)
                                parent = c * size + pstart + py * pstride + px
                            if s1 >= 0:
                                sy = min(y, bands[s1, 3] - 1)
                                sx = min(x, bands[s1, 4] - 1)
                                sib1 = c * size + bands[s1, 2] + sy * (bands[s1, 4] + 2) + sx
                            if s2 >= 0:
                                sy = min(y, bands[s2, 3] - 1)
                                sx = min(x, bands[s2, 4] - 1)
                                sib2 = c * size + bands[s2, 2] + sy * (bands[s2, 4] + 2) + sx
                            if refining:
                                near = 2 * (known[i - 1] + known[i + 1])
                                near += 2 * (known[i - stride] + known[i + stride])
                                near += known[i - stride - 1] + known[i - stride + 1]
                                near += known[i + stride - 1] + known[i + stride + 1]
                                near = min(near >> p, 271)
                                base = i - c * size
                                others = 0
                                for k in range(4):
                                    if k != c:
                                        others += known[base + k * size] >> p
                                own = min(known[i] >> (p + 1), 15) // 2
                                since = min(first[i] - p, 4) - 1
                                context[0] = _R0 + (c * _LEVELS + level) * PLANES + p
                                context[1] = _R1 + since * 12 + classes[near]
                                context[2] = _R2 + own * 8 + min(classes[min(others, 271)], 7)
                                context[3] = (
                                    _R3
                                    + (since * 8 + min(classes[min(known[parent] >> p, 271)], 7))
                                    * 8
                                    + min(classes[min((known[sib1] + known[sib2]) >> p, 271)], 7)
                                )
                                bit = (magnitude[i] >> p) & 1
                                bit = _decide(
                                    mode, bit, 4, context, logits, squash, state, data, traced
                                )
                                if bit < 0:
                                    return 0, False
                                if mode == DECODE:
                                    magnitude[i] |= bit << p
                                depth[i] = p
                                known[i] = 2 * ((magnitude[i] >> p) << p) + (1 << p)
                                continue
                            if step < passes:
                                near = known[i - 1] | known[i + 1]
                                near |= known[i - stride] | known[i + stride] | known[parent]
                                for k in range(4):
                                    near |= known[cell + k * size]
                                if not near >> p:
                                    continue
                            share = count[b, c] * 1024 // area
                            active = 0
                            while share > 0 and active < 11:
                                share >>= 1
                                active += 1
                            _significance(
                                c, i, p, b, level, orient, stride, parent, pstride, sib1, sib2,
                                size, row8, active, classes, known, context,
                            )  # fmt: skip
                            if step < passes:
                                logit = 0
                                for k in range(CONTEXTS):
                                    logit += logits[context[k]]
                                if logit < thresholds[step]:
                                    continue
                            bit = 1 if magnitude[i] >> p else 0
                            bit = _decide(
                                mode, bit, 8, context, logits, squash, state, data, traced
                            )
                            if bit < 0:
                                return 0, False
                            depth[i] = p
                            if not bit:
                                continue
                            # The sign comes right after; without it the magnitude says nothing.
                            hs = _sign(first, negative, i - 1) + _sign(first, negative, i + 1)
                            vs = _sign(first, negative, i - stride)
                            vs += _sign(first, negative, i + stride)
                            hs, vs = min(max(hs, -1), 1) + 1, min(max(vs, -1), 1) + 1
                            code = 0
                            for k in range(4):
                                if k != c:
                                    code = 3 * code + 1
                                    code += _sign(first, negative, i + (k - c) * size)
                            ps = _sign(first, negative, parent) + 1
                            context[0] = _G0 + (c * _BANDS + b) * 8 + row8
                            context[1] = _G1 + ((orient * _LEVELS + level) * 3 + hs) * 3 + vs
                            context[2] = _G2 + (c * _LEVELS + level) * 27 + code
                            context[3] = _G3 + (orient * _LEVELS + level) * 3 + ps
                            bit = _decide(
                                mode, negative[i], 4, context, logits, squash, state, data, traced
                            )
                            if bit < 0:
                                depth[i] = PLANES
                                return 0, False
                            if mode == DECODE:
                                magnitude[i] = 1 << p
                                negative[i] = bit
                            first[i] = p
                            known[i] = 3 << p
                            count[b, c] += 1
                            if mode == ENCODE and state[_POSITION] >= data.size:
                                return data.size, False
    if mode == ENCODE:
        _finish(state, data)
        return state[_POSITION], state[_POSITION] < data.size
    return state[_POSITION], True


@njit(cache=True)
def _sign(first: NDArray[Any], negative: NDArray[Any], i: int) -> int:
    if first[i] < 0:
        return 0
    return -1 if negative[i] else 1


@njit(cache=True)
def _finish(state: NDArray[Any], out: NDArray[Any]) -> None:
    """As few bytes as make everything certain, whatever would follow them."""
    for count in range(1, 5):
        cell = 1 << (32 - 8 * count)
        value = (state[_LOW] + cell - 1) // cell * cell
        if value + cell <= state[_LOW] + state[_RANGE]:
            state[_LOW] = value
            for _ in range(count + 1):  # and the byte that waits
                _shift(state, out)
            return
