"""What the cameras of a site see: one picture, as wide as the panorama, at any time."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from megdt.errors import WorldError
from megdt.mechanisms.panorama import VIEW_COLUMNS
from megdt.models import FACTOR
from megdt.pictures import read_picture
from megdt.scenario.twin import Scene
from megdt.worlds.garden import Garden
from megdt.worlds.scene import VIEW_EXTENT_M, Conditions

VIEW_PX = VIEW_COLUMNS * FACTOR

_DAY_S = 86_400.0
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".tif", ".tiff")
_MOST_PHOTOS = 64


class Scenery(Protocol):
    """A scene over time."""

    @property
    def columns(self) -> int:
        """Of the panorama, in latents; whole tiles."""
        ...

    @property
    def conditions(self) -> Mapping[str, str]:
        """Sky and weather."""
        ...

    @property
    def named(self) -> bool:
        """Whether the bundle's classifier knows what is in it."""
        ...

    def panorama(self, time_s: float) -> NDArray[np.uint8]:
        """RGB. [256, 8 * columns, 3]"""
        ...


class GardenScenery:
    """A meadow that grows.

    Args:
        scene: Its rng_seed lays out the meadow.
    """

    named = True

    def __init__(self, scene: Scene) -> None:
        drawn = Garden(scene.rng_seed, length_m=scene.length_m)
        before = drawn.conditions
        self._garden = Garden(
            scene.rng_seed,
            length_m=scene.length_m,
            conditions=Conditions(
                sky=scene.sky, weather=scene.weather, light_x_m=before.light_x_m,
                cloud_seed=before.cloud_seed, land_seed=before.land_seed,
            ),
            age_days=scene.age_days,
        )  # fmt: skip
        self.columns = round(scene.length_m * VIEW_COLUMNS / VIEW_EXTENT_M)
        self._draw = lru_cache(4)(self._drawn)

    @property
    def conditions(self) -> Mapping[str, str]:
        """Sky and weather."""
        return {"sky": self._garden.conditions.sky, "weather": self._garden.conditions.weather}

    def garden(self, time_s: float) -> Garden:
        """As it stands then."""
        return self._garden.later(time_s / _DAY_S)

    def panorama(self, time_s: float) -> NDArray[np.uint8]:
        """RGB. [256, 8 * columns, 3]"""
        return self._draw(time_s)

    def _drawn(self, time_s: float) -> NDArray[np.uint8]:
        return self.garden(time_s).panorama(VIEW_PX)


class PhotoScenery:
    """Pictures side by side, the middle square of each; they do not change.

    Args:
        scene: Its folder holds them.

    Raises:
        WorldError: If there are fewer than two, or more than 64.
        OutputError: If one of them is no picture.
    """

    named = False

    def __init__(self, scene: Scene) -> None:
        folder = Path(scene.folder).expanduser()
        files = sorted(p for p in folder.glob("*") if p.suffix.lower() in _SUFFIXES)
        if not 2 <= len(files) <= _MOST_PHOTOS:
            raise WorldError(
                f"{folder} has {len(files)} pictures, a scene takes 2 to {_MOST_PHOTOS}; name a folder "
                "of these with scene.folder"
            )
        self._picture = np.concatenate([read_picture(file, VIEW_PX) for file in files], 1)
        self.columns = VIEW_COLUMNS * len(files)
        self.conditions: Mapping[str, str] = {"sky": scene.sky, "weather": scene.weather}

    def panorama(self, time_s: float) -> NDArray[np.uint8]:
        """RGB. [256, 8 * columns, 3]"""
        return self._picture


def make_scenery(scene: Scene) -> Scenery:
    """What a scene's cameras see."""
    return PhotoScenery(scene) if scene.kind == "photos" else GardenScenery(scene)
