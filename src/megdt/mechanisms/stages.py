"""A mechanism is a small graph of stages, each with a side.

Stages are listed in an order in which each comes after its inputs; those that do not depend on each
other are branches, which may run at once. Nothing here says how a feature gets from one side to the
other: the executor sees where an edge changes side, and puts codec and link there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

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
        handoff_step: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float32]:
        """[batch, latent_channels, height, width]"""
        ...

    def enlarge(
        self,
        latents: NDArray[np.float32],
        prompt_embeds: NDArray[np.float32],
        rng_seeds: Sequence[int],
        *,
        size_px: int,
        steps: int,
        guidance_scale: float,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float32]:
        """What `denoise` gives at MIN_SIZE_PX, on finer grids. [batch, latent_channels, height, width]"""
        ...

    def finish(
        self,
        latents: NDArray[np.float32],
        prompts: Sequence[str],
        rng_seeds: Sequence[int],
        *,
        noise_power: float,
        steps: int,
        handoff_step: int,
        guidance_scale: float,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[NDArray[np.float32], float]:
        """[batch, latent_channels, height, width], and the noise level that they came at"""
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

    def edit(
        self,
        latents: NDArray[np.float32],
        prompt_embeds: NDArray[np.float32],
        rng_seeds: Sequence[int],
        *,
        strength: float,
        steps: int,
        guidance_scale: float,
        confidence: NDArray[np.float32] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float32]:
        """[batch, latent_channels, height, width]"""
        ...

    def fuse(
        self,
        latents: NDArray[np.float32],
        confidence: NDArray[np.float32],
        age_s: NDArray[np.float32],
        noise_power: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """[batch, latent_channels, height, width]"""
        ...

    def decode(
        self, latents: NDArray[np.float32], noise_power: NDArray[np.float32] | None = None
    ) -> NDArray[np.uint8]:
        """[batch, height, width, 3]"""
        ...

    def write(self, prompt: str, image: NDArray[np.uint8] | None = None, *, rng_seed: int) -> str:
        """A text in answer to a prompt, about a picture where there is one. [height, width, 3]"""
        ...

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[batch, latent_channels, height, width]"""
        ...


class StoredModels(Models, Protocol):
    """Sub-models that lie in files, which name them."""

    @property
    def checksum(self) -> str:
        """Of what makes a picture."""
        ...

    def load(self, *names: str) -> None:
        """Read some now, by the names of the bundle's, so that no stage is charged for it."""
        ...


@runtime_checkable
class SidedModels(Protocol):
    """Sub-models of which sides have their own."""

    def at(self, side: Side) -> Models:
        """Those of a side."""
        ...


def models_at(models: Models, side: Side) -> Models:
    """What a side generates with."""
    return models.at(side) if isinstance(models, SidedModels) else models


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a stage may use besides its inputs."""

    request: Request
    models: Models
    side: Side = Side.ES
    """Where the stage runs."""
    progress: Callable[[int, int], None] | None = None


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a generation on one side.

    Args:
        name: Unique in its mechanism.
        side: Where it runs.
        inputs: Names of earlier stages, in the order `run` takes their features.
        optional: Those of the inputs that it can go on without: `run` takes None for one that was
            late or lost. It waits until that is known.
        as_sent: Those of its own side's inputs that it takes as the other sides receive them, with
            what the codec takes away: so that copies of a stage on several sides work on the same.
        makes: Kind of the feature it returns.
        run: The work itself: (job, *input features) to a feature; to None where there is nothing to
            be made this time.

    Raises:
        MechanismError: If the side is none, or an optional input is no input.
    """

    name: str
    side: Side
    inputs: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    as_sent: tuple[str, ...] = ()
    makes: Kind
    run: Callable[..., Feature | None]

    def __post_init__(self) -> None:
        if not isinstance(self.side, Side):
            raise MechanismError(
                f"stage {self.name!r} has side {self.side!r}; say where it runs: Side.ES, Side.UE "
                "or Side.ue(number)"
            )
        for names, what in ((self.optional, "can go on without"), (self.as_sent, "takes as sent")):
            for name in names:
                if name not in self.inputs:
                    raise MechanismError(
                        f"stage {self.name!r} ({self.side}) {what} {name!r}, which is no input of "
                        f"it; its inputs: {', '.join(self.inputs) or 'none'}"
                    )


@dataclass(frozen=True, kw_only=True)
class Edge:
    """A feature that changes side. A side that has it needs it once, for all its stages."""

    source: Stage
    target: Stage
    """The first stage on the other side that takes it."""
    number: int
    """Among the source side's edges, in the order of the stages: it tells channels apart."""

    @property
    def key(self) -> tuple[str, Side]:
        """What goes where."""
        return self.source.name, self.target.side


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """A graph of stages; the last one makes the picture, or the text.

    Args:
        name: As plans call it.
        about: What it does, in one sentence.
        stages: In an order in which each comes after its inputs.

    Raises:
        MechanismError: If a name is used twice, an input is not an earlier stage, or the last
            stage makes neither image nor text.
    """

    name: str
    about: str = ""
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        seen: set[str] = set()
        for stage in self.stages:
            if stage.name in seen:
                raise MechanismError(
                    f"{self.name} has two stages named {stage.name!r}; give each its own name"
                )
            for source in stage.inputs:
                if source in names and source not in seen:
                    raise MechanismError(
                        f"stage {stage.name!r} ({stage.side}) of {self.name} takes {source!r}, "
                        "which comes later: list it earlier, or break the cycle"
                    )
                if source not in seen:
                    raise MechanismError(
                        f"stage {stage.name!r} ({stage.side}) of {self.name} takes {source!r}, "
                        "which no earlier stage makes; earlier stages: "
                        f"{', '.join(sorted(seen)) or 'none'}"
                    )
            seen.add(stage.name)
        for stage in self.stages:
            for name in stage.as_sent:
                self.echo(stage, name)
        if not self.stages or self.stages[-1].makes not in ("image", "text"):
            raise MechanismError(
                f"{self.name} does not end in an image or a text; its last stage must make one"
            )

    @cached_property
    def by_name(self) -> dict[str, Stage]:
        """The stages."""
        return {stage.name: stage for stage in self.stages}

    @cached_property
    def takers(self) -> dict[tuple[str, Side], tuple[Stage, ...]]:
        """By what goes where: the stages on that side that take it."""
        found: dict[tuple[str, Side], list[Stage]] = {edge.key: [] for edge in self.edges}
        for stage in self.stages:
            for name in stage.inputs:
                if (name, stage.side) in found:
                    found[name, stage.side].append(stage)
        return {key: tuple(stages) for key, stages in found.items()}

    @cached_property
    def sides(self) -> tuple[Side, ...]:
        """In the order in which they first have something to do."""
        return tuple(dict.fromkeys(stage.side for stage in self.stages))

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """All that crosses, in the order in which the stages need it."""
        found: dict[tuple[str, Side], Edge] = {}
        numbers: Counter[Side] = Counter()
        for stage in self.stages:
            for name in stage.inputs:
                source = self.by_name[name]
                if source.side == stage.side or (name, stage.side) in found:
                    continue
                number = numbers[source.side]
                numbers[source.side] += 1
                found[name, stage.side] = Edge(source=source, target=stage, number=number)
        return tuple(found.values())

    @cached_property
    def previous(self) -> dict[tuple[str, Side], Edge]:
        """By what goes where: what goes before it, of its kind and between the same sides."""
        last: dict[tuple[Kind, Side, Side], Edge] = {}
        found: dict[tuple[str, Side], Edge] = {}
        for edge in self.edges:
            stream = edge.source.makes, edge.source.side, edge.target.side
            if stream in last:
                found[edge.key] = last[stream]
            last[stream] = edge
        return found

    def echo(self, stage: Stage, name: str) -> Edge:
        """The edge by which a stage's own side sends what the stage takes as sent."""
        for edge in self.edges:
            if edge.source.name == name and edge.source.side == stage.side:
                return edge
        raise MechanismError(
            f"stage {stage.name!r} ({stage.side}) of {self.name} takes {name!r} as sent, and it is "
            "sent to no other side"
        )

    @cached_property
    def steps(self) -> tuple[Stage | Edge, ...]:
        """Stages and edges in an order in which each comes after what it needs."""
        before: dict[str, list[Edge]] = {}
        placed: set[tuple[str, Side]] = set()
        to: dict[str, list[Edge]] = {}
        for edge in self.edges:
            to.setdefault(edge.target.name, []).append(edge)
        for stage in self.stages:
            needed = list(to.get(stage.name, ()))
            needed += [self.echo(stage, name) for name in stage.as_sent]
            before[stage.name] = [e for e in needed if e.key not in placed]
            placed |= {e.key for e in needed}
        found: list[Stage | Edge] = []
        for stage in self.stages:
            found += [*before[stage.name], stage]
        return tuple(found)
