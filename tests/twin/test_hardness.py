from __future__ import annotations

import numpy as np
import pytest

from megdt.errors import TwinError
from megdt.models.bundle import Bundle
from megdt.records import Request
from megdt.twin.hardness import foresee, measure_hardness, spread


def test_what_is_foreseen_of_a_begun_picture_is_near_what_it_turns_out_to_be() -> None:
    bundle = Bundle()
    prompts = ("a single white poppy in the mist at dusk", "countless red tulips on a sunny day")
    found = [foresee(bundle, Request(prompt=p, rng_seed=3)) for p in prompts]
    embedded = bundle.embed(prompts)
    latents = bundle.denoise(embedded, [3, 3], size_px=256, steps=24, guidance_scale=2.5)
    whole = [measure_hardness(latent) for latent in latents]
    assert np.abs(np.array(found) - whole).max() < 0.4
    assert found[0] != found[1]


def test_a_spread_finds_the_line_and_what_is_off_it() -> None:
    rng = np.random.default_rng(0)
    hardness = rng.normal(size=(200, 2))
    values = (3 + hardness @ [2.0, 0.0] + 0.1 * rng.normal(size=200))[None]
    found = spread(values, hardness)
    assert found.slope[0] == pytest.approx([2.0, 0.0], abs=0.15)
    assert 0.08 < found.residual.std() < 0.2
    assert found.at([1.0, 0.0])[0] == pytest.approx(5.0, abs=0.2)
    plain = spread(values, hardness[:, :0])
    assert plain.residual.std() == pytest.approx(values.std(), rel=0.02)


@pytest.mark.parametrize(
    "latent", [np.zeros((3, 32, 32)), np.zeros((4, 16, 32)), np.full((4, 32, 32), np.nan)]
)
def test_what_is_no_latent_is_refused(latent: np.ndarray) -> None:
    with pytest.raises(TwinError, match="has no hardness"):
        measure_hardness(latent)
