"""Image codecs: the baselines that send the picture instead of a feature."""

from __future__ import annotations

import importlib
import io
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from megdt.codecs.seed import from_symbols, to_symbols
from megdt.errors import CodecError, MissingExtraError
from megdt.records import Delivery, Feature, Mode, Packet

_USUAL_RMS = 0.2
"""Of a picture's values in [0, 1] around their means."""


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
        """Map one picture to symbols, 3 * size_px**2 real or about half as many complex ones."""
        pixels = _check_image(feature.values, self.size_px).astype(np.float32) / np.float32(255)
        if self.mode == "paper":
            return Packet(symbols=to_symbols(pixels, self.mode))
        means = pixels.mean((0, 1), dtype=np.float64).astype("<f2")
        symbols = to_symbols(pixels - means.astype(np.float32), self.mode, usual_rms=_USUAL_RMS)
        return Packet(payload=means.tobytes(), symbols=symbols)

    def decode(self, delivery: Delivery) -> Feature:
        """Take the picture from noisy symbols.

        Raises:
            CodecError: If the number of symbols is not the size's, or the means are missing.
        """
        count = 3 * self.size_px**2
        means = np.zeros(3, np.float32)
        if self.mode == "fair":
            if len(delivery.payload) != 6:
                raise CodecError(
                    f"means of a picture arrived as {len(delivery.payload)} bytes, they have 6; "
                    "both ends must follow the same plan"
                )
            means = np.frombuffer(delivery.payload, "<f2").astype(np.float32)
        values, noise_power = from_symbols(delivery, count, self.mode, usual_rms=_USUAL_RMS)
        if self.mode == "fair":
            power = float(np.mean(values.astype(np.float64) ** 2))
            # What is left of the measured power without the noise's is the picture's.
            values = values * np.float32(max(power - noise_power, 0) / max(power, 1e-12))
        shaped = values.reshape(self.size_px, self.size_px, 3) + means
        return Feature(kind="image", values=np.rint(np.clip(shaped, 0, 1) * 255).astype(np.uint8))


FileFormat = Literal["webp", "avif", "jxl"]

FIXED_QUALITY: dict[FileFormat, int] = {"webp": 90, "avif": 75, "jxl": 90}
"""Encoder's own quality number where there is no budget: no loss that a person would notice."""

# The best that each encoder takes; JPEG XL's 100 asks for another colour space, and fails.
_TOP_QUALITY: dict[FileFormat, int] = {"webp": 100, "avif": 100, "jxl": 99}

# One thread, so that the bytes do not hang on the machine. AVIF keeps colour at full resolution
# and is tuned for SSIM: on drawn flowers and on photographs its PSNR is as good as 4:2:0 and
# libaom's own tuning or better, by 5 dB on drawn flowers at high rates; at low rates SSIM is level.
_SETTINGS: dict[FileFormat, dict[str, Any]] = {
    "webp": {"method": 4},
    "avif": {"speed": 6, "subsampling": "4:4:4", "max_threads": 1, "advanced": {"tune": "ssim"}},
    "jxl": {"effort": 7, "num_threads": 1},
}

_PLUGINS: dict[FileFormat, tuple[str, str]] = {
    "webp": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "avif": ("PIL.AvifImagePlugin", "AvifImageFile"),
    "jxl": ("pillow_jxl", "Decoder"),
}

_SHRINKS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.125, 0.09, 0.0625, 0.04)

_NEAR = 0.98
"""Share of the budget that is good enough: a step of quality takes some 4 % more."""


@dataclass(frozen=True, kw_only=True)
class FileImageCodec:
    """A picture file at the quality and size that serve the picture best within a budget of bits.

    A picture may be sent smaller and enlarged at the receiver, as a real system would. Where
    no file fits, three bytes are sent whatever the budget: the mean colour, which is then shown. Every bit of the file is charged, its
    headers included; they take some 270 bytes of an AVIF file, and JPEG XL goes without container.

    Args:
        size_px: Height and width that both ends expect.
        file_format: `webp`, `avif` or `jxl` (JPEG XL).
        budget_bits: Bits to stay within; None sends FIXED_QUALITY whatever it takes.

    Raises:
        MissingExtraError: If what reads and writes the format is not installed.
    """

    size_px: int
    file_format: FileFormat
    budget_bits: int | None = None

    def __post_init__(self) -> None:
        _plugin(self.file_format)  # where it is missing, say so before anything is computed

    def encode(self, feature: Feature) -> Packet:
        """Compress one picture; the packet is a complete file, or a mean colour."""
        pixels = _check_image(feature.values, self.size_px)
        image = Image.fromarray(pixels)
        if self.budget_bits is None:
            return Packet(payload=_write(image, self.file_format, FIXED_QUALITY[self.file_format]))
        best, least, quality, worse = b"", np.inf, 0, 0
        for shrink in _SHRINKS:
            size = max(4, round(self.size_px * shrink))
            small = image.resize((size, size), Image.Resampling.LANCZOS)
            # Smaller ones only lose more: stop where one loses too much before it is compressed,
            # or two in a row after it. A single one tells little: error is rough over size.
            if worse == 2 or _mean_square(self._enlarge(small), pixels) >= least:
                break
            # What a larger picture could afford, this one can too: the search starts there.
            payload, quality = _best_quality(small, self.file_format, self.budget_bits, quality)
            if not payload:
                continue
            error = _mean_square(self._read(payload), pixels)
            if error < least:
                best, least, worse = payload, error, 0
            else:
                worse += 1
        colour = np.rint(pixels.mean((0, 1))).astype(np.uint8)
        return Packet(payload=best or colour.tobytes())

    def decode(self, delivery: Delivery) -> Feature:
        """Decompress.

        Raises:
            CodecError: If the payload is neither a colour nor a picture.
        """
        if len(delivery.payload) == 3:
            colour = np.frombuffer(delivery.payload, np.uint8)
            plain = np.tile(colour, (self.size_px, self.size_px, 1))
            return Feature(kind="image", values=plain)
        return Feature(kind="image", values=self._read(delivery.payload))

    def _read(self, payload: bytes) -> NDArray[np.uint8]:
        plugin = _plugin(self.file_format)
        try:
            # A damaged header may claim any size: nothing is decoded before the claim is checked.
            # Image.open would warn of a decompression bomb first, and Pillow's WebP reader too.
            if self.file_format != "avif":
                read_size = {"webp": _webp_size, "jxl": _jxl_size}[self.file_format]
                self._check_claim(*read_size(payload))
            if self.file_format == "jxl":
                _, info, data, *_ = plugin(num_threads=1)(payload)
                image = Image.frombytes(info.mode, (info.width, info.height), data)
            else:
                image = plugin(io.BytesIO(payload))
            self._check_claim(*image.size)
            image = image.convert("RGB")
        except Exception as error:  # Pillow's decoders have no common error for damaged files
            raise CodecError(
                f"picture payload of {len(payload)} bytes does not decode as {self.file_format}; "
                "both ends must follow the same plan"
            ) from error
        return self._enlarge(image)

    def _enlarge(self, image: Image.Image) -> NDArray[np.uint8]:
        if image.size != (self.size_px, self.size_px):
            image = image.resize((self.size_px, self.size_px), Image.Resampling.BICUBIC)
        return np.asarray(image)

    def _check_claim(self, width: int, height: int) -> None:
        limit = 4 * self.size_px
        if width != height or not 0 < width <= limit:
            raise ValueError(f"it claims {width} x {height} px, square up to {limit} px is shown")


def _mean_square(found: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> float:
    return float(np.mean((found.astype(np.float32) - wanted) ** 2, dtype=np.float64))


def _write(image: Image.Image, file_format: FileFormat, quality: int) -> bytes:
    _plugin(file_format)  # registers the format with Pillow
    file = io.BytesIO()
    image.save(file, file_format, quality=quality, **_SETTINGS[file_format])
    return file.getvalue()


def _best_quality(
    image: Image.Image, file_format: FileFormat, budget_bits: int, start: int
) -> tuple[bytes, int]:
    """The file of the largest quality within the budget, and that quality; empty if none fits.

    `start` is tried first. The search narrows to neighbours or ends near the budget, where the
    next quality would be over. Size may dip while quality rises, so the quality after the first
    that did not fit is tried too.
    """
    top = _TOP_QUALITY[file_format]
    best = _write(image, file_format, start)
    if 8 * len(best) > budget_bits and start:
        start = 0
        best = _write(image, file_format, start)
    if 8 * len(best) > budget_bits:
        return b"", 0
    low, high, over = start, top + 1, 0  # `low` fits, `high` does not and has `over` bytes
    while high - low > 1 and 8 * len(best) < _NEAR * budget_bits:
        share = 0.5
        if over:  # bytes go about as the exponential of quality
            share = math.log(budget_bits / 8 / len(best)) / math.log(over / len(best))
        middle = low + round((high - low) * min(max(share, 0.1), 0.9))
        middle = min(max(middle, low + 1), high - 1)
        payload = _write(image, file_format, middle)
        if 8 * len(payload) <= budget_bits:
            best, low = payload, middle
        else:
            high, over = middle, len(payload)
    if low + 2 <= top and 8 * len(best) < _NEAR * budget_bits:
        payload = _write(image, file_format, low + 2)
        if 8 * len(payload) <= budget_bits:
            best, low = payload, low + 2
    return best, low


def _webp_size(payload: bytes) -> tuple[int, int]:
    """Width and height that a lossy WebP file claims.

    References:
        RFC 6386, section 9.1, after the 20 bytes of RFC 9649, section 2.5.
    """
    if payload[:4] != b"RIFF" or payload[8:16] != b"WEBPVP8 ":
        raise ValueError("no lossy WebP file")
    width, height = payload[26:28], payload[28:30]  # 14 bits each, two bits of scale above them
    return int.from_bytes(width, "little") & 0x3FFF, int.from_bytes(height, "little") & 0x3FFF


def _jxl_size(payload: bytes) -> tuple[int, int]:
    """Width and height that a JPEG XL codestream claims, of which only squares are understood.

    References:
        ISO/IEC 18181-1, SizeHeader.
    """
    if payload[:2] != b"\xff\x0a":
        raise ValueError("no JPEG XL codestream")
    bits = int.from_bytes(payload[2:8], "little")  # read from the least significant bit up
    if bits & 1:
        height, bits = 8 * ((bits >> 1 & 31) + 1), bits >> 6
    else:
        width_of_field = (9, 13, 18, 30)[bits >> 1 & 3]
        height, bits = (bits >> 3 & (1 << width_of_field) - 1) + 1, bits >> 3 + width_of_field
    if bits & 7 != 1:  # aspect ratio 1:1
        raise ValueError("it claims another shape than a square")
    return height, height


def _plugin(file_format: FileFormat) -> Any:
    """What reads this format; loading it also lets Pillow write the format."""
    module, name = _PLUGINS[file_format]
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{file_format} pictures need {module}, which cannot be imported ({error}); "
            "pip install 'megdt[images]'"
        ) from error
    if not getattr(found, "SUPPORTED", True):
        raise MissingExtraError(
            f"{file_format} pictures need a Pillow that was built for them; "
            "pip install 'megdt[images]'"
        )
    return getattr(found, name)


def _check_image(values: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    if values.shape != (size_px, size_px, 3) or values.dtype != np.uint8:
        raise CodecError(
            f"image is {values.dtype} of shape {values.shape}, this codec carries uint8 of shape "
            f"({size_px}, {size_px}, 3); build it for the size of the request"
        )
    return values
