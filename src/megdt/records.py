"""Frozen values that cross the borders between modules. Arrays are NumPy, never torch.

Request -> Feature -> Packet -> Delivery -> Feature -> ... -> Result, and a Ledger of it all
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from megdt.errors import MechanismError, RequestError


class Side(str):
    """Where a stage runs: `Side.ES`, `Side.UE`, or one UE of several, such as `Side.ue(3)`.

    Raises:
        MechanismError: If it is another text.
    """

    __slots__ = ()
    ES: ClassVar[Side]
    """Edge server."""
    UE: ClassVar[Side]
    """User equipment, where there is one."""

    def __new__(cls, name: str) -> Side:
        """The side of this name."""
        if not re.fullmatch(r"ES|UE([1-9][0-9]{0,5})?", name):
            raise MechanismError(
                f"side is {name!r}, known are ES, UE and UE1, UE2, ...; take Side.ES, Side.UE or "
                "Side.ue(number)"
            )
        return super().__new__(cls, name)

    @classmethod
    def ue(cls, number: int) -> Side:
        """One UE of several, from 1 on."""
        return cls(f"UE{number}")

    @property
    def number(self) -> int:
        """Of one UE of several; 0 for all other sides."""
        return int(self[2:] or 0)

    @property
    def is_ue(self) -> bool:
        """Whether it is a UE, and not the ES."""
        return self != "ES"


Side.ES, Side.UE = Side("ES"), Side("UE")


Mode = Literal["fair", "paper"]
"""Which conventions hold: `fair` is complex baseband at unit power, Es/N0 per channel use; `paper`
is real Gaussian noise relative to the mean square of the raw values, as in the paper's Fig. 6."""

Kind = Literal[
    "prompt",
    "prompt_embeds",
    "recipe",
    "seed",
    "observation",
    "superposed",
    "needs",
    "digest",
    "shares",
    "state",
    "agreement",
    "sketch",
    "image",
    "frame",
    "text",
]
"""What a feature is. A seed is a latent that crosses the air (never a random seed); an observation
is a seed with where and how long ago it was seen; a sketch is what a person can read of a picture; a
recipe is a prompt with the rng_seed that it is drawn with; a frame is a picture of a video; needs are where and how long ago a view was
seen, without what is seen there; a digest is what tells a changed part of a view from one that is as it was; shares who is to send what of theirs to whom; superposed is what
one of several has of a seed that adds up on the air; a state is a hash of what a
copy of a model holds, and an agreement says whether two copies hold the same; a text is what is written of a picture or
in answer to a prompt."""

Fusion = Literal["gate", "air"]
"""How the ES of `coordinated` comes to one observation of what all UEs see. `gate`: each sends its own
as bits, and the gate fuses them; `air`: all send symbols at once, which add up on the air."""

Style = Literal["edges", "layout", "thumbnail"]
"""What a sketch keeps. `edges`: strong outlines; `layout`: regions of a few plain colours;
`thumbnail`: a small, soft picture."""

Precision = Literal["fp32", "fp16", "int8"]
"""That a UE's networks compute in."""

Outcome = Literal["delivered", "late", "lost", "withheld"]
"""What became of a packet. `late`: its deadline passed first, and the rest was not sent. `lost`: a
block was not decoded in all its transmissions. Only a delivered packet reaches the codec.
`withheld`: there was nothing to send, as nobody had asked for it."""


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
    strength: float = 0.6
    """How much of a picture that is given may be drawn anew: 0 nothing, 1 all of it."""
    handoff_step: int | None = None
    """Denoising steps that the ES runs where they are split, from 1 to all; None for three quarters."""
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
        _check_range("strength", self.strength, 0, 1)
        if self.handoff_step is not None and not 1 <= self.handoff_step <= self.steps:
            raise RequestError(
                f"handoff_step is {self.handoff_step}, the ES runs from 1 to all of the "
                f"{self.steps} steps; choose one in between"
            )
        _check_range("rng_seed", self.rng_seed, 0, 2**63 - 1)

    @property
    def es_steps(self) -> int:
        """Denoising steps that the ES runs where they are split between ES and UE.

        >>> Request(prompt="daisies", steps=24).es_steps
        18
        """
        return -(-3 * self.steps // 4) if self.handoff_step is None else self.handoff_step


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # also catches nan
        raise RequestError(f"{name} is {value}, it goes from {low} to {high}")


@dataclass(frozen=True, kw_only=True)
class Feature:
    """What one stage hands to the next; no batch axis."""

    kind: Kind
    values: Any
    """str for a prompt, a text and an agreement ("same", "differs" or "unknown"), bytes for a state, else float32 or uint8 array: prompt_embeds [embedding], seed and
    observation [latent_channels, height, width], sketch, image and frame [height, width, 3]. A tuple of
    Share for shares, None for needs."""
    noise_power: float = 0.0
    """Mean square of the noise that the air has left on the values, as the receiver knows it."""
    style: Style | None = None
    """Of a sketch that has crossed, as its packet says; None before, and for all else."""
    confidence: NDArray[np.float32] | None = None
    """Of what was sensed: 1 where it was seen, 0 where it was hidden, in latents; None for seen
    everywhere. [height, width]"""
    age_s: float = 0.0
    """Of what was sensed: how long ago."""
    columns: tuple[int, ...] | None = None
    """Of a panorama, that an observation shows; None for all that its source sees."""
    redrawn_from: float = 0.0
    """Noise level, 0 to 1, from which the receiver has drawn the values anew: the nearer to 1, the
    more of them is likely and not sent."""
    whole: bool = True
    """False where only the start of a progressive packet came: coarser, and no checksum held."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """Columns that one side sends to a UE because it can use them.

    Args:
        source: Another UE, of its view; or the ES, of its memory.
        target: A UE.
        columns: Of the panorama, rising.
    """

    source: Side
    target: Side
    columns: tuple[int, ...]

    @property
    def name(self) -> str:
        """Of the stage that makes it, and of the feature that crosses."""
        to = self.target.removeprefix("UE")
        return (
            f"share_{self.source.removeprefix('UE')}_{to}" if self.source.is_ue else f"recall_{to}"
        )


@dataclass(frozen=True, kw_only=True)
class Packet:
    """All that a codec hands to the link: what is not in here does not reach the other side."""

    payload: bytes = b""
    """For the digital link."""
    symbols: NDArray[Any] | None = None
    """For the analog link: complex64 at unit mean power in `fair` mode, float32 raw values in
    `paper` mode. [uses]"""
    told_snr: bool = False
    """The codec was told the SNR: the link charges the report that told it."""
    values: int = 0
    """Numbers in the feature that it was made of, for the ledger."""

    @property
    def bits(self) -> int:
        """Bits of the payload."""
        return 8 * len(self.payload)


@dataclass(frozen=True, kw_only=True)
class Uses:
    """Complex channel uses by what they were spent on; two real symbols of `paper` mode are one."""

    data: int = 0
    """Payload with headers, CRC and coding, or analog symbols; and what the last block left empty."""
    retransmissions: int = 0
    pilots: int = 0
    control: int = 0
    feedback: int = 0
    """Acknowledgements and channel reports, on the way back."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.data + self.retransmissions + self.pilots + self.control + self.feedback


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What comes out of the link."""

    outcome: Outcome = "delivered"
    payload: bytes = b""
    symbols: NDArray[Any] | None = None
    noise_power: float | NDArray[np.float32] = 0.0
    """Mean square of the noise, known to the receiver: one number, or one a symbol."""
    uses: Uses = field(default_factory=Uses)
    header_bits: int = 0
    """Bits that the link added to the payload before coding: headers and checksums."""
    blocks: int = 0
    """Transport blocks."""
    failed_first: int = 0
    """Transport blocks whose first transmission was not decoded."""
    airtime_s: float = 0.0
    """Time with the transmitter on."""
    latency_s: float = 0.0
    """From handing over the packet until it is decoded, waiting included."""
    radiated_j: float = 0.0
    feedback_s: float = 0.0
    """Time with the other side's transmitter on."""
    feedback_radiated_j: float = 0.0
    among: int = 1
    """Packets in the same channel uses at the same time, of which this is one: a round. Its uses are
    those of the whole round."""
    round_s: float = 0.0
    """Time on the air of such a round; one of its packets may take a part of that."""


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
    outcome: Outcome = "delivered"
    values: int
    """Numbers in the feature before coding; the paper counts 32 bits for each."""
    bits: int
    """Payload of the digital link; analog symbols are in uses alone."""
    header_bits: int = 0
    uses: Uses
    blocks: int = 0
    failed_first: int = 0
    airtime_s: float
    latency_s: float
    radiated_j: float
    sender_j: float
    """Drawn by the sender's radio, the radiated part included: amplifier, circuits, waiting for the
    answer and taking it."""
    receiver_j: float
    """Drawn by the receiver's radio, its acknowledgements included; of a round, its part of that."""
    among: int = 1
    """Packets in the same channel uses at the same time, of which this is one: a round. Its uses are
    those of the whole round, and totals count them once."""
    round_s: float = 0.0
    """Time on the air of such a round."""
    start_s: float = 0.0
    """When it was handed to the link, on the clock that starts with the request."""
    end_s: float = 0.0
    """When it was decoded, or given up. Later than start_s + latency_s where the band was shared."""

    @property
    def channel_uses(self) -> int:
        """Complex channel uses, overhead included."""
        return self.uses.total

    @property
    def band_s(self) -> float:
        """How long it takes the band, with its round."""
        return max(self.airtime_s, self.round_s)

    @property
    def radio_j(self) -> float:
        """Drawn by both radios."""
        return self.sender_j + self.receiver_j

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
    source: str | None = None
    """The stage that made the feature which is coded."""
    side: Side
    seconds: float
    """On the side's device: its operations over the device's speed, or as measured here where
    nobody counted operations."""
    measured_s: float
    """On the machine that ran it."""
    flops: float = 0.0
    """Floating point operations, two a multiply-add; 0 where nobody counted."""
    energy_j: float
    start_s: float = 0.0
    """When it began, on the clock that starts with the request."""

    @property
    def end_s(self) -> float:
        """When it was done."""
        return self.start_s + self.seconds


Line = Computation | Crossing
"""Of the ledger."""


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Everything that a generation has cost, in the order of the mechanism's stages."""

    crossings: tuple[Crossing, ...] = ()
    computations: tuple[Computation, ...] = ()
    waiting_j: Mapping[Side, float] = field(default_factory=dict)
    """Drawn by each side's radio and processor while they waited, from the request until the last
    stage was done. A radio that waits for its own packet is in the crossing's line."""

    @property
    def lines(self) -> tuple[Line, ...]:
        """Crossings and computations."""
        return (*self.crossings, *self.computations)

    @property
    def bits(self) -> int:
        """Payload bits of all crossings."""
        return sum(c.bits for c in self.crossings)

    @property
    def channel_uses(self) -> int:
        """Complex channel uses of all crossings; those of a round once."""
        return round(sum(c.channel_uses / c.among for c in self.crossings))

    @property
    def airtime_s(self) -> float:
        """Time on the air of all crossings, one after the other; of a round once."""
        return sum(c.band_s / c.among for c in self.crossings)

    @property
    def duration_s(self) -> float:
        """From the request until the last stage was done."""
        return max((line.end_s for line in self.lines), default=0.0)

    @property
    def idle_j(self) -> float:
        """Drawn by all sides while they waited."""
        return sum(self.waiting_j.values())

    @property
    def energy_j(self) -> float:
        """Of radios and processors on all sides, at work and idle."""
        working = sum(c.radio_j for c in self.crossings)
        return working + sum(c.energy_j for c in self.computations) + self.idle_j

    def energy_of(self, side: Side) -> float:
        """Joules of one side's radio and processor, at work and idle."""
        sent = sum(c.sender_j for c in self.crossings if c.from_side == side)
        received = sum(c.receiver_j for c in self.crossings if c.to_side == side)
        computed = sum(c.energy_j for c in self.computations if c.side == side)
        return sent + received + computed + self.waiting_j.get(side, 0.0)

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
    seed_bits: int | None = None
    """Budget for progressive seeds and key frames; None for 0.1 bit a pixel."""
    sketch_bits: int | None = None
    """Budget for sketches; None for 0.03 bit a pixel."""

    share_bits: int | None = None
    """Budget for all that UEs, and the ES, share in a round of `decentralized`; None for all that
    anyone can use."""
    relayed: bool = False
    """Whether shares go through the ES, which has all observations anyway, instead of from UE to UE."""
    fusion: Fusion = "gate"
    """How the views of all UEs become one under `coordinated`."""
    symbol_rate: float = 1.0
    """Share of the analog seed's channel uses that the codecs jscc and hybrid take, 1/8 to 1."""
    told_snr_db: float | None = None
    """What codecs that are told the SNR are told; the link's mean where left out."""
    restore: bool = True
    """Whether the receiver of jscc and hybrid draws anew, with the denoiser, what noise has taken at
    low SNR; the denoiser knows its own world only."""
    jscc_sha256: str | None = None
    """Checksum of the joint code's networks at the other end, where it has named it."""

    def __post_init__(self) -> None:
        for name in ("image_bits", "seed_bits", "sketch_bits", "share_bits"):
            if (bits := getattr(self, name)) is not None:
                _check_range(name, bits, 0, 2**40)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some stages of a generation that are done, with what they have cost."""

    ledger: Ledger = field(default_factory=Ledger)
    features: Mapping[str, Feature] = field(default_factory=dict)
    arrived: Mapping[tuple[str, Side], Feature] = field(default_factory=dict)
    """What had come to these stages over the air; see `Result`."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a generation gave."""

    outcome: Outcome = "delivered"
    """`late` or `lost` where a feature did not get across: then there is no picture."""
    made: Feature | None
    """By the last stage; None where it was not reached."""
    ledger: Ledger
    features: Mapping[str, Feature]
    """What every stage made, by its name."""
    arrived: Mapping[tuple[str, Side], Feature] = field(default_factory=dict)
    """What came out of the air, by the stage that had made it and the side that it came to."""

    @property
    def image(self) -> NDArray[np.uint8] | None:
        """RGB, or None where no picture was made. [height, width, 3]"""
        found = self.made is not None and self.made.kind == "image"
        return self.made.values if found and self.made is not None else None

    @property
    def text(self) -> str | None:
        """None where no text was made."""
        found = self.made is not None and self.made.kind == "text"
        return self.made.values if found and self.made is not None else None

    def part(self, stages: Collection[str]) -> Part:
        """What these stages made and cost, as far as they were done, to start another run from."""
        done = self.features.keys() & set(stages)
        ledger = Ledger(
            crossings=tuple(c for c in self.ledger.crossings if c.target in done),
            computations=tuple(c for c in self.ledger.computations if c.stage in done),
        )
        features = {name: f for name, f in self.features.items() if name in done}
        crossed = {(c.source, c.to_side) for c in ledger.crossings}
        arrived = {key: f for key, f in self.arrived.items() if key in crossed}
        return Part(ledger=ledger, features=features, arrived=arrived)
