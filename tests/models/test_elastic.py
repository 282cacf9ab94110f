"""Decoders cut out of a larger one."""

from __future__ import annotations

import pytest
import torch

from megdt.models.elastic import LARGEST, SIZES, Size, cut


@pytest.mark.parametrize("size", SIZES)
def test_what_is_cut_is_a_decoder(size: Size) -> None:
    torch.manual_seed(0)
    weights = LARGEST.make().state_dict()
    decoder = size.make()
    decoder.load_state_dict(cut(weights, size))
    image = decoder(torch.randn(2, 4, 8, 12), torch.rand(2))
    assert image.shape == (2, 3, 64, 96)
    # Whoever has less already need not go back to the whole.
    smallest = cut(cut(weights, size), SIZES[0])
    for name, values in cut(weights, SIZES[0]).items():
        assert (values == smallest[name]).all(), name


def test_gains_and_offsets_stay_apart() -> None:
    weights = {name: torch.zeros_like(v) for name, v in LARGEST.make().state_dict().items()}
    weights["noise.2.bias"][: 2 * LARGEST.width] = 1.0
    bias = cut(weights, SIZES[0])["noise.2.bias"]
    assert bias.tolist() == [1.0] * 32 + [0.0] * 32


def test_a_larger_one_learns_what_a_smaller_one_does() -> None:
    model = LARGEST.make()
    small = cut(dict(model.named_parameters()), SIZES[0])
    made = torch.func.functional_call(
        SIZES[0].make(), small, (torch.randn(1, 4, 4, 4), torch.zeros(1))
    )
    made.square().mean().backward()
    gradient = model.leave.weight.grad
    assert gradient is not None
    assert gradient[:, :16].abs().min() > 0
    assert (gradient[:, 16:] == 0).all()
