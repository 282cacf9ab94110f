"""Fixtures that many tests share, and shape checks for every model while tests run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from jaxtyping import install_import_hook
from numpy.typing import NDArray

install_import_hook("megdt.models", "beartype.beartype")

from megdt.models.bundle import Bundle  # noqa: E402
from megdt.records import Style  # noqa: E402


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The package's own bundle."""
    return Bundle()


class PlainModels:
    """Models without a network: fast, deterministic, and easy to reason about."""

    def __init__(self) -> None:
        self.denoised = 0
        self.noise_power: NDArray[np.float32] | None = None
        self.redrawn: tuple[Style, NDArray[np.float32] | None] | None = None

    def embed(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([[float(len(p))] for p in prompts], np.float32)

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
        self.denoised += 1
        side = size_px // 8
        drawn = [np.random.default_rng(s).standard_normal((4, side, side)) for s in rng_seeds]
        if progress is not None:
            progress(steps, steps)
        return np.stack(drawn).astype(np.float32)

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
        del rng_seeds, steps, guidance_scale, progress
        self.redrawn = style, prompt_embeds
        return self.encode(sketches) / np.float32(64)

    def decode(
        self, latents: NDArray[np.float32], noise_power: NDArray[np.float32] | None = None
    ) -> NDArray[np.uint8]:
        self.noise_power = noise_power
        grey = np.clip(latents[:, :3] * 40 + 128, 0, 255).astype(np.uint8)
        return grey.repeat(8, 2).repeat(8, 3).transpose(0, 2, 3, 1)

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return images[:, ::8, ::8, :1].transpose(0, 3, 1, 2).repeat(4, 1).astype(np.float32)


@pytest.fixture
def models() -> PlainModels:
    return PlainModels()
