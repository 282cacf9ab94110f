"""The feature gate (`models/gate.py`) on NumPy, for a UE without torch.

In float64, like the other: on the grid (`models/lockstep.py`) both then come to the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from megdt.models.lockstep import MAX_AGE_S, NO_SAY, round_to_grid

Array = NDArray[np.float64]


class NumpyGate:
    """Believes, and mends.

    Args:
        weights: By name, as in gate.safetensors.
    """

    def __init__(self, weights: Mapping[str, NDArray[np.floating]]) -> None:
        self._weights = {name: np.asarray(values, np.float64) for name, values in weights.items()}

    def flops(self, shape: tuple[int, ...]) -> float:
        """Floating point operations of a call with latents of this shape, as `Bundle.flops` counts."""
        batch, sources, _, height, width = shape
        sizes = {name: w.size for name, w in self._weights.items() if "weight" in name}
        shared = sum(size for name, size in sizes.items() if name.startswith("mend"))
        each = sum(sizes.values()) - shared
        return 2.0 * batch * height * width * (sources * each + shared)

    def fuse(
        self,
        latents: NDArray[np.float32],
        confidence: NDArray[np.float32],
        age_s: NDArray[np.float32],
        noise_power: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Several sides' latents of one view as one; see `Bundle.fuse`. [batch, 4, height, width]"""
        told = (
            np.asarray(given, np.float64) for given in (latents, confidence, age_s, noise_power)
        )
        fused = [self._fuse(*view) for view in zip(*told, strict=True)]
        return round_to_grid(np.stack(fused))

    def _fuse(self, latents: Array, confidence: Array, age_s: Array, noise_power: Array) -> Array:
        """One view. [sources, 4, height, width], [sources, height, width], and twice [sources]"""
        sources = len(latents)
        seen = confidence[:, None]
        latents = latents * (seen > 0)
        apart = latents - (latents * seen).sum(0) / np.maximum(seen.sum(0), 1e-3)
        told = (_tell(confidence, age_s, noise_power), _shift(apart, confidence))
        looked = self._layers("look", np.concatenate((latents, apart, *told), 1))
        together = (looked * seen).sum(0) / np.maximum(seen.sum(0), 1)
        pairs = [np.concatenate((looked[n], together)) for n in range(sources)]
        belief = np.where(seen > 0, self._layers("weigh", np.stack(pairs)), NO_SAY)
        weight = np.exp(belief - belief.max(0))
        weight /= weight.sum(0)
        fused: Array = (weight * latents).sum(0)
        hidden = np.concatenate(((weight * looked).sum(0), fused, confidence.max(0)[None]))
        several = (confidence > 0).sum(0) > 1
        mended: Array = fused + self._layers("mend", hidden[None])[0] * several
        return mended

    def _layers(self, name: str, values: Array) -> Array:
        """Convolutions with an activation between them. [sources, channels, height, width]"""
        layers = sorted(key for key in self._weights if key.startswith(name) and "weight" in key)
        for key in layers:
            values = self._convolve(values, key.removesuffix(".weight"))
            if key != layers[-1] or name == "look":
                values = values / (1 + np.exp(-values))
        return values

    def _convolve(self, values: Array, layer: str) -> Array:
        """Three by three, padded by zeros."""
        weight, bias = self._weights[f"{layer}.weight"], self._weights[f"{layer}.bias"]
        around = np.pad(values, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = sliding_window_view(around, (3, 3), axis=(2, 3))
        # [sources, height, width, channels, 3, 3] by [made, channels, 3, 3]
        columns = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, weight[0].size)
        sources, _, height, width = values.shape
        made: Array = columns @ weight.reshape(len(weight), -1).T + bias
        return made.reshape(sources, height, width, len(weight)).transpose(0, 3, 1, 2)


def _tell(confidence: Array, age_s: Array, noise_power: Array) -> Array:
    """What is known about each source, as maps. [sources, 5, height, width]"""
    height, width = confidence.shape[1:]
    aged = np.log1p(np.clip(age_s, 0, MAX_AGE_S) / 3600) / 8
    noisy = np.sqrt(noise_power) / (1 + np.sqrt(noise_power))
    down = np.broadcast_to(np.linspace(-1, 1, height)[:, None], confidence.shape)
    flat = [np.broadcast_to(value[:, None, None], confidence.shape) for value in (aged, noisy)]

    def around(values: Array) -> Array:
        padded = np.pad(values, ((0, 0), (1, 1), (1, 1)))
        summed: Array = sliding_window_view(padded, (3, 3), axis=(1, 2)).sum((3, 4))
        return summed

    near = around(confidence) / around(np.ones((1, height, width)))
    return np.stack((confidence, near, *flat, down), 1)


def _shift(apart: Array, confidence: Array) -> Array:
    """How far each source is from all, where several see. [sources, 5, height, width]"""
    several = (confidence > 0) & ((confidence > 0).sum(0) > 1)
    area = np.maximum(several.sum((1, 2)), 1)[:, None]
    there = apart * several[:, None]
    mean = there.sum((2, 3)) / area
    spread = ((there**2).sum((2, 3)) / area).mean(1, keepdims=True)
    told = np.concatenate((mean, spread), 1)[..., None, None]
    return np.broadcast_to(told, (*told.shape[:2], *confidence.shape[1:]))
