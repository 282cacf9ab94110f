"""What copies of one model on several machines agree on: the grid of what they make, and its name.

Machines add floats in another order, so their last bits differ. They compute in float64 and keep what
is on a grid of far larger steps: there they differ where a number is halfway between two steps up to
its last bits, which in a fused view has a chance of less than one in a million.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

GRID_STEP = 1 / 64
"""Of fused latents, which have about unit variance."""

MAX_AGE_S = 64 * 86_400.0
"""Nothing older is told apart by the gate."""

NO_SAY = -1e4
"""The gate's belief in a source where it does not see."""


def round_to_grid(latents: NDArray[np.floating]) -> NDArray[np.float32]:
    """Latents on the grid that all copies share."""
    return (np.round(latents / GRID_STEP) * GRID_STEP).astype(np.float32)


def state_hash(latent: NDArray[np.float32]) -> bytes:
    """Eight bytes that name a fused latent: alike on sides that hold the same one."""
    steps = np.round(latent / GRID_STEP).astype("<i2")
    return hashlib.sha256(steps.tobytes()).digest()[:8]
