"""The garden with water: flowers dry out by the weather, wilt, die, and a drone waters them.

A flower's water falls from 1 to 0. Below WILTS it looks wilting, at 0 it is dead and gone. The sun
dries fastest, rain waters all. Old age is left out: within days what wilts, wilts of thirst.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megdt.errors import WorldError
from megdt.worlds.days import Days
from megdt.worlds.garden import Garden
from megdt.worlds.scene import Conditions

STEP_H = 0.25
"""All happens in steps of a quarter of an hour."""

WILTS = 0.4
"""Water below which a flower looks wilting."""

DRYING = {"clear": 1.0, "cloudy": 0.5, "sunset": 0.4, "night": 0.15}
"""How fast each sky dries, as a share of a clear sky's rate."""

WELL = -1
"""The errand of a drone that fetches water, from the left end of the garden."""

COUNTED_NEARNESS = 0.2
"""Flowers farther away are specks: they dry and are drawn, but are neither counted nor aimed at."""

_STARTS_DAYS = 8 / 24  # in the morning
_LASTS_H = {
    "daisy": 34.0, "tulip": 26.0, "sunflower": 24.0, "poppy": 30.0, "lavender": 46.0, "lily": 28.0,
}  # fmt: skip
_RAIN_EVERY_H, _RAIN_H, _SOAKS_H = 72.0, (0.75, 2.5), 2.0
_SOIL_M = 3.0


class Weather:
    """Sky and rain over time: skies as in `Days`, rain in spells.

    Args:
        rng_seed: Draws both; the same seed gives the same weather everywhere.
        length_h: How far it reaches, from 8 in the morning of the first day on.

    Raises:
        WorldError: If length_h is not above 0 and finite.
    """

    def __init__(self, rng_seed: int, *, length_h: float = 240.0) -> None:
        self._days = Days(rng_seed, length_days=length_h / 24 + 1)
        rng = np.random.default_rng((rng_seed, 25))
        self._spells: list[tuple[float, float]] = []
        end = 0.0
        while end < length_h:
            start = end + rng.exponential(_RAIN_EVERY_H)
            end = start + rng.uniform(*_RAIN_H)
            self._spells.append((start, end))

    def sky(self, time_h: float) -> str:
        """One of `scene.SKIES`; no sun shines while it rains."""
        sky = self._days.sky(_STARTS_DAYS + time_h / 24)
        return "cloudy" if sky == "clear" and self.rains(time_h) else sky

    def rains(self, time_h: float) -> bool:
        """Whether it does."""
        return any(start <= time_h < end for start, end in self._spells)

    def drying(self, time_h: float) -> float:
        """Of the rate of a clear sky: 0 in rain."""
        return 0.0 if self.rains(time_h) else DRYING[self.sky(time_h)]


@dataclass(frozen=True, kw_only=True)
class Drone:
    """What waters the garden.

    Args:
        speed_m_h: Along the garden, on average over flying and charging in between. [m/h]
        tank: Waterings that it carries.
        hover_h: That one watering takes, and one filling at the well. [h]
        reach_m: To either side, that it waters.

    Raises:
        WorldError: If one is not above 0.
    """

    speed_m_h: float = 12.0
    tank: int = 6
    hover_h: float = 0.5
    reach_m: float = 0.75

    def __post_init__(self) -> None:
        for name in ("speed_m_h", "tank", "hover_h", "reach_m"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise WorldError(f"a drone's {name} is {value:g}; give a number above 0")


class WateredGarden:
    """A garden whose flowers need water, and the drone that brings it.

    The garden is divided into beds of a metre. A drone without an errand waits; one with an empty
    tank goes to the well by itself. Everything follows from rng_seed and the errands.

    Args:
        rng_seed: Of the garden as `Garden` lays it out, its soil, and its weather.
        length_m: A whole number of metres.
        drone: What waters it.
        thirst: By which all flowers dry faster than they would.
        length_h: How far the weather reaches.

    Raises:
        WorldError: If a number is out of its range.
    """

    def __init__(
        self,
        rng_seed: int,
        *,
        length_m: float = 32.0,
        drone: Drone | None = None,
        thirst: float = 1.0,
        length_h: float = 240.0,
    ) -> None:
        if length_m != round(length_m) or not 0 < thirst < math.inf:
            raise WorldError(
                f"no beds of a metre in {length_m:g} m, or thirst {thirst:g} is not above 0; give "
                "whole metres and a thirst such as 1"
            )
        self.rng_seed = rng_seed
        self.drone = Drone() if drone is None else drone
        self.weather = Weather(rng_seed, length_h=length_h)
        self.length_h = length_h
        self.beds = round(length_m)
        self._garden = Garden(rng_seed, length_m=length_m)
        flowers = self._garden.entities
        rng = np.random.default_rng((rng_seed, 26))
        soil = rng.lognormal(0, 0.35, math.ceil(length_m / _SOIL_M) + 1)
        start = rng.uniform(WILTS, 1.0, len(soil))
        self.x_m = np.array([f.x_m for f in flowers])
        """Where each flower is rooted. [flowers]"""
        at = np.arange(len(soil)) * _SOIL_M
        own = rng.uniform(0.85, 1.15, len(flowers))
        lasts_h = np.array([_LASTS_H[f.species] for f in flowers])
        self.dries_h = thirst / (lasts_h * own * np.interp(self.x_m, at, soil))
        """Water that it loses an hour under a clear sky. [flowers]"""
        spread = rng.uniform(-0.08, 0.08, len(flowers))
        self.water = np.clip(np.interp(self.x_m, at, start) + spread, WILTS, 1.0)
        """1 when just watered, 0 when dead. [flowers]"""
        self._grown = ["bud" if f.stage == "bud" else "bloom" for f in flowers]
        centres = np.arange(self.beds) + 0.5
        self.reached = np.abs(self.x_m - centres[:, None]) <= self.drone.reach_m
        """Which flowers a drone over each bed waters. [beds, flowers]"""
        near = np.array([f.nearness >= COUNTED_NEARNESS for f in flowers])
        self.counted = near & self.reached.any(0)
        """Whether it is near enough to be counted, and in a bed: the last plot may go on beyond the
        garden's end. [flowers]"""
        self.time_h = 0.0
        self.place_m = 0.0
        self.tank = self.drone.tank
        self.errand: int | None = None
        self._hovered_h = 0.0

    @property
    def alive(self) -> NDArray[np.bool_]:
        """[flowers]"""
        alive: NDArray[np.bool_] = self.water > 0
        return alive

    @property
    def fresh(self) -> NDArray[np.bool_]:
        """Alive and not wilting. [flowers]"""
        fresh: NDArray[np.bool_] = self.water >= WILTS
        return fresh

    def share(self, of: NDArray[np.bool_]) -> float:
        """Of the counted flowers, those that are so. [flowers]"""
        return float(of[self.counted].mean()) if self.counted.any() else 1.0

    def counts(self) -> NDArray[np.int64]:
        """Fresh and wilting flowers within reach of a drone over each bed. [beds, 2]"""
        near = self.reached & self.counted
        wilting = self.alive & ~self.fresh
        return np.stack([(near & self.fresh).sum(1), (near & wilting).sum(1)], -1)

    def look(self) -> Garden:
        """The garden as cameras see it now."""
        now = Conditions(
            **{
                **vars(self._garden.conditions),
                "sky": self.weather.sky(self.time_h),
                "weather": "rainy" if self.weather.rains(self.time_h) else "dry",
            }
        )
        dressed = [
            None if water <= 0 else grown if water >= WILTS else "wilting"
            for water, grown in zip(self.water, self._grown, strict=True)
        ]
        return self._garden.later(0, now).with_stages(dressed)

    def send(self, bed: int) -> None:
        """Give the drone an errand: to water a bed.

        Raises:
            WorldError: If there is no such bed.
        """
        if not 0 <= bed < self.beds:
            raise WorldError(f"no bed {bed}; the garden has beds 0 to {self.beds - 1}")
        self.errand = WELL if self.tank == 0 else bed

    def flight_h(self) -> NDArray[np.float64]:
        """How long the drone flies from where it is to each bed. [beds]"""
        away = np.abs(np.arange(self.beds) + 0.5 - self.place_m)
        flight: NDArray[np.float64] = np.ceil(away / self.drone.speed_m_h / STEP_H) * STEP_H
        return flight

    def step(self) -> int | None:
        """A quarter of an hour passes.

        Returns:
            The bed that has been watered, if one has.

        Raises:
            WorldError: If the weather ends before.
        """
        if self.time_h + STEP_H > self.length_h:
            raise WorldError(
                f"the weather of this garden ends after {self.length_h:g} h; give a greater length_h"
            )
        if self.weather.rains(self.time_h):
            soaked = np.minimum(self.water + STEP_H / _SOAKS_H, 1.0)
            self.water = np.where(self.alive, soaked, 0.0)
        lost = self.dries_h * self.weather.drying(self.time_h) * STEP_H
        self.water = np.maximum(self.water - lost, 0.0)
        self.time_h += STEP_H
        return self._go_on()

    def _go_on(self) -> int | None:
        """The drone's part of a step: it flies, or hovers and at the end of that waters or fills."""
        if self.errand is None:
            return None
        goal_m = 0.0 if self.errand == WELL else self.errand + 0.5
        way_m = goal_m - self.place_m
        if abs(way_m) > 1e-9:
            most_m = self.drone.speed_m_h * STEP_H
            self.place_m = (
                goal_m if abs(way_m) <= most_m else self.place_m + math.copysign(most_m, way_m)
            )
            return None
        self._hovered_h += STEP_H
        if self._hovered_h < self.drone.hover_h:
            return None
        bed, self.errand, self._hovered_h = self.errand, None, 0.0
        if bed == WELL:
            self.tank = self.drone.tank
            return None
        wet = self.reached[bed] & self.alive
        self.water = np.where(wet, 1.0, self.water)
        self.tank -= 1
        if self.tank == 0:
            self.errand = WELL
        return bed


@dataclass(frozen=True, kw_only=True)
class Expert:
    """Knows the true state of every flower, and waters where most is lost for the time it takes.

    A bed's urgency is what its living flowers will be in want of when the drone gets there: a whole
    flower for each that wilts by then, less for one that has `patience_h` or more to go. The errand is
    the bed with most urgency an hour of flying and hovering.

    Args:
        patience_h: Over which a flower that is still fresh counts e times less. [h]
        dying: That a flower about to die counts beyond one that has just wilted.
    """

    patience_h: float = 6.0
    dying: float = 1.0

    def urgency(self, garden: WateredGarden) -> NDArray[np.float64]:
        """Of each bed, an hour of the drone's time. [beds]"""
        takes_h = garden.flight_h() + garden.drone.hover_h
        rate = garden.dries_h * _mean_drying(garden.weather, garden.time_h)
        then = garden.water - rate * takes_h[:, None]  # [beds, flowers]
        fresh_h = np.maximum(then - WILTS, 0.0) / rate
        wilted = np.clip(1 - then / WILTS, 0.0, 1.0)
        want = np.exp(-fresh_h / self.patience_h) * (1 + self.dying * wilted)
        saved = garden.reached & garden.counted & (then > 0)
        urgency: NDArray[np.float64] = (want * saved).sum(1) / takes_h
        return urgency

    def choose(self, garden: WateredGarden) -> int:
        """The bed to water next."""
        return int(np.argmax(self.urgency(garden)))


def _mean_drying(weather: Weather, time_h: float) -> float:
    """Over the next six hours, at least a night's: the expert knows the forecast."""
    hours = [time_h + h for h in range(6)]
    return max(float(np.mean([weather.drying(h) for h in hours])), DRYING["night"])


class Patrol:
    """Waters bed after bed, to and fro along the garden."""

    def __init__(self) -> None:
        self._at, self._by = -1, 1

    def choose(self, garden: WateredGarden) -> int:
        """The bed after the one before."""
        if not 0 <= self._at + self._by < garden.beds:
            self._by = -self._by
        self._at = min(max(self._at + self._by, 0), garden.beds - 1)
        return self._at


class Wanderer:
    """Waters any bed, drawn anew each time.

    Args:
        rng_seed: Draws them.
    """

    def __init__(self, rng_seed: int) -> None:
        self._rng = np.random.default_rng((rng_seed, 27))

    def choose(self, garden: WateredGarden) -> int:
        """Any bed."""
        return int(self._rng.integers(garden.beds))


Choose = Callable[[WateredGarden], int]
"""Says which bed a drone is sent to."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How a garden fared; shares of its counted flowers.

    Args:
        course: Fresh after each step.
        alive_at_end: Alive at the end.
        waterings: That the drone has done.
    """

    course: tuple[float, ...]
    alive_at_end: float
    waterings: int

    @property
    def fresh(self) -> float:
        """Fresh at a time, in the mean over all of it."""
        return float(np.mean(self.course))


def tend(
    garden: WateredGarden,
    choose: Choose,
    *,
    hours: float,
    watch: Callable[[int | None], None] | None = None,
) -> Tally:
    """Let time pass and send the drone wherever `choose` says whenever it has no errand.

    Args:
        garden: Goes on from where it is.
        choose: Asked before a step, so what it sees is of now.
        hours: How long.
        watch: Told after each step which bed has been watered, if one has.
    """
    course, waterings = [], 0
    for _ in range(round(hours / STEP_H)):
        if garden.errand is None:
            garden.send(choose(garden))
        watered = garden.step()
        waterings += watered is not None
        course.append(garden.share(garden.fresh))
        if watch is not None:
            watch(watered)
    return Tally(
        course=tuple(course),
        alive_at_end=garden.share(garden.alive),
        waterings=waterings,
    )
