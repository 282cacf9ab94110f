from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from megdt.models.bundle import Bundle
from megdt.models.lockstep import GRID_STEP, round_to_grid, state_hash
from megdt.worlds.garden import draw_view

Array = NDArray[np.float32]


def sources(*latents: Array, confidence: list[Array] | None = None) -> tuple[Array, ...]:
    """Fresh and clean, seen everywhere unless said otherwise."""
    size = latents[0].shape[1:]
    seen = [np.ones(size, np.float32) for _ in latents] if confidence is None else confidence
    nothing = np.zeros((1, len(latents)), np.float32)
    return np.stack(latents)[None], np.stack(seen)[None], nothing, nothing.copy()


@pytest.fixture(scope="module")
def scene() -> tuple[Array, Array, NDArray[np.uint8]]:
    """Latents of a held-out view now and six days before, and the picture now."""
    bundle = Bundle()
    garden, view = draw_view(10_000_007)
    before, now = garden.render(view), garden.later(6).render(view)
    latents = bundle.encode(np.stack([now, before]))
    return latents[0], latents[1], now


def test_a_single_source_passes_as_it_is(
    bundle: Bundle, scene: tuple[Array, Array, NDArray[np.uint8]]
) -> None:
    now, before, _ = scene
    alone = bundle.fuse(*sources(now))[0]
    assert (alone == round_to_grid(now)).all()
    # So it does where the others have nothing to say.
    silent = [np.ones((32, 32), np.float32), np.zeros((32, 32), np.float32)]
    beside = bundle.fuse(*sources(now, before, confidence=silent))[0]
    assert np.abs(beside - now).max() <= GRID_STEP


def test_the_order_of_the_sources_does_not_matter(
    bundle: Bundle, scene: tuple[Array, Array, NDArray[np.uint8]]
) -> None:
    now, before, _ = scene
    latents, confidence, age_s, noise_power = sources(now, before)
    age_s[0, 1] = 6 * 86_400
    fused = bundle.fuse(latents, confidence, age_s, noise_power)
    turned = bundle.fuse(
        latents[:, ::-1].copy(), confidence[:, ::-1].copy(), age_s[:, ::-1].copy(), noise_power
    )
    assert np.abs(fused - turned).max() <= 2 * GRID_STEP


def test_what_one_hides_comes_from_the_other(bundle: Bundle) -> None:
    """Nearer to the truth than either and than their mean, with age and occlusion, over six scenes."""
    hidden = np.ones((32, 32), np.float32)
    hidden[12:28, 4:20] = 0
    errors: dict[str, list[float]] = {"gate": [], "ue": [], "es": [], "mean": []}
    for rng_seed in range(10_000_007, 10_000_013):
        garden, view = draw_view(rng_seed)
        now, before = bundle.encode(np.stack([garden.later(6).render(view), garden.render(view)]))
        latents, confidence, age_s, noise_power = sources(
            now, before, confidence=[hidden, np.ones((32, 32), np.float32)]
        )
        age_s[0, 1] = 6 * 86_400
        seen = confidence[0][:, None]
        for name, latent in (
            ("gate", bundle.fuse(latents, confidence, age_s, noise_power)[0]),
            ("ue", now * hidden),
            ("es", before),
            ("mean", (latents[0] * seen).sum(0) / seen.sum(0)),
        ):
            errors[name].append(float(((latent - now) ** 2).mean()))
    gate, *others = (float(np.mean(each)) for each in errors.values())
    assert gate < 0.9 * min(others)


def test_noise_and_age_are_believed_less(
    bundle: Bundle, scene: tuple[Array, Array, NDArray[np.uint8]]
) -> None:
    now, before, _ = scene
    noise = np.random.default_rng(0).standard_normal(now.shape).astype(np.float32)
    latents, confidence, age_s, noise_power = sources(now + noise, now)
    noise_power[0, 0] = 1.0
    noisy = bundle.fuse(latents, confidence, age_s, noise_power)[0]
    assert ((noisy - now) ** 2).mean() < 0.15
    latents, confidence, age_s, noise_power = sources(now, before)
    age_s[0, 1] = 6 * 86_400
    aged = bundle.fuse(latents, confidence, age_s, noise_power)[0]
    assert ((aged - now) ** 2).mean() < 0.3 * ((before - now) ** 2).mean()


def test_more_sources_than_it_was_trained_with_are_taken(bundle: Bundle) -> None:
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((4, 32, 40)).astype(np.float32)
    latents, confidence, age_s, noise_power = sources(*[truth] * 9)
    fused = bundle.fuse(latents, confidence, age_s, noise_power)
    assert fused.shape == (1, 4, 32, 40)
    assert np.isfinite(fused).all()


def test_a_state_has_one_name(scene: tuple[Array, Array, NDArray[np.uint8]]) -> None:
    now, before, _ = scene
    assert state_hash(now) == state_hash(round_to_grid(now))
    assert state_hash(now) != state_hash(before)
    moved = round_to_grid(now)
    moved[0, 0, 0] += GRID_STEP
    assert state_hash(moved) != state_hash(now)
