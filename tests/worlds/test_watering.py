"""The garden that dries out, and who waters it: true to itself, and worth being clever about."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import numpy as np
import pytest

from megdt.errors import WorldError
from megdt.worlds.garden import Garden, View
from megdt.worlds.watering import (
    STEP_H,
    WELL,
    WILTS,
    Drone,
    Expert,
    Patrol,
    Wanderer,
    WateredGarden,
    Weather,
    tend,
)

GARDENS = range(900, 908)


def run(garden: WateredGarden, bed: int) -> None:
    """Until the drone has watered a bed."""
    garden.send(bed)
    while garden.step() is None:
        if garden.errand is None:
            garden.send(bed)


def digest(garden: Garden) -> str:
    """Of all that its pictures show, to a micrometre."""
    told = [
        (
            e.species,
            e.colour,
            e.stage,
            *np.round([e.x_m, e.head_x_m, e.head_y_m, e.tilt_deg], 6).tolist(),
        )
        for e in garden.entities
    ]
    return hashlib.sha256(repr((garden.conditions, told)).encode()).hexdigest()[:16]


def test_the_garden_that_nobody_waters_is_as_ever() -> None:
    # From before there was water: kept results hang on these gardens.
    assert digest(Garden(3)) == "3da4864667da0d7c"
    assert digest(Garden(3).later(3)) == "236a2a42979ce314"
    assert digest(Garden(9).later(7)) == "87e6dcb9ed618f56"
    garden, view = Garden(3), View(position_m=7, size_px=64)
    same = garden.with_stages([e.stage for e in garden.entities])
    assert (same.render(view) == garden.render(view)).all()
    bare = garden.with_stages([None] * len(garden.entities))
    assert bare.entities == ()
    assert (bare.render(view) != garden.render(view)).any()


def test_the_same_seed_and_errands_give_the_same_garden() -> None:
    first, second = WateredGarden(901), WateredGarden(901)
    for garden in (first, second):
        tend(garden, Expert().choose, hours=12)
    assert (first.water == second.water).all()
    assert (first.water != WateredGarden(902).water[:1]).any()


def test_flowers_wilt_and_die_of_thirst_and_look_like_it() -> None:
    garden = WateredGarden(903, length_m=8, thirst=3.0)
    view = View(position_m=4, size_px=64)
    assert garden.fresh.all()
    assert {e.stage for e in garden.look().entities} <= {"bud", "bloom"}
    seen = [garden.look().render(view)]
    while garden.alive.all():
        garden.step()
    stages = [e.stage for e in garden.look().entities]
    assert "wilting" in stages
    assert len(stages) == garden.alive.sum() < len(garden.water)
    assert stages.count("wilting") == (garden.alive & ~garden.fresh).sum()
    seen.append(garden.look().render(view))
    assert (seen[0] != seen[1]).any()


def test_the_sun_dries_faster_than_the_night_and_rain_waters_all_that_lives() -> None:
    weather = Weather(5)
    hours = np.arange(0, 200, STEP_H)
    by_sky = {weather.sky(h): weather.drying(h) for h in hours if not weather.rains(h)}
    assert by_sky["clear"] > by_sky["cloudy"] > by_sky["night"] > 0
    rain = next(h for h in hours if weather.rains(h))
    garden = WateredGarden(5, length_m=8)
    while garden.time_h < rain:
        garden.step()
    before, dead = garden.water.copy(), ~garden.alive
    garden.step()
    assert (garden.water[~dead] > before[~dead]).all()
    assert (garden.water[dead] == 0).all()
    assert garden.look().conditions.weather in ("rainy", "dry")


def test_the_drone_flies_waters_what_it_reaches_and_fetches_water() -> None:
    garden = WateredGarden(904, length_m=16, drone=Drone(tank=2))
    run(garden, 8)
    assert garden.place_m == pytest.approx(8.5)
    # 8.5 m at 3 m a step, and two steps over the bed.
    assert garden.time_h == pytest.approx(5 * STEP_H)
    assert (garden.water[garden.reached[8]] == 1.0).all()
    assert (garden.water[~garden.reached[8]] < 1.0).any()
    assert garden.tank == 1
    run(garden, 9)
    assert (garden.tank, garden.errand) == (0, WELL)
    while garden.errand is not None:
        garden.step()
    assert (garden.tank, garden.place_m) == (2, 0.0)


def test_every_flower_that_counts_can_be_watered() -> None:
    garden = WateredGarden(906, length_m=8)
    assert garden.x_m.max() > 9  # the second plot goes on to 12 m
    assert garden.x_m[garden.counted].max() <= 8 + garden.drone.reach_m
    garden.water[:] = 0.5
    for bed in range(8):
        garden.place_m, garden.tank = bed + 0.5, 2
        run(garden, bed)
    garden.water[~garden.reached.any(0)] = 0.0
    assert garden.share(garden.alive) == 1.0
    assert garden.counts().sum() >= garden.counted.sum() > 0


def fresh(choose: Callable[[int], Callable[[WateredGarden], int]]) -> float:
    """Mean share of fresh flowers over two days."""
    return float(np.mean([tend(WateredGarden(g), choose(g), hours=48).fresh for g in GARDENS]))


def test_the_expert_keeps_more_flowers_fresh_than_a_patrol_than_chance() -> None:
    expert = fresh(lambda g: Expert().choose)
    patrol = fresh(lambda g: Patrol().choose)
    chance = fresh(lambda g: Wanderer(g).choose)
    assert expert > patrol + 0.05 > chance


def test_the_patrol_goes_to_and_fro() -> None:
    patrol, garden = Patrol(), WateredGarden(1, length_m=4)
    assert [patrol.choose(garden) for _ in range(9)] == [0, 1, 2, 3, 2, 1, 0, 1, 2]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(WorldError, match=r"a drone's tank is 0; give a number above 0"):
        Drone(tank=0)
    with pytest.raises(WorldError, match=r"no beds of a metre in 8\.5 m"):
        WateredGarden(1, length_m=8.5)
    with pytest.raises(WorldError, match=r"thirst nan is not above 0"):
        WateredGarden(1, thirst=math.nan)
    garden = WateredGarden(1, length_m=8, length_h=1)
    with pytest.raises(WorldError, match="no bed 8; the garden has beds 0 to 7"):
        garden.send(8)
    tend(garden, Patrol().choose, hours=1)
    with pytest.raises(WorldError, match="the weather of this garden ends after 1 h"):
        garden.step()
    with pytest.raises(WorldError, match="1 stages for"):
        Garden(1).with_stages(["bud"])
    assert WILTS > 0
