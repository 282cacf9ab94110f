"""Joint codes for autoencoders of one's own, trained by the recipe."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from megdt.codecs.jscc import JsccSeedCodec, check_peer
from megdt.errors import BundleError, CodecError, ScenarioError
from megdt.models.jscc import build_jscc, normalise_power, tell
from megdt.models.tiny_autoencoder import TinyAutoencoder
from megdt.records import Feature, Part
from megdt.scenario import Scenario, parse_scenario
from megdt.worlds.garden import draw_view

ROOT = Path(__file__).parents[2]
WIDE, CHANNELS = 8, 6


def write_autoencoder(folder: Path) -> None:
    """One of a small number of layers, as taesd names its files; random, and a quarter of the size."""
    generator = torch.Generator().manual_seed(0)

    def conv(name: str, leaving: int, entering: int, *, offset: bool = True) -> dict[str, Tensor]:
        weight = torch.randn(leaving, entering, 3, 3, generator=generator) / (2 * entering**0.5)
        return {f"{name}.weight": weight} | (
            {f"{name}.bias": torch.zeros(leaving)} if offset else {}
        )

    def block(name: str) -> dict[str, Tensor]:
        return {k: v for n in (0, 2, 4) for k, v in conv(f"{name}.conv.{n}", WIDE, WIDE).items()}

    encoder = {
        **conv("0", WIDE, 3), **block("1"), **conv("2", WIDE, WIDE, offset=False),
        **conv("3", WIDE, WIDE, offset=False), **block("4"), **conv("5", CHANNELS, WIDE),
    }  # fmt: skip
    decoder = {
        **conv("1", WIDE, CHANNELS), **block("3"), **conv("5", WIDE, WIDE, offset=False),
        **conv("7", WIDE, WIDE, offset=False), **conv("8", 3, WIDE),
    }  # fmt: skip
    decoder["8.bias"] += 0.5
    folder.mkdir(parents=True)
    save_file(encoder, folder / "small_encoder.safetensors")
    save_file(decoder, folder / "small_decoder.safetensors")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "bare"
    write_autoencoder(folder)
    return folder


@pytest.fixture(scope="module")
def coded(bare: Path) -> Path:
    """With a code that the recipe has trained for a few steps."""
    folder, photos = bare.parent / "coded", bare.parent / "photos"
    shutil.copytree(bare, folder)
    photos.mkdir()
    for seed in range(2):
        garden, view = draw_view(seed)
        Image.fromarray(garden.render(view)).save(photos / f"{seed}.png")
    asked = (
        "--model", folder, "--photos", photos, "--cache", bare.parent / "cache", "--crops", "40",
        "--steps", "12",
    )  # fmt: skip
    recipe = ROOT / "recipes" / "own_jscc.py"
    done = subprocess.run([sys.executable, recipe, *asked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def make(folder: Path, *, snr_db: float = 30.0, rate: float = 1.0, codec: str = "jscc") -> Scenario:
    return parse_scenario(
        {
            "request": {"prompt": "?"},
            "plan": {"mechanism": "ue_to_es", "symbol_rate": rate},
            "codecs": {"seed": codec},
            "link": {"snr_db": snr_db},
            "model": {"name": str(folder)},
        }
    )


@pytest.fixture(scope="module")
def seed(coded: Path) -> Any:
    garden, view = draw_view(77)
    return TinyAutoencoder(str(coded)).encode(garden.render(view)[None])[0]


def send(scenario: Scenario, seed: Any) -> tuple[float, int]:
    """Mean squared error of the picture beside that of the whole seed, and what it took."""
    codec = scenario.codec("seed")
    packet = codec.encode(Feature(kind="seed", values=seed))
    delivery = scenario.link.send(packet, np.random.default_rng(0))
    got = codec.decode(delivery).values
    models = scenario.model.load()
    shown, wanted = (models.decode(each[None]).astype(np.float32) for each in (got, seed))
    return float(np.square(shown - wanted).mean() / wanted.var()), delivery.uses.total


def test_a_trained_code_carries_seeds_of_another_autoencoder(coded: Path, seed: Any) -> None:
    fine, uses = send(make(coded), seed)
    noisy, _ = send(make(coded, snr_db=0.0), seed)
    short, fewer = send(make(coded, rate=0.25), seed)
    _, analog = send(make(coded, codec="analog"), seed)
    assert fine < 0.05
    assert fine < noisy
    assert fine < short
    assert 0.9 * analog <= uses <= analog
    assert 0.2 * analog <= fewer <= 0.27 * analog


def test_it_does_better_than_the_seed_itself_where_there_is_noise(coded: Path, seed: Any) -> None:
    learned, _ = send(make(coded, snr_db=-5.0), seed)
    plain, _ = send(make(coded, snr_db=-5.0, codec="analog"), seed)
    assert learned < plain


def test_a_pipeline_is_sent_by_it_from_end_to_end(coded: Path) -> None:
    scenario = make(coded)
    picture = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    done = Part(features={"sense": Feature(kind="image", values=picture)})
    models = scenario.model.load()
    result = scenario.run(models, done=done)  # type: ignore[arg-type]
    assert result.image is not None
    assert result.image.shape == (256, 256, 3)
    assert result.ledger.crossings[0].outcome == "delivered"


def test_maps_that_are_sent_have_unit_power_whatever_their_strengths() -> None:
    strengths = [float(n) for n in np.linspace(3, 0.2, 4 * CHANNELS)]
    net = build_jscc({"channels": CHANNELS, "strengths": strengths})
    latent = torch.randn(2, CHANNELS, 64, 64, generator=torch.Generator().manual_seed(0))
    maps = torch.tensor([5.0, 24.0])
    told = tell(torch.tensor([1.0, 0.01]), maps, torch.zeros(2), channels=CHANNELS)
    with torch.inference_mode():
        made = net["encoder"](latent, torch.zeros_like(latent), told)
        symbols = normalise_power(made, maps)
        # Strengths alone leave little for that to do: white latents have unit power already.
        for each, count in zip(made, (5, 24), strict=True):
            assert 0.9 < float(each[:count].square().mean()) < 1.1
        for each, count in zip(symbols, (5, 24), strict=True):
            assert abs(float(each[:count].square().mean()) - 1) < 1e-3
            assert not each[count:].any()
        # Without noise, what was sent in full comes back: networks add nothing before training.
        share = torch.ones_like(symbols)
        mended, _ = net["decoder"](made, share, torch.zeros_like(latent), told)
    torch.testing.assert_close(mended[1], latent[1], atol=1e-4, rtol=0)


def test_what_is_not_there_or_does_not_fit_is_one_line(
    bare: Path, coded: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        ScenarioError, match=r"recipes/own_jscc.py trains another\); take one of fl"
    ):
        make(bare)
    with pytest.raises(ScenarioError, match=r"seed is 'hybrid', .*take one of .*jscc, or leave"):
        make(coded, codec="hybrid")
    with pytest.raises(CodecError, match=r"has 4 channels, the joint code in .* is of 6; train"):
        JsccSeedCodec(shape=(4, 32, 32), snr_db=0.0, folder=coded)
    with pytest.raises(CodecError, match="learnt symbols alone; leave coarse_bits out"):
        JsccSeedCodec(shape=(6, 32, 32), snr_db=0.0, coarse_bits=500, folder=coded)
    with pytest.raises(CodecError, match="joint code is abc"):
        check_peer("abc", folder=coded)
    with pytest.raises(BundleError, match="says nothing that could be built"):
        build_jscc({"channels": 6, "strengths": [1.0]})
    other = tmp_path / "other"
    shutil.copytree(coded, other)
    (other / "jscc.json").write_text("[]")
    with pytest.raises(CodecError, match=r"no readable card .* train it with recipes/own_jscc.py"):
        make(other).codec("seed")


def test_a_code_of_another_autoencoder_is_refused(coded: Path, tmp_path: Path, seed: Any) -> None:
    other = tmp_path / "other"
    shutil.copytree(coded, other)
    card = json.loads((other / "jscc.json").read_text())
    (other / "jscc.json").write_text(json.dumps(card | {"autoencoder_sha256": "0"}))
    with pytest.raises(BundleError, match="was trained for another autoencoder; train it again"):
        send(make(other), seed)
