from __future__ import annotations

import numpy as np
import pytest

from megdt.codecs.image import AnalogImageCodec, WebpCodec
from megdt.errors import CodecError
from megdt.models.quality import psnr_db
from megdt.records import Delivery, Feature
from megdt.worlds.garden import draw_view


@pytest.fixture(scope="module")
def picture() -> Feature:
    garden, view = draw_view(1, size_px=128)
    return Feature(kind="image", values=garden.render(view))


@pytest.mark.parametrize("budget", [60_000, 20_000, 6_000, 2_000, 900])
def test_webp_stays_within_its_budget(picture: Feature, budget: int) -> None:
    packet = WebpCodec(size_px=128, budget_bits=budget).encode(picture)
    assert packet.bits <= budget


def test_webp_gets_better_with_its_budget(picture: Feature) -> None:
    quality = []
    for budget in (900, 4_000, 20_000, 60_000):
        codec = WebpCodec(size_px=128, budget_bits=budget)
        again = codec.decode(Delivery(payload=codec.encode(picture).payload)).values
        assert again.shape == (128, 128, 3)
        quality.append(psnr_db(again, picture.values))
    assert quality == sorted(quality)
    assert quality[-1] > 30


def test_where_nothing_fits_nothing_is_sent_and_grey_is_shown(picture: Feature) -> None:
    codec = WebpCodec(size_px=128, budget_bits=8)
    packet = codec.encode(picture)
    assert packet.bits == 0
    assert (codec.decode(Delivery(payload=packet.payload)).values == 128).all()


def test_what_is_not_webp_is_refused() -> None:
    with pytest.raises(CodecError, match="picture payload of 4 bytes is not WebP"):
        WebpCodec(size_px=128).decode(Delivery(payload=b"rose"))


@pytest.mark.parametrize("mode", ["fair", "paper"])
def test_analog_pixels_come_back_without_noise(picture: Feature, mode: str) -> None:
    codec = AnalogImageCodec(size_px=128, mode=mode)  # type: ignore[arg-type]
    packet = codec.encode(picture)
    again = codec.decode(Delivery(payload=packet.payload, symbols=packet.symbols))
    assert np.abs(again.values.astype(int) - picture.values).max() <= 1


def test_fair_pixels_have_zero_mean_and_their_means_are_charged(picture: Feature) -> None:
    packet = AnalogImageCodec(size_px=128).encode(picture)
    assert packet.symbols is not None
    assert abs(packet.symbols.mean()) < 0.01
    assert packet.bits == 4 * 16


def test_fair_pixels_are_shrunk_towards_their_mean_by_what_noise_is_left(picture: Feature) -> None:
    codec = AnalogImageCodec(size_px=128)
    packet = codec.encode(picture)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, packet.symbols.size)) * np.sqrt(10 / 2)  # type: ignore[union-attr]
    symbols = packet.symbols + noise[0] + 1j * noise[1]
    again = codec.decode(Delivery(payload=packet.payload, symbols=symbols, noise_power=10.0))
    # LMMSE at -10 dB: the error is 10 / 11 of the picture's own variance, not ten times it.
    values = picture.values / 255
    error = np.mean((again.values / 255 - values) ** 2)
    assert error == pytest.approx(10 / 11 * np.mean((values - values.mean((0, 1))) ** 2), rel=0.05)


def test_a_picture_of_another_size_is_refused(picture: Feature) -> None:
    with pytest.raises(CodecError, match=r"image is uint8 of shape \(128, 128, 3\)"):
        WebpCodec(size_px=256).encode(picture)
