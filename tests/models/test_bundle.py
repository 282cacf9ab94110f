from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from megdt.errors import BundleError
from megdt.models.bundle import Bundle
from megdt.models.cards import BUNDLE, NAMES
from megdt.models.classifier import LABELS
from megdt.models.quality import psnr_db
from megdt.worlds.garden import draw_view

HELD_OUT = 10_000_000


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    shutil.copytree(BUNDLE, folder)
    return folder


def test_a_small_picture_enlarged_is_the_large_one(bundle: Bundle) -> None:
    embeds = bundle.embed(["red poppies at sunset"])
    wanted = {"steps": 1, "guidance_scale": 2.5}
    small = bundle.denoise(embeds, [7], size_px=256, **wanted)  # type: ignore[arg-type]
    whole = bundle.denoise(embeds, [7], size_px=320, **wanted)  # type: ignore[arg-type]
    assert (bundle.enlarge(small, embeds, [7], size_px=320, **wanted) == whole).all()  # type: ignore[arg-type]


def test_a_garden_view_survives_the_autoencoder(bundle: Bundle) -> None:
    qualities = []
    for seed in range(HELD_OUT, HELD_OUT + 6):
        garden, view = draw_view(seed)
        image = garden.render(view)
        latent = bundle.encode(image[None])
        assert latent.shape == (1, 4, 32, 32)
        qualities.append(psnr_db(bundle.decode(latent)[0], image))
    assert np.mean(qualities) > 30


def test_latents_have_about_zero_mean_and_unit_variance(bundle: Bundle) -> None:
    views = [draw_view(seed) for seed in range(HELD_OUT, HELD_OUT + 24)]
    latents = bundle.encode(np.stack([garden.render(view) for garden, view in views]))
    assert np.abs(latents.mean((0, 2, 3))).max() < 0.5
    assert 0.6 < latents.std() < 1.4


def test_the_decoder_makes_use_of_the_noise_power(bundle: Bundle) -> None:
    garden, view = draw_view(HELD_OUT)
    image = garden.render(view)
    latent = bundle.encode(image[None])
    noisy = latent + np.random.default_rng(0).standard_normal(latent.shape).astype(np.float32)
    told = psnr_db(bundle.decode(noisy, np.ones(1, np.float32))[0], image)
    untold = psnr_db(bundle.decode(noisy)[0], image)
    assert told > untold + 2


def test_noise_power_zero_is_no_noise(bundle: Bundle) -> None:
    latent = np.random.default_rng(0).standard_normal((1, 4, 8, 8)).astype(np.float32)
    assert (bundle.decode(latent) == bundle.decode(latent, np.zeros(1, np.float32))).all()


def test_plain_prompts_are_followed(bundle: Bundle) -> None:
    asked = [
        ("poppy", "red", "sunset"),
        ("tulip", "yellow", "clear"),
        ("sunflower", "orange", "night"),
        ("daisy", "white", "cloudy"),
    ]
    prompts = [
        "a field of red poppies at sunset",
        "many yellow tulips under a clear blue sky",
        "orange sunflowers at night",
        "several white daisies under a cloudy sky",
    ]
    latents = bundle.denoise(
        bundle.embed(prompts), range(4), size_px=256, steps=16, guidance_scale=2.5
    )
    seen = bundle.classify(bundle.decode(latents))
    right = sum(
        LABELS[name][seen[name][row]] == asked[row][column]
        for row in range(4)
        for column, name in enumerate(LABELS)
    )
    assert right >= 10  # of 12


def test_the_classifier_knows_real_views(bundle: Bundle) -> None:
    right = 0
    seeds = range(HELD_OUT + 100, HELD_OUT + 130)
    for seed in seeds:
        garden, view = draw_view(seed)
        sky = bundle.classify(garden.render(view)[None])["sky"][0]
        right += LABELS["sky"][sky] == garden.conditions.sky
    assert right >= 27


def test_a_damaged_file_is_refused(copy: Path) -> None:
    path = copy / "decoder.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"decoder.safetensors has checksum .*, its card says"):
        Bundle(copy).decode(np.zeros((1, 4, 8, 8), np.float32))


def test_a_missing_file_is_refused(copy: Path) -> None:
    (copy / "decoder.safetensors").unlink()
    with pytest.raises(BundleError, match=r"cannot read .*decoder.safetensors"):
        Bundle(copy).decode(np.zeros((1, 4, 8, 8), np.float32))


def test_weights_of_another_model_are_refused(copy: Path) -> None:
    shutil.copy(copy / "encoder.safetensors", copy / "decoder.safetensors")
    card = json.loads((copy / "decoder.json").read_text())
    card["sha256"] = json.loads((copy / "encoder.json").read_text())["sha256"]
    (copy / "decoder.json").write_text(json.dumps(card))
    with pytest.raises(BundleError, match=r"differ in|another architecture"):
        Bundle(copy).decode(np.zeros((1, 4, 8, 8), np.float32))


def test_a_missing_or_broken_card_is_refused(copy: Path) -> None:
    (copy / "decoder.json").write_text("[]")
    with pytest.raises(BundleError, match="has no 'task'"):
        Bundle(copy).card("decoder")
    (copy / "decoder.json").unlink()
    with pytest.raises(BundleError, match="no readable model card"):
        Bundle(copy).card("decoder")


def test_the_bundle_stays_small() -> None:
    size = sum((BUNDLE / f"{name}.safetensors").stat().st_size for name in NAMES)
    assert size < 40e6


def test_the_package_holds_no_pickle() -> None:
    assert not [p for p in BUNDLE.iterdir() if p.suffix not in (".safetensors", ".json", ".onnx")]
