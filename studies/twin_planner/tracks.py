"""SNR over time in five scenarios, what is measured of it, and what is predicted from that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEP_S = 0.1
"""Between two measurements."""
LOWEST_DB, HIGHEST_DB = -9.0, 29.0
"""Where costs were measured, with something to spare."""

Floats = NDArray[np.float64]
SCENARIOS = ("static", "pedestrian", "vehicle", "blockage", "cell edge")


def draw_tracks(scenario: str, ues: int, steps: int, rng: np.random.Generator) -> Floats:
    """True mean SNR of each UE at each step, in dB. [ues, steps]"""
    if scenario == "static":
        snr = rng.uniform(4, 26, (ues, 1)) + wander(ues, steps, 1.0, 20.0, rng)
    elif scenario == "pedestrian":
        # 13 m of decorrelation (TR 38.901, table 7.5-6, UMi non-line-of-sight) at 1.5 m/s.
        snr = rng.uniform(2, 22, (ues, 1)) + wander(ues, steps, 4.0, 13 / 1.5, rng)
    elif scenario == "vehicle":
        # Past a mast 40 m from a straight road, again and again; UMa's 50 m at 15 m/s.
        along = (rng.uniform(0, 600, (ues, 1)) + 15 * STEP_S * np.arange(steps)) % 600 - 300
        distance = np.hypot(along, 40)
        snr = 26 - 37.6 * np.log10(distance / 40) + wander(ues, steps, 6.0, 50 / 15, rng)
    elif scenario == "blockage":
        clear = rng.uniform(14, 26, (ues, 1)) + wander(ues, steps, 1.0, 10.0, rng)
        snr = clear - 18 * switch(ues, steps, 6.0, 1.5, rng)
    elif scenario == "cell edge":
        edge = rng.uniform(-3, 5, (ues, 1)) + wander(ues, steps, 3.0, 8.0, rng)
        snr = edge - 4 * switch(ues, steps, 3.0, 3.0, rng)
    else:
        raise ValueError(f"no scenario {scenario!r}; known: {', '.join(SCENARIOS)}")
    return np.clip(snr, LOWEST_DB, HIGHEST_DB)


def wander(
    ues: int, steps: int, sd_db: float, decorrelation_s: float, rng: np.random.Generator
) -> Floats:
    """Shadowing: Gaussian, with an exponential autocorrelation. [ues, steps]"""
    kept = np.exp(-STEP_S / decorrelation_s)
    found = np.empty((ues, steps))
    found[:, 0] = rng.standard_normal(ues)
    fresh = rng.standard_normal((ues, steps)) * np.sqrt(1 - kept**2)
    for step in range(1, steps):
        found[:, step] = kept * found[:, step - 1] + fresh[:, step]
    return sd_db * found


def switch(ues: int, steps: int, off_s: float, on_s: float, rng: np.random.Generator) -> Floats:
    """Something that comes and goes: 0 or 1, each for a random time of this mean. [ues, steps]"""
    found = np.empty((ues, steps))
    found[:, 0] = rng.random(ues) < on_s / (on_s + off_s)
    chance = rng.random((ues, steps))
    for step in range(1, steps):
        stays_s = np.where(found[:, step - 1] > 0, on_s, off_s)
        found[:, step] = np.where(
            chance[:, step] < STEP_S / stays_s, 1 - found[:, step - 1], found[:, step - 1]
        )
    return found


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What is predicted for each step from measurements that are `ahead` steps old."""

    mean_db: Floats
    """[ues, steps]"""
    sd_db: Floats
    """[ues, steps]"""


def forecast(measured_db: Floats, noise_sd_db: float, ahead: int, memory: int) -> Forecast:
    """A smoothed level, the smoothing that did best so far, and how far it was off lately.

    Args:
        measured_db: [ues, steps]
        noise_sd_db: Of a measurement.
        ahead: Steps from the last measurement to what is predicted.
        memory: Steps that past errors count for.
    """
    ues, steps = measured_db.shape
    shares = np.array([0.15, 0.4, 0.8])
    level = np.repeat(measured_db[:, :1], shares.size, 1)
    # What was known after each step: levels, and mean squares of how far forecasts were off.
    levels, squares = [level] * ahead, [np.full(level.shape, 4.0)] * ahead
    mean, sd = np.empty((ues, steps)), np.empty((ues, steps))
    everyone = np.arange(ues)
    for step in range(steps):
        known, square = levels[step], squares[step]
        best = square.argmin(1)
        mean[:, step] = known[everyone, best]
        sd[:, step] = np.sqrt(np.maximum(square[everyone, best] - noise_sd_db**2, 0.25))
        error = measured_db[:, step, None] - known
        level = level + shares * (measured_db[:, step, None] - level)
        levels.append(level)
        squares.append(squares[-1] + (error**2 - squares[-1]) / memory)
    return Forecast(mean_db=mean, sd_db=sd)
