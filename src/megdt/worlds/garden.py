"""The garden: a procedural flower meadow, wider than any camera sees, with its ground truth.

A garden is laid out once from its `rng_seed`. A view of it is a camera position along the meadow
and a size in pixels; views at overlapping positions show the same flowers, and a larger size shows
the same scene in more detail.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from megdt.errors import WorldError
from megdt.worlds.drawing import open_canvas, paint_heads, paint_view, read_pixels
from megdt.worlds.scene import (
    COLOURS,
    DENSITIES,
    HORIZON_M,
    SKIES,
    SPECIES,
    STAGES,
    VIEW_EXTENT_M,
    WEATHERS,
    Conditions,
    Entity,
    Plot,
)

MAX_VIEW_PX = 4096
PLOT_M = 6.0
"""Width of one plot, the stretch over which one kind of flower dominates."""

# How many foreground and middle flowers a view of a plot holds, about.
_FOREGROUND = {"single": (1, 1), "pair": (2, 2), "few": (3, 5), "many": (6, 9)}
_MIDDLE = {"single": (0, 1), "pair": (0, 2), "few": (2, 5), "many": (9, 14)}
_FAR = {"single": 4, "pair": 5, "few": 10, "many": 34}

# Stem height and head radius of a full-grown foreground flower, metres.
_LIFE_DAYS = {"bud": 4.0, "bloom": 10.0, "wilting": 4.0}
"""How long a flower is in each stage; then another of its kind comes up in its place."""

_GROWN = {"bud": 0.8, "bloom": 1.0, "wilting": 0.82}
"""Height of the stem as a share of the full-grown one's."""

_WILTING_LEAN, _WILTING_TILT_DEG = 0.2, 38.0

_STATURE = {
    "daisy": (1.25, 0.44),
    "tulip": (1.15, 0.40),
    "sunflower": (1.75, 0.50),
    "poppy": (1.30, 0.44),
    "lavender": (1.45, 0.34),
    "lily": (1.40, 0.50),
}


@dataclass(frozen=True, kw_only=True)
class View:
    """Where a camera stands and how finely it sees.

    Every view is VIEW_EXTENT_M wide and high, so it is position_m +- VIEW_EXTENT_M / 2.
    """

    position_m: float
    size_px: int = 256


@dataclass(frozen=True, kw_only=True)
class Group:
    """Flowers of one species and colour in a view, with their share of all flower area."""

    species: str
    colour: str
    stage: str
    share: float
    foreground: int
    """How many of them are so near that a person would count them."""
    side: str
    """"left", "right" or "all over": where in the view their area lies."""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Ground truth of one view."""

    conditions: Conditions
    entities: tuple[Entity, ...]
    groups: tuple[Group, ...]
    """By falling share of area."""


class Garden:
    """A meadow of `length_m` metres.

    Args:
        rng_seed: Lays out the meadow; the same seed gives the same garden everywhere.
        length_m: Width of the panorama; at least one view.
        conditions: Sky and weather; drawn from rng_seed when not given.
        plots: What dominates each stretch of PLOT_M metres, from the left and over again; drawn
            from rng_seed when not given.
        age_days: How long ago it was laid out; flowers bloom, wilt and come up again meanwhile.

    Raises:
        WorldError: If length_m is below one view, age_days below 0, or a name is not one of
            `worlds.scene`.
    """

    def __init__(
        self,
        rng_seed: int,
        *,
        length_m: float = 24.0,
        conditions: Conditions | None = None,
        plots: tuple[Plot, ...] | None = None,
        age_days: float = 0.0,
    ) -> None:
        if not 0 <= age_days < math.inf:
            raise WorldError(f"garden is {age_days:g} days old; age_days begins at 0")
        if length_m < VIEW_EXTENT_M:
            raise WorldError(
                f"garden is {length_m:g} m long, one view is {VIEW_EXTENT_M:g} m wide; "
                f"make length_m at least {VIEW_EXTENT_M:g}"
            )
        self.rng_seed = rng_seed
        self.length_m = length_m
        rng = np.random.default_rng((rng_seed, 1))
        drawn = _draw_conditions(rng, length_m)
        self.conditions = drawn if conditions is None else conditions
        self.age_days = age_days
        self._plots = plots
        for plot in plots or ():
            _check_name(plot.species, SPECIES)
            _check_name(plot.colour, COLOURS)
            _check_name(plot.stage, STAGES)
            _check_name(plot.density, DENSITIES)
        _check_name(self.conditions.sky, SKIES)
        _check_name(self.conditions.weather, WEATHERS)

    @cached_property
    def entities(self) -> tuple[Entity, ...]:
        """Every flower of the garden, from left to right by plot."""
        count = int(np.ceil(self.length_m / PLOT_M))
        found: list[Entity] = []
        for index in range(count):
            rng = np.random.default_rng((self.rng_seed, 2, index))
            plot = _draw_plot(rng)
            if self._plots is not None:
                plot = self._plots[index % len(self._plots)]
            found.extend(_plant(rng, plot, index * PLOT_M))
        if self.age_days == 0:
            return tuple(found)
        rng = np.random.default_rng((self.rng_seed, 4))
        passed = rng.uniform(size=len(found))
        return tuple(
            _live(entity, share, self.age_days) for entity, share in zip(found, passed, strict=True)
        )

    def later(self, days: float, conditions: Conditions | None = None) -> Garden:
        """The same garden so many days on.

        Args:
            days: From now; each flower goes on through its life, at its own time.
            conditions: Sky and weather then; as now when left out.
        """
        return Garden(
            self.rng_seed,
            length_m=self.length_m,
            conditions=self.conditions if conditions is None else conditions,
            plots=self._plots,
            age_days=self.age_days + days,
        )

    def with_stages(self, stages: Sequence[str | None]) -> Garden:
        """The same garden with its flowers in stages that something else than their age decides.

        It is a picture of one moment: `later` goes on from the garden as it was laid out.

        Args:
            stages: Of each of `entities`; None for a flower that is no longer there.

        Raises:
            WorldError: If there are not as many as flowers, or one is unknown.
        """
        if len(stages) != len(self.entities):
            raise WorldError(
                f"{len(stages)} stages for {len(self.entities)} flowers; give one a flower"
            )
        for stage in set(stages) - {None}:
            _check_name(str(stage), STAGES)
        turned = copy(self)
        turned.__dict__["entities"] = tuple(
            _turn(entity, stage)
            for entity, stage in zip(self.entities, stages, strict=True)
            if stage is not None
        )
        return turned

    def render(self, view: View) -> NDArray[np.uint8]:
        """Draw what the camera sees.

        Returns:
            RGB picture. [size_px, size_px, 3]

        Raises:
            WorldError: If the view leaves the garden or its size is out of range.
        """
        left = self._left(view)
        return self._draw(left, VIEW_EXTENT_M, view.size_px)

    def panorama(self, height_px: int) -> NDArray[np.uint8]:
        """Draw the whole garden. [height_px, height_px * length_m / VIEW_EXTENT_M, 3]"""
        _check_size(height_px)
        return self._draw(0.0, self.length_m, height_px)

    def truth(self, view: View) -> Truth:
        """What stands in the view."""
        left = self._left(view)
        seen = tuple(
            e
            for e in self.entities
            if left - e.radius_m * 0.5 < e.head_x_m < left + VIEW_EXTENT_M + e.radius_m * 0.5
        )
        return Truth(
            conditions=self.conditions, entities=seen, groups=_group(seen, left + VIEW_EXTENT_M / 2)
        )

    def flower_mask(self, view: View) -> NDArray[np.bool_]:
        """Pixels that the heads of middle and near flowers cover. [size_px, size_px]"""
        left = self._left(view)
        surface, canvas = open_canvas(VIEW_EXTENT_M, view.size_px)
        heads = [e for e in self.entities if e.nearness >= 0.2]
        paint_heads(canvas, heads, left_m=left)
        covered: NDArray[np.bool_] = surface.toarray()[:, :, 3] > 127
        return covered

    def _left(self, view: View) -> float:
        _check_size(view.size_px)
        half = VIEW_EXTENT_M / 2
        if not half <= view.position_m <= self.length_m - half:
            raise WorldError(
                f"view at {view.position_m:g} m leaves the garden; "
                f"position_m goes from {half:g} to {self.length_m - half:g}"
            )
        return view.position_m - half

    def _draw(self, left_m: float, width_m: float, height_px: int) -> NDArray[np.uint8]:
        surface, canvas = open_canvas(width_m, height_px)
        near = [e for e in self.entities if left_m - 1.5 < e.x_m < left_m + width_m + 1.5]
        paint_view(canvas, self.conditions, near, left_m=left_m, width_m=width_m)
        return read_pixels(surface)


def _check_name(value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise WorldError(
            f"the garden has no {value!r}, it has {', '.join(known)}; choose one of these"
        )


def _check_size(size_px: int) -> None:
    if not 16 <= size_px <= MAX_VIEW_PX:
        raise WorldError(f"view is {size_px} pixels high, the garden draws 16 to {MAX_VIEW_PX}")


def _draw_conditions(rng: np.random.Generator, length_m: float) -> Conditions:
    return Conditions(
        sky=str(rng.choice(SKIES)),
        weather=str(rng.choice(WEATHERS, p=(0.66, 0.17, 0.17))),
        light_x_m=float(rng.uniform(0, length_m)),
        cloud_seed=int(rng.integers(2**31)),
        land_seed=int(rng.integers(2**31)),
    )


def _draw_plot(rng: np.random.Generator) -> Plot:
    return Plot(
        species=str(rng.choice(SPECIES)),
        colour=str(rng.choice(COLOURS)),
        stage=str(rng.choice(STAGES, p=(0.1, 0.78, 0.12))),
        density=str(rng.choice(DENSITIES, p=(0.13, 0.13, 0.34, 0.4))),
    )


def _plant(rng: np.random.Generator, plot: Plot, left: float) -> list[Entity]:
    """Plant one plot: its kind in front and behind, and a few strays of another kind."""
    stray = _draw_plot(rng)
    views = PLOT_M / VIEW_EXTENT_M
    found: list[Entity] = []
    lowest, highest = _FOREGROUND[plot.density]
    count = round(rng.integers(lowest, highest + 1) * views)
    for slot in range(count):
        x = left + (slot + 0.5 + rng.uniform(-0.3, 0.3)) * PLOT_M / count
        found.append(_grow(rng, plot, x, rng.uniform(0.78, 1.2)))
    lowest, highest = _MIDDLE[plot.density]
    for _ in range(round(rng.integers(lowest, highest + 1) * views)):
        kind = stray if rng.uniform() < 0.06 else plot
        found.append(_grow(rng, kind, left + rng.uniform(0, PLOT_M), rng.uniform(0.35, 0.62)))
    for _ in range(round(_FAR[plot.density] * views)):
        kind = stray if rng.uniform() < 0.15 else plot
        found.append(_grow(rng, kind, left + rng.uniform(0, PLOT_M), rng.uniform(0.0, 0.19)))
    return found


def _grow(rng: np.random.Generator, kind: Plot, x: float, nearness: float) -> Entity:
    """One flower of a plot's kind."""
    wilting = kind.stage == "wilting"
    # Perspective by hand: size and ground height grow with nearness, faster in front.
    scale = 0.13 + 0.87 * nearness**1.7
    height, radius = _STATURE[kind.species]
    grown = _GROWN[kind.stage]
    ground = HORIZON_M + 0.12 + 2.15 * nearness**1.6
    size = scale * rng.uniform(0.88, 1.12)
    lean = rng.uniform(-0.16, 0.16) * size + (
        rng.choice((-1, 1)) * _WILTING_LEAN * size if wilting else 0
    )
    return Entity(
        species=kind.species,
        colour=kind.colour,
        stage=kind.stage,
        x_m=float(x),
        ground_y_m=float(ground),
        head_x_m=float(x + lean),
        head_y_m=float(ground - height * size * grown),
        radius_m=float(radius * size),
        nearness=float(nearness),
        tilt_deg=float(
            np.degrees(lean / size) * 0.5 + (np.sign(lean) * _WILTING_TILT_DEG if wilting else 0)
        ),
        turn_deg=float(rng.uniform(-15, 15)),
    )


def _live(entity: Entity, passed: float, days: float) -> Entity:
    """A flower so many days on.

    Args:
        entity: As it was.
        passed: Share of its stage that lay behind it then.
        days: Since then.
    """
    place = STAGES.index(entity.stage)
    days += passed * _LIFE_DAYS[entity.stage]
    days %= sum(_LIFE_DAYS.values())
    while days >= _LIFE_DAYS[STAGES[place]]:
        days -= _LIFE_DAYS[STAGES[place]]
        place = (place + 1) % len(STAGES)
    return _turn(entity, STAGES[place])


def _turn(entity: Entity, stage: str) -> Entity:
    """A flower in another stage of its life."""
    if stage == entity.stage:
        return entity
    height, radius = _STATURE[entity.species]
    size = entity.radius_m / radius
    # A wilting flower leans further to the side that it leans to; one that comes up again does not.
    lean = entity.head_x_m - entity.x_m
    to = np.sign(lean) or 1.0
    droops = (stage == "wilting") - (entity.stage == "wilting")
    return replace(
        entity,
        stage=stage,
        head_x_m=float(entity.head_x_m + droops * to * _WILTING_LEAN * size),
        head_y_m=float(entity.ground_y_m - height * size * _GROWN[stage]),
        tilt_deg=float(
            entity.tilt_deg + droops * to * (_WILTING_TILT_DEG + np.degrees(_WILTING_LEAN) * 0.5)
        ),
    )


def _group(entities: tuple[Entity, ...], middle_m: float) -> tuple[Group, ...]:
    members: dict[tuple[str, str], list[Entity]] = defaultdict(list)
    for entity in entities:
        members[entity.species, entity.colour].append(entity)
    area = {kind: sum(e.radius_m**2 for e in kept) for kind, kept in members.items()}
    total = sum(area.values()) or 1.0
    groups = []
    for (species, colour), kept in members.items():
        balance = sum(e.radius_m**2 * np.sign(e.head_x_m - middle_m) for e in kept)
        balance /= area[species, colour]
        stages = [e.stage for e in kept]
        groups.append(
            Group(
                species=species,
                colour=colour,
                stage=max(set(stages), key=lambda s: (stages.count(s), s)),
                share=area[species, colour] / total,
                foreground=sum(e.nearness >= 0.75 for e in kept),
                side="left" if balance < -0.6 else "right" if balance > 0.6 else "all over",
            )
        )
    return tuple(sorted(groups, key=lambda g: (-g.share, g.species, g.colour)))


def draw_view(rng_seed: int, *, size_px: int = 256) -> tuple[Garden, View]:
    """A random view of a random garden: what recipes train on and studies test on.

    Three views in four stand before one plot; the others anywhere, between two plots too.
    """
    garden = Garden(rng_seed, length_m=2 * PLOT_M)
    rng = np.random.default_rng((rng_seed, 3))
    if rng.uniform() < 0.75:
        position = PLOT_M * (int(rng.integers(2)) + 0.5) + rng.uniform(-0.8, 0.8)
    else:
        half = VIEW_EXTENT_M / 2
        position = rng.uniform(half, garden.length_m - half)
    return garden, View(position_m=float(position), size_px=size_px)
