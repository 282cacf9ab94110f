"""The radio map: mean SNR from one station at any place, learned from measurements.

Kriging: a law of the mean (distance, or a map that somebody traced) and a Gaussian process for what
shadowing adds, with an exponential kernel in space and time. A place is told by its nearest
measurements alone, so the cost of a place does not grow with the map but for finding those.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from megdt.errors import PredictionError
from megdt.link.channels import MAX_SNR_DB, MIN_SNR_DB
from megdt.twin.mobility import check_positions, check_times
from megdt.worlds.city import TracedMap
from megdt.worlds.radio_field import expected_loss_db

Floats = NDArray[np.float64]
Law = Callable[[Floats], Floats]
"""Places [places, 2] to dB [places], up to a constant."""

# Before anything is learned: shadowing out of sight in TR 38.901's street canyon, tables 7.4.1-1
# and 7.5-6.
_SHADOWING_DB, _CORRELATION_M = 7.82, 13.0
# What the kernel is chosen from.
_LENGTHS_M = (4.0, 7.0, 13.0, 25.0, 50.0)
_NUGGETS = (0.003, 0.03, 0.1, 0.3)
"""Share of the variance that is not shared even with the next metre."""
_CHANGES_S = (math.inf, 1200.0, 300.0, 75.0)
_FIT_PLACES = 300
_BATCH = 4096


class RadioMap:
    """What is known of the mean SNR from one station.

    Measurements within one bin are averaged, so the map grows with the ground that was covered and
    not with time.

    Args:
        law: The mean in dB up to a constant, for instance `distance_law` or a ray-traced map.
        noise_db: Standard deviation of one measurement.
        bin_m: Side of a bin.
        neighbours: How many measurements tell a place.
        remembered: How many measurements a bin's average goes over; small follows change.

    References:
        Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, section 2.2.
        Datta et al., arXiv:1406.7343 (nearest neighbours instead of all).
    """

    def __init__(
        self,
        law: Law,
        *,
        noise_db: float = 1.0,
        bin_m: float = 1.0,
        neighbours: int = 16,
        remembered: int = 10,
    ) -> None:
        if not (0 < noise_db <= 40 and 0 < bin_m <= 1000 and neighbours > 0 and remembered > 0):
            raise PredictionError(
                f"a radio map has noise_db and bin_m above 0, to 40 and 1000, and one neighbour and "
                f"remembered measurement or more; got {noise_db:g}, {bin_m:g}, {neighbours}, {remembered}"
            )
        self.law = law
        self.noise_db, self.bin_m = noise_db, bin_m
        self.neighbours, self.remembered = neighbours, remembered
        self.offset_db, self.slope = 0.0, 1.0
        """Of the law, as fitted."""
        self.shadowing_db, self.correlation_m = _SHADOWING_DB, _CORRELATION_M
        self.change_s = math.inf
        """Time over which shadowing becomes another one, as fitted."""
        self.nugget = 0.03
        self._fitted = 0
        self._index: dict[tuple[int, int], int] = {}
        self._bins = np.zeros((256, 5))  # x, y, SNR, time, measurements
        self._sorted: Floats | None = None

    def __len__(self) -> int:
        """Bins that something was measured in."""
        return len(self._index)

    def observe(
        self, time_s: ArrayLike, position_m: ArrayLike, snr_db: ArrayLike, *, now_s: float
    ) -> None:
        """Learn from measurements; all of them are refused if one is wrong.

        Args:
            time_s: When, or one time for all. [measurements]
            position_m: Where. [measurements, 2]
            snr_db: What. [measurements]
            now_s: Now, on the same clock.

        Raises:
            PredictionError: If a position or SNR is not finite or out of range, or a time in the
                future.
        """
        measured = check_snrs(snr_db)
        place = check_positions(position_m, len(measured))
        when = check_times(time_s, len(measured), now_s)
        self._sorted = None
        keys = np.floor(place / self.bin_m).astype(np.int64)
        for key, (x, y), snr, at in zip(
            map(tuple, keys.tolist()), place.tolist(), measured.tolist(), when.tolist(), strict=True
        ):
            row = self._index.setdefault(key, len(self._index))
            if row == len(self._bins):
                self._bins = np.concatenate([self._bins, np.zeros_like(self._bins)])
            entry = self._bins[row]
            entry[4] = min(entry[4] + 1, self.remembered)
            entry[:4] += (np.array([x, y, snr, at]) - entry[:4]) / entry[4]

    def predict(
        self,
        position_m: ArrayLike,
        covariance_m2: NDArray[np.floating[Any]] | None = None,
        *,
        time_s: float = 0.0,
    ) -> tuple[Floats, Floats]:
        """Mean SNR at places, themselves uncertain or not.

        Args:
            position_m: [places, 2]
            covariance_m2: Of each place; exactly there where left out. [places, 2, 2]
            time_s: When; only a map whose shadowing changes cares.

        Returns:
            Mean and variance of the mean SNR in dB. [places], [places]

        Raises:
            PredictionError: If nothing was learned yet, or a place is out of range.
        """
        if not len(self):
            raise PredictionError("the radio map has no measurement yet; observe some first")
        centre = np.asarray(position_m, np.float64)
        if covariance_m2 is None:
            return self._krige(check_positions(centre, len(centre)), time_s)
        points, weights = sigma_points(centre, covariance_m2)
        flat = check_positions(points.reshape(-1, 2), points.shape[0] * points.shape[1])
        mean, variance = (part.reshape(points.shape[:2]) for part in self._krige(flat, time_s))
        return mix(weights, mean, variance)

    def fit(self) -> None:
        """Fit the law, then choose the kernel under which each measurement is told best by others.

        `predict` does that by itself whenever the map has grown by half.

        References:
            Rasmussen and Williams, section 5.4.2 (predictive density, one left out).
        """
        count = len(self)
        self._fitted = count
        self._sorted = None
        known = self._bins[:count]
        law = self.law(known[:, :2])
        if count < 8:
            self.offset_db = float(np.mean(known[:, 2] - law))
            return
        # As if slope 1 had been seen in a few measurements, which hold until there are more.
        middle = law.mean()
        off, snr = law - middle, known[:, 2] - known[:, 2].mean()
        prior = 10 * 25.0
        self.slope = float((off @ snr + prior) / (off @ off + prior))
        self.offset_db = float(known[:, 2].mean() - self.slope * middle)
        left_out = np.random.default_rng(count).permutation(count)[:_FIT_PLACES]
        # Little is said of change by measurements that are all of one time.
        longest_s = 4 * float(np.ptp(known[:, 3])) if count >= 4 * self.neighbours else 0.0
        scored = [
            (*self._score(left_out, length, nugget, change), length, nugget, change)
            for length in _LENGTHS_M
            for nugget in _NUGGETS
            for change in _CHANGES_S
            if math.isinf(change) or change < longest_s
        ]
        _, self.shadowing_db, self.correlation_m, self.nugget, self.change_s = max(scored)

    def _score(
        self, left_out: NDArray[Any], length_m: float, nugget: float, change_s: float
    ) -> tuple[float, float]:
        """Mean log density of bins from their neighbours at the best variance, and its root."""
        known = self._known()
        own = known[left_out]
        near = self._find(own, length_m, change_s, one_more=True)
        # Without itself; where a tie has hidden it, without any one.
        itself = near == left_out[:, None]
        itself[~itself.any(1), 0] = True
        near = near[~itself].reshape(len(near), -1)
        noise = self.noise_db**2 / max(float(np.mean(known[:, 2] ** 2)), 0.01)
        matrix, vector = self._kernel(own, near, length_m, change_s, nugget, noise)
        weight = np.linalg.solve(matrix, vector[..., None])[..., 0]
        missed = own[:, 2] - (weight * known[near, 2]).sum(1)
        expected = 1 + noise / own[:, 4] - (weight * vector).sum(1)
        scale = float(np.mean(missed**2 / expected))
        density = -0.5 * float(np.mean(np.log(expected * scale) + missed**2 / (expected * scale)))
        return density, math.sqrt(scale)

    def _mean(self, place: Floats) -> Floats:
        return self.offset_db + self.slope * self.law(place)

    def _known(self) -> Floats:
        """Bins by rising x, with what the law leaves of their SNR. [bins, 5]"""
        if self._sorted is None:
            known = self._bins[: len(self)]
            self._sorted = known[np.argsort(known[:, 0])]
            self._sorted[:, 2] -= self._mean(self._sorted[:, :2])
        return self._sorted

    def _krige(self, place: Floats, time_s: float) -> tuple[Floats, Floats]:
        if len(self) >= 1.5 * self._fitted:
            self.fit()
        mean, variance = self._mean(place), np.zeros(len(place))
        known = self._known()
        noise = (self.noise_db / self.shadowing_db) ** 2
        for at in range(0, len(place), _BATCH):
            part = slice(at, at + _BATCH)
            asked = np.zeros((len(place[part]), 4))
            asked[:, :2], asked[:, 3] = place[part], time_s
            near = self._find(asked, self.correlation_m, self.change_s)
            matrix, vector = self._kernel(
                asked, near, self.correlation_m, self.change_s, self.nugget, noise
            )
            weight = np.linalg.solve(matrix, vector[..., None])[..., 0]
            mean[part] += (weight * known[near, 2]).sum(1)
            variance[part] = np.maximum(1 - (weight * vector).sum(1), 1e-6)
        return mean, variance * self.shadowing_db**2

    def _find(
        self, asked: Floats, length_m: float, change_s: float, one_more: bool = False
    ) -> NDArray[np.int64]:
        """The neighbours that share most with each place. [places, neighbours]"""
        from megdt.twin._kernels import nearest

        known = self._known()
        # What was measured longer ago counts as farther. Seen from the last of all times, which
        # orders neighbours as any time after all of them does.
        penalty = length_m * (known[:, 3].max() - known[:, 3]) / change_s
        found = np.zeros((len(asked), min(self.neighbours + one_more, len(known))), np.int64)
        nearest(np.ascontiguousarray(asked[:, :2]), known[:, :2], penalty, found)
        return found

    def _kernel(
        self,
        asked: Floats,
        near: NDArray[np.int64],
        length_m: float,
        change_s: float,
        nugget: float,
        noise: float,
    ) -> tuple[Floats, Floats]:
        """Correlations among neighbours, noise included, and of each place with them.

        Args:
            asked: Places, and times in column 3. [places, 4 or more]
            near: Rows of what is known. [places, neighbours]
            length_m: Of the kernel, as `change_s` and `nugget`.
            change_s: Infinite where nothing changes.
            nugget: Share of the variance that no other place has.
            noise: Variance of one measurement, over that of shadowing.

        Returns:
            [places, neighbours, neighbours], [places, neighbours]
        """
        known = self._known()
        x, y, _, time, count = known[near].transpose(2, 0, 1)
        distance = np.hypot(x[:, :, None] - x[:, None], y[:, :, None] - y[:, None]) / length_m
        away = np.hypot(x - asked[:, :1], y - asked[:, 1:2]) / length_m
        if not math.isinf(change_s):
            distance += np.abs(time[:, :, None] - time[:, None]) / change_s
            away += np.abs(time - asked[:, 3:4]) / change_s
        matrix = (1 - nugget) * np.exp(-distance)
        diagonal = np.arange(near.shape[1])
        matrix[:, diagonal, diagonal] += nugget + noise / count
        return matrix, (1 - nugget) * np.exp(-away)


def distance_law(station_m: tuple[float, float], *, exponent: float = 3.53) -> Law:
    """How the mean falls with distance, before a map has learned it better.

    Args:
        station_m: Where it stands, on the ground.
        exponent: Of the path loss; TR 38.901 has 3.53 in a street canyon out of sight.

    References:
        3GPP TR 38.901, table 7.4.1-1.
    """

    def law(place: Floats) -> Floats:
        # The station's height over a UE, 8.5 m, keeps the logarithm from its pole.
        distance = np.sqrt(((place - station_m) ** 2).sum(-1) + 8.5**2)
        loss: Floats = -10 * exponent * np.log10(distance)
        return loss

    return law


def traced_law(traced: TracedMap, carrier_frequency_hz: float) -> Law:
    """The mean that rays tell, and where none came the formula of TR 38.901.

    Args:
        traced: A map of the station, by what the twin knows of the city.
        carrier_frequency_hz: Of the formula.
    """

    def law(place: Floats) -> Floats:
        gain_db = traced.gain_at_db(place)
        ground_m = np.linalg.norm(place - traced.station_m, axis=-1)
        return np.where(
            np.isnan(gain_db), -expected_loss_db(ground_m, carrier_frequency_hz), gain_db
        )

    return law


def sigma_points(
    centre: NDArray[np.floating[Any]], covariance: NDArray[np.floating[Any]]
) -> tuple[Floats, Floats]:
    """Five points with the mean and covariance of each Gaussian in the plane.

    Args:
        centre: [places, 2]
        covariance: [places, 2, 2]

    Returns:
        Points [places, 5, 2] and their weights [5].

    References:
        Julier and Uhlmann, Proceedings of the IEEE 92(3), 2004, with kappa = 1.
    """
    root = np.linalg.cholesky(covariance + 1e-9 * np.eye(2)) * math.sqrt(3)
    arms = root.swapaxes(-1, -2)
    points = centre[:, None] + np.concatenate([np.zeros_like(arms[:, :1]), arms, -arms], 1)
    return points, np.array([1 / 3, 1 / 6, 1 / 6, 1 / 6, 1 / 6])


def mix(weights: Floats, mean: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """Mean and variance of mixtures: the law of total variance. [.., points] to [..]"""
    middle = (mean * weights).sum(-1)
    return middle, ((variance + mean**2) * weights).sum(-1) - middle**2


def check_snrs(snr_db: ArrayLike) -> Floats:
    """Measured SNR as an array, or a PredictionError where one is out of range. [measurements]"""
    measured = np.atleast_1d(np.asarray(snr_db, np.float64))
    bad = ~((measured >= MIN_SNR_DB) & (measured <= MAX_SNR_DB))  # also catches nan
    if bad.any():
        raise PredictionError(
            f"measured SNR is {measured[bad][0]:g} dB, a receiver measures {MIN_SNR_DB:g} to "
            f"{MAX_SNR_DB:g}; leave that measurement out"
        )
    return measured
