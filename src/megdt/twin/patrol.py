"""A patrol: cameras that walk along a garden and send what they see, with links of known statistics.

What the monitor's limits are measured on, and what attacks are played on: the world is true, and what
the twin would predict of links and positions is given as right as it can be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megdt.mechanisms.panorama import EDGE_COLUMNS, EDGE_CONFIDENCE, VIEW_COLUMNS
from megdt.models import FACTOR
from megdt.records import Feature, Side
from megdt.twin.arrival import Arrival, Expectation
from megdt.worlds.garden import Garden
from megdt.worlds.scene import VIEW_EXTENT_M

DAY_S = 86_400.0
Encode = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

_STEP = 4.0 / 127  # int8 seeds
_STRIDE_COLUMNS = 1.5
_BLER, _BLER_SAMPLES = 0.1, 50.0
_NOISE_DB = 1.0
_TAILS = 6


@dataclass(frozen=True, kw_only=True)
class Report:
    """One arrival at the ES, what was expected of it, and what was true.

    Args:
        arrival: As it came.
        expectation: As a good twin would have had it.
        round: In which it came, from 0 on.
        picture: What the world looks like then. RGB [8 * height, 8 * panorama, 3]
    """

    arrival: Arrival
    expectation: Expectation
    round: int
    picture: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Link:
    """What the ES measures of the link that an arrival comes over; see `Arrival`."""

    snr_db: float
    expected_snr_db: float
    noise_db: tuple[float, ...]
    block_errors: int


@dataclass(frozen=True, kw_only=True)
class Patrol:
    """Who walks where, and how.

    Args:
        rng_seed: Of the garden, the walks and the links.
        ues: That walk, and report once a round, one after the other.
        columns: Of the panorama.
        rounds: In all.
        interval_s: From one round to the next.
        start_s: When the first begins; the garden is laid out at 0.
        camera_noise: Standard deviation in grey levels. Without any, a camera that stands still
            sends copies, which are what a replay is known by.
        snr_std_db: By which the SNR differs from what was predicted, with heavy tails.
        noise_std_db: By which an arrival's noise level differs from what is expected, with heavy tails:
            0.4 dB that the receiver's noise figure is not known to, 0.7 dB by which the interference of
            neighbouring cells wanders.
        slot_noise_db: By which the noise of one block differs from that of all: neighbours send or do
            not. Of the estimate it would be 10 / ln 10 / sqrt(720) = 0.16 dB, from the elements of a slot
            of 1 MHz.
        blocks: Transport blocks an arrival.
    """

    rng_seed: int
    ues: int = 8
    columns: int = 96
    rounds: int = 12
    interval_s: float = 120.0
    start_s: float = 0.0
    camera_noise: float = 2.0
    snr_std_db: float = 2.0
    noise_std_db: float = 0.8
    slot_noise_db: float = 0.5
    blocks: int = 40

    def garden(self, time_s: float) -> Garden:
        """The garden at a time. [s]"""
        length_m = self.columns * VIEW_EXTENT_M / VIEW_COLUMNS
        return Garden(self.rng_seed, length_m=length_m).later(time_s / DAY_S)

    def links(self) -> Iterator[tuple[Link, ...]]:
        """Of every UE, round by round."""
        rng = np.random.default_rng((self.rng_seed, 9))
        means_db = rng.uniform(5, 25, self.ues)
        # Both half gone after a round: shadowing, and what the neighbours send.
        shadowing, level = rng.standard_normal((2, self.ues))
        for _ in range(self.rounds):
            draws = _heavy(rng, (2, self.ues))
            shadowing, level = 0.5 * np.stack([shadowing, level]) + 0.75**0.5 * draws
            slots_db = self.slot_noise_db * _heavy(rng, (self.ues, self.blocks))
            noise_db = _NOISE_DB + self.noise_std_db * level[:, None] + slots_db
            bler = rng.beta(_BLER * _BLER_SAMPLES, (1 - _BLER) * _BLER_SAMPLES, self.ues)
            errors = rng.binomial(self.blocks, bler)
            yield tuple(
                Link(
                    snr_db=float(means_db[ue] + self.snr_std_db * shadowing[ue]),
                    expected_snr_db=float(means_db[ue]),
                    noise_db=tuple(noise_db[ue].tolist()),
                    block_errors=int(errors[ue]),
                )
                for ue in range(self.ues)
            )

    def expect(self, link: Link, column: float) -> Expectation:
        """As a good twin would have it."""
        return Expectation(
            snr_db=link.expected_snr_db, snr_std_db=self.snr_std_db,
            noise_db=_NOISE_DB, noise_std_db=self.noise_std_db,
            bler=_BLER, column=column, column_std=_STRIDE_COLUMNS,
        )  # fmt: skip

    def walk(self, encode: Encode) -> Iterator[Report]:
        """All reports in their order.

        Args:
            encode: Of the bundle: pictures [batch, height, width, 3] to latents.
        """
        rng = np.random.default_rng((self.rng_seed, 7))
        last = self.columns - VIEW_COLUMNS
        at = np.linspace(0, last, self.ues)
        for number, links in enumerate(self.links()):
            before = np.rint(at).astype(int)
            at = np.clip(at + _STRIDE_COLUMNS * rng.standard_normal(self.ues), 0, last)
            columns = np.rint(at).astype(int)
            start_s = self.start_s + number * self.interval_s
            picture = self.garden(start_s).panorama(VIEW_COLUMNS * FACTOR)
            latents = look(picture, columns, encode, rng, noise=self.camera_noise)
            for ue, link in enumerate(links):
                yield Report(
                    arrival=Arrival(
                        source=Side.ue(ue + 1),
                        sequence=number,
                        observation=as_observation(latents[ue]),
                        first_column=int(columns[ue]),
                        snr_db=link.snr_db,
                        blocks=self.blocks,
                        block_errors=link.block_errors,
                        noise_db=link.noise_db,
                        arrived_s=start_s + ue * self.interval_s / self.ues,
                    ),
                    expectation=self.expect(link, float(before[ue])),
                    round=number,
                    picture=picture,
                )  # fmt: skip


def _heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Of unit variance, with heavy tails: Student's t, whose own is tails / (tails - 2)."""
    draws: NDArray[np.float64] = rng.standard_t(_TAILS, shape) * ((_TAILS - 2) / _TAILS) ** 0.5
    return draws


def look(
    picture: NDArray[np.uint8],
    columns: NDArray[np.int64],
    encode: Encode,
    rng: np.random.Generator,
    *,
    noise: float,
) -> NDArray[np.float32]:
    """What cameras at these columns send, as int8 seeds carry it.

    Args:
        picture: The panorama. RGB
        columns: The first of each view. [cameras]
        encode: Of the bundle.
        rng: Draws the cameras' noise.
        noise: Standard deviation in grey levels.

    Returns:
        [cameras, latent_channels, height, VIEW_COLUMNS]
    """
    size = VIEW_COLUMNS * FACTOR
    views = np.stack([picture[:, c * FACTOR : c * FACTOR + size] for c in columns])
    noisy = np.rint(views + rng.normal(0, noise, views.shape)).clip(0, 255).astype(np.uint8)
    return quantise(encode(noisy))


def quantise(latents: NDArray[np.float32]) -> NDArray[np.float32]:
    """As int8 seeds carry them."""
    kept: NDArray[np.float32] = (np.rint(latents / _STEP).clip(-127, 127) * _STEP).astype(
        np.float32
    )
    return kept


def as_observation(latents: NDArray[np.float32], age_s: float = 0.0) -> Feature:
    """A view, its edges not believed."""
    confidence = np.ones(latents.shape[1:], np.float32)
    confidence[:, :EDGE_COLUMNS] = confidence[:, -EDGE_COLUMNS:] = EDGE_CONFIDENCE
    return Feature(kind="observation", values=latents, confidence=confidence, age_s=age_s)
