"""Cameras along one panorama: which of its columns each sees, and features placed by column.

A column is one latent wide and as high as a view. What a feature shows is a sequence of columns, its
own ones from the left; they need not lie side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from megdt.errors import MechanismError
from megdt.models import FACTOR
from megdt.records import MIN_SIZE_PX, Feature, Side
from megdt.worlds.scene import VIEW_EXTENT_M

VIEW_COLUMNS = MIN_SIZE_PX // FACTOR
"""Of the smallest picture."""

EDGE_COLUMNS = 4
"""At each side of a view, where the encoder sees what lies beyond as nothing: these latents say "here
the picture ends", and in the middle of a wider one they spoil it."""

EDGE_CONFIDENCE = 0.01
"""Of these: they count where nobody else sees, and do not cross."""

Columns = Sequence[int]
"""Of the panorama, rising."""


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A UE that looks at the panorama.

    Args:
        side: The UE, one of several.
        column: The first that it sees.
        width: Columns that it sees.

    Raises:
        MechanismError: If the side is not one of several UEs.
    """

    side: Side
    column: int
    width: int = VIEW_COLUMNS

    def __post_init__(self) -> None:
        if not self.number:
            raise MechanismError(
                f"a camera is on side {self.side}; cameras are on UEs that are told apart: "
                "Side.ue(1), Side.ue(2), ..."
            )

    @classmethod
    def at(cls, side: Side, position_m: float, *, width: int = VIEW_COLUMNS) -> Camera:
        """The camera that stands nearest to a position, on whole columns."""
        column = round(position_m * width / VIEW_EXTENT_M - width / 2)
        return cls(side=side, column=column, width=width)

    @property
    def position_m(self) -> float:
        """Of the middle of its view, from the left end."""
        return (self.column + self.width / 2) * VIEW_EXTENT_M / self.width

    @property
    def view(self) -> range:
        """The columns that it sees."""
        return range(self.column, self.column + self.width)

    @property
    def number(self) -> str:
        """Of its UE, as its stages are named."""
        return self.side.removeprefix("UE") if self.side.is_ue else ""


@dataclass(frozen=True, kw_only=True)
class Panorama:
    """A panorama and who looks at it.

    Args:
        width: Columns in all.
        cameras: In the order in which their stages are listed; all views are of one size.
        margin: Columns by which a UE's extended view goes beyond its own on each side. As it is
            here, what the ES sends for it is as large as a view.

    Raises:
        MechanismError: If there is no camera, two are on one side, one looks beyond the panorama,
            views differ in size, or an extended view is wider than the panorama.
    """

    width: int
    cameras: tuple[Camera, ...]
    margin: int = VIEW_COLUMNS // 2 - EDGE_COLUMNS

    def __post_init__(self) -> None:
        if not self.cameras:
            raise MechanismError("no camera looks at the panorama; give it at least one")
        if len(self.by_side) < len(self.cameras):
            sides = [c.side for c in self.cameras]
            twice = next(s for s in sides if sides.count(s) > 1)
            raise MechanismError(f"{twice} has two cameras; give each a side of its own")
        for camera in self.cameras:
            if camera.width != self.cameras[0].width:
                raise MechanismError(
                    f"the camera of {camera.side} sees {camera.width} columns, that of "
                    f"{self.cameras[0].side} {self.cameras[0].width}; let all see as many"
                )
            if camera.view.start < 0 or camera.view.stop > self.width:
                raise MechanismError(
                    f"the camera of {camera.side} sees columns {camera.view.start} to "
                    f"{camera.view.stop - 1}, the panorama has 0 to {self.width - 1}; move the "
                    "camera or widen the panorama"
                )
        widest = self.cameras[0].width + 2 * self.margin
        if self.margin < 0 or widest > self.width:
            raise MechanismError(
                f"a view with a margin of {self.margin} on each side has {widest} columns, the "
                f"panorama {self.width}; take a margin from 0 to "
                f"{(self.width - self.cameras[0].width) // 2}"
            )

    @cached_property
    def by_side(self) -> dict[Side, Camera]:
        """The cameras."""
        return {camera.side: camera for camera in self.cameras}

    @property
    def columns(self) -> range:
        """All of them."""
        return range(self.width)

    @cached_property
    def watched(self) -> tuple[int, ...]:
        """The columns that some camera sees."""
        return tuple(sorted({column for camera in self.cameras for column in camera.view}))

    def window(self, camera: Camera) -> range:
        """The extended view of a camera: always as wide, so at an end it goes further inwards."""
        wide = camera.width + 2 * self.margin
        left = min(max(camera.column - self.margin, 0), self.width - wide)
        return range(left, left + wide)

    def shown(self, camera: Camera) -> range:
        """What a picture decoded of the extended view is right in: without its edges, but for those
        at which the panorama ends too.
        """
        window = self.window(camera)
        left = window.start + EDGE_COLUMNS * (window.start > 0)
        return range(left, window.stop - EDGE_COLUMNS * (window.stop < self.width))

    def around(self, camera: Camera) -> tuple[int, ...]:
        """The columns of its extended view that it does not see itself, or as the edge of its view:
        2 * (margin + EDGE_COLUMNS).
        """
        inner = camera.view[EDGE_COLUMNS:-EDGE_COLUMNS]
        return tuple(c for c in self.window(camera) if c not in inner)

    def doubt_edges(self, observation: Feature, camera: Camera) -> Feature:
        """A camera's observation with the edges of its view told as such, but for those at which
        the panorama ends too.
        """
        _check(observation, camera.view, f"the camera of {camera.side}")
        seen = observation.confidence
        confidence = (
            np.ones(observation.values.shape[1:], np.float32) if seen is None else seen.copy()
        )
        left, right = confidence[:, :EDGE_COLUMNS], confidence[:, -EDGE_COLUMNS:]
        left *= EDGE_CONFIDENCE if camera.view.start > 0 else 1
        right *= EDGE_CONFIDENCE if camera.view.stop < self.width else 1
        return replace(observation, confidence=confidence)


def place(observation: Feature, columns: Columns, window: range, *, who: str = "it") -> Feature:
    """What an observation shows of a window.

    Args:
        observation: [latent_channels, height, columns]
        columns: That it shows.
        window: The columns that are wanted.
        who: Has made it, for errors.

    Returns:
        Zeros, and confidence 0, where it shows nothing. [latent_channels, height, window]

    Raises:
        MechanismError: If it has another number of columns, or no map of confidence of its size.
    """
    _check(observation, columns, who)
    channels, height, _ = observation.values.shape
    common = np.array([c for c in window if c in columns], int)
    here, there = common - window.start, _find(columns, common)
    values = np.zeros((channels, height, len(window)), np.float32)
    values[:, :, here] = observation.values[:, :, there]
    confidence = np.zeros((height, len(window)), np.float32)
    seen = observation.confidence
    confidence[:, here] = 1 if seen is None else seen[:, there]
    return replace(observation, values=values, confidence=confidence)


def cut(observation: Feature, columns: Columns, wanted: Columns, *, who: str = "it") -> Feature:
    """Some columns of an observation that shows them all.

    Args:
        observation: [latent_channels, height, columns]
        columns: That it shows.
        wanted: Some of them.
        who: Has made it, for errors.

    Returns:
        [latent_channels, height, wanted]

    Raises:
        MechanismError: If it does not show one that is wanted, or is of another size.
    """
    _check(observation, columns, who)
    missing = [c for c in wanted if c not in columns]
    if missing or not wanted:
        raise MechanismError(
            f"{who} shows columns {columns[0]} to {columns[-1]}, and "
            f"{f'column {missing[0]}' if missing else 'no column'} is wanted of it; ask for columns "
            "that it shows"
        )
    at = _find(columns, np.array(wanted, int))
    seen = observation.confidence
    return replace(
        observation,
        values=np.ascontiguousarray(observation.values[:, :, at]),
        confidence=None if seen is None else np.ascontiguousarray(seen[:, at]),
    )


def meet(columns: Columns, window: range) -> bool:
    """Whether columns and a window may have one in common."""
    return columns[0] < window.stop and window.start <= columns[-1]


def aged(observation: Feature, by_s: float) -> Feature:
    """The same, so many seconds later."""
    return replace(observation, age_s=observation.age_s + by_s)


def _find(columns: Columns, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where columns that are there stand."""
    # A long row is not written out for a few of it.
    if isinstance(columns, range):
        return wanted - columns.start
    return np.searchsorted(columns, wanted)


def _check(observation: Feature, columns: Columns, who: str) -> None:
    shape = np.shape(observation.values)
    if len(shape) != 3 or shape[2] != len(columns):
        raise MechanismError(
            f"{who} gave an observation of shape {shape}; expected [latent_channels, height, "
            f"{len(columns)}], one column for each that it shows: give each camera's own view"
        )
    seen = observation.confidence
    if seen is not None and seen.shape != shape[1:]:
        raise MechanismError(
            f"{who} gave confidence of shape {seen.shape} with an observation of shape {shape}; "
            f"expected {shape[1:]}: give one number for each latent"
        )
