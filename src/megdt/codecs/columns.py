"""Columns of a panorama as bytes: a count of runs, then for each its first column and its length."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from megdt.errors import CodecError

_RUN = struct.Struct("<HB")
_LONGEST = 255


def pack_columns(columns: Sequence[int]) -> bytes:
    """One byte, and three for each run.

    Args:
        columns: Rising.

    Raises:
        CodecError: If there are more than 255 runs, or a column is beyond two bytes.
    """
    runs: list[list[int]] = []
    for column in columns:
        if runs and column == sum(runs[-1]) and runs[-1][1] < _LONGEST:
            runs[-1][1] += 1
        else:
            runs.append([column, 1])
    if len(runs) > _LONGEST or (columns and columns[-1] >= 2**16):
        raise CodecError(
            f"there are {len(runs)} runs of columns up to {columns[-1]}; expected at most {_LONGEST} "
            f"runs below {2**16}"
        )
    return bytes([len(runs)]) + b"".join(_RUN.pack(*run) for run in runs)


def unpack_columns(payload: bytes) -> tuple[tuple[int, ...], int]:
    """The columns, and how many bytes they took.

    Raises:
        CodecError: If the payload ends before they do, or they do not rise.
    """
    end = 1 + _RUN.size * (payload[0] if payload else 0)
    if not payload or len(payload) < end:
        raise CodecError(
            f"columns of {len(payload)} bytes arrived, expected {end}; both ends must follow the same "
            "plan"
        )
    columns: list[int] = []
    for first, length in _RUN.iter_unpack(payload[1:end]):
        if not length or (columns and first <= columns[-1]):
            raise CodecError(
                f"a run of {length} columns from {first} on arrived after column "
                f"{columns[-1] if columns else 'none'}; expected rising ones: both ends must follow "
                "the same plan"
            )
        columns += range(first, first + length)
    return tuple(columns), end
