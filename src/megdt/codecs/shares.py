"""What is asked of a side that is to share what it sees.

For each share, little-endian:

2 bytes  UE that it comes from, 0 for the ES
2 bytes  UE that it goes to
1 byte   number of runs of columns
3 bytes  for each run: its first column in two, its length in one
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from megdt.errors import CodecError, MechanismError
from megdt.records import Delivery, Feature, Packet, Share, Side

_HEAD, _RUN = struct.Struct("<HHB"), struct.Struct("<HB")
_LONGEST = 255


@dataclass(frozen=True, kw_only=True)
class SharesCodec:
    """Shares as bytes, exactly."""

    def encode(self, feature: Feature) -> Packet:
        """Encode a tuple of shares.

        Raises:
            CodecError: If one has more than 255 runs of columns, or a column beyond two bytes.
        """
        payload = b""
        for share in feature.values:
            runs = _runs(share.columns)
            if len(runs) > _LONGEST or share.columns[-1] >= 2**16:
                raise CodecError(
                    f"a share of {len(runs)} runs of columns up to {share.columns[-1]} is to be asked "
                    f"for; expected at most {_LONGEST} runs below {2**16}"
                )
            payload += _HEAD.pack(_number(share.source), _number(share.target), len(runs))
            payload += b"".join(_RUN.pack(*run) for run in runs)
        return Packet(payload=payload)

    def decode(self, delivery: Delivery) -> Feature:
        """Read the shares back.

        Raises:
            CodecError: If the payload ends within a share, or names no side.
        """
        rest, shares = delivery.payload, list[Share]()
        try:
            while rest:
                source, target, count = _HEAD.unpack_from(rest)
                end = _HEAD.size + count * _RUN.size
                runs = list(_RUN.iter_unpack(rest[_HEAD.size : end]))
                if len(runs) != count:
                    raise struct.error
                columns = tuple(c for first, length in runs for c in range(first, first + length))
                side = Side.ue(source) if source else Side.ES
                shares.append(Share(source=side, target=Side.ue(target), columns=columns))
                rest = rest[end:]
        except (struct.error, MechanismError) as error:
            raise CodecError(
                f"shares of {len(delivery.payload)} bytes arrived, of which {len(rest)} are no share; "
                "both ends must follow the same plan"
            ) from error
        return Feature(kind="shares", values=tuple(shares))


def _number(side: Side) -> int:
    return int(side.removeprefix("UE")) if side.is_ue else 0


def _runs(columns: Sequence[int]) -> list[tuple[int, int]]:
    """First column and length of each run, in order."""
    runs: list[list[int]] = []
    for column in columns:
        if runs and column == sum(runs[-1]) and runs[-1][1] < _LONGEST:
            runs[-1][1] += 1
        else:
            runs.append([column, 1])
    return [(first, length) for first, length in runs]
