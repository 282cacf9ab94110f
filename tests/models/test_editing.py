"""Latents drawn anew as a prompt says."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from megdt.models.bundle import Bundle
from megdt.worlds.garden import draw_view

SETTINGS = {"steps": 6, "guidance_scale": 2.5}


@pytest.fixture(scope="module")
def latent() -> NDArray[np.float32]:
    garden, view = draw_view(10_000_003)
    return Bundle().encode(garden.render(view)[None])


def edit(
    bundle: Bundle, latent: NDArray[np.float32], prompt: str, strength: float, **more: object
) -> NDArray[np.float32]:
    embeds = bundle.embed([prompt])
    return bundle.edit(latent, embeds, [0], strength=strength, **SETTINGS, **more)  # type: ignore[arg-type]


def test_the_stronger_the_more_is_drawn_anew(bundle: Bundle, latent: NDArray[np.float32]) -> None:
    changed = [
        float(((edit(bundle, latent, "white lilies at night", s) - latent) ** 2).mean())
        for s in (0.0, 0.3, 0.6, 1.0)
    ]
    assert changed[0] == 0
    assert changed == sorted(changed)
    assert changed[3] > 3 * changed[1]


def test_an_edit_follows_the_prompt(bundle: Bundle, latent: NDArray[np.float32]) -> None:
    """Night is dark, whatever it was before."""
    day, night = (
        bundle.decode(edit(bundle, latent, f"red poppies {when}", 0.85))[0, :80].mean()
        for when in ("under a clear blue sky", "at night under the stars")
    )
    assert night < 0.6 * day


def test_what_is_seen_is_kept_and_what_is_hidden_is_drawn(
    bundle: Bundle, latent: NDArray[np.float32]
) -> None:
    seen = np.ones((1, 32, 32), np.float32)
    seen[:, 8:24, 8:24] = 0
    hurt = latent * seen[:, None]
    found = edit(bundle, hurt, "a meadow", 0.0, confidence=seen)
    kept = seen[:, None].repeat(4, 1) == 1
    assert np.allclose(found[kept], latent[kept], atol=1e-5)
    # Not the grey that was put there.
    assert found[~kept].std() > 0.5


def test_the_same_seed_draws_the_same_edit_at_any_size(bundle: Bundle) -> None:
    latent = np.random.default_rng(0).standard_normal((1, 4, 35, 35)).astype(np.float32)
    told: list[tuple[int, int]] = []
    first, again = (
        edit(bundle, latent, "a meadow", 0.3, progress=lambda *step: told.append(step))
        for _ in range(2)
    )
    assert first.shape == latent.shape
    assert (first == again).all()
    assert told == [(1, 2), (2, 2)] * 2
