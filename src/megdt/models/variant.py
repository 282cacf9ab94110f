"""The bundle with smaller sub-models at its UEs, in one process: see `compression`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.models.bundle import Bundle
from megdt.models.manifest import open_variant
from megdt.models.onnx_models import OnnxModels
from megdt.records import Side


class VariantModels:
    """The bundle's models, and at a UE those of a variant where it has one.

    Args:
        folder: That `compression` has written.
        bundle: For all else.

    Raises:
        BundleError: If there is no variant, or one of another bundle.
    """

    def __init__(self, folder: Path, bundle: Bundle | None = None) -> None:
        self._bundle = bundle or Bundle()
        self._manifest = open_variant(folder, self._bundle.checksum)
        ue = OnnxModels(self._bundle.folder, variant=folder)
        self._at_ue = _AtUe(self._bundle, ue, tuple(self._manifest.content["models"]))

    @property
    def checksum(self) -> str:
        """Over the bundle and all files of the variant."""
        told = self._manifest.content["models"]
        sums = [(name, *_sums(model)) for name, model in sorted(told.items())]
        return hashlib.sha256((self._bundle.checksum + json.dumps(sums)).encode()).hexdigest()

    @property
    def flops(self) -> float:
        """Of both sides, as far as this thread has called them; see `Bundle.flops`."""
        return self._at_ue.flops

    def at(self, side: Side) -> Any:
        """What a side has."""
        return self._at_ue if side.is_ue else self._bundle

    def load(self, *names: str) -> None:
        """Read models now, those of both sides."""
        self._bundle.load(*names)
        self._at_ue.load(*names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bundle, name)


class _AtUe:
    def __init__(self, bundle: Bundle, ue: OnnxModels, names: tuple[str, ...]) -> None:
        self._bundle, self._ue, self._names = bundle, ue, names

    def _of(self, name: str) -> Any:
        return self._ue if name in self._names else self._bundle

    @property
    def flops(self) -> float:
        return self._bundle.flops + self._ue.flops

    def load(self, *names: str) -> None:
        for name in names:
            self._of(name).load(name)

    def decode(
        self, latents: NDArray[np.float32], noise_power: NDArray[np.float32] | None = None
    ) -> NDArray[np.uint8]:
        images: NDArray[np.uint8] = self._of("decoder").decode(latents, noise_power)
        return images

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        latents: NDArray[np.float32] = self._of("encoder").encode(images)
        return latents

    def finish(
        self, latents: NDArray[np.float32], prompts: Sequence[str], rng_seeds: Sequence[int], *,
        noise_power: float, steps: int, handoff_step: int, guidance_scale: float,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[NDArray[np.float32], float]:  # fmt: skip
        made: tuple[NDArray[np.float32], float] = self._of("student").finish(
            latents, prompts, rng_seeds, noise_power=noise_power, steps=steps,
            handoff_step=handoff_step, guidance_scale=guidance_scale, progress=progress,
        )  # fmt: skip
        return made

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bundle, name)


def _sums(model: dict[str, Any]) -> list[str]:
    graphs = [graph for size in model.get("sizes", [model]) for graph in size["graphs"].values()]
    files = [*graphs, *([model["weights"]] if "weights" in model else [])]
    return [told["sha256"] for told in files]
