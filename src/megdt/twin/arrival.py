"""An arrival: what came from a UE, what was expected of it, and what its link says of both."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from megdt.errors import MeasurementError
from megdt.records import Feature, Side
from megdt.twin.disagreement import Sight, surely_seen
from megdt.twin.evidence import Score
from megdt.twin.replica import NEVER

NOISIEST = 0.1
"""Share of blocks that pulses are looked for in. A jammer that has to break blocks hits as many."""


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """What came from a UE, as it says and as the link measured it.

    Args:
        source: Who says that it is its own.
        sequence: Its number; each source counts up.
        observation: With its age. [latent_channels, height, columns]
        first_column: Of the panorama, where it says that its view begins.
        snr_db: Measured at the ES.
        blocks: Transport blocks that it took.
        block_errors: Of these, how many were not decoded at first.
        noise_db: Noise and interference in each block over thermal noise, measured over all of its
            elements: once it is decoded, what was sent is known, and the rest of what came is noise.
            None where the receiver does not tell it.
        arrived_s: On the twin's clock.
    """

    source: Side
    sequence: int
    observation: Feature
    first_column: int
    snr_db: float
    blocks: int
    block_errors: int
    noise_db: tuple[float, ...] | None = None
    arrived_s: float

    def __post_init__(self) -> None:
        if not 0 <= self.block_errors <= self.blocks:
            raise MeasurementError(
                f"{self.source} had {self.block_errors} block errors in {self.blocks} blocks; errors go "
                "from 0 to all: count both over the same transmissions"
            )
        if self.noise_db is not None and len(self.noise_db) != self.blocks:
            raise MeasurementError(
                f"{self.source} has noise levels of {len(self.noise_db)} blocks, {self.blocks} came; give "
                "one a block, or None for all"
            )
        values, age_s = self.observation.values, self.observation.age_s
        levels_db = self.noise_db or ()
        # What is not a number is above no limit either.
        if not (np.isfinite(values).all() and np.isfinite([self.snr_db, age_s, *levels_db]).all()):
            raise MeasurementError(
                f"{self.source} sent a latent, an age, an SNR or a noise level that is not finite; refuse "
                "the arrival"
            )
        if age_s < 0:
            raise MeasurementError(
                f"{self.source} saw this {-age_s} s from now; ages begin at 0: set its clock"
            )

    @property
    def columns(self) -> range:
        """That it says it shows."""
        width = self.observation.values.shape[2]
        return range(self.first_column, self.first_column + width)


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What the twin predicts of an arrival, in plain numbers.

    Args:
        snr_db: Mean.
        snr_std_db: Standard deviation.
        noise_db: Noise and interference over thermal noise, mean over an arrival's blocks.
        noise_std_db: Its standard deviation from arrival to arrival: what the receiver's noise figure
            is not known to, and how neighbouring cells come and go.
        bler: Share of blocks that are not decoded at first, at the SNR that was measured.
        column: Mean of the first column of the view.
        column_std: Standard deviation, in columns.
    """

    snr_db: float
    snr_std_db: float
    noise_db: float
    noise_std_db: float
    bler: float
    column: float
    column_std: float

    def __post_init__(self) -> None:
        deviations = self.snr_std_db, self.noise_std_db, self.column_std
        if not (min(deviations) > 0 and 0 < self.bler < 1):
            raise MeasurementError(
                f"deviations are {self.snr_std_db} dB of SNR, {self.noise_std_db} dB of noise and "
                f"{self.column_std} columns, bler {self.bler}; "
                "expected above 0, and bler below 1: nothing is predicted for sure"
            )


def sight_of(arrival: Arrival) -> Sight:
    """What an arrival shows, where it is sure of it."""
    observation = arrival.observation
    sure = surely_seen(observation.confidence, observation.values.shape[1:])
    return Sight(
        values=observation.values,
        seen_s=np.where(sure, arrival.arrived_s - observation.age_s, NEVER),
        columns=arrival.columns,
        source=arrival.source,
    )


def link_scores(arrival: Arrival, expectation: Expectation) -> Iterable[Score]:
    """Statistics of the link that an arrival came over."""
    lost = (expectation.snr_db - arrival.snr_db) / expectation.snr_std_db
    yield Score(
        test="snr", value=lost,
        compared=f"{arrival.snr_db:.1f} dB with {expectation.snr_db:.1f} +- {expectation.snr_std_db:.1f} "
        "dB as predicted",
    )  # fmt: skip
    if arrival.blocks == 0:
        return
    if arrival.noise_db is not None:
        levels_db = np.sort(arrival.noise_db)
        mean_db, noisiest = float(levels_db.mean()), math.ceil(NOISIEST * arrival.blocks)
        yield Score(
            test="noise", value=(mean_db - expectation.noise_db) / expectation.noise_std_db,
            compared=f"{mean_db:.1f} dB over thermal noise with {expectation.noise_db:.1f} +- "
            f"{expectation.noise_std_db:.1f} dB as expected",
        )  # fmt: skip
        yield Score(
            test="pulses", value=float(levels_db[-noisiest:].mean() - np.median(levels_db)),
            compared=f"dB of noise in the noisiest {noisiest} of {arrival.blocks} blocks with the middle one",
        )  # fmt: skip
    bler, blocks = expectation.bler, arrival.blocks
    tail = sum(
        math.comb(blocks, n) * bler**n * (1 - bler) ** (blocks - n)
        for n in range(arrival.block_errors, blocks + 1)
    )
    yield Score(
        test="blocks", value=-math.log(max(tail, 1e-300)),
        compared=f"{arrival.block_errors} errors in {blocks} blocks with a share of {bler:.2f}",
    )  # fmt: skip
