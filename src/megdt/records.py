"""Frozen values that cross the borders between modules. Arrays are NumPy, never torch.

Request -> Feature -> Packet -> Delivery -> Feature -> ... -> Result, and a Ledger of it all
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from megdt.errors import RequestError


class Side(StrEnum):
    """Where a stage runs."""

    ES = "ES"
    """Edge server."""
    UE = "UE"
    """User equipment."""


Mode = Literal["fair", "paper"]
"""Which conventions hold: `fair` is complex baseband at unit power, Es/N0 per channel use; `paper`
is real Gaussian noise relative to the mean square of the raw values, as in the paper's Fig. 6."""

Kind = Literal["prompt", "prompt_embeds", "seed", "image"]
"""What a feature is. A seed is a latent that crosses the air (never a random seed)."""


MIN_SIZE_PX, MAX_SIZE_PX, MAX_STEPS = 256, 1024, 500


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user wants.

    Raises:
        RequestError: If the prompt is empty or a number is out of its range.
    """

    prompt: str
    size_px: int = 256
    """Height and width of the picture."""
    steps: int = 24
    """Denoising steps."""
    guidance_scale: float = 2.5
    rng_seed: int = 0

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise RequestError('prompt is empty; say what to draw, such as "red poppies at sunset"')
        try:
            self.prompt.encode()
        except UnicodeEncodeError as error:
            raise RequestError(
                f"prompt has a character that is not text at position {error.start}; "
                "give it in the terminal's own encoding"
            ) from error
        _check_range("size_px", self.size_px, MIN_SIZE_PX, MAX_SIZE_PX)
        if self.size_px % 8:
            below = self.size_px // 8 * 8
            raise RequestError(
                f"size_px is {self.size_px}, the autoencoder needs a multiple of 8; "
                f"take {below} or {below + 8}"
            )
        _check_range("steps", self.steps, 1, MAX_STEPS)
        _check_range("guidance_scale", self.guidance_scale, 0, 30)
        _check_range("rng_seed", self.rng_seed, 0, 2**63 - 1)


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # also catches nan
        raise RequestError(f"{name} is {value}, it goes from {low} to {high}")


@dataclass(frozen=True, kw_only=True)
class Feature:
    """What one stage hands to the next; no batch axis."""

    kind: Kind
    values: Any
    """str for a prompt, else float32 or uint8 array: prompt_embeds [embedding], seed
    [latent_channels, height, width], image [height, width, 3]."""
    noise_power: float = 0.0
    """Mean square of the noise that the air has left on the values, as the receiver knows it."""


@dataclass(frozen=True, kw_only=True)
class Packet:
    """All that a codec hands to the link: what is not in here does not reach the other side."""

    payload: bytes = b""
    """For the digital link."""
    symbols: NDArray[Any] | None = None
    """For the analog link: complex64 at unit mean power in `fair` mode, float32 raw values in
    `paper` mode. [uses]"""

    @property
    def bits(self) -> int:
        """Bits of the payload."""
        return 8 * len(self.payload)


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What comes out of the link."""

    payload: bytes = b""
    symbols: NDArray[Any] | None = None
    noise_power: float = 0.0
    """Mean square of the noise per symbol, known to the receiver."""
    channel_uses: int = 0
    """Complex ones; two real symbols of `paper` mode count as one."""
    airtime_s: float = 0.0
    energy_j: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """One line of the ledger: a feature went from one side to the other."""

    source: str
    target: str
    from_side: Side
    to_side: Side
    kind: Kind
    codec: str
    """Class and settings of the codec."""
    values: int
    """Numbers in the feature before coding; the paper counts 32 bits for each."""
    bits: int
    """All that goes under the digital link; analog symbols are in channel_uses alone."""
    channel_uses: int
    airtime_s: float
    energy_j: float
    """Radiated."""

    @property
    def paper_bits(self) -> int:
        """The paper's way of counting: every value sent is a 32-bit number."""
        return 32 * self.values


@dataclass(frozen=True, kw_only=True)
class Computation:
    """One line of the ledger: something was computed to get a stage done."""

    stage: str
    task: str
    """"run", or "encode KIND" and "decode KIND" of a feature that crossed to the stage."""
    side: Side
    seconds: float
    """Measured on the machine that ran it."""
    energy_j: float


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Everything that a generation has cost, in the order it was spent."""

    crossings: tuple[Crossing, ...] = ()
    computations: tuple[Computation, ...] = ()

    @property
    def bits(self) -> int:
        """Digital bits of all crossings."""
        return sum(c.bits for c in self.crossings)

    @property
    def channel_uses(self) -> int:
        """Complex channel uses of all crossings."""
        return sum(c.channel_uses for c in self.crossings)

    @property
    def airtime_s(self) -> float:
        """Time on the air of all crossings, one after the other."""
        return sum(c.airtime_s for c in self.crossings)

    @property
    def energy_j(self) -> float:
        """Radiated and computed."""
        radiated = sum(c.energy_j for c in self.crossings)
        return radiated + sum(c.energy_j for c in self.computations)

    def compute_s(self) -> dict[str, float]:
        """Seconds by side and stage, and by side and what was done to a feature that crossed."""
        seconds: dict[str, float] = {}
        for line in self.computations:
            name = f"{line.side} {line.stage if line.task == 'run' else line.task}"
            seconds[name] = seconds.get(name, 0.0) + line.seconds
        return seconds


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What runs where, and how its features cross: all that both ends agree on beforehand."""

    mechanism: str = "es_to_ue"
    mode: Mode = "fair"
    codecs: Mapping[Kind, str] = field(default_factory=dict)
    """Codec by kind of feature; the mode's defaults where a kind is left out."""
    image_bits: int | None = None
    """Budget for image codecs that have a rate; None for no limit."""

    def __post_init__(self) -> None:
        if self.image_bits is not None:
            _check_range("image_bits", self.image_bits, 0, 2**40)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some stages of a generation that are done, with what they have cost."""

    ledger: Ledger = field(default_factory=Ledger)
    features: Mapping[str, Feature] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a generation gave."""

    image: NDArray[np.uint8]
    """RGB. [height, width, 3]"""
    ledger: Ledger
    features: Mapping[str, Feature]
    """What every stage made, by its name."""

    def part(self, stages: Collection[str]) -> Part:
        """What these stages made and cost, to start another generation from."""
        ledger = Ledger(
            crossings=tuple(c for c in self.ledger.crossings if c.target in stages),
            computations=tuple(c for c in self.ledger.computations if c.stage in stages),
        )
        features = {name: f for name, f in self.features.items() if name in stages}
        return Part(ledger=ledger, features=features)
