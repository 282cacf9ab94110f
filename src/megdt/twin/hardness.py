"""Hardness: how much a picture stands to lose on its way, told from its latent before it is sent.

A picture that is as bright, and as rich in detail of each kind, as garden views that lose much, will
lose much: `hardness.json`, written by `recipes/planner.py`, is what short seeds and noise did to such
views. `spread` then learns from a planner's pictures what that means for one way.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from megdt.errors import TwinError
from megdt.mechanisms.stages import Models
from megdt.records import Request

LEARNED = Path(__file__).parent / "hardness.json"

BANDS = ((0.03, 0.1), (0.1, 0.25), (0.25, 0.75))
"""Of spatial frequency, in cycles an element of the latent."""

Hardness = tuple[float, float]
"""Logarithm of the ST-LPIPS that is expected of a short seed, and of noise."""

BEGUN_STEP = 12
"""Denoising steps, of 24, that every way but the prompt begins with."""

_STUDENT_STEPS = 4
_SMALLEST_SIDE = 32
_RIDGE = 0.05
"""Of the variance of hardness; it keeps measures that go together from cancelling each other."""

Floats = NDArray[np.float64]


def describe(latent: NDArray[np.floating[Any]]) -> Floats:
    """Mean of each channel, after the logarithm of its power in each band. [16]

    Args:
        latent: Unit variance. [4, height, width]

    Raises:
        TwinError: If it is no latent of 32 by 32 or more, or not finite.
    """
    if (
        latent.ndim != 3
        or latent.shape[0] != 4
        or min(latent.shape[1:]) < _SMALLEST_SIDE
        or not np.isfinite(latent).all()
    ):
        raise TwinError(
            f"a latent of {list(latent.shape)} has no hardness; give one of finite numbers, "
            f"[4, height, width] with {_SMALLEST_SIDE} rows and columns or more"
        )
    latent = latent.astype(np.float64)
    power = np.abs(np.fft.fft2(latent, norm="ortho")) ** 2
    rows, columns = (np.fft.fftfreq(side) for side in latent.shape[1:])
    frequency = np.hypot(rows[:, None], columns)
    found = [
        np.log(power[:, (frequency >= low) & (frequency < high)].mean(1) + 1e-6)
        for low, high in BANDS
    ]
    return np.concatenate([*found, latent.mean((1, 2))])


def measure_hardness(latent: NDArray[np.floating[Any]]) -> Hardness:
    """Of a picture that is drawn, begun, or held by the twin.

    Args:
        latent: Unit variance. [4, height, width]

    Raises:
        TwinError: If it is no latent of 32 by 32 or more, or not finite.

    >>> detailed = np.random.default_rng(0).standard_normal((4, 32, 32))
    >>> measure_hardness(detailed)[0] > measure_hardness(0.1 * detailed)[0]
    True
    """
    learned = _load(LEARNED)
    seed, noise = learned["base"] + learned["slope"] @ (describe(latent) - learned["middle"])
    return float(seed), float(noise)


def foresee(models: Models, request: Request) -> Hardness:
    """Hardness of a picture that the ES begins: half of the steps, finished by the student in four.

    Those steps are not lost, unless the plan is to send the prompt alone. Larger pictures begin with
    the same small one.

    Args:
        models: Of the ES.
        request: What is asked for.
    """
    handed = models.denoise(
        models.embed([request.prompt]), [request.rng_seed], size_px=256, steps=request.steps,
        guidance_scale=request.guidance_scale, handoff_step=max(request.steps // 2, 1),
    )  # fmt: skip
    finished, _ = models.finish(
        handed, [request.prompt], [request.rng_seed], noise_power=0.0, steps=2 * _STUDENT_STEPS,
        handoff_step=_STUDENT_STEPS, guidance_scale=request.guidance_scale,
    )  # fmt: skip
    return measure_hardness(finished[0])


@lru_cache
def _load(path: Path) -> dict[str, Floats]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: np.array(found[name], float) for name in ("middle", "base", "slope")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TwinError(
            f"no readable hardness at {path} ({error.__class__.__name__}); reinstall megdt, or "
            "measure it with recipes/planner.py"
        ) from error


@dataclass(frozen=True, kw_only=True)
class Spread:
    """What values are for pictures of some hardness: linear in it, and what is left unexplained.

    Args:
        middle: Mean hardness of the pictures. [bands]
        base: Value there. [...]
        slope: Change with each band's hardness. [..., bands]
        residual: Of each picture, as if it had not been among them. [..., pictures]
    """

    middle: Floats
    base: Floats
    slope: Floats
    residual: Floats

    def at(self, hardness: ArrayLike) -> Floats:
        """Expected for a picture. [...]"""
        found: Floats = self.base + self.slope @ (np.asarray(hardness, float) - self.middle)
        return found


def spread(values: Floats, hardness: Floats) -> Spread:
    """Fit values to hardness by ridge regression; bands [pictures, 0] take them as they scatter.

    Args:
        values: [..., pictures]
        hardness: [pictures, bands]

    References:
        Hoerl and Kennard, Ridge Regression, Technometrics 12(1), 1970. Leave-one-out residuals are
        residuals over one minus the leverage (Allen, Technometrics 16(1), 1974).
    """
    count = len(hardness)
    middle, base = hardness.mean(0), values.mean(-1)
    away, off = hardness - middle, values - base[..., None]
    gram = away.T @ away
    inverse = np.linalg.inv(gram + _RIDGE * np.diag(np.diag(gram) + 1e-9))
    slope = off @ away @ inverse
    leverage = 1 / count + ((away @ inverse) * away).sum(-1)
    residual = (off - slope @ away.T) / (1 - leverage)
    return Spread(middle=middle, base=base, slope=slope, residual=residual)
