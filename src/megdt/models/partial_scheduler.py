"""A diffusers scheduler of which a pipeline sees some steps alone.

So a generation can be stopped at any step and gone on with elsewhere, by the pipeline's own code.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


class PlannedError(Exception):
    """Ends a pipeline's call once its timesteps are set."""


class PlannedScheduler:
    """A scheduler that lets a pipeline set its timesteps and do no more.

    Args:
        scheduler: The one that is planned.
    """

    def __init__(self, scheduler: Any) -> None:
        self._whole = scheduler

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)

    @property
    def timesteps(self) -> Tensor:
        """What a pipeline asks for next.

        Raises:
            PlannedError: Always.
        """
        raise PlannedError


class PartialScheduler:
    """A scheduler that shows a pipeline some of its timesteps.

    Args:
        scheduler: The whole one.
        start: The first step that is shown.
        stop: The first that is not any more; None for none.
        given: Whether latents are given, which then are as noisy as they are to be.
        replay: Shape and type of the latents, and the generators from which the steps before have
            taken their chances.
    """

    def __init__(
        self, scheduler: Any, start: int, stop: int | None, *, given: bool,
        replay: tuple[tuple[int, ...], list[torch.Generator], torch.dtype] | None = None,
    ) -> None:  # fmt: skip
        self._whole, self._start, self._stop, self._replay = scheduler, start, stop, replay
        self._given = given

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)

    @property
    def init_noise_sigma(self) -> Any:
        """By what a pipeline multiplies the latents that it begins with."""
        return 1.0 if self._given else self._whole.init_noise_sigma

    @property
    def timesteps(self) -> Tensor:
        """Those that are shown."""
        shown: Tensor = self._whole.timesteps[self._start : self._stop]
        return shown

    @cached_property
    def set_timesteps(self) -> Callable[..., None]:
        """Of the whole one, told where to begin."""
        whole = self._whole.set_timesteps

        # With its signature, which pipelines look at.
        def set_timesteps(*args: Any, **kwargs: Any) -> None:
            whole(*args, **kwargs)
            if self._replay is not None:
                self._run_in_vain(*self._replay)
            if self._given:
                self.set_begin_index()

        set_timesteps.__signature__ = inspect.signature(whole)  # type: ignore[attr-defined]
        return set_timesteps

    def set_begin_index(self, index: int = 0) -> None:
        """Tell the whole one where it begins; earlier ones have none to be told."""
        if hasattr(self._whole, "set_begin_index"):
            self._whole.set_begin_index(index + self._start)

    def _run_in_vain(
        self, shape: tuple[int, ...], generators: list[torch.Generator], dtype: torch.dtype
    ) -> None:
        if "generator" not in inspect.signature(self._whole.step).parameters:
            return
        before = copy.deepcopy(self._whole)
        nothing = torch.zeros(shape, dtype=dtype)
        for timestep in before.timesteps[: self._start]:
            if hasattr(before, "scale_model_input"):
                before.scale_model_input(nothing, timestep)
            before.step(nothing, timestep, nothing, generator=generators, return_dict=False)


def add_noise(scheduler: Any, latents: Tensor, noise: Tensor, step: int) -> Tensor:
    """Latents as noisy as they are before a step. [batch, latent_channels, height, width]"""
    at = scheduler.timesteps[step : step + 1].repeat(len(latents))
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(step)
    add = scheduler.scale_noise if hasattr(scheduler, "scale_noise") else None
    noised: Tensor = (
        scheduler.add_noise(latents, noise, at) if add is None else add(latents, at, noise)
    )
    return noised


def levels_of(scheduler: Any) -> list[tuple[float, float]]:
    """How much of the picture and how much noise is in a latent before each step, and at the end.

    Args:
        scheduler: One of SCHEDULERS, its timesteps set.
    """
    kind = type(scheduler).__name__
    if kind.startswith("FlowMatch"):
        return [(1 - s, s) for s in scheduler.sigmas.tolist()]
    if kind.startswith("Euler"):
        return [(1.0, s) for s in scheduler.sigmas.tolist()]
    kept = [float(scheduler.alphas_cumprod[int(t)]) for t in scheduler.timesteps]
    return [*((math.sqrt(a), math.sqrt(1 - a)) for a in kept), (1.0, 0.0)]


def nearest_step(levels: list[tuple[float, float]], signal: float, noise: float) -> int:
    """The step whose level is the nearest to one, by the angle between signal and noise.

    So noise that is far less than the last levels have is nearest to none.

    Args:
        levels: Of the steps, as of `levels_of`.
        signal: How much of the picture is in a latent.
        noise: How much noise is.

    >>> levels = [(0.1, 1.0), (0.5, 0.5), (1.0, 0.0)]
    >>> nearest_step(levels, 0.5, 0.4), nearest_step(levels, 1.0, 0.01)
    (1, 2)
    """

    def far(step: int) -> float:
        own_signal, own_noise = levels[step]
        return abs(math.atan2(own_noise, own_signal) - math.atan2(noise, signal))

    return min(range(len(levels)), key=far)
