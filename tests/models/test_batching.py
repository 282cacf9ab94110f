"""Requests that share denoising steps get what each would have got alone."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from megdt.errors import RequestError
from megdt.models.batching import BatchingBundle
from megdt.models.bundle import Bundle

TOLD: dict[str, Any] = {"size_px": 256, "steps": 4, "guidance_scale": 2.0}


@pytest.fixture(scope="module")
def alone() -> Bundle:
    return Bundle()


@pytest.fixture(scope="module")
def embeds(alone: Bundle) -> np.ndarray:
    return alone.embed(["red poppies at sunset"])


@pytest.mark.parametrize(
    "more",
    [{}, {"guidance_scale": 1.0}, {"handoff_step": 2}, {"handoff_step": 0}, {"size_px": 320}],
)
def test_one_request_is_bit_for_bit_what_it_was(
    alone: Bundle, embeds: np.ndarray, more: dict[str, Any]
) -> None:
    batching, told = BatchingBundle(), TOLD | more
    before = alone.flops, batching.flops
    steps: list[tuple[int, int]] = []
    found = batching.denoise(embeds, [7], progress=lambda *step: steps.append(step), **told)
    np.testing.assert_array_equal(found, alone.denoise(embeds, [7], **told))
    assert batching.flops - before[1] == alone.flops - before[0]
    assert [step for step, _ in steps] == list(range(1, len(steps) + 1))


def test_requests_join_and_leave_between_steps(alone: Bundle, embeds: np.ndarray) -> None:
    sizes: list[int] = []
    batching = BatchingBundle(largest=3, watch=sizes.append)
    asked = [(seed, 2 + seed % 3, (1.0, 2.0, 3.5)[seed % 3]) for seed in range(6)]
    flops: list[float] = []

    def one(told: tuple[int, int, float]) -> np.ndarray:
        seed, steps, scale = told
        made = batching.denoise(embeds, [seed], size_px=256, steps=steps, guidance_scale=scale)
        flops.append(batching.flops)
        return made

    with ThreadPoolExecutor(len(asked)) as pool:
        found = list(pool.map(one, asked))
    before = alone.flops
    for (seed, steps, scale), made in zip(asked, found, strict=True):
        wanted = alone.denoise(embeds, [seed], size_px=256, steps=steps, guidance_scale=scale)
        assert np.abs(made - wanted).max() < 1e-4
    assert sum(flops) == pytest.approx(alone.flops - before), "each is charged for its own"
    assert max(sizes) == 3
    assert sum(sizes) == sum(steps for _, steps, _ in asked)


def test_a_batch_of_one_call_is_shared_too(alone: Bundle, embeds: np.ndarray) -> None:
    both = np.repeat(embeds, 2, 0)
    found = BatchingBundle().denoise(both, [1, 2], **TOLD)
    assert np.abs(found - alone.denoise(both, [1, 2], **TOLD)).max() < 1e-4


def test_who_gives_up_leaves_and_the_others_go_on(alone: Bundle, embeds: np.ndarray) -> None:
    batching, started = BatchingBundle(), threading.Event()

    def stop(step: int, steps: int) -> None:
        started.set()
        raise TimeoutError("nobody waits for it")

    with ThreadPoolExecutor(2) as pool:
        going = pool.submit(batching.denoise, embeds, [3], **TOLD)
        given_up = pool.submit(batching.denoise, embeds, [4], progress=stop, **TOLD)
        with pytest.raises(TimeoutError, match="nobody waits"):
            given_up.result(30)
        found = going.result(30)
    assert np.abs(found - alone.denoise(embeds, [3], **TOLD)).max() < 1e-4


def test_a_step_that_fails_is_told_to_all_and_the_next_goes(embeds: np.ndarray) -> None:
    batching = BatchingBundle()
    with pytest.raises(RuntimeError):
        batching.denoise(np.zeros((1, 7), np.float32), [1], **TOLD)
    assert batching.denoise(embeds, [1], **TOLD).shape == (1, 4, 32, 32)
    with pytest.raises(RequestError, match="split at 256 pixels alone"):
        batching.denoise(embeds, [1], **TOLD | {"size_px": 512, "handoff_step": 1})


def test_nothing_runs_while_nothing_is_asked(embeds: np.ndarray) -> None:
    sizes: list[int] = []
    batching = BatchingBundle(watch=sizes.append)
    batching.denoise(embeds, [1], **TOLD)
    seen = len(sizes)
    time.sleep(0.05)
    assert len(sizes) == seen == TOLD["steps"]
