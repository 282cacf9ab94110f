from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from megdt.models.autoencoder import Decoder, Encoder
from megdt.models.denoiser import Denoiser, positions
from megdt.models.generation import (
    _on_grid,
    count_steps,
    draw_first_grid,
    enlarge_latents,
    finish_latents,
    generate_latents,
    grids,
    handoff_level,
    measure_spread,
    take_from_air,
)
from megdt.models.sampling import guide
from megdt.models.text_encoder import EMBEDDING


@pytest.fixture(scope="module")
def halves() -> tuple[Encoder, Decoder]:
    torch.manual_seed(0)
    return Encoder(width=8, blocks=1).eval(), Decoder(width=8, blocks=1).eval()


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    torch.manual_seed(0)
    model = Denoiser(widths=(16, 16, 16)).eval()
    # Fresh residual paths are silent, and with them prompt and noise level: wake them up.
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("size_px", [256, 264, 320, 512, 520])
def test_any_size_comes_out_as_asked(
    denoiser: Denoiser, halves: tuple[Encoder, Decoder], size_px: int
) -> None:
    latents = generate_latents(
        denoiser,
        *halves,
        torch.zeros(1, EMBEDDING),
        [0],
        size_px=size_px,
        steps=2,
        guidance_scale=2.0,
    )
    assert latents.shape == (1, 4, size_px // 8, size_px // 8)


def test_a_picture_does_not_depend_on_its_batch(
    denoiser: Denoiser, halves: tuple[Encoder, Decoder]
) -> None:
    embeds = torch.randn(3, EMBEDDING, generator=torch.Generator().manual_seed(1))
    settings = {"size_px": 256, "steps": 2, "guidance_scale": 2.0}
    together = generate_latents(denoiser, *halves, embeds, [5, 6, 7], **settings)  # type: ignore[arg-type]
    alone = generate_latents(denoiser, *halves, embeds[1:2], [6], **settings)  # type: ignore[arg-type]
    assert torch.allclose(together[1:2], alone, atol=1e-4)


def test_progress_counts_every_step_of_every_grid(
    denoiser: Denoiser, halves: tuple[Encoder, Decoder]
) -> None:
    told: list[tuple[int, int]] = []
    generate_latents(
        denoiser, *halves, torch.zeros(1, EMBEDDING), [0], size_px=512, steps=3, guidance_scale=1.0,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    total = sum(count_steps(512, 3))
    assert told == [(step + 1, total) for step in range(total)]


@pytest.mark.parametrize("size_px", [256, 320, 520])
def test_the_first_grid_and_the_finer_ones_are_bit_for_bit_the_whole(
    denoiser: Denoiser, halves: tuple[Encoder, Decoder], size_px: int
) -> None:
    embeds = torch.randn(2, EMBEDDING, generator=torch.Generator().manual_seed(1))
    rng_seeds = [5, 6]
    whole = generate_latents(
        denoiser, *halves, embeds, rng_seeds, size_px=size_px, steps=3, guidance_scale=2.0
    )
    first = draw_first_grid(denoiser, embeds, rng_seeds, steps=3, guidance_scale=2.0)
    assert first.shape == (2, 4, 32, 32)
    told: list[tuple[int, int]] = []
    finer = enlarge_latents(
        denoiser, *halves, first, embeds, rng_seeds, size_px=size_px, steps=3, guidance_scale=2.0,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert torch.equal(finer, whole)
    total = sum(count_steps(size_px, 3)[1:])
    assert told == [(step + 1, total) for step in range(total)]


def test_grids_go_from_a_whole_scene_to_the_size_asked() -> None:
    for size_px in range(256, 1025, 8):
        found = grids(size_px)
        assert found[0] == 32
        assert found[-1] == size_px // 8
        assert all(coarse < fine <= 2 * coarse for coarse, fine in pairwise(found))


def test_a_crop_has_the_positions_of_its_place() -> None:
    whole = positions(64, 64, view=64)
    assert torch.equal(positions(32, 32, view=64, top=8, left=24), whole[:, 8:40, 24:56])


def test_the_prompt_makes_a_difference(denoiser: Denoiser, halves: tuple[Encoder, Decoder]) -> None:
    embeds = torch.randn(2, EMBEDDING, generator=torch.Generator().manual_seed(1))
    first, second = generate_latents(
        denoiser, *halves, embeds, [5, 5], size_px=256, steps=2, guidance_scale=2.0
    )
    assert not torch.allclose(first, second, atol=1e-3)


@pytest.mark.parametrize("handoff_step", range(6))
def test_splitting_the_steps_changes_no_bit(
    denoiser: Denoiser, halves: tuple[Encoder, Decoder], handoff_step: int
) -> None:
    embeds = torch.randn(2, EMBEDDING, generator=torch.Generator().manual_seed(1))
    settings = {"size_px": 256, "steps": 5, "guidance_scale": 2.5}
    whole = generate_latents(denoiser, *halves, embeds, [5, 6], **settings)  # type: ignore[arg-type]
    first = generate_latents(
        denoiser, *halves, embeds, [5, 6], handoff_step=handoff_step, **settings  # type: ignore[arg-type]
    )  # fmt: skip
    # As on another machine: nothing goes along but the numbers.
    arrived = torch.from_numpy(first.numpy().copy())
    flow = guide(_on_grid(denoiser, 32, 32, None), embeds, guidance_scale=2.5)
    level = handoff_level(5, handoff_step)
    assert take_from_air(arrived, 0.0, level)[1] == level
    assert torch.equal(finish_latents(flow, arrived, level, steps=5), whole)


def test_a_handoff_tells_of_its_own_steps_alone(
    denoiser: Denoiser, halves: tuple[Encoder, Decoder]
) -> None:
    told: list[tuple[int, int]] = []
    generate_latents(
        denoiser, *halves, torch.zeros(1, EMBEDDING), [0], size_px=256, steps=5, guidance_scale=1.0,
        handoff_step=3, progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("sigma", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("noise_power", [0.0, 0.1, 10.0])
def test_what_the_air_adds_raises_the_noise_level(sigma: float, noise_power: float) -> None:
    clean, noise, air = torch.randn(3, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    sent = ((1 - sigma) * clean + sigma * noise) / measure_spread(sigma)
    assert sent.std() == pytest.approx(1, abs=0.02)
    arrived, level = take_from_air(sent + noise_power**0.5 * air, noise_power, sigma)
    assert level >= sigma
    left = arrived - (1 - level) * clean
    assert left.std() == pytest.approx(level, abs=0.01)
    assert abs(float((left * clean).mean())) < 0.02
