"""What a person would say about a garden view, in many wordings.

`attributes` reads off a view's ground truth what a caption can mention. `mention` leaves some of
it out, as people do. `phrase` puts the rest into words. Wordings marked as held out are never
drawn for training, so that prompt adherence can be tested on sentences nobody trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from megdt.worlds.scene import COLOURS, DENSITIES, SKIES, SPECIES, STAGES, WEATHERS

if TYPE_CHECKING:  # words need no drawing library
    from megdt.worlds.garden import Truth

Pick = Callable[[tuple[str, ...]], str]
Wording = Literal["training", "held out", "description"]
"""`description`: of a picture that is there, what `training` says of one that is asked for."""


@dataclass(frozen=True, kw_only=True)
class Attributes:
    """What a caption says; "" where it says nothing."""

    species: str = ""
    colour: str = ""
    stage: str = ""
    density: str = ""
    sky: str = ""
    weather: str = ""
    side: str = ""
    """Where the first kind stands when there is a second: "left" or "right"."""
    second_species: str = ""
    second_colour: str = ""


VALUES: dict[str, tuple[str, ...]] = {
    "species": SPECIES,
    "colour": COLOURS,
    "stage": STAGES,
    "density": DENSITIES,
    "sky": SKIES,
    "weather": WEATHERS,
    "side": ("left", "right"),
    "second_species": SPECIES,
    "second_colour": COLOURS,
}
"""Every value that an attribute can have besides ""."""

_SPECIES = {
    "daisy": ("daisy", "daisies", "marguerite", "marguerites"),
    "tulip": ("tulip", "tulips"),
    "sunflower": ("sunflower", "sunflowers"),
    "poppy": ("poppy", "poppies"),
    "lavender": ("lavender", "lavender", "lavender spike", "lavender spikes"),
    "lily": ("lily", "lilies"),
}
_COLOURS = {
    "white": ("white", "snowy", "snow-white", "ivory", "pale white"),
    "yellow": ("yellow", "golden", "lemon", "bright yellow", "sunny yellow"),
    "orange": ("orange", "amber", "tangerine", "bright orange"),
    "red": ("red", "crimson", "scarlet", "ruby", "deep red"),
    "pink": ("pink", "rosy", "rose-coloured", "light pink", "fuchsia"),
    "purple": ("purple", "violet", "lilac", "mauve", "deep purple"),
    "blue": ("blue", "azure", "cobalt", "sky-blue", "deep blue"),
}
_STAGES = {
    "bud": ("budding", "half-open", "young", "not yet open"),
    "bloom": ("blooming", "flowering", "fresh", "open"),
    "wilting": ("wilting", "withered", "drooping", "fading"),
}
_DENSITIES = {
    "single": ("a single", "one", "a lone", "just one", "a solitary"),
    "pair": ("two", "a pair of", "a couple of", "2"),
    "few": ("a few", "several", "some", "a handful of", "three or four"),
    "many": ("many", "lots of", "countless", "a field of", "a sea of", "masses of", "plenty of"),
}
_SKIES = {
    "clear": (
        "under a clear blue sky",
        "on a sunny day",
        "in bright sunshine",
        "beneath a blue sky",
        "on a clear day",
        "in the sunshine",
        "under a sunny sky",
        "at noon",
    ),
    "cloudy": (
        "under a cloudy sky",
        "on an overcast day",
        "beneath grey clouds",
        "on a grey day",
        "under heavy clouds",
        "on a cloudy day",
        "under an overcast sky",
        "in dull light",
    ),
    "sunset": (
        "at sunset",
        "at dusk",
        "in the evening glow",
        "under a red evening sky",
        "as the sun goes down",
        "in the golden evening",
        "under a sunset sky",
        "in the evening",
    ),
    "night": (
        "at night",
        "under the stars",
        "by moonlight",
        "under a starry sky",
        "in the moonlight",
        "on a moonlit night",
        "beneath the moon",
        "at midnight",
    ),
}
_WEATHERS = {
    "dry": ("in dry weather", "in calm weather", "without a drop of rain"),
    "misty": (
        "in the mist",
        "in thick fog",
        "on a foggy morning",
        "shrouded in mist",
        "misty",
        "in haze",
    ),
    "rainy": (
        "in the rain",
        "during a shower",
        "on a rainy day",
        "in pouring rain",
        "rainy",
        "while it rains",
    ),
}
_PLACES = (
    "",
    "",
    "in a meadow",
    "in a garden",
    "on a green field",
    "in the grass",
    "in the countryside",
    "in a flower meadow",
    "before soft hills",
)

_TEMPLATES = {
    "training": (
        "{subject} {place} {sky} {weather}",
        "{subject} {sky} {place} {weather}",
        "{sky}, {subject} {place} {weather}",
        "{weather} {sky} {subject} {place}",
        "a photo of {subject} {place} {sky} {weather}",
        "a picture of {subject} {place}, {sky}, {weather}",
        "{subject}, {sky}, {weather}",
        "{subject} {weather} {place} {sky}",
        "a meadow with {subject} {sky} {weather}",
        "a beautiful landscape with {subject} {place} {sky} {weather}",
        "please draw {subject} {place} {sky} {weather}",
        "there are {subject} {place} {sky} {weather}",
        "{place} {subject} grow {sky} {weather}",
        "i would like to see {subject} {sky} {weather}",
        "painting: {subject} {place}. {sky}. {weather}",
    ),
    "held out": (
        "imagine {subject} standing {place} {sky} {weather}",
        "show me {subject} {sky}, {place}, {weather}",
        "a wide view of {subject} {weather}, seen {sky}",
        "{sky} we walk past {subject} {place} {weather}",
        "my camera sees {subject} {place} {weather} {sky}",
        "a postcard {place} {sky} showing {subject} {weather}",
        "{subject} swaying gently {place} {weather} {sky}, peaceful mood",
        "could you make an image that has {subject} in it, {weather} {sky}",
    ),
    "description": (
        "{subject} {place} {sky} {weather}",
        "{sky}, {subject} {place} {weather}",
        "a photo of {subject} {place} {sky} {weather}",
        "a meadow with {subject} {sky} {weather}",
        "a beautiful landscape with {subject} {place} {sky} {weather}",
        "there are {subject} {place} {sky} {weather}",
    ),
}


def attributes(truth: Truth) -> Attributes:
    """Everything that a caption of this view could mention."""
    conditions = truth.conditions
    said = Attributes(sky=conditions.sky, weather=conditions.weather)
    if not truth.groups:
        return said
    first = truth.groups[0]
    near = first.foreground
    density = "single" if near == 1 else "pair" if near == 2 else "few" if near <= 5 else "many"
    said = replace(
        said,
        species=first.species,
        colour=first.colour,
        stage=first.stage,
        density=density if near else "",
    )
    if len(truth.groups) > 1 and truth.groups[1].share > 0.2:
        second = truth.groups[1]
        return replace(
            said,
            side=first.side if first.side != "all over" else "",
            second_species=second.species,
            second_colour=second.colour,
            density="",
        )
    return said


def mention(said: Attributes, rng: np.random.Generator) -> Attributes:
    """Leave out what a person might leave out."""
    keep = {"species": 0.96, "colour": 0.92, "sky": 0.88, "stage": 0.3, "density": 0.6, "side": 0.8}
    dropped: dict[str, str] = {}
    for field in fields(said):
        share = keep.get(field.name, 0.9)
        # Open flowers and dry weather go without saying, mostly.
        if getattr(said, field.name) in ("bloom", "dry"):
            share = 0.12
        if rng.uniform() > share:
            dropped[field.name] = ""
    left = replace(said, **dropped)
    if not (left.species and left.second_species):
        left = replace(left, second_species="", second_colour="", side="")
    return left


def phrase(said: Attributes, rng: np.random.Generator, *, wording: Wording = "training") -> str:
    """Put attributes into words; the generator picks template and synonyms."""

    def pick(options: tuple[str, ...]) -> str:
        return str(options[rng.integers(len(options))])

    subject = _subject(said.species, said.colour, said.stage, said.density, pick)
    if said.second_species:
        second = _subject(said.second_species, said.second_colour, "", "", pick)
        subject = _join(subject, second, said.side, pick)
    text = pick(_TEMPLATES[wording]).format(
        subject=subject,
        place=pick(_PLACES),
        sky=pick(_SKIES[said.sky]) if said.sky else "",
        weather=pick(_WEATHERS[said.weather]) if said.weather else "",
    )
    words = " ".join(text.split()).replace(" ,", ",").replace(" .", ".")
    while ",," in words or ".." in words:
        words = words.replace(",,", ",").replace("..", ".")
    words = words.strip(" ,.")
    return words if rng.uniform() < 0.6 else words[:1].upper() + words[1:]


def _subject(species: str, colour: str, stage: str, density: str, pick: Pick) -> str:
    if species:
        forms = _SPECIES[species]
        number = 0 if density == "single" else 1
        noun = pick(forms[number::2])
    else:
        noun = pick(
            ("flower", "blossom") if density == "single" else ("flowers", "blossoms", "wildflowers")
        )
    parts = [pick(_DENSITIES[density]) if density else "", pick(_STAGES[stage]) if stage else ""]
    if colour:
        parts.append(pick(_COLOURS[colour]))
    words = " ".join(part for part in (*parts, noun) if part)
    if colour and pick(("before",) * 7 + ("after",)) == "after":
        plain = " ".join(part for part in (*parts[:2], noun) if part)
        return f"{plain} in {parts[2]}"
    return words


def _join(first: str, second: str, side: str, pick: Pick) -> str:
    if side:
        other = "right" if side == "left" else "left"
        return pick(
            (
                f"{first} on the {side} and {second} on the {other}",
                f"{first} to the {side}, {second} to the {other}",
                f"{second} on the {other} and {first} on the {side}",
                f"{first} on the {side} with {second} beside them",
            )
        )
    return pick(
        (
            f"{first} and {second}",
            f"{first} with {second}",
            f"{first} among {second}",
            f"a mix of {first} and {second}",
        )
    )
