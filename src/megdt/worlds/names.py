"""What there can be in the garden. Nothing is drawn here, so models and captions need no Skia."""

from __future__ import annotations

SPECIES = ("daisy", "tulip", "sunflower", "poppy", "lavender", "lily")
COLOURS = ("white", "yellow", "orange", "red", "pink", "purple", "blue")
SKIES = ("clear", "cloudy", "sunset", "night")
WEATHERS = ("dry", "misty", "rainy")
STAGES = ("bud", "bloom", "wilting")
DENSITIES = ("single", "pair", "few", "many")
"""How many flowers stand in front."""
