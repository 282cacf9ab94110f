"""What there can be in the garden, and what stands where. Nothing is drawn here, so those who only
need names and values need no Skia.
"""

from __future__ import annotations

from dataclasses import dataclass

SPECIES = ("daisy", "tulip", "sunflower", "poppy", "lavender", "lily")
COLOURS = ("white", "yellow", "orange", "red", "pink", "purple", "blue")
SKIES = ("clear", "cloudy", "sunset", "night")
WEATHERS = ("dry", "misty", "rainy")
STAGES = ("bud", "bloom", "wilting")
DENSITIES = ("single", "pair", "few", "many")
"""How many flowers stand in front."""

VIEW_EXTENT_M = 4.0
"""Width and height of every view, metres of the picture plane."""

HORIZON_M = 1.62
"""Where the horizon lies, metres below the top edge."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What holds over the whole garden."""

    sky: str = "clear"
    weather: str = "dry"
    light_x_m: float = 3.0
    """Where the sun or the moon stands along the panorama."""
    cloud_seed: int = 0
    land_seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Plot:
    """What dominates one stretch of the garden."""

    species: str
    colour: str
    stage: str = "bloom"
    density: str = "many"


@dataclass(frozen=True, kw_only=True)
class Entity:
    """One flower. Lengths in metres of the picture plane, y downwards from its top edge."""

    species: str
    colour: str
    stage: str
    x_m: float
    ground_y_m: float
    head_x_m: float
    head_y_m: float
    radius_m: float
    nearness: float
    """0 at the horizon, 1 right in front of the camera, above 1 rooted below the picture."""
    tilt_deg: float = 0.0
    turn_deg: float = 0.0
