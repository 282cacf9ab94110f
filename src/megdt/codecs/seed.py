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
    scaling goes along as GAIN_SYMBOLS more of them. `paper` mode sends the raw values as real
    symbols, as the paper's experiment did.

    Args:
        shape: What both ends expect. (latent_channels, height, width)
        mode: `fair` or `paper`.
    """

    shape: tuple[int, int, int]
    mode: Mode = "fair"

    def encode(self, feature: Feature) -> Packet:
        """Map one seed to symbols.

        Raises:
            CodecError: If the seed has another shape, an element is not finite, or its root mean
                square is above GAIN_RANGE.
        """
        latent = check_seed(feature.values, self.shape)
        return Packet(symbols=to_symbols(latent, self.mode))

    def decode(self, delivery: Delivery) -> Feature:
        """Take the seed from noisy symbols, its noise power with it.

        Raises:
            CodecError: If the number of symbols is not the shape's.
        """
        values, noise_power = from_symbols(delivery, int(np.prod(self.shape)), self.mode)
        return Feature(kind="seed", values=values.reshape(self.shape), noise_power=noise_power)


GAIN_SYMBOLS = 16
"""Symbols that carry the gain, by their common phase: half a turn is a factor of GAIN_RANGE."""

GAIN_RANGE = 4.0
"""Largest root mean square of what is sent, over the usual one; smaller ones go at less power."""

# Standard deviation that the receiver takes the phase to have before it has seen it: latents of a
# view differ by some 15 % from unit variance. What noise leaves open is taken to be usual.
_GAIN_SPREAD = 0.2


def to_symbols(values: NDArray[np.float32], mode: Mode, *, usual_rms: float = 1.0) -> NDArray[Any]:
    """Real numbers as analog symbols; see AnalogSeedCodec.

    Args:
        values: Any shape.
        mode: `fair` or `paper`.
        usual_rms: Root mean square that both ends expect of values.

    Raises:
        CodecError: If the root mean square of the values is above GAIN_RANGE times the usual one.
    """
    flat = values.ravel()
    if mode == "paper":
        return flat
    if flat.size % 2:
        flat = np.append(flat, np.float32(0))
    rms = float(np.sqrt(np.mean(flat.astype(np.float64) ** 2)))
    if not rms <= usual_rms * GAIN_RANGE:
        raise CodecError(
            f"values have a root mean square of {rms:.3g}, analog symbols carry up to "
            f"{usual_rms * GAIN_RANGE:g}; scale them to about {usual_rms:g}"
        )
    gain = max(rms, usual_rms / GAIN_RANGE)
    phase = np.pi * np.log(gain / usual_rms) / np.log(GAIN_RANGE)
    # Half a turn either way is the same phase: stay off it.
    told = np.full(GAIN_SYMBOLS, np.exp(1j * np.clip(phase, -3.1, 3.1)))
    pairs = (flat[0::2] + 1j * flat[1::2]) / (gain * np.sqrt(2))
    return np.concatenate((told, pairs)).astype(np.complex64)


def count_symbols(count: int, mode: Mode) -> int:
    """Symbols that so many real numbers take: complex ones in `fair` mode, gain included."""
    return count if mode == "paper" else GAIN_SYMBOLS + -(-count // 2)


def from_symbols(
    delivery: Delivery, count: int, mode: Mode, *, usual_rms: float = 1.0
) -> tuple[NDArray[np.float32], float]:
    """The numbers of `to_symbols` and the mean square of the noise on each.

    Raises:
        CodecError: If another number of symbols arrived.
    """
    symbols = check_symbols(delivery, count_symbols(count, mode), f"{count} values in {mode} mode")
    if mode == "paper":
        return symbols.astype(np.float32), float(delivery.noise_power)
    noise = np.broadcast_to(np.asarray(delivery.noise_power, np.float64), symbols.shape)
    weights = 2 / np.maximum(noise[:GAIN_SYMBOLS], 1e-12)
    phase = np.angle(np.sum(weights * symbols[:GAIN_SYMBOLS]) + _GAIN_SPREAD**-2)
    # Each of two numbers has half of a symbol's power and half of its noise.
    gain = usual_rms * GAIN_RANGE ** (phase / np.pi) * np.sqrt(2)
    symbols, noise = symbols[GAIN_SYMBOLS:], noise[GAIN_SYMBOLS:]
    pairs = np.stack((symbols.real, symbols.imag), 1).ravel()[:count]
    if np.ptp(noise) == 0:
        return (pairs * gain).astype(np.float32), float(gain**2 * noise[0] / 2)
    # The share of the signal in what arrived differs from symbol to symbol. Each is weighted by
    # its own share, and the whole given as if noise of one power had left the same error.
    share = 1 / (1 + noise)
    mean_error = float(np.mean(1 - share))
    level = mean_error / (1 - mean_error)
    shares = np.repeat(share * (1 + level), 2)[:count]
    return (pairs * shares * gain).astype(np.float32), float(gain**2 * level / 2)


def check_symbols(delivery: Delivery, expected: int, what: str) -> NDArray[Any]:
    """The delivery's symbols, or a CodecError where they are not as many as expected."""
    found = 0 if delivery.symbols is None else delivery.symbols.size
    if delivery.symbols is None or found != expected:
        raise CodecError(
            f"{found} analog symbols arrived, {what} take {expected}; both ends must follow the "
            "same plan"
        )
    return delivery.symbols


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
