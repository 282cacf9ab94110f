"""The radio field: the mean SNR that a UE has at every place, with its ground truth.

Path loss and line of sight are those of 3GPP TR 38.901's street canyon (UMi), shadowing is a random
field over the plane. Fading within a wavelength is averaged out; `link` draws it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from megdt.errors import WorldError

Sight = Literal["mixed", "never"]
"""`mixed`: some places see the station, by the probability of the model; `never`: none does."""

STATION_M, UE_M = 10.0, 1.5
"""Heights over ground; table 7.4.1-1."""

_LIGHT_M_S = 299_792_458.0
_WAVES = 256
# Standard deviation in dB (table 7.4.1-1) and correlation distance in metres (table 7.5-6) of
# shadowing; of line of sight, table 7.6.3.1-2.
_SEEN_DB, _SEEN_M = 4.0, 10.0
_HIDDEN_DB, _HIDDEN_M = 7.82, 13.0
_SIGHT_M = 50.0
_CHUNK = 8192

_QUANTILE = np.linspace(-6, 6, 2401)
_PROBABILITY = np.array([NormalDist().cdf(x) for x in _QUANTILE])

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class RadioField:
    """Mean SNR from each station to each place.

    Args:
        rng_seed: Draws shadowing and line of sight; the same seed gives the same field everywhere.
        stations_m: Where the base stations stand on the ground.
        carrier_frequency_hz: 0.5 to 100 GHz.
        bandwidth_hz: Of the noise.
        tx_power_dbm: Radiated over that bandwidth.
        noise_figure_db: Of the receiver, over kT at 290 K.
        sight: Whether some places see the station.
        change_s: Time over which shadowing and sight become other ones, as traffic and leaves
            make them; infinite for a field that stays.

    Raises:
        WorldError: If a setting is impossible.

    References:
        3GPP TR 38.901, tables 7.4.1-1, 7.4.2-1, 7.5-6, section 7.6.3.3 (soft line of sight).
        Gudmundson, Electronics Letters 27(23), 1991 (exponential correlation).
        Cai and Giannakis, IEEE Trans. Vehicular Technology 52(6), 2003 (fields as sums of waves).
    """

    rng_seed: int
    stations_m: tuple[tuple[float, float], ...] = ((0.0, 0.0),)
    carrier_frequency_hz: float = 3.5e9
    bandwidth_hz: float = 1e6
    tx_power_dbm: float = 23.0
    noise_figure_db: float = 7.0
    sight: Sight = "mixed"
    change_s: float = math.inf

    def __post_init__(self) -> None:
        if not self.stations_m or not np.isfinite(self.stations_m).all():
            raise WorldError(
                f"stations_m is {self.stations_m}; a radio field has one station or more, each at "
                "two finite metres"
            )
        if self.sight not in get_args(Sight):
            raise WorldError(
                f"sight is {self.sight!r}, known: {', '.join(get_args(Sight))}; choose one of these"
            )
        ranges = {
            "carrier_frequency_hz": (0.5e9, 100e9), "bandwidth_hz": (1e3, 1e10),
            "tx_power_dbm": (-50.0, 80.0), "noise_figure_db": (0.0, 50.0),
            "change_s": (1e-3, math.inf),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:  # also catches nan
                raise WorldError(f"{name} is {value:g}, the radio field takes {low:g} to {high:g}")

    def snr_db(self, positions_m: NDArray[np.floating[Any]], time_s: float = 0.0) -> Floats:
        """Mean SNR at places.

        Args:
            positions_m: On the ground. [..., 2]
            time_s: When, since the field was drawn.

        Returns:
            Es/N0 from each station. [..., stations]

        Raises:
            WorldError: If a place is not two finite numbers.
        """
        places = np.asarray(positions_m, np.float64)
        if places.shape[-1:] != (2,) or not np.isfinite(places).all():
            raise WorldError("positions_m must be finite metres of shape [..., 2]")
        flat = places.reshape(-1, 2)
        gain_db = np.concatenate(
            [self._gain_db(flat[at : at + _CHUNK], time_s) for at in range(0, len(flat), _CHUNK)]
            or [np.zeros((0, len(self.stations_m)))]
        )
        return (gain_db + self.budget_db).reshape(*places.shape[:-1], len(self.stations_m))

    @property
    def budget_db(self) -> float:
        """SNR at a path gain of 0 dB."""
        noise_dbm = 10 * math.log10(1.380649e-23 * 290 * self.bandwidth_hz * 1000)
        return self.tx_power_dbm - noise_dbm - self.noise_figure_db

    def _gain_db(self, places: Floats, time_s: float) -> Floats:
        """[places, stations]"""
        found = []
        for station, place_m in enumerate(self.stations_m):
            ground_m = np.linalg.norm(places - place_m, axis=1)
            sight, seen_db, hidden_db = self._fields(station, places, time_s)
            seen = _SEEN_DB * seen_db - path_loss_db(
                ground_m, self.carrier_frequency_hz, line_of_sight=True
            )
            hidden = _HIDDEN_DB * hidden_db - path_loss_db(
                ground_m, self.carrier_frequency_hz, line_of_sight=False
            )
            if self.sight == "never":
                found.append(hidden)
                continue
            # Equation 7.6-20 and following: how much of the amplitude comes directly.
            wavelength_m = _LIGHT_M_S / self.carrier_frequency_hz
            threshold = np.interp(sight_probability(ground_m), _PROBABILITY, _QUANTILE)
            soft = 0.5 + np.arctan(math.sqrt(20 / wavelength_m) * (sight + threshold)) / math.pi
            power = soft**2 * 10 ** (seen / 10) + (1 - soft**2) * 10 ** (hidden / 10)
            found.append(10 * np.log10(power))
        return np.stack(found, -1)

    @cached_property
    def _waves(self) -> tuple[Floats, Floats, Floats]:
        """Wave vectors [stations, 3, 2, waves], phases and turning rates [stations, 3, waves]."""
        rng = np.random.default_rng((self.rng_seed, 21))
        shape = (len(self.stations_m), 3, _WAVES)
        # Correlation exp(-d / length) in the plane is a density (1 + (k length)^2)^(-3/2) of wave
        # vectors, so that 1 - 1 / sqrt(1 + (k length)^2) is uniform.
        length_m = np.array([_SIGHT_M, _SEEN_M, _HIDDEN_M])[None, :, None]
        norm = np.sqrt((1 - rng.uniform(size=shape)) ** -2 - 1) / length_m
        angle = rng.uniform(0, 2 * math.pi, shape)
        vectors = np.stack([norm * np.cos(angle), norm * np.sin(angle)], 2)
        phases = rng.uniform(0, 2 * math.pi, shape)
        # Likewise exp(-t / change_s) in time is a Cauchy density of turning rates.
        return vectors, phases, rng.standard_cauchy(shape) / self.change_s

    def _fields(self, station: int, places: Floats, time_s: float) -> Floats:
        """Unit-variance fields of sight, and of shadowing where seen and hidden. [3, places]"""
        vectors, phases, rates = (part[station] for part in self._waves)
        waves = np.einsum("pd,fdw->fpw", places, vectors)
        waves += (phases + rates * time_s)[:, None]
        summed: Floats = np.cos(waves, out=waves).sum(-1) * math.sqrt(2 / _WAVES)
        return summed


def path_loss_db(
    ground_m: NDArray[np.floating[Any]], carrier_frequency_hz: float, *, line_of_sight: bool
) -> Floats:
    """UMi street canyon path loss, station at 10 m and UE at 1.5 m.

    Args:
        ground_m: Distance on the ground; below 10 m, where the model begins, as at 10 m. [any]
        carrier_frequency_hz: 0.5 to 100 GHz.
        line_of_sight: Whether the UE sees the station.

    References:
        3GPP TR 38.901, table 7.4.1-1.
    """
    ground = np.maximum(ground_m, 10.0)
    distance = np.hypot(ground, STATION_M - UE_M)
    ghz = carrier_frequency_hz / 1e9
    # Note 1 of the table: both heights count from 1 m over ground.
    break_m = 4 * (STATION_M - 1) * (UE_M - 1) * carrier_frequency_hz / _LIGHT_M_S
    near = 32.4 + 21 * np.log10(distance) + 20 * math.log10(ghz)
    far = (
        32.4
        + 40 * np.log10(distance)
        + 20 * math.log10(ghz)
        - 9.5 * math.log10(break_m**2 + (STATION_M - UE_M) ** 2)
    )
    seen: Floats = np.where(ground <= break_m, near, far)
    if line_of_sight:
        return seen
    hidden: Floats = 35.3 * np.log10(distance) + 22.4 + 21.3 * math.log10(ghz) - 0.3 * (UE_M - 1.5)
    return np.maximum(seen, hidden)


def expected_loss_db(ground_m: NDArray[np.floating[Any]], carrier_frequency_hz: float) -> Floats:
    """UMi path loss over places that see the station and places that do not, by their share. [any]

    Args:
        ground_m: Distance on the ground. [any]
        carrier_frequency_hz: 0.5 to 100 GHz.
    """
    seen, hidden = (
        path_loss_db(ground_m, carrier_frequency_hz, line_of_sight=sight) for sight in (True, False)
    )
    share = sight_probability(ground_m)
    return share * seen + (1 - share) * hidden


def sight_probability(ground_m: NDArray[np.floating[Any]]) -> Floats:
    """Probability that a UE in a street canyon sees the station.

    Args:
        ground_m: Distance on the ground. [any]

    References:
        3GPP TR 38.901, table 7.4.2-1, UMi.
    """
    ground = np.maximum(ground_m, 18.0)
    probability: Floats = 18 / ground + np.exp(-ground / 36) * (1 - 18 / ground)
    return probability
