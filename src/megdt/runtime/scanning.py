"""A frame of MessagePack walked through before anything is made of it.

What is read is the first byte of each value, and a size where it has one. So nothing is allocated
for what a frame only claims to hold, and the cost goes with the number of values.
"""

from __future__ import annotations

from megdt.errors import MessageError
from megdt.runtime.limits import Limits

Frame = bytes | memoryview
"""One message, or what somebody says is one."""

LARGEST_INT = 2**53 - 1
"""Either way from zero: what JavaScript's numbers tell apart."""

_ADVICE = "see docs/protocol.md for what a frame may hold"

# First byte: bytes of the size that follows it.
_TEXTS = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_BINARIES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_LISTS = {0xDC: 2, 0xDD: 4}
_MAPS = {0xDE: 2, 0xDF: 4}
_FLOATS = {0xCA: 4, 0xCB: 8}
# First byte: whether the integer of eight bytes that follows has a sign.
_LONG_INTS = {0xCF: False, 0xD3: True}


def _count_plain() -> tuple[int, ...]:
    """By first byte: bytes that follow where they need no look; -1 where they do."""
    plain = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xD0: 1, 0xD1: 2, 0xD2: 4}
    plain |= dict.fromkeys([*range(0x80), *range(0xE0, 0x100)], 0)  # small integers
    plain |= {0xA0 + size: size for size in range(32)}  # short texts
    return tuple(plain.get(first, -1) for first in range(256))


_PLAIN = _count_plain()


def check_frame(frame: Frame, limits: Limits) -> None:
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
    try:
        at = _walk(frame, limits)
    except IndexError:
        at = end + 1
    if at > end:
        raise MessageError(f"frame ends after {end} bytes, amid a value; send frames whole")
    if at < end:
        raise MessageError(
            f"frame has {end} bytes and its value {at}; send one message in one frame"
        )


def _walk(frame: Frame, limits: Limits) -> int:
    """Where the frame's value ends, which may be beyond the frame."""
    at, values = 0, 1
    left, outer = 1, []  # values still to come, in the innermost list or map and in those around it
    while True:
        while left:
            left -= 1
            first = frame[at]
            at += 1
            plain = _PLAIN[first]
            if plain >= 0:
                at += plain
            elif first in _FLOATS:
                _check_float(frame, at, _FLOATS[first])
                at += _FLOATS[first]
            elif first in _BINARIES or first in _TEXTS:
                at = _skip_bytes(frame, first, at, limits)
            elif first in _LONG_INTS:
                at += 8
                number = int.from_bytes(frame[at - 8 : at], signed=_LONG_INTS[first])
                if abs(number) > LARGEST_INT:
                    raise MessageError(
                        f"frame has the integer {number}, beyond 2**53 - 1 either way; {_ADVICE}"
                    )
            else:
                size, at = _size_of_container(frame, first, at)
                values += size
                if values > limits.elements:
                    raise MessageError(
                        f"frame claims {values} values, at most {limits.elements} are taken; "
                        f"{_ADVICE}"
                    )
                outer.append(left)
                left = size
                if len(outer) > limits.depth:
                    raise MessageError(
                        f"frame is nested deeper than {limits.depth} lists and maps; {_ADVICE}"
                    )
        if not outer:
            return at
        left = outer.pop()


def _skip_bytes(frame: Frame, first: int, at: int, limits: Limits) -> int:
    """Where a long text, or bytes, end that begin here with their size."""
    is_text = first in _TEXTS
    wide = _TEXTS[first] if is_text else _BINARIES[first]
    size = int.from_bytes(frame[at : at + wide])
    at += wide
    if is_text and size > limits.text_bytes:
        raise MessageError(
            f"frame has a text of {size} bytes, at most {limits.text_bytes} are taken; shorten it"
        )
    if size > len(frame) - at:
        raise MessageError(
            f"frame claims a value of {size} bytes where {max(len(frame) - at, 0)} are left; send "
            "frames whole"
        )
    return at + size


def _size_of_container(frame: Frame, first: int, at: int) -> tuple[int, int]:
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


def _check_float(frame: Frame, at: int, wide: int) -> None:
    """All bits of the exponent are set in what is infinite or no number."""
    exponent = 0x7F80 if wide == 4 else 0x7FF0
    if int.from_bytes(frame[at : at + 2]) & exponent == exponent:
        raise MessageError(
            f"frame has a number at byte {at - 1} that is infinite or none; send finite numbers"
        )
