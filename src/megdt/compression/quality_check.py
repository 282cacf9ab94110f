"""What a smaller sub-model costs the picture, beside the bundle's own."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.compression.distillation import draw_views
from megdt.errors import MissingExtraError
from megdt.models.bundle import Bundle
from megdt.models.quality import perceptual_distance, psnr_db

MEASURED_ON = 10_860_000
"""First seed of the garden views; nothing is trained on those from 10 million on."""
_NOISY_DB = (10, 0)
_SIGMAS = {12: 0.6, 18: 0.33}
"""Noise levels of latents that a student is handed, by step of 24."""
_AT_ONCE = 2
"""Pairs that are compared: more take memory and no less time."""
_SAME_DB = 99.0
"""Of equal pictures, whose PSNR has no number."""


class QualityCheck:
    """Looks at pictures that a UE shows with another sub-model, beside the bundle's own.

    Args:
        bundle: Whose the other sub-models are.
        part: The sub-model.
        count: Views that are looked at.
        size_px: Their height and width; a student knows 256 alone.
    """

    def __init__(self, bundle: Bundle, part: str, *, count: int = 24, size_px: int = 256) -> None:
        self._bundle, self._part, self._count, self._size_px = bundle, part, count, size_px

    def measure(self, models: Any) -> dict[str, Any]:
        """How good pictures are, means over held-out views.

        Args:
            models: Whose sub-model takes the bundle's place.

        Returns:
            `views`, their `size_px`, what they are compared with as `reference`, `psnr_db`, `perceptual_distance`
            where it can be measured; with `_of_teacher` what the bundle's own sub-model comes to. Of a decoder
            also `psnr_db_at_10_db` and `_at_0_db`: of latents with noise at that SNR.
        """
        ours, theirs = self._pictures_by(models), self._by_teacher
        # What a denoiser draws has no original.
        drawn = self._part == "student"
        wanted = theirs if drawn else self._originals
        found: dict[str, Any] = {
            "views": self._count,
            "size_px": wanted.shape[1],
            "reference": "pictures that the bundle's finishes" if drawn else "originals",
            "psnr_db": _mean_psnr_db(ours, wanted),
        }
        if not drawn:
            found["psnr_db_of_teacher"] = _mean_psnr_db(theirs, wanted)
        try:
            found["perceptual_distance"] = _mean_distance(ours, wanted)
            if not drawn:
                found["perceptual_distance_of_teacher"] = _mean_distance(theirs, wanted)
        except MissingExtraError:
            pass
        if self._part == "decoder":
            for snr_db in _NOISY_DB:
                key = f"psnr_db_at_{snr_db}_db"
                found[key] = self._noisy_psnr_db(models, snr_db)
                found[f"{key}_of_teacher"] = self._noisy_psnr_db(self._bundle, snr_db)
        return found

    def distances(self, models: Any) -> list[float] | None:
        """ST-LPIPS of each view's picture to what the bundle's own sub-model comes to, rising.

        What lies between pictures adds up about: a picture of a latent that the link has harmed is as far from
        the error-free one as the bundle's of that latent, and this more. A student is handed latents after half
        of the steps, where it has most to do; noise of the air is left out.

        Args:
            models: As of `measure`.

        Returns:
            One a view; None where it cannot be measured.
        """
        ours = self._pictures_by(models, handoff_step=12)
        if self._part == "student":
            theirs = self._pictures_by(self._bundle, handoff_step=12)
        else:
            theirs = self._by_teacher
        try:
            found = perceptual_distance(ours, theirs, batch_size=_AT_ONCE)
        except MissingExtraError:
            return None
        return sorted(float(distance) for distance in found)

    def _noisy_psnr_db(self, models: Any, snr_db: float) -> float:
        """Of latents of unit variance as the air leaves them."""
        power = 10 ** (-snr_db / 10)
        noise = np.random.default_rng(1).standard_normal(self._latents.shape).astype(np.float32)
        received = self._latents + np.float32(power**0.5) * noise
        told = np.full(1, power, np.float32)
        shown = [models.decode(latent[None], told)[0] for latent in received]
        return _mean_psnr_db(np.stack(shown), self._originals)

    @cached_property
    def _by_teacher(self) -> NDArray[np.uint8]:
        return self._pictures_by(self._bundle)

    def _pictures_by(self, models: Any, *, handoff_step: int = 18) -> NDArray[np.uint8]:
        """What is seen in the end, all other parts being the bundle's. [views, size_px, size_px, 3]"""
        made = []
        for index in range(self._count):
            one = slice(index, index + 1)
            if self._part == "encoder":
                latent = models.encode(self._originals[one])
            elif self._part == "student":
                latent = models.finish(
                    self._hand(handoff_step)[one], [""], [0], noise_power=0.0, steps=24,
                    handoff_step=handoff_step, guidance_scale=1.0,
                )[0]  # fmt: skip
            else:
                latent = self._latents[one]
            decoder = models if self._part == "decoder" else self._bundle
            made.append(decoder.decode(latent))
        return np.concatenate(made)

    @cached_property
    def _originals(self) -> NDArray[np.uint8]:
        return draw_views(range(MEASURED_ON, MEASURED_ON + self._count), self._size_px)

    @cached_property
    def _latents(self) -> NDArray[np.float32]:
        return self._bundle.encode(self._originals)

    def _hand(self, step: int) -> NDArray[np.float32]:
        """Latents after so many steps of 24, of unit variance."""
        noise = np.random.default_rng(0).standard_normal(self._latents.shape).astype(np.float32)
        sigma = _SIGMAS[step]
        handed = ((1 - sigma) * self._latents + sigma * noise) / np.hypot(1 - sigma, sigma)
        made: NDArray[np.float32] = handed.astype(np.float32)
        return made


def _mean_distance(made: NDArray[np.uint8], pictures: NDArray[np.uint8]) -> float:
    return float(perceptual_distance(made, pictures, batch_size=_AT_ONCE).mean())


def _mean_psnr_db(made: NDArray[np.uint8], pictures: NDArray[np.uint8]) -> float:
    found = [psnr_db(m, p) for m, p in zip(made, pictures, strict=True)]
    return min(_SAME_DB, float(np.mean(found)))
