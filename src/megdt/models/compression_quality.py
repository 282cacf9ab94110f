"""What a smaller sub-model costs the picture, beside the bundle's own."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.errors import MissingExtraError
from megdt.models.bundle import Bundle
from megdt.models.distillation import draw_views
from megdt.models.quality import perceptual_distance, psnr_db

JUDGED_ON = 10_860_000
"""First seed of the garden views; nothing is trained on those from 10 million on."""
_SAME_DB = 99.0
"""Of equal pictures, whose PSNR has no number."""


class Judge:
    """Looks at pictures that a UE shows with another sub-model.

    Args:
        bundle: Whose the other sub-models are.
        part: The sub-model.
        count: Views that are looked at.
    """

    def __init__(self, bundle: Bundle, part: str, *, count: int = 24) -> None:
        self._bundle, self._part, self._count = bundle, part, count

    def judge(self, models: Any) -> dict[str, float]:
        """How good pictures are with other sub-models at the UE, beside the bundle's own.

        Args:
            models: Whose sub-model takes the bundle's place.

        Returns:
            PSNR and perceptual distance, means over held-out views; the latter where it can be measured.
        """
        ours, theirs = self._pictures_by(models), self._by_teacher
        wanted = theirs if self._part == "student" else self._judged
        found = {"psnr_db": _mean_psnr_db(ours, wanted)}
        if self._part != "student":
            found["psnr_db_of_teacher"] = _mean_psnr_db(theirs, wanted)
        try:
            found["perceptual_distance"] = float(perceptual_distance(ours, wanted).mean())
            if self._part != "student":
                far = perceptual_distance(theirs, wanted)
                found["perceptual_distance_of_teacher"] = float(far.mean())
        except MissingExtraError:
            pass
        return found

    @cached_property
    def _by_teacher(self) -> NDArray[np.uint8]:
        return self._pictures_by(self._bundle)

    def _pictures_by(self, models: Any) -> NDArray[np.uint8]:
        """What is seen in the end, all other parts being the bundle's. [views, 256, 256, 3]"""
        made = []
        for index in range(len(self._judged)):
            if self._part == "encoder":
                latent = models.encode(self._judged[index : index + 1])
            elif self._part == "student":
                latent = models.finish(
                    self._handed[index : index + 1], [""], [0], noise_power=0.0, steps=24,
                    handoff_step=18, guidance_scale=1.0,
                )[0]  # fmt: skip
            else:
                latent = self._latents[index : index + 1]
            decoder = models if self._part == "decoder" else self._bundle
            made.append(decoder.decode(latent))
        return np.concatenate(made)

    @cached_property
    def _judged(self) -> NDArray[np.uint8]:
        return draw_views(range(JUDGED_ON, JUDGED_ON + self._count))

    @cached_property
    def _latents(self) -> NDArray[np.float32]:
        return self._bundle.encode(self._judged)

    @cached_property
    def _handed(self) -> NDArray[np.float32]:
        """Latents after 18 of 24 steps, of unit variance."""
        noise = np.random.default_rng(0).standard_normal(self._latents.shape).astype(np.float32)
        handed = (0.67 * self._latents + 0.33 * noise) / np.hypot(0.67, 0.33)
        made: NDArray[np.float32] = handed.astype(np.float32)
        return made


def _mean_psnr_db(made: NDArray[np.uint8], pictures: NDArray[np.uint8]) -> float:
    found = [psnr_db(m, p) for m, p in zip(made, pictures, strict=True)]
    return min(_SAME_DB, float(np.mean(found)))
