"""Five scenarios of UEs that move and have an SNR over time, and what the twin predicts of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megdt.twin.mobility import Tracker, street_motion
from megdt.twin.prediction import SnrPredictor
from megdt.twin.radio_map import RadioMap

STEP_S = 0.1
"""Between two measurements."""
LOWEST_DB, HIGHEST_DB = -9.0, 29.0
"""Where costs were measured, with something to spare."""
APART_M = 2000.0
"""Each UE has a station of its own, so that no two share shadowing."""
NEAR_M, NEAR_DB, LOSS_DB = 40.0, 26.0, 37.6
"""SNR at a distance, and what ten times of it take."""
MASTS_M = 600.0
"""Between two masts along the vehicles' road."""
POSITION_NOISE_M = 1.0

Floats = NDArray[np.float64]
SCENARIOS = ("static", "pedestrian", "vehicle", "blockage", "cell edge")


@dataclass(frozen=True, kw_only=True)
class Tracks:
    """UEs over time."""

    snr_db: Floats
    """True mean SNR. [ues, steps]"""
    position_m: Floats
    """[ues, steps, 2]"""
    speed_m_s: float
    """That the tracker is told; UEs that stand are told as slow."""


def draw_tracks(scenario: str, ues: int, steps: int, rng: np.random.Generator) -> Tracks:
    """Where UEs are at each step, and their SNR.

    Those that walk keep their distance to the station, so that level is theirs and the rest is shadowing.
    """
    time_s = STEP_S * np.arange(steps)
    speed_m_s = 0.0
    if scenario == "static":
        level = rng.uniform(4, 26, (ues, 1))
        snr = level + wander(ues, steps, 1.0, 20.0, rng)
    elif scenario == "pedestrian":
        # 13 m of decorrelation (TR 38.901, table 7.5-6, UMi non-line-of-sight) at 1.5 m/s.
        speed_m_s, level = 1.5, rng.uniform(2, 22, (ues, 1))
        snr = level + wander(ues, steps, 4.0, 13 / 1.5, rng)
    elif scenario == "vehicle":
        # Past masts 40 m from a straight road, one after another; UMa's 50 m at 15 m/s.
        speed_m_s, along_m = 15.0, rng.uniform(0, MASTS_M, (ues, 1)) + 15 * time_s
        position_m = np.stack([along_m, np.full_like(along_m, NEAR_M)], -1)
        snr = NEAR_DB + path_loss(position_m) + wander(ues, steps, 6.0, 50 / 15, rng)
    elif scenario == "blockage":
        level = rng.uniform(14, 26, (ues, 1))
        clear = level + wander(ues, steps, 1.0, 10.0, rng)
        snr = clear - 18 * switch(ues, steps, 6.0, 1.5, rng)
    elif scenario == "cell edge":
        speed_m_s, level = 13 / 8, rng.uniform(-3, 5, (ues, 1))
        edge = level + wander(ues, steps, 3.0, 8.0, rng)
        snr = edge - 4 * switch(ues, steps, 3.0, 3.0, rng)
    else:
        raise ValueError(f"no scenario {scenario!r}; known: {', '.join(SCENARIOS)}")
    if scenario != "vehicle":
        radius_m = NEAR_M * 10 ** ((NEAR_DB - level) / LOSS_DB)
        angle = speed_m_s * time_s / radius_m
        position_m = np.stack(
            [radius_m * np.cos(angle) + MASTS_M / 2, radius_m * np.sin(angle)], -1
        )
    position_m = position_m + APART_M * np.stack([np.zeros(ues), np.arange(ues)], -1)[:, None]
    return Tracks(
        snr_db=np.clip(snr, LOWEST_DB, HIGHEST_DB),
        position_m=position_m,
        speed_m_s=max(speed_m_s, 0.3),
    )


def path_loss(position_m: Floats) -> Floats:
    """Over that at NEAR_M, with a minus; masts stand in the middle of every MASTS_M. [...]"""
    along_m, off_m = position_m[..., 0], position_m[..., 1]
    off_m = off_m - APART_M * np.rint(off_m / APART_M)
    away_m = np.hypot(along_m % MASTS_M - MASTS_M / 2, off_m)
    return -LOSS_DB * np.log10(np.maximum(away_m, 1.0) / NEAR_M)


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
    """Of the true SNR: the calibrated interval's, less the measurement's. [ues, steps]"""


def forecast(
    tracks: Tracks, measured_db: Floats, noise_sd_db: float, ahead: int, rng: np.random.Generator
) -> Forecast:
    """The twin's prediction from measured places and SNRs.

    Args:
        tracks: True places.
        measured_db: [ues, steps]
        noise_sd_db: Of a measurement.
        ahead: Steps from the last measurement to what is predicted.
        rng: Draws errors of the places.
    """
    ues, steps = measured_db.shape
    places_m = tracks.position_m + rng.normal(0, POSITION_NOISE_M, tracks.position_m.shape)
    tracker = Tracker(ues, street_motion(tracks.speed_m_s))
    predictor = SnrPredictor(
        tracker, RadioMap(path_loss, noise_db=noise_sd_db), horizons_s=(ahead * STEP_S,)
    )
    mean, sd = np.array(measured_db), np.full((ues, steps), 4.0)
    everyone = np.arange(ues)
    for step in range(steps - ahead):
        now = step * STEP_S
        tracker.observe(everyone, now, places_m[:, step], now_s=now, noise_m=POSITION_NOISE_M)
        predictor.observe(everyone, now, measured_db[:, step], now_s=now)
        told = predictor.predict(now, ahead * STEP_S)
        mean[:, step + ahead] = told.mean_db
        wide_db = (told.high_db - told.low_db) / 2 / 1.645  # of nine in ten
        sd[:, step + ahead] = np.sqrt(np.maximum(wide_db**2 - noise_sd_db**2, 0.25))
    return Forecast(mean_db=mean, sd_db=sd)
