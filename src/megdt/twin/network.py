"""The network as the twin knows it: where UEs are, and how well they will hear each station."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from megdt.errors import PredictionError, TwinError
from megdt.link.adaptation import LinkAdaptation, first_error_rate
from megdt.link.grid import Grid
from megdt.mechanisms.panorama import VIEW_COLUMNS
from megdt.records import Side
from megdt.twin.arrival import Expectation
from megdt.twin.mobility import Motion, Tracker, check_positions
from megdt.twin.prediction import HORIZONS_S, SnrForecast, SnrPredictor
from megdt.twin.radio_map import Law, RadioMap, check_snrs
from megdt.twin.validation import Coverage, DriftAlarm, coverage

BLER = 0.1
"""That link adaptation aims at."""

LEVEL = 0.9
"""Of the intervals."""

_JUDGED = 400
"""Measurements that predictions are judged by, the newest."""
_FEWEST = 200
"""Of these, for a word about the predictions: those of one round are alike."""
_UNKNOWN_DB, _UNKNOWN_M = 10.0, 1e3
"""Deviations of what nobody has predicted yet."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """What is known of a site before anybody has looked.

    Args:
        columns: Of the panorama, in latents; whole tiles.
        laws: Of each station, its SNR's law over the ground (`radio_map`).
        motion: How UEs move.
        columns_per_m: Of the panorama, for a metre eastwards.
        origin_m: Where the panorama begins, metres eastwards.
        position_noise_m: Standard deviation of what UEs tell.
        snr_noise_db: Likewise.
        noise_db: That stations hear over thermal noise while nobody attacks. It is given and not learned,
            so that no jammer can teach it.
        noise_std_db: By which it differs from arrival to arrival.
        bandwidth_hz: Of the carrier.
    """

    columns: int
    laws: tuple[Law, ...]
    motion: Motion
    columns_per_m: float
    origin_m: float = 0.0
    position_noise_m: float = 0.15
    snr_noise_db: float = 1.0
    noise_db: float = 0.0
    noise_std_db: float = 0.5
    bandwidth_hz: float = 1e6

    def expected_bler(self, snr_db: float) -> float:
        """Share of blocks that are not decoded at first, at most, where an SNR was measured.

        That which link adaptation aims at; below what its lowest MCS needs, as many as fail there.
        """
        grid = Grid(bandwidth_hz=self.bandwidth_hz)
        found = first_error_rate(
            LinkAdaptation(bler_target=BLER), snr_db - 2 * self.snr_noise_db,
            resource_elements=grid.resource_blocks * grid.block_data_elements,
        )  # fmt: skip
        return min(found, 1 - 1e-9)

    def first_column(self, x_m: float) -> float:
        """Where the view of a camera begins that stands so far east, between whole columns too."""
        column = (x_m - self.origin_m) * self.columns_per_m - VIEW_COLUMNS / 2
        return min(max(column, 0.0), float(self.columns - VIEW_COLUMNS))


@dataclass(frozen=True, kw_only=True)
class Beacon:
    """What UEs have told at one time: all of them, or the first so many.

    Args:
        time_s: When.
        position_m: Where each says that it is. [ues, 2]
        snr_db: How well each hears each station; nan for a station that is out of order.
            [ues, stations]

    Raises:
        PredictionError: If something is out of range.
        TwinError: If no station is heard.
    """

    time_s: float
    position_m: NDArray[np.float64]
    snr_db: NDArray[np.float64]

    def __post_init__(self) -> None:
        if not self.up.any():
            raise TwinError("no UE hears any station, so nothing can be sent; bring one back")
        check_positions(self.position_m, len(self.snr_db))
        check_snrs(self.snr_db[:, self.up].ravel())

    @property
    def up(self) -> NDArray[np.bool_]:
        """Which stations are heard. [stations]"""
        return np.asarray(~np.isnan(self.snr_db).all(0))


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a UE will hear.

    Args:
        station: That it is predicted to hear best, from 1 on.
        snr_db: Mean.
        snr_sd_db: Standard deviation, as calibrated.
    """

    station: int
    snr_db: float
    snr_sd_db: float


class Network:
    """Learns from beacons, in the order of their times.

    Args:
        place: Its stations, and how UEs move.
        ues: How many: UE1, UE2, ...
    """

    def __init__(self, place: Place, ues: int) -> None:
        self.place = place
        self.tracker = Tracker(ues, place.motion)
        self.predictors = tuple(
            SnrPredictor(self.tracker, RadioMap(law, noise_db=place.snr_noise_db), level=LEVEL)
            for law in place.laws
        )
        self.up = np.ones(len(place.laws), bool)
        """Which stations are heard. [stations]"""
        self.time_s = -math.inf
        """Of the newest beacon."""
        self._drift = DriftAlarm()
        self._judged: deque[tuple[float, float, float]] = deque(maxlen=_JUDGED)

    def learn(self, beacon: Beacon) -> dict[Side, Expectation]:
        """Predict what UEs tell, judge that, and learn it.

        Returns:
            What was expected of each UE, before it told.

        Raises:
            PredictionError: If it does not fit, or comes out of order: then nothing of it is learned.
        """
        self.check(beacon)
        who = np.arange(len(beacon.position_m))
        self.up = beacon.up
        expected = self._expect(beacon)
        noise_m = self.place.position_noise_m
        self.tracker.observe(
            who, beacon.time_s, beacon.position_m, now_s=beacon.time_s, noise_m=noise_m
        )
        for number in np.flatnonzero(self.up):
            heard = beacon.snr_db[:, number]
            self.predictors[number].observe(who, beacon.time_s, heard, now_s=beacon.time_s)
        self.time_s = beacon.time_s
        return expected

    def check(self, beacon: Beacon) -> None:
        """Whether a beacon can be learned.

        Raises:
            PredictionError: If it does not fit, or comes out of order.
        """
        ues, stations = beacon.snr_db.shape
        if ues > self.tracker.ues or stations != len(self.place.laws):
            raise PredictionError(
                f"{ues} UEs tell of {stations} stations, the twin has {self.tracker.ues} and "
                f"{len(self.place.laws)}; tell of those that are its own"
            )
        if not beacon.time_s > self.time_s:  # also catches nan
            raise PredictionError(
                f"UEs tell of {beacon.time_s:g} s after they have told of {self.time_s:g} s; tell each "
                "time once, in order"
            )

    def predict(self, now_s: float, horizon_s: float) -> tuple[Prediction, ...]:
        """What each UE will hear, of the station that it will hear best."""
        forecasts = self._forecast(now_s, horizon_s, np.arange(self.tracker.ues))
        best = self._best(forecasts)
        return tuple(
            Prediction(
                station=int(station) + 1,
                snr_db=float(forecasts[int(station)].mean_db[ue]),
                snr_sd_db=_deviation_db(forecasts[int(station)], ue),
            )
            for ue, station in enumerate(best)
        )

    @property
    def coverage(self) -> Coverage | None:
        """Of the SNR intervals, lately; None while there is too little to say."""
        if len(self._judged) < _FEWEST:
            return None
        means, deviations, measured = np.array(self._judged).T
        return coverage(means, deviations, measured, wanted=LEVEL)

    @property
    def drifts(self) -> bool:
        """Whether SNR no longer lies around what is predicted."""
        return max(self._drift.above, self._drift.below) > self._drift.limit

    def _expect(self, beacon: Beacon) -> dict[Side, Expectation]:
        place, ues = self.place, np.arange(len(beacon.position_m))
        x_m, spread_m = beacon.position_m[:, 0], np.full(len(ues), _UNKNOWN_M)
        forecasts: dict[int, SnrForecast] = {}
        if not np.isnan(self.tracker.time_s[ues]).any():
            ahead = self.tracker.predict(beacon.time_s, ues)
            x_m, spread_m = ahead.mean_m[:, 0], np.sqrt(ahead.covariance_m2[:, 0, 0])
            forecasts = self._forecast(self.time_s, beacon.time_s - self.time_s, ues)
        best = np.full(len(ues), np.flatnonzero(self.up)[0])
        if forecasts:
            best = self._best(forecasts)
        found, residuals = {}, []
        for ue, station in enumerate(best):
            mean, deviation = float(beacon.snr_db[ue, station]), _UNKNOWN_DB
            if forecasts:
                mean = float(forecasts[int(station)].mean_db[ue])
                deviation = _deviation_db(forecasts[int(station)], ue)
                # Intervals are calibrated as far ahead as that, no further.
                if beacon.time_s - self.time_s <= HORIZONS_S[-1]:
                    measured = float(beacon.snr_db[ue, station])
                    self._judged.append((mean, deviation, measured))
                    residuals.append((measured - mean) / deviation)
            off_m = math.hypot(float(spread_m[ue]), place.position_noise_m)
            found[Side.ue(ue + 1)] = Expectation(
                snr_db=mean,
                snr_std_db=deviation,
                noise_db=place.noise_db,
                noise_std_db=place.noise_std_db,
                bler=BLER,
                column=place.first_column(float(x_m[ue])),
                column_std=0.5 + place.columns_per_m * off_m,
            )
        if residuals:
            # Of all together: what one UE has wrong it has wrong for a while, and that is no drift.
            self._drift.update(float(np.mean(residuals)))
        return found

    def _forecast(
        self, now_s: float, horizon_s: float, ues: NDArray[np.int64]
    ) -> dict[int, SnrForecast]:
        """By station, of those that are heard and have been measured by all these UEs."""
        return {
            int(number): self.predictors[number].predict(now_s, horizon_s, ues)
            for number in np.flatnonzero(self.up)
            if self.predictors[number].knows(ues)
        }

    def _best(self, forecasts: Mapping[int, SnrForecast]) -> NDArray[np.int64]:
        stations = list(forecasts)
        means = np.stack([forecasts[station].mean_db for station in stations])
        found: NDArray[np.int64] = np.array(stations)[means.argmax(0)]
        return found


def _deviation_db(forecast: SnrForecast, ue: int) -> float:
    """As the calibrated interval has it."""
    width = float(forecast.high_db[ue] - forecast.low_db[ue])
    return max(width / 2 / NormalDist().inv_cdf(0.5 + LEVEL / 2), 1e-3)
