"""A frame of MessagePack walked through before anything is made of it.

What is read is the first byte of each value, and a size where it has one. So nothing is allocated
for what a frame only claims to hold, and the cost goes with the number of values.
"""

from __future__ import annotations

from megdt.errors import MessageError
from megdt.runtime.limits import Limits

LARGEST_INT = 2**53 - 1
"""Either way from zero: what JavaScript's numbers tell apart."""

_ADVICE = "see docs/protocol.md for what a frame may hold"

# First byte: bytes of the size that follows it.
_TEXTS = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_BINARIES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_LISTS = {0xDC: 2, 0xDD: 4}
_MAPS = {0xDE: 2, 0xDF: 4}
# First byte: bytes of the number that follows it.
_SMALL_NUMBERS = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xD0: 1, 0xD1: 2, 0xD2: 4}
_FLOATS = {0xCA: 4, 0xCB: 8}
_LONG_INTS = {0xCF: False, 0xD3: True}


def check_frame(frame: bytes, limits: Limits) -> None:
    """See that a frame is one value of MessagePack within the limits.

    Raises:
        MessageError: If it is too long, cut off or followed by more, nested too deep, or holds too
            many values, too long a text, an extension type, an integer beyond LARGEST_INT, or a
            number that is not finite.
    """
    end = len(frame)
    if end > limits.frame_bytes:
        raise MessageError(
            f"frame has {end} bytes, at most {limits.frame_bytes} are taken; send features in chunks"
        )
    at, values = 0, 1
    inside = [1]  # values still to come, in each list or map that is open
    while inside:
        if not inside[-1]:
            inside.pop()
            continue
        inside[-1] -= 1
        if at >= end:
            raise MessageError(f"frame ends after {end} bytes, amid a value; send frames whole")
        first = frame[at]
        at += 1
        if first < 0x80 or first >= 0xE0:
            continue  # a small integer
        if 0xA0 <= first < 0xC0:
            at += first & 31  # a short text
            continue
        if first in _SMALL_NUMBERS:
            at += _SMALL_NUMBERS[first]
        elif first in _FLOATS:
            at += _FLOATS[first]
            _check_float(frame, at - _FLOATS[first], at)
        elif first in _LONG_INTS:
            at += 8
            number = int.from_bytes(frame[at - 8 : at], signed=_LONG_INTS[first])
            if abs(number) > LARGEST_INT:
                raise MessageError(
                    f"frame has the integer {number}, beyond 2**53 - 1 either way; {_ADVICE}"
                )
        elif first in _BINARIES or first in _TEXTS:
            wide = _BINARIES[first] if first in _BINARIES else _TEXTS[first]
            size = int.from_bytes(frame[at : at + wide])
            at += wide
            if first in _TEXTS and size > limits.text_bytes:
                raise MessageError(
                    f"frame has a text of {size} bytes, at most {limits.text_bytes} are taken; "
                    "shorten it"
                )
            if size > end - at:
                raise MessageError(
                    f"frame claims a value of {size} bytes where {max(end - at, 0)} are left; "
                    "send frames whole"
                )
            at += size
        else:
            size, at = _size_of_container(frame, first, at)
            values += size
            if values > limits.elements:
                raise MessageError(
                    f"frame claims {values} values, at most {limits.elements} are taken; {_ADVICE}"
                )
            if len(inside) > limits.depth:
                raise MessageError(
                    f"frame is nested deeper than {limits.depth} lists and maps; {_ADVICE}"
                )
            inside.append(size)
    if at != end:
        raise MessageError(
            f"frame has {end} bytes and its value {at}; send one message in one frame"
        )


def _size_of_container(frame: bytes, first: int, at: int) -> tuple[int, int]:
    """How many values a list or map claims to hold, and where they begin."""
    if 0x80 <= first < 0x90:
        return 2 * (first & 15), at
    if 0x90 <= first < 0xA0:
        return first & 15, at
    if first in _LISTS:
        wide = _LISTS[first]
        return int.from_bytes(frame[at : at + wide]), at + wide
    if first in _MAPS:
        wide = _MAPS[first]
        return 2 * int.from_bytes(frame[at : at + wide]), at + wide
    raise MessageError(f"frame has a value of type {first:#04x} at byte {at - 1}; {_ADVICE}")


def _check_float(frame: bytes, start: int, stop: int) -> None:
    """All bits of the exponent are set in what is infinite or no number."""
    head = int.from_bytes(frame[start : start + 2]) & 0x7FFF
    exponent = 0x7F80 if stop - start == 4 else 0x7FF0
    if head & exponent == exponent:
        raise MessageError(
            f"frame has a number at byte {start - 1} that is infinite or none; send finite numbers"
        )
