"""Flowers counted in latents: how many fresh and how many wilting ones stand in each bed.

A small network looks at each latent and those around it and says how much of a flower is there; a
bed's count is the sum over the bed. It is learned in virtual gardens, where all counts are known,
with thirst and weather drawn at random, by `python recipes/behaviour.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from megdt.errors import TwinError
from megdt.mechanisms.panorama import VIEW_COLUMNS
from megdt.models import LATENT_CHANNELS
from megdt.twin.patrol import Encode, quantise
from megdt.twin.perceptron import Array, Batch, Layer, Perceptron, Training, fit
from megdt.worlds.garden import View
from megdt.worlds.scene import VIEW_EXTENT_M
from megdt.worlds.watering import WateredGarden

KEPT = Path(__file__).parent / "behaviour.json"
"""The networks that the recipe has fitted."""

COLUMNS_A_M = round(VIEW_COLUMNS / VIEW_EXTENT_M)
BESIDE = 2
"""Columns to either side that count with a bed: as far as the drone reaches."""

_AROUND = 2  # latents to each side: 40 pixels, most of a flower in front
_TOP = 10  # rows of nothing but sky
_OFFSET = 3.0  # most latents have no flower: outputs begin near none
_BEDS = round(VIEW_EXTENT_M)
_VIEWS = 16  # a step of training


@dataclass(frozen=True, kw_only=True)
class FlowerCounter:
    """Counts flowers in latents.

    Args:
        network: Of a patch of latents, to the density of fresh and of wilting flowers.
    """

    network: Perceptron

    @classmethod
    def kept(cls) -> FlowerCounter:
        """The one that comes with the package."""
        return cls(network=Perceptron.unpacked(read_kept()["counter"]))

    def count(self, latents: NDArray[np.float32]) -> NDArray[np.float64]:
        """How many fresh and wilting flowers the latents show.

        Args:
            latents: Whole beds. [latent_channels, height, 8 * beds]

        Returns:
            [beds, 2]

        Raises:
            TwinError: If they are not of whole beds.
        """
        width = latents.shape[-1]
        if latents.shape[0] != LATENT_CHANNELS or width % COLUMNS_A_M:
            raise TwinError(
                f"latents are {latents.shape}; flowers are counted in {LATENT_CHANNELS} channels and "
                f"beds of {COLUMNS_A_M} columns: give whole beds"
            )
        density = _softplus(self.network.run(patches(latents[None])) - _OFFSET)
        counts: NDArray[np.float64] = np.einsum(
            "nhwk,bw->bk", density, _beds(width // COLUMNS_A_M), dtype=np.float64
        )
        return counts


def learn_to_count(
    latents: NDArray[np.float32],
    counts: NDArray[np.float32],
    *,
    rng_seed: int,
    training: Training | None = None,
) -> FlowerCounter:
    """Fit a counter; counts are taken as Poisson's.

    Args:
        latents: Of views. [views, latent_channels, height, VIEW_COLUMNS]
        counts: Fresh and wilting flowers in each. [views, beds, 2]
        rng_seed: Draws first weights and batches.
        training: How.
    """
    beds = _beds(_BEDS)
    some = patches(latents[:64]).reshape(-1, LATENT_CHANNELS * (2 * _AROUND + 1) ** 2)

    def draw(rng: np.random.Generator) -> Batch:
        these = rng.integers(len(latents), size=_VIEWS)

        def slope(outputs: Array) -> Array:
            raw = outputs - _OFFSET
            told = np.einsum("nhwk,bw->nbk", _softplus(raw), beds)
            pull = (1 - counts[these] / (told + 1e-6)) / counts[these].size
            spread: Array = np.einsum("nbk,bw->nwk", pull, beds)[:, None] / (1 + np.exp(-raw))
            return spread.astype(np.float32)

        return patches(latents[these]), slope

    how = Training(hidden=(64, 16), decay=0.03) if training is None else training
    return FlowerCounter(
        network=fit(
            draw, some.mean(0), some.std(0) + 1e-3, outputs=2, rng_seed=rng_seed, training=how
        )
    )


def draw_views(
    rng_seed: int, encode: Encode, *, length_m: int = 12
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Views of one virtual garden at a random time, some of it dry, and what stands in them.

    Args:
        rng_seed: Of the garden, its time, and how dry it is where.
        encode: Of the bundle.
        length_m: Of the garden.

    Returns:
        Latents as int8 seeds carry them, and the fresh and wilting flowers of each bed.
        [views, latent_channels, height, VIEW_COLUMNS], [views, beds, 2]
    """
    garden = WateredGarden(rng_seed, length_m=length_m)
    rng = np.random.default_rng((rng_seed, 29))
    garden.time_h = float(rng.integers(96))
    zones = rng.uniform(-0.1, 1.1, length_m // 3 + 1)
    own = rng.uniform(-0.15, 0.15, len(garden.x_m))
    dry = np.interp(garden.x_m, np.arange(len(zones)) * 3.0, zones)
    garden.water = np.clip(dry + own, 0, 1)
    shown = garden.look()
    firsts = range(0, length_m - _BEDS + 1, _BEDS)
    pictures = [shown.render(View(position_m=first + VIEW_EXTENT_M / 2)) for first in firsts]
    truth = garden.counts()
    return quantise(encode(np.stack(pictures))), np.stack(
        [truth[first : first + _BEDS] for first in firsts]
    ).astype(np.float32)


def patches(latents: NDArray[np.float32]) -> Array:
    """Each latent below the sky, with those around it. [views, rows, columns, inputs]"""
    room = ((0, 0), (0, 0), (_AROUND, _AROUND), (_AROUND, _AROUND))
    padded = np.pad(latents[:, :, _TOP:], room)
    size = 2 * _AROUND + 1
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(2, 3))
    moved = windows.transpose(0, 2, 3, 1, 4, 5)
    flat: Array = moved.reshape(*moved.shape[:3], -1).astype(np.float32)
    return flat


def _beds(beds: int) -> Array:
    """Which columns count with which bed. [beds, columns]"""
    column, bed = np.arange(beds * COLUMNS_A_M), np.arange(beds)[:, None] * COLUMNS_A_M
    inside = (column >= bed - BESIDE) & (column < bed + COLUMNS_A_M + BESIDE)
    return inside.astype(np.float32)


def _softplus(values: Array) -> Array:
    soft: Array = np.logaddexp(0, values).astype(np.float32)
    return soft


@cache
def read_kept() -> dict[str, list[Layer]]:
    """The networks that come with the package, packed, by name."""
    return json.loads(KEPT.read_text())  # type: ignore[no-any-return]
