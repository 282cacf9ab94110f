"""Joint source-channel codes for seeds: learned analog symbols, alone or after a coarse digital layer.

Both ends are told the SNR, and the link charges the report that told them. torch and the networks
are loaded when a seed is first coded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from megdt.codecs.seed import AnalogSeedCodec, check_seed, check_symbols
from megdt.errors import CodecError
from megdt.models import LATENT_CHANNELS
from megdt.models.cards import BUNDLE
from megdt.records import Delivery, Feature, Packet

if TYPE_CHECKING:
    from megdt.codecs.progressive import ProgressiveSeedCodec
    from megdt.models.bundle import Jscc

SNR_RANGE_DB = (-20.0, 40.0)
CARD = BUNDLE / "jscc.json"
"""Of the bundle's own code, the only one that comes with coarse seeds and a denoiser."""

RATES = (0.125, 1.0)

MIN_COARSE_BITS = 120
"""Below this a coarse seed says less than the symbols that its bits would cost."""


@dataclass(frozen=True, kw_only=True)
class JsccSeedCodec:
    """A seed through the learned code: the first maps of symbols, after a coarse seed or without.

    No symbols at all leave the coarse seed, which the receiver's network still mends. Symbols have
    unit mean power; no gain is sent, the networks do without.

    Args:
        shape: What both ends expect. (latent_channels, height, width)
        snr_db: Mean Es/N0 that both ends are told; clipped to SNR_RANGE_DB.
        maps: Maps of symbols to send, 0 to four a latent channel; all of them where left out.
        coarse_bits: Budget of the progressive coarse seed; 0 for none.
        restore: Draw anew, with the denoiser, what noise has taken at low SNR. It knows its own world:
            leave it out for other pictures.
        rng_seed: Draws that.
        peer_sha256: Checksum of the other end's networks, where it has named it.
        folder: Where the networks and their card lie; those of another autoencoder send symbols alone,
            and nothing is drawn anew.

    Raises:
        CodecError: If nothing would be sent, a number is out of range, or the other end has other
            networks.

    References:
        Bourtsoulatze et al., arXiv:1809.01733; attention to the SNR as in Xu et al.,
        arXiv:2012.00533; nested symbols as in Kurka and Gündüz, arXiv:2009.12480.
    """

    shape: tuple[int, int, int]
    snr_db: float
    maps: int | None = None
    coarse_bits: int = 0
    restore: bool = True
    rng_seed: int = 0
    peer_sha256: str | None = None
    folder: Path = BUNDLE

    def __post_init__(self) -> None:
        check_told(self.snr_db)
        every = count_maps(self.shape)
        if not 0 <= self._maps <= every or (self._maps == 0 and self.coarse_bits == 0):
            raise CodecError(
                f"maps is {self._maps} and coarse_bits {self.coarse_bits}, a seed has {every} maps; "
                "send at least one, or coarse bits"
            )
        if self.coarse_bits and self.folder != BUNDLE:
            raise CodecError(
                f"coarse_bits is {self.coarse_bits}, and the code in {self.folder} has learnt symbols alone; "
                "leave coarse_bits out"
            )
        check_code(self.folder, self.shape)
        check_peer(self.peer_sha256, folder=self.folder)

    def encode(self, feature: Feature) -> Packet:
        """Encode one seed.

        Raises:
            CodecError: If the seed has another shape, or an element is not finite.
        """
        latent = check_seed(feature.values, self.shape)
        payload = b""
        coarse: NDArray[np.float32] | None = None
        if self.coarse_bits:
            payload = self._coarse_codec.encode(feature).payload
            coarse = self._read_coarse(payload)
        if not self._maps:
            return Packet(payload=payload, told_snr=True)
        noise_power = 10 ** (-self._told_db / 10)
        symbols = _networks(self.folder).encode(
            latent, coarse, noise_power=noise_power, maps=self._maps, coarse_bits=8 * len(payload)
        )
        flat = symbols.ravel()
        if flat.size % 2:
            flat = np.append(flat, np.float32(0))
        pairs = (flat[0::2] + 1j * flat[1::2]) / np.sqrt(2)
        return Packet(payload=payload, symbols=pairs.astype(np.complex64), told_snr=True)

    def decode(self, delivery: Delivery) -> Feature:
        """Take the seed from what arrived, and how blurred it is as its noise power.

        Raises:
            CodecError: If another number of symbols arrived, or the payload is no coarse seed of
                these settings.
        """
        coarse: NDArray[np.float32] | None = None
        if self.coarse_bits:
            coarse = self._read_coarse(delivery.payload)
        elif delivery.payload:
            raise CodecError(
                f"a payload of {len(delivery.payload)} bytes arrived, this code sends symbols alone; "
                "both ends must follow the same plan"
            )
        count = self._maps * map_size(self.shape)
        values, shares = np.zeros(0, np.float32), np.zeros(0, np.float32)
        if self._maps:
            symbols = check_symbols(delivery, -(-count // 2), f"{self._maps} maps")
            noise = np.broadcast_to(np.asarray(delivery.noise_power, np.float64), symbols.shape)
            pairs = np.stack((symbols.real, symbols.imag), 1) * np.sqrt(2)
            values = pairs.ravel()[:count].astype(np.float32)
            shares = np.repeat(1 / (1 + noise), 2)[:count].astype(np.float32)
        latent, noise_power = _networks(self.folder).decode(
            values,
            shares,
            coarse,
            shape=self.shape,
            noise_power=10 ** (-self._told_db / 10),
            maps=self._maps,
            coarse_bits=8 * len(delivery.payload),
        )
        redraws = self.restore and self.folder == BUNDLE
        level = restoration_level(self._told_db) if redraws else 0.0
        if level:
            rng = np.random.default_rng(self.rng_seed)
            blurred = latent + level / (1 - level) * rng.standard_normal(latent.shape)
            latent = _networks(self.folder).refine(
                blurred.astype(np.float32), (level / (1 - level)) ** 2, steps=RESTORATION_STEPS
            )
            noise_power = 0.0
        return Feature(kind="seed", values=latent, noise_power=noise_power, redrawn_from=level)

    @property
    def flops(self) -> float:
        """Floating point operations of the networks so far."""
        return _networks(self.folder).flops

    @property
    def _maps(self) -> int:
        return count_maps(self.shape) if self.maps is None else self.maps

    @property
    def _told_db(self) -> float:
        return float(np.clip(self.snr_db, *SNR_RANGE_DB))

    @property
    def _coarse_codec(self) -> ProgressiveSeedCodec:
        from megdt.codecs.progressive import ProgressiveSeedCodec

        return ProgressiveSeedCodec(shape=self.shape, budget_bits=self.coarse_bits)

    def _read_coarse(self, payload: bytes) -> NDArray[np.float32]:
        values: NDArray[np.float32] = self._coarse_codec.decode(Delivery(payload=payload)).values
        return values


RESTORATION = ((-20.0, 0.8), (-10.0, 0.7), (-5.0, 0.6), (0.0, 0.4), (3.0, 0.0))
"""SNR in decibels, and the noise level to which the receiver takes a learned code's seed before it
denoises it. The noisier the channel, the more of what came is a blur that noise has to hide."""

RESTORATION_STEPS, PLAIN_STEPS = 6, 4

PLAIN_BELOW_DB = 20.0
"""Above, denoising the plain seed changes nothing that can be seen."""


def restoration_level(snr_db: float) -> float:
    """The noise level from which a seed is denoised that came at this SNR; 0 for none."""
    snrs, levels = zip(*RESTORATION, strict=True)
    return float(np.interp(snr_db, snrs, levels))


@dataclass(frozen=True, kw_only=True)
class PlainSeedCodec:
    """The split's own analog symbols, as one of the hybrid's choices.

    The noise of the channel is that of a diffusion step, so the receiver denoises from the level
    that the SNR names. As the SNR rises that goes to nothing: no harm at the upper end.

    Args:
        shape: What both ends expect. (latent_channels, height, width)
        restore: Denoise. The denoiser knows its own world: leave it out for other pictures.

    References:
        Wu et al., CDDM: Channel Denoising Diffusion Models, arXiv:2309.08895.
    """

    shape: tuple[int, int, int]
    restore: bool = True

    @property
    def flops(self) -> float:
        """Floating point operations of the denoiser so far."""
        return _networks().flops if self.restore else 0.0

    def encode(self, feature: Feature) -> Packet:
        """As AnalogSeedCodec; the choice itself took a report of the SNR."""
        packet = AnalogSeedCodec(shape=self.shape).encode(feature)
        return Packet(symbols=packet.symbols, told_snr=True)

    def decode(self, delivery: Delivery) -> Feature:
        """As AnalogSeedCodec, then denoised where the noise can be seen."""
        got = AnalogSeedCodec(shape=self.shape).decode(delivery)
        if not self.restore or got.noise_power < 10 ** (-PLAIN_BELOW_DB / 10):
            return got
        latent = _networks().refine(got.values, got.noise_power, steps=PLAIN_STEPS)
        if latent is got.values:
            return got
        deviation = float(np.sqrt(got.noise_power))
        return Feature(kind="seed", values=latent, redrawn_from=deviation / (1 + deviation))


def count_maps(shape: tuple[int, int, int]) -> int:
    """Maps of symbols that a whole seed has, each a quarter of a latent channel."""
    return 4 * shape[0]


def map_size(shape: tuple[int, int, int]) -> int:
    """Real symbols in a map of a seed of this shape."""
    _, height, width = shape
    return -(-height // 2) * -(-width // 2)


def check_told(snr_db: float) -> None:
    """Raise a CodecError for an SNR that says nothing."""
    if not np.isfinite(snr_db):
        raise CodecError(f"snr_db is {snr_db}, a code is told a finite one; give -20 to 40")


def check_rate(rate: float) -> None:
    """Raise a CodecError for a share of the analog seed's channel uses that is out of RATES."""
    low, high = RATES
    if not low <= rate <= high:
        raise CodecError(
            f"rate (plan.symbol_rate) is {rate:g}, the code goes from {low:g} to {high:g} of the analog seed's "
            "channel uses; choose one in between"
        )


def choose_share(snr_db: float, rate: float, *, card: Path = CARD) -> float | None:
    """How much of what may be spent goes by symbols; the rest carries bits.

    Measured by recipes/jscc.py on training views, and kept in the code's card: the choice whose
    pictures were best at the nearest SNR and rate.

    Args:
        snr_db: Told to both ends.
        rate: What may be spent, as a share of the analog seed's channel uses.
        card: The code's card.

    Returns:
        0 to 1, or None for the split's own analog symbols, where nothing beats them.
    """
    choices: Sequence[dict[str, Any]] = read_card(card)["choices"]
    nearest = min(choices, key=lambda c: (abs(c["rate"] - rate), abs(c["snr_db"] - snr_db)))
    if nearest["share"] is None:
        return None if rate == RATES[1] else 1.0
    return float(nearest["share"])


def read_card(card: Path = CARD) -> dict[str, Any]:
    """The card of the code's networks.

    Raises:
        CodecError: If it cannot be read.
    """
    recipe = "own_jscc" if card != CARD else "jscc"
    try:
        found = json.loads(card.read_text(encoding="utf-8"))
        if not isinstance(found.get("sha256"), str):
            raise ValueError("no card")
    except (OSError, ValueError, AttributeError) as error:
        raise CodecError(
            f"no readable card of the joint code at {card} ({error.__class__.__name__}); "
            f"{'reinstall megdt or ' if card == CARD else ''}train it with recipes/{recipe}.py"
        ) from error
    return dict(found)


def check_code(folder: Path, shape: tuple[int, int, int]) -> None:
    """Raise a CodecError where a folder's code is not of seeds of this shape."""
    channels = read_card(folder / CARD.name).get("channels", LATENT_CHANNELS)
    if channels != shape[0]:
        raise CodecError(
            f"the seed has {shape[0]} channels, the joint code in {folder} is of {channels}; train it with "
            "recipes/own_jscc.py for this autoencoder"
        )


def check_peer(peer_sha256: str | None, *, folder: Path = BUNDLE) -> None:
    """Raise a CodecError where the other end's networks are not ours."""
    if peer_sha256 is None:
        return
    ours = read_card(folder / CARD.name)["sha256"]
    if peer_sha256 != ours:
        raise CodecError(
            f"the other end's joint code is {peer_sha256[:12]}, ours is {ours[:12]}; install the "
            "same megdt on both ends"
        )


def _networks(folder: Path = BUNDLE) -> Jscc:
    from megdt.models.bundle import load_jscc

    return load_jscc(folder)
