"""Seed codecs: latents as numbers under the digital link, or as analog symbols."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from megdt.errors import CodecError
from megdt.records import Delivery, Feature, Mode, Packet

INT8_CLIP = 4.0
"""Latents have unit variance; one in 16,000 Gaussian numbers lies beyond 4."""

_STEPS = 127


@dataclass(frozen=True, kw_only=True)
class QuantisedSeedCodec:
    """A seed as one number an element, without entropy coding.

    float32 is lossless. float16 keeps 11 bits of each number. int8 clips at +-INT8_CLIP and comes
    back within INT8_CLIP / 254 inside it.

    Args:
        shape: What both ends expect. (latent_channels, height, width)
        precision: Number format.
    """

    shape: tuple[int, int, int]
    precision: Literal["float32", "float16", "int8"] = "int8"

    def encode(self, feature: Feature) -> Packet:
        """Encode one seed; its packet holds 32, 16 or 8 bits an element.

        Raises:
            CodecError: If the seed has another shape, or an element is not finite.
        """
        latent = check_seed(feature.values, self.shape)
        if self.precision == "int8":
            steps = np.clip(np.rint(latent * (_STEPS / INT8_CLIP)), -_STEPS, _STEPS)
            return Packet(payload=steps.astype(np.int8).tobytes())
        kind = {"float32": "<f4", "float16": "<f2"}[self.precision]
        return Packet(payload=latent.astype(kind).tobytes())

    def decode(self, delivery: Delivery) -> Feature:
        """Read the seed back.

        Raises:
            CodecError: If the payload has another length than shape and precision say.
        """
        kind = {"float32": "<f4", "float16": "<f2", "int8": "i1"}[self.precision]
        expected = int(np.prod(self.shape)) * np.dtype(kind).itemsize
        if len(delivery.payload) != expected:
            raise CodecError(
                f"seed payload has {len(delivery.payload)} bytes, {self.precision} for shape "
                f"{self.shape} has {expected}; both ends must follow the same plan"
            )
        numbers = np.frombuffer(delivery.payload, kind).reshape(self.shape)
        latent = numbers.astype(np.float32)
        if self.precision == "int8":
            latent *= INT8_CLIP / _STEPS
        return Feature(kind="seed", values=latent)


@dataclass(frozen=True, kw_only=True)
class AnalogSeedCodec:
    """A seed as analog symbols.

    `fair` mode pairs elements into complex symbols of unit mean power; the gain that undoes the
    scaling goes along as 16 digital bits. `paper` mode sends the raw values as real symbols, as
    the paper's experiment did.

    Args:
        shape: What both ends expect. (latent_channels, height, width)
        mode: `fair` or `paper`.
    """

    shape: tuple[int, int, int]
    mode: Mode = "fair"

    def encode(self, feature: Feature) -> Packet:
        """Map one seed to symbols.

        Raises:
            CodecError: If the seed has another shape, or an element is not finite.
        """
        latent = check_seed(feature.values, self.shape)
        return to_symbols(latent, self.mode)

    def decode(self, delivery: Delivery) -> Feature:
        """Take the seed from noisy symbols, its noise power with it.

        Raises:
            CodecError: If the number of symbols is not the shape's.
        """
        values, noise_power = from_symbols(delivery, int(np.prod(self.shape)), self.mode)
        return Feature(kind="seed", values=values.reshape(self.shape), noise_power=noise_power)


def to_symbols(values: NDArray[np.float32], mode: Mode) -> Packet:
    """Real numbers as analog symbols; see AnalogSeedCodec."""
    flat = values.ravel()
    if mode == "paper":
        return Packet(symbols=flat)
    if flat.size % 2:
        flat = np.append(flat, np.float32(0))
    pairs = flat[0::2] + 1j * flat[1::2]
    gain = np.float16(np.sqrt(np.mean(np.abs(pairs) ** 2, dtype=np.float64)))
    if gain == 0:  # nothing to send: silence, and the receiver multiplies by nothing
        return Packet(payload=gain.tobytes(), symbols=pairs.astype(np.complex64))
    # The rounded gain scales both ends alike.
    return Packet(payload=gain.tobytes(), symbols=(pairs / np.float64(gain)).astype(np.complex64))


def from_symbols(delivery: Delivery, count: int, mode: Mode) -> tuple[NDArray[np.float32], float]:
    """The numbers of `to_symbols` and the mean square of the noise on each.

    Raises:
        CodecError: If another number of symbols arrived, or no gain in `fair` mode.
    """
    expected = count if mode == "paper" else -(-count // 2)
    symbols = delivery.symbols
    found = 0 if symbols is None else symbols.size
    if symbols is None or found != expected:
        raise CodecError(
            f"{found} analog symbols arrived, {count} values in {mode} mode take {expected}; "
            "both ends must follow the same plan"
        )
    if mode == "paper":
        return symbols.astype(np.float32), float(delivery.noise_power)
    if len(delivery.payload) != 2:
        raise CodecError(
            f"the gain of analog symbols arrived as {len(delivery.payload)} bytes, it has 2; "
            "both ends must follow the same plan"
        )
    gain = float(np.frombuffer(delivery.payload, "<f2")[0])
    pairs = np.stack((symbols.real, symbols.imag), 1).ravel()[:count]
    noise = np.asarray(delivery.noise_power, np.float64)
    if np.ptp(noise) == 0:
        # Half of a complex symbol's noise falls on each of its two numbers.
        return (pairs * gain).astype(np.float32), gain**2 * float(noise.flat[0]) / 2
    # The share of the signal in what arrived differs from symbol to symbol. Each is weighted by
    # its own share, and the whole given as if noise of one power had left the same error.
    share = 1 / (1 + noise)
    mean_error = float(np.mean(1 - share))
    level = mean_error / (1 - mean_error)
    weights = np.repeat(share * (1 + level), 2)[:count]
    return (pairs * weights * gain).astype(np.float32), gain**2 * level / 2


def check_seed(values: Any, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """The values as a float32 seed of this shape, or a CodecError that says what is wrong."""
    latent = np.asarray(values, np.float32)
    if latent.shape != shape:
        raise CodecError(
            f"seed has shape {latent.shape}, this codec carries {shape}; build it for the "
            "autoencoder and size of the request"
        )
    if not np.isfinite(latent).all():
        raise CodecError(
            f"seed has {int((~np.isfinite(latent)).sum())} elements that are not finite, the codec "
            "carries finite numbers only; check the denoiser's output"
        )
    return latent
