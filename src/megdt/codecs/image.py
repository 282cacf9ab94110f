"""Image codecs: the baselines that send the picture instead of a feature."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from megdt.codecs.seed import from_symbols, to_symbols
from megdt.errors import CodecError
from megdt.records import Delivery, Feature, Mode, Packet


@dataclass(frozen=True, kw_only=True)
class AnalogImageCodec:
    """Raw pixels as analog symbols, no source code and no channel code.

    `paper` mode sends RGB in [0, 1] as real numbers, mean and all. `fair` mode takes each colour's
    mean away, sends it along as 16 digital bits, and estimates the rest by LMMSE, the best linear
    receiver.

    Args:
        size_px: Height and width that both ends expect.
        mode: `fair` or `paper`.
    """

    size_px: int
    mode: Mode = "fair"

    def encode(self, feature: Feature) -> Packet:
        """Map one picture to symbols, 3 * size_px**2 real or half as many complex ones."""
        pixels = _check_image(feature.values, self.size_px).astype(np.float32) / np.float32(255)
        if self.mode == "paper":
            return to_symbols(pixels, self.mode)
        means = pixels.mean((0, 1), dtype=np.float64).astype("<f2")
        packet = to_symbols(pixels - means.astype(np.float32), self.mode)
        return Packet(payload=means.tobytes() + packet.payload, symbols=packet.symbols)

    def decode(self, delivery: Delivery) -> Feature:
        """Take the picture from noisy symbols.

        Raises:
            CodecError: If the number of symbols is not the size's, or the means are missing.
        """
        count = 3 * self.size_px**2
        means = np.zeros(3, np.float32)
        if self.mode == "fair":
            if len(delivery.payload) != 8:
                raise CodecError(
                    f"means and gain of a picture arrived as {len(delivery.payload)} bytes, they "
                    "have 8; both ends must follow the same plan"
                )
            means = np.frombuffer(delivery.payload[:6], "<f2").astype(np.float32)
            delivery = replace(delivery, payload=delivery.payload[6:])
        values, _ = from_symbols(delivery, count, self.mode)
        if self.mode == "fair":
            # Unit-power symbols: the share of the signal in what arrived is the same everywhere.
            values = values / np.float32(1 + delivery.noise_power)
        shaped = values.reshape(self.size_px, self.size_px, 3) + means
        return Feature(kind="image", values=np.rint(np.clip(shaped, 0, 1) * 255).astype(np.uint8))


_SHRINKS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.125, 0.09, 0.0625, 0.04)


@dataclass(frozen=True, kw_only=True)
class WebpCodec:
    """WebP at the quality and size that serve the picture best within a budget of bits.

    A picture may be sent smaller and enlarged at the receiver, as a real system would. Where
    nothing fits, nothing is sent: the receiver shows grey.

    Args:
        size_px: Height and width that both ends expect.
        budget_bits: Bits to stay within; None sends quality 90 whatever it takes.
    """

    size_px: int
    budget_bits: int | None = None

    def encode(self, feature: Feature) -> Packet:
        """Compress one picture; the packet is a complete WebP file, headers included, or empty."""
        pixels = _check_image(feature.values, self.size_px)
        image = Image.fromarray(pixels)
        if self.budget_bits is None:
            return Packet(payload=_webp(image, 90))
        best, least = b"", np.inf
        for shrink in _SHRINKS:
            size = max(4, round(self.size_px * shrink))
            payload = _best_quality(
                image.resize((size, size), Image.Resampling.LANCZOS), self.budget_bits
            )
            if not payload:
                continue
            error = float(np.mean((self._enlarge(payload).astype(np.float64) - pixels) ** 2))
            if error >= least:
                break  # smaller ones only lose more
            best, least = payload, error
        return Packet(payload=best)

    def decode(self, delivery: Delivery) -> Feature:
        """Decompress.

        Raises:
            CodecError: If the payload is neither empty nor a picture.
        """
        if not delivery.payload:
            grey = np.full((self.size_px, self.size_px, 3), 128, np.uint8)
            return Feature(kind="image", values=grey)
        try:
            return Feature(kind="image", values=self._enlarge(delivery.payload))
        except (UnidentifiedImageError, OSError) as error:
            raise CodecError(
                f"picture payload of {len(delivery.payload)} bytes is not WebP; both ends must "
                "follow the same plan"
            ) from error

    def _enlarge(self, payload: bytes) -> NDArray[np.uint8]:
        image = Image.open(io.BytesIO(payload), formats=("WEBP",)).convert("RGB")
        if image.size != (self.size_px, self.size_px):
            image = image.resize((self.size_px, self.size_px), Image.Resampling.BICUBIC)
        return np.asarray(image)


def _webp(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "WEBP", quality=quality, method=4)
    return file.getvalue()


def _best_quality(image: Image.Image, budget_bits: int) -> bytes:
    """The largest quality within the budget by bisection; empty where there is none."""
    best, low, high = b"", 0, 100
    while low <= high:
        middle = (low + high) // 2
        payload = _webp(image, middle)
        if 8 * len(payload) <= budget_bits:
            best, low = payload, middle + 1
        else:
            high = middle - 1
    return best


def _check_image(values: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    if values.shape != (size_px, size_px, 3) or values.dtype != np.uint8:
        raise CodecError(
            f"image is {values.dtype} of shape {values.shape}, this codec carries uint8 of shape "
            f"({size_px}, {size_px}, 3); build it for the size of the request"
        )
    return values
