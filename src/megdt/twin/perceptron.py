"""A small network in NumPy: layers with ReLU between them, fitted by Adam.

What the twin learns about what it holds is little, and where it decides there need be no torch.
"""

from __future__ import annotations

import base64
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

Slope = Callable[[Array], Array]
"""Of the loss by the outputs, at some outputs; both [..., outputs]."""

Batch = tuple[Array, Slope]
"""Inputs [..., inputs], and what their outputs are judged by."""


class Layer(TypedDict):
    """A layer in a JSON file."""

    shape: list[int]
    float16: str


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a network is fitted.

    Args:
        hidden: Width of each hidden layer.
        steps: Of Adam.
        rate: Of learning at the beginning; it falls to 0 as a cosine.
        decay: Share of the weights, times the rate, that each step takes away.
    """

    hidden: tuple[int, ...] = (48, 48)
    steps: int = 1500
    rate: float = 3e-3
    decay: float = 0.3


@dataclass(frozen=True, kw_only=True)
class Perceptron:
    """A network with a linear layer at the end.

    Args:
        weights: A matrix a layer, its last row the bias. [inputs + 1, outputs]
    """

    weights: tuple[Array, ...]

    def run(self, values: Array) -> Array:
        """The outputs. [..., inputs] to [..., outputs]"""
        return _forward(self.weights, values)[-1]

    def packed(self) -> list[Layer]:
        """For a JSON file: shapes, and the weights as half floats in base64."""
        return [
            {"shape": [*w.shape], "float16": base64.b64encode(w.astype("<f2").tobytes()).decode()}
            for w in self.weights
        ]

    @classmethod
    def unpacked(cls, layers: Sequence[Layer]) -> Perceptron:
        """What `packed` gave."""
        return cls(
            weights=tuple(
                np.frombuffer(base64.b64decode(layer["float16"]), "<f2")
                .astype(np.float32)
                .reshape(layer["shape"])
                for layer in layers
            )
        )


def fit(
    draw: Callable[[np.random.Generator], Batch],
    middle: Array,
    scale: Array,
    *,
    outputs: int,
    rng_seed: int,
    training: Training,
) -> Perceptron:
    """Fit a network by Adam with decoupled weight decay.

    Args:
        draw: One step's inputs and the slope of their loss.
        middle: Mean of the inputs. [inputs]
        scale: Standard deviation of the inputs. [inputs]
        outputs: How many.
        rng_seed: Draws the first weights, and is what `draw` draws from.
        training: How.

    Returns:
        A network that takes inputs as they are: middle and scale are in its first layer.
    """
    rng = np.random.default_rng((rng_seed, 28))
    sizes = (len(middle), *training.hidden, outputs)
    weights: list[Array] = []
    for size, to in itertools.pairwise(sizes):
        drawn = np.vstack([rng.normal(0, (2 / size) ** 0.5, (size, to)), np.zeros((1, to))])
        weights.append(drawn.astype(np.float32))
    first = [np.zeros_like(w) for w in weights]
    second = [np.zeros_like(w) for w in weights]
    for step in range(1, training.steps + 1):
        inputs, slope = draw(rng)
        rate = training.rate * (1 + math.cos(math.pi * step / training.steps)) / 2
        for n, pull in enumerate(_slopes(weights, (inputs - middle) / scale, slope)):
            first[n] = 0.9 * first[n] + 0.1 * pull
            second[n] = 0.99 * second[n] + 0.01 * pull**2
            move = first[n] / (1 - 0.9**step) / (np.sqrt(second[n] / (1 - 0.99**step)) + 1e-8)
            weights[n] = weights[n] - np.float32(rate) * (move + training.decay * weights[n])
    unscaled = weights[0][:-1] / scale[:, None]
    weights[0] = np.vstack([unscaled, weights[0][-1] - middle @ unscaled])
    return Perceptron(weights=tuple(w.astype(np.float32) for w in weights))


def _forward(weights: Sequence[Array], values: Array) -> list[Array]:
    """Each layer's input, and the output."""
    passed = [values]
    for number, weight in enumerate(weights):
        values = values @ weight[:-1] + weight[-1]
        if number < len(weights) - 1:
            values = np.maximum(values, 0)
        passed.append(values)
    return passed


def _slopes(weights: Sequence[Array], values: Array, slope: Slope) -> list[Array]:
    """Of the loss by each layer's weights."""
    *inputs, outputs = _forward(weights, values)
    back = slope(outputs)
    slopes: list[Array] = []
    for weight, taken in zip(reversed(weights), reversed(inputs), strict=True):
        flat = taken.reshape(-1, taken.shape[-1])
        flat_back = back.reshape(-1, back.shape[-1])
        slopes.insert(0, np.vstack([flat.T @ flat_back, flat_back.sum(0)]))
        back = (back @ weight[:-1].T) * (taken > 0)
    return slopes
