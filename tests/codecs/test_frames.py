"""Frames by themselves."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from megdt.codecs.frames import BundledAutoencoder, FileFrameCodec, SeedFrameCodec
from megdt.codecs.image import FileImageCodec
from megdt.codecs.progressive import ProgressiveSeedCodec
from megdt.errors import CodecError
from megdt.models.bundle import Bundle
from megdt.records import Delivery, Feature
from megdt.worlds.garden import draw_view

GARDEN, VIEW = draw_view(10_000_003)
FRAME = Feature(kind="frame", values=GARDEN.render(VIEW))
SEEDS = SeedFrameCodec(
    models=BundledAutoencoder(), seed=ProgressiveSeedCodec(shape=(4, 32, 32), budget_bits=6552)
)


def test_a_frame_as_a_seed_is_the_picture_of_its_seed(bundle: Bundle) -> None:
    packet = SEEDS.encode(FRAME)
    assert packet.bits <= 6552
    got = SEEDS.decode(Delivery(payload=packet.payload))
    seed = SEEDS.seed.encode(Feature(kind="seed", values=bundle.encode(FRAME.values[None])[0]))
    latent = SEEDS.seed.decode(Delivery(payload=seed.payload)).values
    assert got.kind == "frame"
    assert (got.values == bundle.decode(latent[None])[0]).all()


def test_both_ends_share_the_networks_and_count_what_they_take() -> None:
    """A copy must not copy weights, and who runs a network pays for it."""
    before = SEEDS.flops
    copy.deepcopy(SEEDS).encode(FRAME)
    assert SEEDS.flops > before + 1e9


def test_a_frame_as_a_file_stays_within_its_bits() -> None:
    codec = FileFrameCodec(image=FileImageCodec(size_px=256, file_format="webp", budget_bits=20000))
    packet = codec.encode(FRAME)
    got = codec.decode(Delivery(payload=packet.payload))
    assert packet.bits <= 20000
    assert got.kind == "frame"
    assert np.abs(got.values.astype(int) - FRAME.values).mean() < 10


def test_a_frame_of_another_size_is_refused() -> None:
    small = Feature(kind="frame", values=FRAME.values[:128])
    with pytest.raises(CodecError, match=r"frame is uint8 \(128, 256, 3\), this codec carries"):
        SEEDS.encode(small)
