"""A network of a few layers: it learns what is not linear, and is the same after a file."""

from __future__ import annotations

import json

import numpy as np

from megdt.twin.perceptron import Array, Batch, Perceptron, Training, fit


def learn(rng_seed: int) -> Perceptron:
    """The product of two numbers far from 0."""

    def draw(rng: np.random.Generator) -> Batch:
        inputs = (5 + rng.standard_normal((64, 2))).astype(np.float32)

        def slope(outputs: Array) -> Array:
            return (outputs - (inputs - 5).prod(-1, keepdims=True)) / 64

        return inputs, slope

    return fit(
        draw, np.full(2, 5, np.float32), np.ones(2, np.float32), outputs=1, rng_seed=rng_seed,
        training=Training(hidden=(16, 16), steps=600, decay=0.0, rate=1e-2),
    )  # fmt: skip


def test_it_learns_a_product_and_the_seed_decides_how() -> None:
    network = learn(0)
    inputs = (5 + np.random.default_rng(1).standard_normal((500, 2))).astype(np.float32)
    error = network.run(inputs)[:, 0] - (inputs - 5).prod(-1)
    assert np.var(error) < 0.15
    assert (learn(0).run(inputs) == network.run(inputs)).all()
    assert (learn(1).run(inputs) != network.run(inputs)).any()


def test_a_network_from_a_file_says_the_same() -> None:
    network = learn(0)
    again = Perceptron.unpacked(json.loads(json.dumps(network.packed())))
    inputs = np.array([[4.0, 6.0], [5.5, 5.5]], np.float32)
    assert np.abs(again.run(inputs) - network.run(inputs)).max() < 0.05
