"""Prediction: the SNR that each UE will measure, with an interval that covers as often as it says.

It puts together where a UE will be (`mobility`), what the SNR is there (`radio_map`), how the SNR
that the UE has just measured differs from the map, which holds for as long as it is near, and how
wrong all that was lately (`calibration`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from megdt.errors import PredictionError
from megdt.link.channels import MAX_SNR_DB, MIN_SNR_DB
from megdt.twin.calibration import AdaptiveFactor
from megdt.twin.mobility import Tracker
from megdt.twin.radio_map import RadioMap, check_snrs, mix, sigma_points

Floats = NDArray[np.float64]

HORIZONS_S = (0.1, 0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True, kw_only=True)
class SnrForecast:
    """The SNR that UEs will measure. All [ues]."""

    mean_db: Floats
    deviation_db: Floats
    low_db: Floats
    high_db: Floats


@dataclass(frozen=True, kw_only=True)
class _Told:
    """A forecast that waits for its truth."""

    time_s: float
    horizon: int
    ue: NDArray[np.int64]
    forecast: SnrForecast
    waits: NDArray[np.bool_]
    """Of each UE, whether it has not measured since. [ues]"""


class SnrPredictor:
    """Predicts the SNR from one station, and learns from what was measured.

    Args:
        tracker: Where the UEs are; whoever has it hands it their positions, before the SNR of the
            same time comes here.
        radio_map: Of the station; handed measurements by this predictor.
        level: Share of measurements that intervals shall cover.
        horizons_s: Each has its own calibration; a forecast uses the nearest one's, by ratio.
        lag_s: After which a measurement goes into the map. Until then it is that UE's own.
    """

    def __init__(
        self,
        tracker: Tracker,
        radio_map: RadioMap,
        *,
        level: float = 0.9,
        horizons_s: tuple[float, ...] = HORIZONS_S,
        lag_s: float = 5.0,
    ) -> None:
        if not horizons_s or not all(0 < h < math.inf for h in horizons_s):
            raise PredictionError(f"horizons_s is {horizons_s}; give one or more, each above 0 s")
        self.tracker, self.map = tracker, radio_map
        self.lag_s, self.horizons_s = lag_s, horizons_s
        self.factors = tuple(AdaptiveFactor(level) for _ in horizons_s)
        # What each UE was last known to have: [ues], the place [ues, 2].
        self._level_db = np.full(tracker.ues, np.nan)
        self._variance = np.zeros(tracker.ues)
        self._place_m = np.zeros((tracker.ues, 2))
        self._time_s = np.zeros(tracker.ues)
        self._recent: list[tuple[float, Floats, Floats]] = []
        self._told: list[_Told] = []

    def knows(self, ue: ArrayLike) -> bool:
        """Whether all these UEs have measured, so that they can be predicted."""
        return not np.isnan(self._level_db[np.asarray(ue, np.int64)]).any()

    def observe(self, ue: ArrayLike, time_s: float, snr_db: ArrayLike, *, now_s: float) -> None:
        """Learn from the SNR that some UEs have measured at one time.

        Args:
            ue: Which, all of them tracked up to that time. [measurements]
            time_s: When.
            snr_db: What. [measurements]
            now_s: Now, on the same clock.

        Raises:
            PredictionError: If an SNR is out of range, a time in the future or before that UE's
                last, or a UE is not tracked.
        """
        who = np.atleast_1d(np.asarray(ue, np.int64))
        measured = check_snrs(snr_db)
        if len(measured) != len(who):
            raise PredictionError(f"{len(measured)} SNR came for {len(who)} UEs; give one for each")
        if not time_s <= now_s:  # also catches nan
            raise PredictionError(
                f"an SNR at {time_s:g} s is from the future, or at no time: it is {now_s:g} s now"
            )
        place = self.tracker.predict(time_s, who).mean_m
        if (np.isfinite(self._level_db[who]) & (self._time_s[who] > time_s)).any():
            raise PredictionError(
                f"an SNR at {time_s:g} s is older than the UE's last; hand them over in order"
            )
        self._settle(who, time_s, measured)
        self._recent.append((time_s, place, measured))
        while self._recent and (self._recent[0][0] <= time_s - self.lag_s or not len(self.map)):
            when, where, what = self._recent.pop(0)
            self.map.observe(when, where, what, now_s=now_s)
        self._filter(who, time_s, place, measured)

    def predict(self, now_s: float, horizon_s: float, ue: ArrayLike | None = None) -> SnrForecast:
        """The SNR that UEs will measure so much later.

        Forecasts for one of `horizons_s` are remembered and judged when their time has come.

        Args:
            now_s: Now; no UE was measured later.
            horizon_s: How much later.
            ue: Which; all where left out. [ues]

        Raises:
            PredictionError: If the horizon is below 0 or not finite, or a UE has not measured
                anything yet.
        """
        if not 0 <= horizon_s < math.inf:
            raise PredictionError(f"horizon_s is {horizon_s:g}; predict a finite time ahead")
        who = np.arange(self.tracker.ues) if ue is None else np.atleast_1d(np.asarray(ue, np.int64))
        forecast = self.tracker.predict(now_s + horizon_s, who)
        if np.isnan(self._level_db[who]).any():
            raise PredictionError(
                f"UE{who[np.isnan(self._level_db[who])][0]} has measured no SNR yet; observe it first"
            )
        points, weights = sigma_points(forecast.mean_m, forecast.covariance_m2)
        asked = np.concatenate([points.reshape(-1, 2), self._place_m[who]])
        mean, variance = self.map.predict(asked, time_s=now_s + horizon_s)
        mean, before = mean[: -len(who)].reshape(points.shape[:2]), mean[-len(who) :]
        variance = variance[: -len(who)].reshape(points.shape[:2])
        shared = self._shared(who, now_s + horizon_s, points)
        mean = mean + shared * (self._level_db[who] - before)[:, None]
        variance = variance * (1 - shared**2) + shared**2 * self._variance[who][:, None]
        middle, total = mix(weights, mean, variance)
        deviation = np.sqrt(total + self.map.noise_db**2)
        nearest = int(np.argmin([abs(math.log(max(horizon_s, 1e-3) / h)) for h in self.horizons_s]))
        factor = self.factors[nearest].factor
        told = SnrForecast(
            mean_db=middle,
            deviation_db=deviation,
            # No receiver measures beyond, so an infinite factor is the whole range.
            low_db=np.maximum(middle - factor * deviation, MIN_SNR_DB),
            high_db=np.minimum(middle + factor * deviation, MAX_SNR_DB),
        )
        if math.isclose(horizon_s, self.horizons_s[nearest]):
            self._told.append(
                _Told(
                    time_s=now_s + horizon_s,
                    horizon=nearest,
                    ue=who,
                    forecast=told,
                    waits=np.ones(len(who), bool),
                )
            )
        return told

    def _shared(self, who: NDArray[np.int64], time_s: float, place: Floats) -> Floats:
        """Correlation of shadowing at a UE's last place and time with places [ues, .., 2]."""
        last = self._place_m[who].reshape(len(who), *(1,) * (place.ndim - 2), 2)
        away = np.sqrt(((place - last) ** 2).sum(-1)) / self.map.correlation_m
        passed = (time_s - self._time_s[who]) / self.map.change_s
        shared: Floats = np.exp(-away - passed.reshape(len(who), *(1,) * (place.ndim - 2)))
        return shared

    def _filter(
        self, who: NDArray[np.int64], time_s: float, place: Floats, measured: Floats
    ) -> None:
        """Update what UEs have: along its way, shadowing is a process of first order."""
        asked = np.concatenate([place, self._place_m[who]])
        mean, variance = self.map.predict(asked, time_s=time_s)
        mean, before, variance = mean[: len(who)], mean[len(who) :], variance[: len(who)]
        known = ~np.isnan(self._level_db[who])
        shared = np.where(known, self._shared(who, time_s, place), 0.0)
        expected = mean + shared * np.where(known, self._level_db[who] - before, 0.0)
        prior = variance * (1 - shared**2) + shared**2 * self._variance[who]
        gain = prior / (prior + self.map.noise_db**2)
        self._level_db[who] = expected + gain * (measured - expected)
        self._variance[who] = prior * (1 - gain)
        self._place_m[who], self._time_s[who] = place, time_s

    def _settle(self, who: NDArray[np.int64], time_s: float, measured: Floats) -> None:
        """Judge forecasts whose time has come, each by the first measurement from then on."""
        snr_db = np.full(self.tracker.ues, np.nan)
        snr_db[who] = measured
        pending = []
        for told in self._told:
            late_s = time_s - told.time_s
            if late_s < -1e-9:
                pending.append(told)
                continue
            # Of one that nobody measured about that time nothing is known.
            if late_s > 0.5 * self.horizons_s[told.horizon]:
                continue
            then, forecast = snr_db[told.ue], told.forecast
            now = told.waits & np.isfinite(then)
            score = np.abs(then - forecast.mean_db) / forecast.deviation_db
            missed = (then < forecast.low_db) | (then > forecast.high_db)
            self.factors[told.horizon].update(score[now], missed[now])
            told.waits[now] = False
            if told.waits.any():
                pending.append(told)
        self._told = pending
