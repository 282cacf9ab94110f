"""Image codecs: the baselines that send the picture instead of a feature."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from megdt.codecs.seed import from_symbols, to_symbols
from megdt.errors import CodecError
from megdt.records import Delivery, Feature, Mode, Packet


@dataclass(frozen=True, kw_only=True)
class AnalogImageCodec:
    """Raw pixels as analog symbols, no source code and no channel code.

    `paper` mode sends RGB in [0, 1] as real numbers, mean and all. `fair` mode sends zero-mean
    pixels at unit power and estimates them by LMMSE, the best linear receiver.

    Args:
        size_px: Height and width that both ends expect.
        mode: `fair` or `paper`.
    """

    size_px: int
    mode: Mode = "fair"

    def encode(self, feature: Feature) -> Packet:
        """Map one picture to symbols, 3 * size_px**2 real or half as many complex ones."""
        pixels = _check_image(feature.values, self.size_px).astype(np.float32) / np.float32(255)
        return to_symbols(pixels if self.mode == "paper" else pixels - np.float32(0.5), self.mode)

    def decode(self, delivery: Delivery) -> Feature:
        """Take the picture from noisy symbols.

        Raises:
            CodecError: If the number of symbols is not the size's.
        """
        count = 3 * self.size_px**2
        values, noise_power = from_symbols(delivery, count, self.mode)
        if self.mode == "fair":
            power = max(float(np.mean(values.astype(np.float64) ** 2)) - noise_power, 0.0)
            total = power + noise_power
            values = values * (power / total if total > 0 else 0.0) + 0.5
        pixels = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
        return Feature(kind="image", values=pixels.reshape(self.size_px, self.size_px, 3))


@dataclass(frozen=True, kw_only=True)
class WebpCodec:
    """WebP at the best quality that fits a budget of bits.

    Where even the lowest quality is too large, the picture is sent smaller and enlarged at the
    receiver, as a real system would. If nothing fits, the smallest picture is sent and charged.

    Args:
        size_px: Height and width that both ends expect.
        budget_bits: Bits to stay within; None sends quality 90 whatever it takes.
    """

    size_px: int
    budget_bits: int | None = None

    def encode(self, feature: Feature) -> Packet:
        """Compress one picture; the packet is a complete WebP file, headers included."""
        image = Image.fromarray(_check_image(feature.values, self.size_px))
        if self.budget_bits is None:
            return Packet(payload=_webp(image, 90))
        size = self.size_px
        while True:
            small = (
                image.resize((size, size), Image.Resampling.LANCZOS)
                if size < self.size_px
                else image
            )
            payload = _best_quality(small, self.budget_bits)
            if 8 * len(payload) <= self.budget_bits or size <= 8:
                return Packet(payload=payload)
            size = max(8, round(size * 0.71))

    def decode(self, delivery: Delivery) -> Feature:
        """Decompress.

        Raises:
            CodecError: If the payload is not a picture.
        """
        try:
            image = Image.open(io.BytesIO(delivery.payload), formats=("WEBP",)).convert("RGB")
        except (UnidentifiedImageError, OSError) as error:
            raise CodecError(
                f"picture payload of {len(delivery.payload)} bytes is not WebP; both ends must "
                "follow the same plan"
            ) from error
        if image.size != (self.size_px, self.size_px):
            image = image.resize((self.size_px, self.size_px), Image.Resampling.BICUBIC)
        return Feature(kind="image", values=np.asarray(image))


def _webp(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "WEBP", quality=quality, method=6)
    return file.getvalue()


def _best_quality(image: Image.Image, budget_bits: int) -> bytes:
    """The largest quality within the budget by bisection, or the lowest there is."""
    best = _webp(image, 0)
    low, high = 1, 100
    while low <= high and 8 * len(best) <= budget_bits:
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
