"""Autoencoders of the TAESD family, against diffusers' own and with real weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from megdt.errors import BundleError, MechanismError, RequestError, ScenarioError
from megdt.models.quality import psnr_db
from megdt.models.tiny_autoencoder import TinyAutoencoder
from megdt.pictures import read_picture
from megdt.records import Feature, Part
from megdt.scenario import parse_scenario

SHARED = Path(__file__).parents[3] / "shared" / "weights"
real = pytest.mark.skipif(
    not SHARED.is_dir(), reason="needs the weights of TAEF2 in ../shared/weights"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of a small number of layers, with random weights, as taesd names its files."""
    tiny = pytest.importorskip("diffusers", reason="needs the extra diffusers").AutoencoderTiny
    place = tmp_path_factory.mktemp("tiny")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        peer = tiny(
            encoder_block_out_channels=(8, 8, 8), decoder_block_out_channels=(8, 8, 8),
            num_encoder_blocks=(1, 2, 1), num_decoder_blocks=(2, 1, 1), latent_channels=6,
        )  # fmt: skip
    peer.save_pretrained(place / "peer")
    weights = peer.state_dict()
    for half, first in (("encoder", 0), ("decoder", 1)):
        begin = f"{half}.layers."
        named = {}
        for name, values in weights.items():
            if name.startswith(begin):
                number, _, rest = name.removeprefix(begin).partition(".")
                # diffusers clamps outside of the layers, taesd in the decoder's first.
                named[f"{int(number) + first}.{rest}"] = values.contiguous()
        save_file(named, place / f"small_{half}.safetensors")
    return place


def test_it_is_that_of_diffusers(folder: Path) -> None:
    from diffusers import AutoencoderTiny

    peer = AutoencoderTiny.from_pretrained(folder / "peer")
    ours = TinyAutoencoder(str(folder))
    assert (ours.space.channels, ours.space.factor) == (6, 4)
    picture = np.random.default_rng(0).integers(0, 255, (1, 32, 40, 3), np.uint8)
    batch = torch.tensor(picture).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        latents = peer.encode(batch).latents
        image = peer.decode(latents).sample
    np.testing.assert_allclose(ours.encode(picture), latents.numpy(), atol=1e-5)
    wanted = ((image + 1) * 127.5).clamp(0, 255).permute(0, 2, 3, 1).numpy()
    assert np.abs(ours.decode(latents.numpy()) - wanted).max() < 0.51


def test_it_sends_pictures_and_draws_none(folder: Path) -> None:
    ours = TinyAutoencoder(str(folder))
    with pytest.raises(MechanismError, match="autoencoder alone, which cannot denoise"):
        ours.denoise(np.zeros((1, 4), np.float32), [0])
    with pytest.raises(RequestError, match="multiples of 4; crop them to 28 x 32"):
        ours.encode(np.zeros((1, 30, 32, 3), np.uint8))
    named: dict[str, Any] = {"request": {"prompt": "?"}, "model": {"name": str(folder)}}
    with pytest.raises(ScenarioError, match="has no sub-models; take one of ue_to_es, send_pict"):
        parse_scenario(named)
    with pytest.raises(ScenarioError, match=r"scheduler is 'euler', and .* an autoencoder alone"):
        parse_scenario({**named, "model": {"name": str(folder), "scheduler": "euler"}})
    sending = parse_scenario({**named, "plan": {"mechanism": "ue_to_es"}})
    assert sending.seed_shape == (6, 64, 64)
    assert sending.model.load().checksum == ours.checksum


def test_other_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="has no model_index"):
        TinyAutoencoder(str(tmp_path))
    for half in ("encoder", "decoder"):
        save_file({"first.weight": torch.zeros(4, 4, 3, 3)}, tmp_path / f"a_{half}.safetensors")
    with pytest.raises(BundleError, match="numbered as its layers"):
        TinyAutoencoder(str(tmp_path))
    save_file({"0.weight": torch.zeros(4, 4, 3, 3)}, tmp_path / "b_decoder.safetensors")
    with pytest.raises(BundleError, match="1 encoders and 2 decoders"):
        TinyAutoencoder(str(tmp_path))


@real
def test_real_weights_carry_a_photograph_over_the_link() -> None:
    sklearn = pytest.importorskip("sklearn", reason="needs a photograph of scikit-learn")
    picture = read_picture(
        Path(sklearn.__file__).parent / "datasets" / "images" / "flower.jpg", 256
    )
    found = {}
    for codec in ("float32", "int8", "analog"):
        sent = parse_scenario(
            {
                "request": {"prompt": "flower"}, "plan": {"mechanism": "ue_to_es"},
                "codecs": {"seed": codec}, "link": {"snr_db": 20, "coding": "ideal"},
                "model": {"name": str(SHARED)},
            }
        )  # fmt: skip
        assert sent.seed_shape == (32, 32, 32)
        done = Part(features={"sense": Feature(kind="image", values=picture)})
        result = sent.run(sent.model.load(), done=done)
        assert result.image is not None
        found[codec] = psnr_db(result.image, picture)
        encode = next(c for c in result.ledger.computations if c.stage == "encode")
        assert encode.flops > 1e9
    assert found["float32"] > 30
    assert found["int8"] > found["float32"] - 0.3
    assert 22 < found["analog"] < found["float32"]
