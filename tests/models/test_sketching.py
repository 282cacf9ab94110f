from __future__ import annotations

import numpy as np
import pytest
import torch

from megdt.codecs.sketch import STYLES as CODEC_STYLES
from megdt.codecs.sketch import SketchCodec
from megdt.models.autoencoder import Decoder, Encoder
from megdt.models.bundle import Bundle
from megdt.models.cards import BUNDLE
from megdt.models.classifier import LABELS
from megdt.models.denoiser import Denoiser, positions
from megdt.models.generation import generate_latents
from megdt.models.sketching import STYLES, SketchAdapter
from megdt.models.text_encoder import EMBEDDING
from megdt.records import Delivery, Feature
from megdt.worlds.garden import draw_view

HELD_OUT = 10_000_000


def test_the_adapter_knows_the_codecs_styles_in_their_order() -> None:
    assert STYLES == CODEC_STYLES


@pytest.mark.parametrize("size", [96, 256, 264])
def test_features_fit_the_denoiser_whatever_the_size_of_the_sketch(size: int) -> None:
    adapter = SketchAdapter(widths=(16, 32, 48)).eval()
    style = torch.eye(len(STYLES))[:2]
    features = adapter(torch.rand(2, 3, size, size), style, grid=32)
    assert [f.shape for f in features] == [(2, 16, 32, 32), (2, 32, 16, 16), (2, 48, 8, 8)]


def test_a_fresh_adapter_changes_nothing() -> None:
    denoiser = Denoiser(widths=(16, 16, 16)).eval()
    adapter = SketchAdapter(widths=(16, 16, 16)).eval()
    features = adapter(torch.rand(1, 3, 64, 64), torch.eye(len(STYLES))[:1], grid=32)
    asked = (torch.randn(1, 4, 32, 32), torch.full((1,), 0.5), torch.randn(1, EMBEDDING))
    about = {"position": positions(32, 32, view=32)[None], "scale": torch.ones(1)}
    with torch.inference_mode():
        led, alone = denoiser(*asked, **about, features=features), denoiser(*asked, **about)
    assert torch.equal(led, alone)


@pytest.mark.parametrize("size_px", [256, 264, 512])
def test_a_sketch_leads_pictures_of_any_size(size_px: int) -> None:
    torch.manual_seed(0)
    halves = Encoder(width=8, blocks=1).eval(), Decoder(width=8, blocks=1).eval()
    denoiser = Denoiser(widths=(16, 16, 16)).eval()
    torch.nn.init.normal_(denoiser.leave[2].weight, std=0.1)
    features = tuple(torch.randn(1, 16, side, side) for side in (32, 16, 8))
    led, alone = (
        generate_latents(
            denoiser,
            *halves,
            torch.zeros(1, EMBEDDING),
            [0],
            size_px=size_px,
            steps=2,
            guidance_scale=2.0,
            features=given,  # type: ignore[arg-type]
        )
        for given in (features, None)
    )
    assert led.shape == (1, 4, size_px // 8, size_px // 8)
    assert not torch.allclose(led, alone, atol=1e-3)


def test_the_adapter_is_small() -> None:
    assert sum(p.numel() for p in SketchAdapter().parameters()) < 1.2e6
    assert (BUNDLE / "sketch_adapter.safetensors").stat().st_size < 2.4e6


def sketch_views(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Views and their sketches. [count, 256, 256, 3] each"""
    views, sketches = [], []
    codec = SketchCodec(size_px=256, style="thumbnail")
    for seed in range(HELD_OUT, HELD_OUT + count):
        garden, view = draw_view(seed)
        views.append(garden.render(view))
        packet = codec.encode(Feature(kind="sketch", values=views[-1]))
        sketches.append(codec.decode(Delivery(payload=packet.payload)).values)
    return np.stack(views), np.stack(sketches)


def test_a_garden_view_survives_its_sketch(bundle: Bundle) -> None:
    views, sketches = sketch_views(4)
    latents = bundle.redraw(
        sketches, None, range(4), style="thumbnail", steps=8, guidance_scale=1.0
    )
    drawn = bundle.decode(latents)
    assert drawn.shape == views.shape
    wanted, seen = bundle.classify(views), bundle.classify(drawn)
    assert sum(int((wanted[name] == seen[name]).sum()) for name in LABELS) >= 9  # of 12
    # The layout too: what is where, at 16 x 16 places.
    coarse = [p.reshape(4, 16, 16, 16, 16, 3).mean((2, 4)) for p in (views, drawn, drawn[::-1])]
    assert np.abs(coarse[0] - coarse[1]).mean() < 0.5 * np.abs(coarse[0] - coarse[2]).mean()


def test_redrawing_counts_its_operations_and_tells_its_progress(bundle: Bundle) -> None:
    before, told = bundle.flops, []
    sketch = np.full((1, 256, 256, 3), 128, np.uint8)
    settings = {"style": "layout", "steps": 1, "guidance_scale": 2.0}
    latents = bundle.redraw(
        sketch,
        bundle.embed(["red poppies"]),
        [0],
        **settings,  # type: ignore[arg-type]
        progress=lambda done, total: told.append((done, total)),
    )
    assert latents.shape == (1, 4, 32, 32)
    assert told == [(1, 1)]
    # Guidance asks the denoiser twice, at 1.7 billion operations each; the adapter adds its own.
    assert 3e9 < bundle.flops - before < 6e9
