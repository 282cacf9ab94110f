"""A mechanism is a small graph of stages, each with a side.

Stages are listed in an order in which each comes after its inputs. Nothing here says how a feature
gets from one side to the other: the executor sees where an edge changes side, and puts codec and
link there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from megdt.errors import MechanismError
from megdt.records import Feature, Kind, Request, Side, Style

StageProgress = Callable[[str, int, int], None]
"""Told the stage, its steps done and its steps in all."""


class Models(Protocol):
    """The generative sub-models that stages call: NumPy in and out, a leading batch axis."""

    def embed(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """[batch, embedding]"""
        ...

    def denoise(
        self,
        prompt_embeds: NDArray[np.float32],
        rng_seeds: Sequence[int],
        *,
        size_px: int,
        steps: int,
        guidance_scale: float,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float32]:
        """[batch, latent_channels, height, width]"""
        ...

    def redraw(
        self,
        sketches: NDArray[np.uint8],
        prompt_embeds: NDArray[np.float32] | None,
        rng_seeds: Sequence[int],
        *,
        style: Style,
        steps: int,
        guidance_scale: float,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float32]:
        """[batch, latent_channels, height, width]"""
        ...

    def decode(
        self, latents: NDArray[np.float32], noise_power: NDArray[np.float32] | None = None
    ) -> NDArray[np.uint8]:
        """[batch, height, width, 3]"""
        ...

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[batch, latent_channels, height, width]"""
        ...


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a stage may use besides its inputs."""

    request: Request
    models: Models
    progress: Callable[[int, int], None] | None = None


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a generation on one side.

    Args:
        name: Unique in its mechanism.
        side: Where it runs.
        inputs: Names of earlier stages, in the order `run` takes their features.
        makes: Kind of the feature it returns.
        run: The work itself: (job, *input features) to a feature.
    """

    name: str
    side: Side
    inputs: tuple[str, ...] = ()
    makes: Kind
    run: Callable[..., Feature]


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """A graph of stages; the last one makes the picture.

    Raises:
        MechanismError: If a name is used twice, an input is not an earlier stage, or the last
            stage makes no image.
    """

    name: str
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for stage in self.stages:
            if stage.name in seen:
                raise MechanismError(
                    f"{self.name} has two stages named {stage.name!r}; give each its own name"
                )
            for source in stage.inputs:
                if source not in seen:
                    raise MechanismError(
                        f"stage {stage.name!r} of {self.name} takes {source!r}, which no earlier "
                        f"stage makes; earlier stages: {', '.join(sorted(seen)) or 'none'}"
                    )
            seen.add(stage.name)
        if not self.stages or self.stages[-1].makes != "image":
            raise MechanismError(
                f"{self.name} does not end in an image; its last stage must make one"
            )

    def crossings(self) -> tuple[tuple[Stage, Stage], ...]:
        """Edges that change side: (source, target)."""
        by_name = {stage.name: stage for stage in self.stages}
        edges = [(by_name[source], stage) for stage in self.stages for source in stage.inputs]
        return tuple((a, b) for a, b in edges if a.side != b.side)
