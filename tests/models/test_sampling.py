from __future__ import annotations

import torch
from torch import Tensor

from megdt.models.sampling import add_noise, guide, make_sigmas, sample_euler, sample_heun


def to_point(latent: Tensor, sigma: Tensor) -> Tensor:
    """The exact flow when every clean latent is 3: noise is (x - (1 - sigma) 3) / sigma."""
    spread = sigma[:, None].clamp(min=1e-6)
    noise = (latent - (1 - spread) * 3) / spread
    return noise - 3


def test_sampling_ends_at_the_data() -> None:
    start = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    for sample in (sample_euler, sample_heun):
        assert torch.allclose(
            sample(to_point, start, make_sigmas(7)), torch.full((4, 5), 3.0), atol=1e-4
        )


def test_two_slices_of_sigmas_are_one_generation() -> None:
    start = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    sigmas = make_sigmas(10)
    model = lambda x, s: torch.sin(x) * s[:, None]  # noqa: E731
    whole = sample_euler(model, start, sigmas)
    handed_over = sample_euler(model, sample_euler(model, start, sigmas[:5]), sigmas[4:])
    assert torch.equal(whole, handed_over)


def test_heun_is_nearer_to_the_true_path_than_euler() -> None:
    start = torch.ones(1, 1)
    model = lambda x, s: x  # dx/dsigma = x, so x(0) = exp(-1)  # noqa: E731
    true = torch.exp(torch.tensor(-1.0))
    errors = [
        abs(float(f(model, start, make_sigmas(8)) - true)) for f in (sample_euler, sample_heun)
    ]
    assert errors[1] < errors[0] / 5


def test_sigmas_fall_from_start_to_zero() -> None:
    for shift in (1.0, 3.0):
        sigmas = make_sigmas(9, start=0.6 if shift == 1 else 1.0, shift=shift)
        assert len(sigmas) == 10
        assert sigmas[-1] == 0
        assert (sigmas.diff() < 0).all()


def test_guidance_goes_beyond_the_prompt() -> None:
    def model(latent: Tensor, sigma: Tensor, embeds: Tensor) -> Tensor:
        return latent * 0 + embeds[:, :1, None, None]

    latent, sigma, embeds = torch.zeros(2, 1, 1, 1), torch.ones(2), torch.ones(2, 3)
    assert guide(model, embeds, guidance_scale=1.0)(latent, sigma).flatten().tolist() == [1, 1]
    assert guide(model, embeds, guidance_scale=2.5)(latent, sigma).flatten().tolist() == [2.5, 2.5]


def test_noise_is_mixed_in_by_its_level() -> None:
    assert add_noise(torch.tensor(2.0), 0.25, torch.tensor(4.0)) == 2.5
