"""What is missing of a panorama, drawn around what is there."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from megdt.errors import RequestError
from megdt.models.bundle import Bundle
from megdt.models.outpainting import STRIDE, window_lefts
from megdt.worlds.garden import Garden

SETTINGS = {"steps": 4, "guidance_scale": 2.5}
WIDTH = 64


@pytest.fixture(scope="module")
def latents() -> NDArray[np.float32]:
    """Of a garden by night, which a prompt may contradict."""
    garden = next(g for s in range(99) if (g := Garden(s, length_m=8)).conditions.sky == "night")
    return Bundle().encode(garden.panorama(256)[None])[0]


def half_seen() -> NDArray[np.bool_]:
    seen = np.ones((32, WIDTH), bool)
    seen[:, 32:] = False
    return seen


def outpaint(
    bundle: Bundle, latents: NDArray[np.float32], prompt: str, rng_seed: int = 0, **more: object
) -> NDArray[np.float32]:
    embeds = bundle.embed([prompt] * len(window_lefts(WIDTH)))
    settings = SETTINGS | more
    return bundle.outpaint(latents, half_seen(), embeds, rng_seed, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [32, 33, 48, 64, 90])
def test_windows_cover_every_column_and_overlap(width: int) -> None:
    lefts = window_lefts(width)
    covered = [c for left in lefts for c in range(left, left + 32)]
    assert set(covered) == set(range(width))
    assert all(b - a <= STRIDE for a, b in pairwise(lefts))


@pytest.mark.parametrize("repeats", [1, 2])
def test_what_is_there_stays_and_what_is_not_is_drawn(
    bundle: Bundle, latents: NDArray[np.float32], repeats: int
) -> None:
    seen = half_seen()
    hurt = latents * seen
    found = outpaint(bundle, hurt, "red poppies at night", repeats=repeats)
    assert np.allclose(found[:, seen], latents[:, seen], atol=1e-6)
    assert 0.5 < found[:, ~seen].std() < 2


def test_what_was_not_seen_is_not_read(bundle: Bundle, latents: NDArray[np.float32]) -> None:
    other = np.where(half_seen(), latents, np.float32(np.nan))
    prompt = "red poppies at night"
    assert np.array_equal(outpaint(bundle, latents, prompt), outpaint(bundle, other, prompt))


def test_another_seed_and_another_prompt_draw_something_else(
    bundle: Bundle, latents: NDArray[np.float32]
) -> None:
    def unseen(prompt: str, rng_seed: int) -> NDArray[np.float32]:
        return outpaint(bundle, latents, prompt, rng_seed)[:, :, 32:]

    first = unseen("red poppies at night", 0)
    assert np.array_equal(first, unseen("red poppies at night", 0))
    assert not np.allclose(first, unseen("red poppies at night", 1), atol=0.1)
    assert not np.allclose(first, unseen("white lilies at night", 0), atol=0.1)


def test_what_is_drawn_goes_on_from_what_is_there(
    bundle: Bundle, latents: NDArray[np.float32]
) -> None:
    """Without a prompt, beside a night sky, sooner dark than where nothing is seen."""
    embeds = np.zeros_like(bundle.embed(["", "", ""]))

    def sky(seen: NDArray[np.bool_]) -> float:
        drawn = [
            bundle.outpaint(latents, seen, embeds, n, steps=8, guidance_scale=1.0, repeats=2)
            for n in range(3)
        ]
        return float(bundle.decode(np.stack(drawn))[:, :64, 8 * 36 : 8 * 44].mean())

    assert sky(half_seen()) < sky(np.zeros((32, WIDTH), bool))


def test_a_panorama_that_was_seen_is_left_alone(
    bundle: Bundle, latents: NDArray[np.float32]
) -> None:
    told: list[int] = []
    found = bundle.outpaint(
        latents, np.ones((32, WIDTH), bool), bundle.embed(["", "", ""]), 0,
        progress=lambda step, _: told.append(step), **SETTINGS,  # type: ignore[arg-type]
    )  # fmt: skip
    assert np.array_equal(found, latents)
    assert told == []


@pytest.mark.parametrize(
    ("shape", "prompts", "words"),
    [
        ((4, 16, 64), 3, "16 latents high"),
        ((4, 32, 24), 1, "24 columns"),
        ((4, 32, 64), 2, "2 prompts for a panorama of 3"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    bundle: Bundle, shape: tuple[int, int, int], prompts: int, words: str
) -> None:
    blank = np.zeros(shape, np.float32)
    with pytest.raises(RequestError, match=words):
        bundle.outpaint(
            blank,
            np.zeros(shape[1:], bool),
            bundle.embed(["meadow"] * prompts),
            0,
            **SETTINGS,  # type: ignore[arg-type]
        )
