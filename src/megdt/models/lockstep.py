"""What copies of one model on several machines agree on: the grid of what they make, and its name.

Machines add floats in another order, so their last bits differ; on a grid they do not.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

GRID_STEP = 1 / 64
"""Of fused latents, which have about unit variance."""


def round_to_grid(latents: NDArray[np.float32]) -> NDArray[np.float32]:
    """Latents on the grid that all copies share."""
    return (np.round(latents / GRID_STEP) * GRID_STEP).astype(np.float32)


def state_hash(latent: NDArray[np.float32]) -> bytes:
    """Eight bytes that name a fused latent: alike on sides that hold the same one."""
    steps = np.round(latent / GRID_STEP).astype("<i2")
    return hashlib.sha256(steps.tobytes()).digest()[:8]
