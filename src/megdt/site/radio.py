"""Where the UEs of a site are, and what they hear: in the open, or in a city whose rays are traced."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from megdt.link.channels import MAX_SNR_DB, MIN_SNR_DB
from megdt.scenario.twin import Radio, TwinScenario
from megdt.twin.mobility import Motion, street_motion
from megdt.twin.radio_map import Law, distance_law, traced_law
from megdt.worlds.city import City, TracedMap
from megdt.worlds.driving import Tours, drive
from megdt.worlds.radio_field import RadioField
from megdt.worlds.tracks import go_along

Floats = NDArray[np.float64]

_UNHEARD_DB = -20.0
"""Where no ray came."""
_LEAST_DB = 0.0
"""Of cells that vehicles drive through: elsewhere nobody would place a service."""
_MAP_M = 400.0


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Of the ground from west to east, in metres."""

    west_m: float
    width_m: float


class Ground(Protocol):
    """Where UEs move, and what they hear there."""

    @property
    def extent(self) -> Extent:
        """On which the panorama lies."""
        ...

    @property
    def laws(self) -> tuple[Law, ...]:
        """What is known of each station beforehand."""
        ...

    @property
    def motion(self) -> Motion:
        """How UEs move, as is known beforehand."""
        ...

    def positions_m(self, time_s: float) -> Floats:
        """[ues, 2]"""
        ...

    def snr_db(self, positions_m: Floats, time_s: float) -> Floats:
        """True mean; nan for a station that is out of order. [ues, stations]"""
        ...


class OpenGround:
    """Drones to and fro along the panorama, with stations further and further off."""

    def __init__(self, scenario: TwinScenario, width_m: float) -> None:
        radio, self._ues = scenario.radio, scenario.ues
        self._seed = scenario.scene.rng_seed
        self.extent = Extent(west_m=0.0, width_m=width_m)
        self.motion = Motion(
            speed_m_s=self._ues.speed_m_s, stays_s=(("straight", 60.0), ("stand", 6.0)),
            enters=(0.5, 0.5),
        )  # fmt: skip
        bearings = 0.9 + 2.1 * np.arange(radio.stations)
        distance_m = radio.distance_m * 2.0 ** np.arange(radio.stations)
        stations = tuple(
            (float(width_m / 2 + d * np.cos(b)), float(d * np.sin(b)))
            for d, b in zip(distance_m, bearings, strict=True)
        )
        self._field = RadioField(
            rng_seed=self._seed, stations_m=stations, carrier_frequency_hz=radio.carrier_frequency_hz,
            bandwidth_hz=radio.bandwidth_hz, tx_power_dbm=radio.tx_power_dbm,
        )  # fmt: skip
        self._radio = radio
        self.laws = tuple(distance_law(station) for station in stations)

    def positions_m(self, time_s: float) -> Floats:
        """[ues, 2]"""
        return go_along(
            self._seed, time_s, ues=self._ues.count, length_m=self.extent.width_m,
            speed_m_s=self._ues.speed_m_s,
        )  # fmt: skip

    def snr_db(self, positions_m: Floats, time_s: float) -> Floats:
        """True mean. [ues, stations]"""
        return _as_heard(self._field.snr_db(positions_m, time_s), self._radio)


class CityGround:
    """Vehicles in a city: what they hear is traced through its houses as they are, what the twin knows
    beforehand through houses that are all of concrete.

    Raises:
        MissingExtraError: If Sionna RT or LLVM is not installed.
    """

    def __init__(self, scenario: TwinScenario) -> None:
        radio = scenario.radio
        true, known = _trace(radio.rays, None), _trace(radio.rays, "concrete")
        self._true, self._radio = true, radio
        self._budget_db = RadioField(
            rng_seed=0, bandwidth_hz=radio.bandwidth_hz, tx_power_dbm=radio.tx_power_dbm
        ).budget_db
        self.laws = (traced_law(known, City.carrier_frequency_hz),)
        self.motion = street_motion(scenario.ues.speed_m_s)
        free = np.nan_to_num(true.gain_db + self._budget_db, nan=-np.inf) >= _LEAST_DB
        self._tours: Tours = drive(
            scenario.scene.rng_seed, true.centres_m, free, vehicles=scenario.ues.count,
            speed_m_s=scenario.ues.speed_m_s,
        )  # fmt: skip
        self.extent = Extent(west_m=true.station_m[0] - _MAP_M / 2, width_m=_MAP_M)

    def positions_m(self, time_s: float) -> Floats:
        """[ues, 2]"""
        return self._tours.positions_m(time_s)

    def snr_db(self, positions_m: Floats, time_s: float) -> Floats:
        """True mean. [ues, 1]"""
        gain_db = self._true.gain_at_db(positions_m) + self._budget_db
        return _as_heard(np.nan_to_num(gain_db, nan=_UNHEARD_DB)[:, None], self._radio)


def make_ground(scenario: TwinScenario, width_m: float) -> Ground:
    """The ground of a scene whose panorama is so wide."""
    return CityGround(scenario) if scenario.scene.kind == "city" else OpenGround(scenario, width_m)


def _as_heard(snr_db: Floats, radio: Radio) -> Floats:
    found = np.clip(snr_db - radio.extra_loss_db, MIN_SNR_DB, MAX_SNR_DB)
    if radio.outage:
        found[:, radio.outage - 1] = np.nan
    return found


@lru_cache(4)
def _trace(rays: int, material: str | None) -> TracedMap:
    return City(material=material).trace(extent_m=_MAP_M, rays=rays, rng_seed=1 if material else 2)
