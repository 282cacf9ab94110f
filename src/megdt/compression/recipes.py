"""How a sub-model can be made smaller, and what is tried in which order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from megdt.errors import RequestError
from megdt.models.elastic import Size
from megdt.records import Precision

Method = Literal["none", "prune", "low_rank", "distill", "elastic"]


def check_method(name: str) -> Method:
    """A method by its name.

    Raises:
        RequestError: If there is none.
    """
    for known in get_args(Method):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise RequestError(f"method is {name!r}, take one of {', '.join(get_args(Method))}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is made smaller.

    >>> str(Recipe(method="prune", keep=0.5)), str(Recipe(precision="fp16"))
    ('pruned to 0.5, int8', 'as it is, fp16')
    """

    method: Method = "none"
    keep: float = 1.0
    """Share of channels inside blocks, or rank over channels."""
    size: Size | None = None
    """Of a distilled decoder."""
    precision: Precision = "int8"

    def __str__(self) -> str:
        words = {
            "none": "as it is",
            "prune": f"pruned to {self.keep:g}",
            "low_rank": f"rank {self.keep:g}",
            "distill": f"distilled {self.size}",
            "elastic": "elastic",
        }
        return f"{words[self.method]}, {self.precision}"


def _distilled(width: int, blocks: int) -> Recipe:
    return Recipe(method="distill", size=Size(width=width, blocks=blocks))


def _pruned(keep: float) -> Recipe:
    return Recipe(method="prune", keep=keep)


def _low_rank(keep: float) -> Recipe:
    return Recipe(method="low_rank", keep=keep)


RECIPES: dict[str, tuple[Recipe, ...]] = {
    "decoder": (
        Recipe(),
        _pruned(0.75),
        _distilled(48, 3),
        _pruned(0.5),
        _distilled(32, 2),
        _pruned(0.25),
        _low_rank(0.75),
        _low_rank(0.5),
        _distilled(24, 2),
        _low_rank(0.25),
        _distilled(16, 1),
    ),
    "encoder": (
        Recipe(),
        _low_rank(0.75),
        _pruned(0.75),
        _low_rank(0.5),
        _pruned(0.5),
        _pruned(0.25),
        _low_rank(0.25),
    ),
    "student": (Recipe(),),
}
"""By sub-model: as it is, then by what is left of the picture in `studies/compression`, the best first."""
ELASTIC = Recipe(method="elastic")
"""A decoder of several sizes, for a device whose load changes; taken where it is asked for."""


def parts_of(method: Method | None) -> tuple[str, ...]:
    """The sub-models that can be made smaller by a method; all where none is named.

    >>> parts_of("none"), parts_of("elastic")
    (('decoder', 'encoder', 'student'), ('decoder',))
    """
    if method == "elastic":
        return ("decoder",)
    return tuple(
        part
        for part, recipes in RECIPES.items()
        if method is None or any(recipe.method == method for recipe in recipes)
    )
