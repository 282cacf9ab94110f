"""Mobility: where each UE is and will be, from positions that were measured with noise.

Several linear filters run side by side for each UE, one for each way of moving: straight on, around
a corner to either side, standing. Between measurements a UE may change from one to another, so the
filters are mixed by how likely that was (interacting multiple models). All filters share one state,
position and velocity [x, y, vx, vy]; everything is one array over UEs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from megdt.errors import PredictionError

Mode = Literal["straight", "left", "right", "stand"]

FARTHEST_M = 1e5
"""A position beyond that is a mistake."""

_STEP_S = 2.0
"""Longest step of a prediction: within one, the way of moving changes at its beginning only."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Motion:
    """How UEs move.

    Args:
        speed_m_s: Usual speed; a UE that starts has any velocity of that size.
        turn_rad_s: How fast a corner is taken.
        jitter: Of the velocity, as the density of white acceleration, m^2/s^3.
        stays_s: Ways of moving, with how long a UE keeps to each.
        enters: How likely each way is taken when a UE leaves another, relative to each other.

    Raises:
        PredictionError: If a number is out of its range.
    """

    speed_m_s: float = 1.5
    turn_rad_s: float = 0.8
    jitter: float = 0.05
    stays_s: tuple[tuple[Mode, float], ...] = (
        ("straight", 60.0), ("left", 2.0), ("right", 2.0), ("stand", 6.0),
    )  # fmt: skip
    enters: tuple[float, ...] = (0.5, 0.15, 0.15, 0.2)

    def __post_init__(self) -> None:
        ranges = {"speed_m_s": 100.0, "turn_rad_s": 10.0, "jitter": 1e4}
        for name, high in ranges.items():
            value = getattr(self, name)
            if not 0 < value <= high:  # also catches nan
                raise PredictionError(f"{name} is {value:g}, motion takes above 0 to {high:g}")
        if not self.stays_s or len(self.enters) != len(self.stays_s):
            raise PredictionError(
                f"{len(self.stays_s)} ways of moving have {len(self.enters)} entries; give one each"
            )
        for (mode, stay_s), enters in zip(self.stays_s, self.enters, strict=True):
            if mode not in get_args(Mode) or not stay_s > 0 or not 0 < enters < math.inf:
                raise PredictionError(
                    f"way of moving {mode!r} lasts {stay_s:g} s and is entered {enters:g}; known: "
                    f"{', '.join(get_args(Mode))}, both numbers above 0"
                )

    def generator(self) -> Floats:
        """Rates of going over from each way of moving to each other, per second. [modes, modes]"""
        enters = np.array(self.enters)
        rates = np.tile(enters, (len(enters), 1))
        np.fill_diagonal(rates, 0)
        leaves = 1 / np.array([stay for _, stay in self.stays_s])
        total = rates.sum(1)
        # One that is alone is never left.
        rates *= np.divide(leaves, total, where=total > 0, out=np.zeros_like(leaves))[:, None]
        np.fill_diagonal(rates, -rates.sum(1))
        return rates


def street_motion(speed_m_s: float, *, block_m: float = 80.0) -> Motion:
    """How UEs of some speed move in a town: on for a block and a half, then a corner or a stop.

    Args:
        speed_m_s: Above 0.
        block_m: Between crossings.

    Raises:
        PredictionError: If a number is out of its range.
    """
    if not 0 < speed_m_s <= 100 or not 0 < block_m < math.inf:
        raise PredictionError(
            f"no motion of {speed_m_s:g} m/s between crossings {block_m:g} m apart; speeds go from "
            "above 0 to 100, distances from above 0"
        )
    # Corners are slower than streets: drivers take 2 m/s^2 sideways, on 9 m of radius.
    corner_s = math.pi / 2 * max(0.8, min(9 / speed_m_s, 2.1))
    return Motion(
        speed_m_s=speed_m_s,
        turn_rad_s=math.pi / 2 / corner_s,
        jitter=0.01 * speed_m_s**2,
        stays_s=(
            ("straight", 1.5 * block_m / speed_m_s), ("left", corner_s), ("right", corner_s),
            ("stand", 6.0),
        ),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Where UEs will be, as a Gaussian of the same mean and covariance as the filters' mixture."""

    mean_m: Floats
    """[ues, 2]"""
    covariance_m2: Floats
    """[ues, 2, 2]"""

    def distance(self, position_m: NDArray[np.floating[Any]]) -> Floats:
        """How far places are from the mean, in standard deviations (Mahalanobis). [ues]"""
        off = position_m - self.mean_m
        solved = np.linalg.solve(self.covariance_m2, off[..., None])[..., 0]
        squared: Floats = (off * solved).sum(-1)
        return np.sqrt(squared)


class Tracker:
    """Follows UEs; each is known from its first measurement on.

    Args:
        ues: How many.
        motion: How they move.

    References:
        Blom and Bar-Shalom, IEEE Trans. Automatic Control 33(8), 1988 (interacting models).
        Bar-Shalom, Li and Kirubarajan, Estimation with Applications to Tracking and Navigation,
        2001, sections 6.2.2 (white acceleration), 11.6.6 (the recursion), 11.7.1 (turns).
    """

    def __init__(self, ues: int, motion: Motion | None = None) -> None:
        self.motion = Motion() if motion is None else motion
        self.time_s = np.full(ues, np.nan)
        """Of each UE's last measurement; nan before the first. [ues]"""
        # Real, since such a chain is reversible: it forgets where it came from.
        rates, self._vectors = np.linalg.eig(self.motion.generator())
        self._rates, self._vectors = rates.real, self._vectors.real
        self._inverse = np.linalg.inv(self._vectors)
        modes = len(rates)
        self._probability = np.zeros((ues, modes))
        self._mean = np.zeros((ues, modes, 4))
        self._covariance = np.zeros((ues, modes, 4, 4))

    @property
    def ues(self) -> int:
        """How many."""
        return len(self.time_s)

    def probability(self, mode: Mode) -> Floats:
        """How likely each UE moved that way at its last measurement. [ues]"""
        names = [name for name, _ in self.motion.stays_s]
        return self._probability[:, names.index(mode)].copy()

    def observe(
        self,
        ue: ArrayLike,
        time_s: ArrayLike,
        position_m: ArrayLike,
        *,
        now_s: float,
        noise_m: float = 1.0,
    ) -> None:
        """Learn from one measurement each of some UEs; all of them are refused if one is wrong.

        Args:
            ue: Which, each at most once. [measurements]
            time_s: When each was measured, or one time for all. [measurements]
            position_m: Where. [measurements, 2]
            now_s: Now, on the same clock.
            noise_m: Standard deviation of each coordinate.

        Raises:
            PredictionError: If a UE is unknown or named twice, a position not finite or beyond
                100 km, a time not finite, later than now or before that UE's last.
        """
        who = self._check_ues(ue)
        place = check_positions(position_m, len(who))
        when = check_times(time_s, len(who), now_s)
        if not 0 < noise_m <= FARTHEST_M:
            raise PredictionError(f"noise_m is {noise_m:g}, a position's noise is above 0 m")
        if (late := np.flatnonzero(when < self.time_s[who])).size:  # nan compares as not late
            i = late[0]
            raise PredictionError(
                f"UE{who[i]} was measured at {when[i]:g} s, before its last measurement at "
                f"{self.time_s[who[i]]:g} s; hand measurements over in order"
            )
        new = np.isnan(self.time_s[who])
        self._start(who[new], place[new], noise_m)
        self._update(who[~new], when[~new], place[~new], noise_m)
        self.time_s[who] = when

    def predict(self, time_s: float, ue: ArrayLike | None = None) -> Forecast:
        """Where UEs will be.

        Args:
            time_s: When; not before a UE's last measurement.
            ue: Which; all where left out. [ues]

        Raises:
            PredictionError: If a UE was never measured, or last measured after that time.
        """
        who = self._check_ues(np.arange(self.ues) if ue is None else ue)
        last = self.time_s[who]
        if np.isnan(last).any():
            raise PredictionError(
                f"UE{who[np.isnan(last)][0]} was never measured; observe it before predicting it"
            )
        ahead = time_s - last
        if not (ahead >= 0).all() or not math.isfinite(time_s):
            raise PredictionError(
                f"UE{who[np.argmin(ahead)]} cannot be predicted for {time_s:g} s: it was measured "
                f"at {last.max():g} s; predict a finite time from then on"
            )
        probability, mean, covariance = self._ahead(who, ahead)
        middle = (probability[..., None] * mean[..., :2]).sum(1)
        spread = mean[..., :2] - middle[:, None]
        inside = covariance[..., :2, :2] + spread[..., :, None] * spread[..., None, :]
        return Forecast(mean_m=middle, covariance_m2=(probability[..., None, None] * inside).sum(1))

    def _check_ues(self, ue: ArrayLike) -> NDArray[np.int64]:
        who = np.atleast_1d(np.asarray(ue, np.int64))
        if who.size and not (who.min() >= 0 and who.max() < self.ues):
            raise PredictionError(f"UE{who.max()} is unknown; this twin has {self.ues} from UE0 on")
        if len(np.unique(who)) < len(who):
            raise PredictionError(
                "a UE is named twice; hand over one measurement of each at a time"
            )
        return who

    def _start(self, who: NDArray[np.int64], place: Floats, noise_m: float) -> None:
        velocity = self.motion.speed_m_s**2
        self._mean[who, :, :2] = place[:, None]
        self._mean[who, :, 2:] = 0
        self._covariance[who] = np.diag([noise_m**2, noise_m**2, velocity, velocity])
        self._probability[who] = self._transitions(np.array([1e9]))[0, 0]  # as in the long run

    def _update(self, who: NDArray[np.int64], when: Floats, place: Floats, noise_m: float) -> None:
        if not who.size:
            return
        probability, mean, covariance = self._ahead(who, when - self.time_s[who])
        expected = covariance[..., :2, :2] + noise_m**2 * np.eye(2)
        inverse = np.linalg.inv(expected)
        missed = place[:, None] - mean[..., :2]
        gain = covariance[..., :, :2] @ inverse
        distance = np.einsum("umi,umij,umj->um", missed, inverse, missed)
        # Relative to the best, so that no far-off measurement makes all of them 0.
        likelihood = -0.5 * (distance + np.log(np.linalg.det(expected)))
        likelihood = np.exp(likelihood - likelihood.max(1, keepdims=True))
        probability = probability * likelihood
        self._probability[who] = probability / probability.sum(1, keepdims=True)
        self._mean[who] = mean + np.einsum("umij,umj->umi", gain, missed)
        covariance = covariance - gain @ covariance[..., :2, :]
        self._covariance[who] = (covariance + covariance.swapaxes(-1, -2)) / 2

    def _ahead(self, who: NDArray[np.int64], seconds: Floats) -> tuple[Floats, Floats, Floats]:
        """Probabilities [ues, modes], means [.., 4] and covariances [.., 4, 4] so much later."""
        state = self._probability[who], self._mean[who], self._covariance[who]
        steps = max(1, math.ceil(seconds.max(initial=0.0) / _STEP_S))
        transition, noise = self._motions(seconds / steps)
        for _ in range(steps):
            probability, mean, covariance = self._mix(*state, seconds / steps)
            mean = np.einsum("umij,umj->umi", transition, mean)
            covariance = transition @ covariance @ transition.swapaxes(-1, -2) + noise
            state = probability, mean, covariance
        return state

    def _mix(
        self, probability: Floats, mean: Floats, covariance: Floats, seconds: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Start each filter from all of them, by how likely a UE changed to its way of moving."""
        joint = probability[:, :, None] * self._transitions(seconds)  # [ues, from, to]
        after = joint.sum(1)
        weight = joint / np.maximum(after, 1e-300)[:, None]
        mixed = np.einsum("uft,ufi->uti", weight, mean)
        spread = mean[:, None] - mixed[:, :, None]  # [ues, to, from, 4]
        inside = np.einsum("uft,ufij->utij", weight, covariance)
        inside += (spread * weight.swapaxes(1, 2)[..., None]).swapaxes(-1, -2) @ spread
        return after, mixed, inside

    def _transitions(self, seconds: Floats) -> Floats:
        """Probabilities of being in each mode so much later, from each. [ues, modes, modes]"""
        decay = np.exp(np.minimum(self._rates, 0.0) * seconds[:, None])
        found: Floats = (self._vectors * decay[:, None]) @ self._inverse
        return np.maximum(found, 0.0)

    def _motions(self, seconds: Floats) -> tuple[Floats, Floats]:
        """What moving does to state and covariance. Twice [ues, modes, 4, 4]"""
        t = seconds[:, None]
        shape = (len(seconds), len(self._rates), 4, 4)
        transition, noise = np.zeros(shape), np.zeros(shape)
        for mode, (name, _) in enumerate(self.motion.stays_s):
            f, q = transition[:, mode], noise[:, mode]
            f[:, [0, 1], [0, 1]] = 1
            if name == "stand":
                # It stays where it is, and what counts of its velocity is how it will start.
                q[:, [2, 3], [2, 3]] = self.motion.speed_m_s**2
                q[:, [0, 1], [0, 1]] = 0.01 * self.motion.jitter * t
                continue
            side = {"straight": 0, "left": 1, "right": -1}[name]
            angle = side * self.motion.turn_rad_s * t[:, 0]
            # (exp(i angle) - 1) / (i rate), which is t for no turn.
            along = t[:, 0] * np.sinc(angle / math.pi)
            across = t[:, 0] * np.sin(angle / 2) * np.sinc(angle / (2 * math.pi))
            f[:, [0, 1], [2, 3]] = along[:, None]
            f[:, 0, 3], f[:, 1, 2] = -across, across
            f[:, [2, 3], [2, 3]] = np.cos(angle)[:, None]
            f[:, 2, 3], f[:, 3, 2] = -np.sin(angle), np.sin(angle)
            jitter = self.motion.jitter
            q[:, [0, 1], [0, 1]] = jitter * t**3 / 3
            q[:, [0, 1, 2, 3], [2, 3, 0, 1]] = jitter * t**2 / 2
            q[:, [2, 3], [2, 3]] = jitter * t
        return transition, noise


def check_positions(position_m: ArrayLike, count: int) -> Floats:
    """Positions as an array, or a PredictionError where one is not finite or beyond 100 km.

    Args:
        position_m: [count, 2]
        count: How many there have to be.
    """
    place = np.asarray(position_m, np.float64)
    if place.shape != (count, 2):
        raise PredictionError(
            f"positions have the shape {list(place.shape)}; {count} of them need [{count}, 2]"
        )
    bad = ~(np.abs(place) <= FARTHEST_M).all(-1)  # also catches nan
    if bad.any():
        raise PredictionError(
            f"position {place[bad][0].tolist()} is not finite metres within {FARTHEST_M:g}; "
            "leave that measurement out"
        )
    return place


def check_times(time_s: ArrayLike, count: int, now_s: float) -> Floats:
    """Times as an array, or a PredictionError where one is not finite or in the future.

    Args:
        time_s: [count], or one for all.
        count: How many there have to be.
        now_s: Now, on the same clock.
    """
    when = np.broadcast_to(np.asarray(time_s, np.float64), (count,))
    bad = ~(np.isfinite(when) & (when <= now_s))
    if bad.any():
        raise PredictionError(
            f"a measurement at {when[bad][0]:g} s is from the future, or at no time: it is "
            f"{now_s:g} s now; leave it out or set the clocks"
        )
    return when
