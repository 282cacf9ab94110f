"""How a sub-model can be made smaller, and what is tried in which order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from megdt.errors import RequestError
from megdt.models.elastic import SIZES, Size
from megdt.records import Precision

Method = Literal["none", "prune", "low_rank", "student", "elastic"]


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
    """Of a student."""
    precision: Precision = "int8"

    def __str__(self) -> str:
        words = {
            "none": "as it is",
            "prune": f"pruned to {self.keep:g}",
            "low_rank": f"rank {self.keep:g}",
            "student": f"student {self.size}",
            "elastic": "elastic",
        }
        return f"{words[self.method]}, {self.precision}"


_STUDENTS = tuple(Recipe(method="student", size=size) for size in sorted(SIZES, reverse=True))
_AS_IT_IS = (Recipe(precision="fp16"), Recipe())
_THINNER = tuple(
    Recipe(method=method, keep=keep)
    for keep in (0.75, 0.5, 0.25)
    for method in ("prune", "low_rank")
)
RECIPES: dict[str, tuple[Recipe, ...]] = {
    "decoder": (*_AS_IT_IS, *_THINNER, *_STUDENTS),
    "encoder": (*_AS_IT_IS, *_THINNER),
    "student": _AS_IT_IS,
}
"""By sub-model, the one that keeps most first."""
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
