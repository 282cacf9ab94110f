"""Denoising steps of several requests run as one batch, which they join and leave between steps.

The four parts of a step are named as in vLLM-Omni's contract for diffusion pipelines: prepare_encode,
denoise_step, step_scheduler, post_decode.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from megdt.errors import MissingExtraError

try:
    import torch
    from torch import Tensor
except ImportError:
    raise MissingExtraError("an edge server needs torch; pip install 'megdt[serve]'") from None

from megdt.models import SHIFT
from megdt.models.bundle import Bundle
from megdt.models.cards import BUNDLE
from megdt.models.generation import (
    GRID,
    _generators,
    _noise,
    _on_grid,
    count_steps,
    grids,
    handoff_level,
    measure_spread,
)
from megdt.models.sampling import Progress, make_sigmas

LARGEST = 8
"""Requests in one step, where nothing else is said."""


@dataclass(eq=False, kw_only=True)
class StepState:
    """A request between two of its steps."""

    latent: Tensor
    """[1, 4, 32, 32]"""
    prompt_embeds: Tensor
    """[1, embedding]"""
    sigmas: Tensor
    """Of the steps that are to be run. [steps + 1]"""
    guidance_scale: float
    progress: Progress | None = None
    index: int = 0
    """Steps that have been run."""
    flops: float = 0.0
    error: BaseException | None = None
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def rows(self) -> int:
        """Of a batch: with the prompt, and without where that guides."""
        return 1 if self.guidance_scale == 1 else 2


class BatchingBundle(Bundle):
    """A bundle whose `denoise` may be called from many threads: their steps run as one batch.

    What it gives differs from `Bundle`'s by how floats add up in batches of another size, about 1e-5.

    Args:
        folder: As of `Bundle`.
        device: As of `Bundle`.
        largest: Requests in one step; others wait for one to leave, first come first.
        watch: Told the number of requests in each step, in the thread that runs them.
    """

    def __init__(
        self, folder: Path = BUNDLE, *, device: str = "cpu", largest: int = LARGEST,
        watch: Callable[[int], None] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(folder, device=device)
        self._largest, self.watch = largest, watch
        self._waiting: deque[StepState] = deque()
        self._change = threading.Condition()
        self._stepping: threading.Thread | None = None

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
        """See `Bundle.denoise`. Steps on the first grid are shared, those on finer ones are not."""
        if len(grids(size_px)) > 1 and handoff_step is not None:
            return super().denoise(  # which says that it cannot be
                prompt_embeds, rng_seeds, size_px=size_px, steps=steps,
                guidance_scale=guidance_scale, handoff_step=handoff_step,
            )  # fmt: skip
        counts = count_steps(size_px, steps)

        def tell(before: int) -> Progress:
            return lambda step, _: (
                None if progress is None else progress(before + step, sum(counts))
            )

        states = [
            self.prepare_encode(
                torch.from_numpy(prompt_embeds[index : index + 1]), seed, steps=steps,
                guidance_scale=guidance_scale, handoff_step=handoff_step, progress=tell(0),
            )
            for index, seed in enumerate(rng_seeds)
        ]  # fmt: skip
        with self._change:
            for state in states:  # of a generation that hands over noise there is nothing to do
                if len(state.sigmas) > 1:
                    self._waiting.append(state)
                else:
                    state.over.set()
            if self._stepping is None:
                self._stepping = threading.Thread(
                    target=self._step, name="megdt-steps", daemon=True
                )
                self._stepping.start()
            self._change.notify()
        for state in states:
            state.over.wait()
            self._count.flops = self.flops + state.flops
            if state.error is not None:
                raise state.error
        coarse = np.concatenate([self.post_decode(state) for state in states])
        if handoff_step is not None:
            spread = np.float32(measure_spread(handoff_level(steps, handoff_step)))
            return np.asarray(coarse / spread, np.float32)
        if len(counts) == 1:
            return coarse
        return self.enlarge(
            coarse, prompt_embeds, rng_seeds, size_px=size_px, steps=steps,
            guidance_scale=guidance_scale, progress=tell(counts[0]),
        )  # fmt: skip

    def prepare_encode(
        self, prompt_embeds: Tensor, rng_seed: int, *, steps: int, guidance_scale: float,
        handoff_step: int | None, progress: Progress | None,
    ) -> StepState:  # fmt: skip
        """A request before its first step: its noise and its levels."""
        last = None if handoff_step is None else handoff_step + 1
        return StepState(
            latent=_noise(_generators([rng_seed]), GRID).to(self.device),
            prompt_embeds=prompt_embeds.to(self.device),
            sigmas=make_sigmas(steps, shift=SHIFT)[:last].to(self.device),
            guidance_scale=guidance_scale,
            progress=progress,
        )

    @torch.inference_mode()
    def denoise_step(self, states: Sequence[StepState]) -> list[Tensor]:
        """The flow of each request, guided, by one call of the denoiser. Of each: [1, 4, 32, 32]"""
        rows = [state.rows for state in states]
        latents = torch.cat([s.latent.expand(s.rows, -1, -1, -1) for s in states])
        sigma = torch.cat([s.sigmas[s.index].expand(s.rows) for s in states])
        prompts = torch.cat(
            [
                torch.cat((s.prompt_embeds, torch.zeros_like(s.prompt_embeds)))[: s.rows]
                for s in states
            ]
        )
        before = self.flops
        flows = _on_grid(self._denoiser, GRID, GRID, None)(latents, sigma, prompts)
        each = (self.flops - before) / sum(rows)
        guided = []
        for state, flow in zip(states, torch.split(flows, rows), strict=True):
            state.flops += each * state.rows
            given, scale = flow[:1], state.guidance_scale
            guided.append(given if state.rows == 1 else flow[1:] + scale * (given - flow[1:]))
        return guided

    @staticmethod
    def step_scheduler(state: StepState, flow: Tensor) -> None:
        """Take a request one step along its flow."""
        state.latent = (
            state.latent + (state.sigmas[state.index + 1] - state.sigmas[state.index]) * flow
        )
        state.index += 1

    @staticmethod
    def post_decode(state: StepState) -> NDArray[np.float32]:
        """What a request's steps have made. [1, 4, 32, 32]"""
        return state.latent.float().cpu().numpy()

    def _step(self) -> None:
        """Step after step, as long as there is anything to do."""
        running: list[StepState] = []
        while True:
            with self._change:
                if not running:
                    self._change.wait_for(lambda: bool(self._waiting))
                while self._waiting and len(running) < self._largest:
                    running.append(self._waiting.popleft())
            running = self._advance(running)

    def _advance(self, running: list[StepState]) -> list[StepState]:
        """One step of all; those that go on."""
        if self.watch is not None:
            self.watch(len(running))
        try:
            flows = self.denoise_step(running)
        except BaseException as error:
            for state in running:
                state.error = error
                state.over.set()
            return []
        with torch.inference_mode():
            for state, flow in zip(running, flows, strict=True):
                self.step_scheduler(state, flow)
        return [state for state in running if not self._leaves(state)]

    @staticmethod
    def _leaves(state: StepState) -> bool:
        """Whether a request is done, or nobody waits for it any more."""
        steps = len(state.sigmas) - 1
        try:
            if state.progress is not None:
                state.progress(state.index, steps)
        except BaseException as error:  # raised again where it was asked
            state.error = error
        if state.error is None and state.index < steps:
            return False
        state.over.set()
        return True
