"""What the sides of a scenario see of its world, as features of the stages that only take what is given.

The UEs see the garden as it is now, with something before their cameras if the scenario says so; the
ES remembers it as it was some days before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from megdt.codecs.observation import CELLS
from megdt.mechanisms.single_user import seen_in_latents
from megdt.models import FACTOR
from megdt.records import Feature, Part
from megdt.scenario import Scenario
from megdt.worlds.scene import VIEW_EXTENT_M

if TYPE_CHECKING:
    from megdt.mechanisms.stages import StoredModels

DAY_S = 86_400.0

_GREY = 40


@dataclass(frozen=True, kw_only=True)
class Sensed:
    """What is given before anything runs, and what it is all about.

    Args:
        scenario: As it was, with shares by what the UEs see.
        done: The features of the stages that sense and remember.
        truth: The world now, as the stages named show it. RGB [height, width, 3]
    """

    scenario: Scenario
    done: Part
    truth: Mapping[str, NDArray[np.uint8]]


def sense(scenario: Scenario, bundle: StoredModels) -> Sensed:
    """Look at the scenario's world.

    Args:
        scenario: Its request's rng_seed draws the garden.
        bundle: Encodes what an ES remembers of a panorama.
    """
    return _sense_panorama(scenario, bundle) if scenario.for_many else _sense_view(scenario)


def hide(
    picture: NDArray[np.uint8], share: float, rng_seed: int, *, factor: int = FACTOR
) -> Feature:
    """A picture with something square before the camera.

    Args:
        picture: RGB. [height, width, 3]
        share: Of the picture, about: whole cells of the map that crosses, 0.1 is 0.14. 0 hides
            nothing.
        rng_seed: Places it.
        factor: Pixels along the side of what one latent stands for.

    Returns:
        The picture, grey there, with confidence 0 there.
    """
    if share == 0:
        return Feature(kind="image", values=picture)
    cells = picture.shape[0] // factor
    cell = cells // CELLS
    side = cell * min(max(1, round(CELLS * share**0.5)), CELLS - 1)
    rng = np.random.default_rng((rng_seed, 6))
    top, left = cell * rng.integers(0, (cells - side) // cell + 1, 2)
    seen = np.ones((cells, cells), np.float32)
    seen[top : top + side, left : left + side] = 0
    pictured = picture.copy()
    pictured[seen.repeat(factor, 0).repeat(factor, 1) == 0] = _GREY
    return Feature(kind="image", values=pictured, confidence=seen)


def _sense_view(scenario: Scenario) -> Sensed:
    stages = {stage.name for stage in scenario.mechanism.stages}
    if not stages & {"sense", "remember"}:
        return Sensed(scenario=scenario, done=Part(), truth={})
    from megdt.worlds.garden import draw_view

    request, world = scenario.request, scenario.world
    garden, view = draw_view(request.rng_seed, size_px=request.size_px)
    now = garden.later(world.memory_days).render(view)
    seen = {
        "sense": hide(now, world.hidden, request.rng_seed, factor=scenario.model.space.factor),
        "remember": Feature(
            kind="image", values=garden.render(view), age_s=world.memory_days * DAY_S
        ),
    }
    given = {name: feature for name, feature in seen.items() if name in stages}
    return Sensed(
        scenario=scenario,
        done=Part(features=given),
        # Who has a prompt makes what it says, not what is there.
        truth={}
        if "ask" in stages
        else {s.name: now for s in scenario.mechanism.stages if s.makes == "image" and s.inputs},
    )


def _sense_panorama(scenario: Scenario, bundle: StoredModels) -> Sensed:
    from megdt.worlds.garden import Garden, View

    request, world, panorama = scenario.request, scenario.world, scenario.panorama
    columns_a_m = scenario.view_shape[2] / VIEW_EXTENT_M
    before = Garden(request.rng_seed, length_m=panorama.width / columns_a_m)
    garden = before.later(world.memory_days)
    memory = bundle.encode(before.panorama(request.size_px)[None])[0]
    given = {
        "remember": Feature(
            kind="observation", values=memory, age_s=world.memory_days * DAY_S
        )
    }  # fmt: skip
    seen, truth = {}, {}
    now = garden.panorama(request.size_px)
    for camera in panorama.cameras:
        view = View(position_m=camera.position_m, size_px=request.size_px)
        number = int(camera.number)
        picture = hide(garden.render(view), world.hidden, request.rng_seed * 64 + number)
        given[f"sense_{number}"] = picture
        blank = Feature(
            kind="observation",
            values=np.zeros(scenario.view_shape, np.float32),
            confidence=seen_in_latents(picture.confidence),
        )
        seen[camera.side] = panorama.doubt_edges(blank, camera)
        shown = panorama.shown(camera)
        if scenario.plan.mechanism == "coordinated":
            shown = panorama.columns
        truth[f"decode_{number}"] = now[:, shown.start * FACTOR : shown.stop * FACTOR]
    if scenario.plan.mechanism == "decentralized":
        scenario = replace(scenario, chosen_shares=scenario.choose_shares(seen))
    return Sensed(scenario=scenario, done=Part(features=given), truth=truth)
