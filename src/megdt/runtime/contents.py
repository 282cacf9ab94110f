"""Packets and deliveries as the bytes of a feature's chunks, and back."""

from __future__ import annotations

from typing import Literal

import numpy as np

from megdt.errors import MessageError
from megdt.records import Delivery, Kind, Packet, Side
from megdt.runtime import messages

Content = Packet | Delivery
"""A feature as its codec made it, or as it came out of a link."""

_DTYPES: dict[str, Literal["complex64", "float32"]] = {"<c8": "complex64", "<f4": "float32"}


def pack(
    content: Content, *, key: str, source: str, to_side: Side, kind: Kind
) -> tuple[messages.Feature, bytes]:
    """What announces a feature, and the bytes of all its chunks.

    Args:
        content: Of a delivery, what its receiver needs; what it has cost is in the ledger.
        key: Of the request.
        source: The stage that made it.
        to_side: Where it goes.
        kind: What it is.

    Raises:
        MessageError: If its symbols are neither complex64 nor float32 or not one axis, or the noise
            is not one number a symbol.
    """
    symbols, parts = content.symbols, [bytes(content.payload)]
    dtype = None
    if symbols is not None and symbols.size:
        dtype = _DTYPES.get(symbols.dtype.newbyteorder("<").str)
        if dtype is None or symbols.ndim != 1:
            raise MessageError(
                f"{kind} of {source} has symbols of {symbols.dtype} and shape {symbols.shape}; a "
                "message carries one axis of complex64 or float32"
            )
        parts.append(symbols.astype(np.dtype(dtype).newbyteorder("<"), copy=False).tobytes())
    noise = content.noise_power if isinstance(content, Delivery) else 0.0
    each = isinstance(noise, np.ndarray) and noise.ndim > 0
    if each:
        if symbols is None or np.shape(noise) != symbols.shape:
            raise MessageError(
                f"{kind} of {source} has noise of shape {np.shape(noise)}; expected one number a "
                "symbol"
            )
        parts.append(np.asarray(noise, "<f4").tobytes())
    crossed = isinstance(content, Delivery)
    announced = messages.Feature(
        key=key,
        source=source,
        to_side=to_side,
        kind=kind,
        crossed=crossed,
        outcome=content.outcome if isinstance(content, Delivery) else "delivered",
        payload_bytes=len(content.payload),
        symbols=0 if dtype is None or symbols is None else symbols.size,
        dtype=dtype,
        noise_power=0.0 if each else float(noise),
        noises=each,
        told_snr=content.told_snr if isinstance(content, Packet) else False,
        values=content.values if isinstance(content, Packet) else 0,
        among=content.among if isinstance(content, Delivery) else 1,
    )
    return announced, parts[0] if len(parts) == 1 else b"".join(parts)


def unpack(announced: messages.Feature, body: bytes | bytearray | memoryview) -> Content:
    """The feature that was announced, of the bytes of all its chunks.

    Raises:
        MessageError: If a symbol, or its noise, is not finite, or a noise is negative.
    """
    at = announced.payload_bytes
    payload = bytes(memoryview(body)[:at])
    symbols, noise_power = None, announced.noise_power
    if announced.dtype is not None:
        wide = np.dtype(announced.dtype).newbyteorder("<")
        symbols = np.frombuffer(body, wide, announced.symbols, at).astype(announced.dtype)
        at += announced.symbols * wide.itemsize
        if not np.isfinite(symbols).all():
            raise MessageError(
                f"{announced.kind} of {announced.source} has symbols that are infinite or no "
                "numbers; send finite ones"
            )
    if not announced.crossed:
        return Packet(
            payload=payload,
            symbols=symbols,
            told_snr=announced.told_snr,
            values=announced.values,
        )
    noise: float | np.ndarray[tuple[int], np.dtype[np.float32]] = noise_power
    if announced.noises:
        noise = np.frombuffer(body, "<f4", announced.symbols, at).astype(np.float32)
        if not (np.isfinite(noise) & (noise >= 0)).all():
            raise MessageError(
                f"{announced.kind} of {announced.source} has noise powers that are negative or no "
                "finite numbers; send mean squares"
            )
    return Delivery(
        outcome=announced.outcome,
        payload=payload,
        symbols=symbols,
        noise_power=noise,
        among=announced.among,
    )
