from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from megdt.models.autoencoder import Decoder, Encoder
from megdt.models.bundle import Bundle
from megdt.models.cards import GENERATING
from megdt.models.classifier import SceneClassifier
from megdt.models.denoiser import Denoiser
from megdt.models.student import Student
from megdt.models.text_encoder import TextEncoder

PROMPT = "red poppies at sunset"


def latents(side: int, batch: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((batch, 4, side, side)).astype(np.float32)


def spent(bundle: Bundle, work: Callable[[], Any]) -> float:
    before = bundle.flops
    work()
    return bundle.flops - before


def counted_by_torch(model: nn.Module, *args: Any, **kwargs: Tensor) -> int:
    """On a copy without numbers, where torch does not fuse layers into what it cannot count."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.eval().to("meta")(*args, **kwargs)
    return int(counter.get_total_flops())


def empty(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


def test_nothing_is_counted_before_anything_is_done() -> None:
    assert Bundle().flops == 0


def test_decoding_takes_what_its_convolutions_and_its_noise_layers_take(bundle: Bundle) -> None:
    low, high = 32 * 32, 64 * 64  # places at an eighth and at a quarter of 256 pixels
    weights = (
        9 * 4 * 128 * low  # enter
        + 6 * 9 * 128 * 128 * low  # three blocks of two
        + 9 * 128 * 256 * low  # rise
        + 4 * 9 * 64 * 64 * high  # two blocks of two
        + 9 * 64 * 48 * high  # leave
        + 2 * 64 + 64 * 256  # told how noisy
    )  # fmt: skip
    assert spent(bundle, lambda: bundle.decode(latents(32))) == 2 * weights == 3_859_841_280


def test_a_larger_picture_takes_as_much_more_as_it_has_pixels(bundle: Bundle) -> None:
    once = 2 * (2 * 64 + 64 * 256)
    small = spent(bundle, lambda: bundle.decode(latents(16)))
    large = spent(bundle, lambda: bundle.decode(latents(32)))
    assert large - once == 4 * (small - once)


def test_a_batch_takes_as_much_more_as_it_is_long(bundle: Bundle) -> None:
    one = spent(bundle, lambda: bundle.decode(latents(16)))
    three = spent(bundle, lambda: bundle.decode(latents(16, batch=3), np.ones(3, np.float32)))
    assert three == 3 * one


def test_embedding_takes_what_its_transformer_takes(bundle: Bundle) -> None:
    tokens, width = 5, 128  # four words and the summary
    attention = tokens * width * 4 * width + 2 * tokens * tokens * width
    layer = attention + 2 * tokens * width * 3 * width
    expected = 2 * (2 * layer + width * 192)
    assert spent(bundle, lambda: bundle.embed([PROMPT])) == expected == 3_351_552


def test_the_counts_are_those_of_torch(bundle: Bundle) -> None:
    prompts = [PROMPT, "many white daisies under a clear blue sky", "!"]
    assert spent(bundle, lambda: bundle.embed(prompts)) == counted_by_torch(TextEncoder(), prompts)
    assert spent(bundle, lambda: bundle.decode(latents(24, 2))) == counted_by_torch(
        Decoder(), empty(2, 4, 24, 24)
    )
    images = np.zeros((1, 128, 192, 3), np.uint8)
    assert spent(bundle, lambda: bundle.encode(images)) == counted_by_torch(
        Encoder(), empty(1, 3, 128, 192)
    )
    embeds = bundle.embed([PROMPT])
    pair = counted_by_torch(  # with the prompt and without
        Denoiser(), empty(2, 4, 32, 32), empty(2), empty(2, 192),
        position=empty(2, 12, 32, 32), scale=empty(2),
    )  # fmt: skip
    assert spent(bundle, lambda: draw(bundle, embeds, steps=3)) == 3 * pair


def test_the_student_is_counted_by_its_steps(bundle: Bundle) -> None:
    step = counted_by_torch(Student(), empty(1, 4, 32, 32), empty(1))

    def finish(at: int) -> None:
        told: dict[str, Any] = {"noise_power": 0.0, "steps": 8, "guidance_scale": 1.0}
        bundle.finish(latents(32), [""], [0], handoff_step=at, **told)

    assert spent(bundle, lambda: finish(5)) == 3 * step
    assert spent(bundle, lambda: finish(8)) == 0


def draw(
    bundle: Bundle,
    embeds: NDArray[np.float32],
    *,
    size_px: int = 256,
    steps: int = 1,
    guidance_scale: float = 2.5,
) -> NDArray[np.float32]:
    return bundle.denoise(embeds, [0], size_px=size_px, steps=steps, guidance_scale=guidance_scale)


def test_guidance_takes_every_step_twice(bundle: Bundle) -> None:
    embeds = bundle.embed([PROMPT])
    plain = spent(bundle, lambda: draw(bundle, embeds, guidance_scale=1.0))
    assert spent(bundle, lambda: draw(bundle, embeds)) == 2 * plain


def test_a_large_picture_is_charged_for_every_grid_and_the_way_between(bundle: Bundle) -> None:
    embeds = bundle.embed([PROMPT])
    coarse = spent(bundle, lambda: draw(bundle, embeds))
    between = spent(bundle, lambda: bundle.decode(latents(32))) + spent(
        bundle, lambda: bundle.encode(np.zeros((1, 320, 320, 3), np.uint8))
    )
    fine = spent(bundle, lambda: draw(bundle, embeds, size_px=320)) - coarse - between
    assert fine == pytest.approx(coarse * (40 / 32) ** 2, rel=0.02)  # attention takes more


def test_a_second_call_takes_exactly_what_the_first_took() -> None:
    fresh = Bundle()

    def work() -> None:
        fresh.decode(draw(fresh, fresh.embed([PROMPT])))

    first = spent(fresh, work)
    assert first > 8e9
    assert spent(fresh, work) == first


def test_a_text_takes_what_naming_the_picture_takes(bundle: Bundle) -> None:
    image = np.zeros((256, 256, 3), np.uint8)
    named = spent(bundle, lambda: bundle.classify(image[None]))
    assert named == counted_by_torch(SceneClassifier(), empty(1, 3, 256, 256))
    assert spent(bundle, lambda: bundle.write("x", image, rng_seed=0)) == named


def test_counting_changes_no_bit() -> None:
    plain = Bundle()
    plain.load(*GENERATING)
    for name in GENERATING:
        vars(getattr(plain, f"_{name}")).pop("forward")
    counting = Bundle()
    for _ in range(2):  # the first call of a shape is watched, later ones are known
        embeds = counting.embed([PROMPT])
        assert (embeds == plain.embed([PROMPT])).all()
        drawn = draw(counting, embeds, size_px=320)
        assert (drawn == draw(plain, embeds, size_px=320)).all()
        assert (counting.decode(drawn) == plain.decode(drawn)).all()
    assert plain.flops == 0


def test_nothing_watches_a_call_of_a_known_shape() -> None:
    fresh = Bundle()
    fresh.decode(latents(8))
    layers = list(fresh._decoder.modules())
    assert not any(layer._forward_hooks for layer in layers)
    calls: list[Any] = []
    for layer in layers:
        layer.register_forward_hook = calls.append  # type: ignore[method-assign,assignment]
    assert spent(fresh, lambda: fresh.decode(latents(8))) > 0
    assert calls == []


def test_a_call_that_fails_takes_nothing_and_leaves_nothing_behind() -> None:
    fresh = Bundle()
    with pytest.raises(RuntimeError, match="type"):
        fresh._decoder(torch.zeros(1, 4, 8, 8, dtype=torch.float64))
    assert fresh.flops == 0
    assert not any(layer._forward_hooks for layer in fresh._decoder.modules())
