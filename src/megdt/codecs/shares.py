"""What is asked of a side that is to share what it sees.

For each share, little-endian:

2 bytes  UE that it comes from, 0 for the ES
2 bytes  UE that it goes to
rest     its columns, see `columns.py`
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from megdt.codecs.columns import pack_columns, unpack_columns
from megdt.errors import CodecError, MechanismError
from megdt.records import Delivery, Feature, Packet, Share, Side

_HEAD = struct.Struct("<HH")


@dataclass(frozen=True, kw_only=True)
class SharesCodec:
    """Shares as bytes, exactly."""

    def encode(self, feature: Feature) -> Packet:
        """Encode a tuple of shares.

        Raises:
            CodecError: If one has more than 255 runs of columns, or a column beyond two bytes.
        """
        payload = b"".join(
            _HEAD.pack(_number(share.source), _number(share.target)) + pack_columns(share.columns)
            for share in feature.values
        )
        return Packet(payload=payload)

    def decode(self, delivery: Delivery) -> Feature:
        """Read the shares back.

        Raises:
            CodecError: If the payload ends within a share, or names no side.
        """
        rest, shares = delivery.payload, list[Share]()
        try:
            while rest:
                source, target = _HEAD.unpack_from(rest)
                columns, length = unpack_columns(rest[_HEAD.size :])
                side = Side.ue(source) if source else Side.ES
                shares.append(Share(source=side, target=Side.ue(target), columns=columns))
                rest = rest[_HEAD.size + length :]
        except (struct.error, MechanismError, CodecError) as error:
            raise CodecError(
                f"shares of {len(delivery.payload)} bytes arrived, of which {len(rest)} are no share; "
                "both ends must follow the same plan"
            ) from error
        return Feature(kind="shares", values=tuple(shares))


def _number(side: Side) -> int:
    return int(side.removeprefix("UE")) if side.is_ue else 0
