from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from megdt.codecs import image
from megdt.codecs.image import AnalogImageCodec, FileFormat, FileImageCodec
from megdt.errors import CodecError, MissingExtraError
from megdt.models.quality import psnr_db
from megdt.records import Delivery, Feature, Packet
from megdt.worlds.garden import draw_view

Array = NDArray[np.uint8]


@pytest.fixture(scope="module")
def picture() -> Feature:
    garden, view = draw_view(1, size_px=128)
    return Feature(kind="image", values=garden.render(view))


@pytest.fixture(params=["webp", "avif", "jxl"])
def file_format(request: pytest.FixtureRequest) -> FileFormat:
    if request.param == "jxl":
        pytest.importorskip("pillow_jxl", reason="JPEG XL needs pillow-jxl-plugin")
    return request.param  # type: ignore[no-any-return]


def code(picture: Feature, file_format: FileFormat, budget: int | None) -> tuple[Packet, Array]:
    codec = FileImageCodec(size_px=128, file_format=file_format, budget_bits=budget)
    packet = codec.encode(picture)
    values = codec.decode(Delivery(payload=packet.payload)).values
    assert values.shape == (128, 128, 3)
    assert values.dtype == np.uint8
    return packet, values


def stored_size(payload: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(payload)).size


def test_a_picture_gets_better_with_its_budget_and_stays_within(
    picture: Feature, file_format: FileFormat
) -> None:
    quality = []
    for budget in (900, 3_001, 6_000, 12_000, 24_000, 60_000):
        packet, again = code(picture, file_format, budget)
        assert packet.bits <= budget
        if packet.bits > 24 and budget <= 24_000:  # WebP's best quality takes no more than 51,000
            # Quality comes in steps, but a search that stops early would leave more than this.
            assert packet.bits > 0.9 * budget
        quality.append(psnr_db(again, picture.values))
    assert quality == sorted(quality)
    assert quality[-1] > 30


def test_a_tiny_budget_is_met_by_a_smaller_picture(
    picture: Feature, file_format: FileFormat
) -> None:
    tiny, again = code(picture, file_format, 3_000)
    assert 0 < stored_size(tiny.payload)[0] < 128
    assert psnr_db(again, picture.values) > psnr_db(np.full_like(again, 128), picture.values) + 3
    ample, _ = code(picture, file_format, 60_000)
    assert stored_size(ample.payload) == (128, 128)


def test_where_no_file_fits_the_mean_colour_is_sent_and_charged(
    picture: Feature, file_format: FileFormat
) -> None:
    for budget in (0, 8, 300):
        packet, again = code(picture, file_format, budget)
        assert packet.bits == 24
        assert np.ptp(again, axis=(0, 1)).max() == 0
        assert np.abs(again.mean((0, 1)) - picture.values.mean((0, 1))).max() <= 0.5


def test_without_a_budget_no_loss_is_seen(picture: Feature, file_format: FileFormat) -> None:
    packet, again = code(picture, file_format, None)
    assert stored_size(packet.payload) == (128, 128)
    # WebP halves the resolution of colour, whatever its quality.
    assert psnr_db(again, picture.values) > (30 if file_format == "webp" else 34)


def test_avif_beats_webp_within_the_same_budget(picture: Feature) -> None:
    for budget, gain in ((12_000, 1), (24_000, 3)):
        avif, webp = (
            psnr_db(code(picture, name, budget)[1], picture.values) for name in ("avif", "webp")
        )
        assert avif > webp + gain


def test_the_search_finds_the_best_quality_past_one_that_does_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(image, "_NEAR", 1.1)
    nothing = Image.new("RGB", (8, 8))
    for dip in range(2, 101):
        # Bytes by quality: all below dip - 1 fit 1,000, and so does the dip itself.
        lengths = [1002 - dip + quality for quality in range(101)]
        lengths[dip] = 999
        tried: list[int] = []

        def write(
            _image: object,
            _file_format: str,
            quality: int,
            lengths: list[int] = lengths,
            tried: list[int] = tried,
        ) -> bytes:
            tried.append(quality)
            return bytes(lengths[quality])

        monkeypatch.setattr(image, "_write", write)
        payload, quality = image._best_quality(nothing, "webp", 8_000, 0)
        assert (len(payload), quality) == (999, dip)
        assert len(tried) <= 12
        # A start that does not fit is no reason to send nothing.
        if dip < 100:
            assert image._best_quality(nothing, "webp", 8_000, dip + 1)[1] == dip


def test_a_file_holds_the_picture_and_no_metadata(
    picture: Feature, file_format: FileFormat
) -> None:
    payload = code(picture, file_format, 12_000)[0].payload
    for name in (b"Exif", b"EXIF", b"ICCP", b"prof", b"rICC", b"XMP", b"xml", b"application/"):
        assert name not in payload
    start = {"webp": (8, b"WEBPVP8 "), "avif": (4, b"ftypavif"), "jxl": (0, b"\xff\x0a")}
    offset, name = start[file_format]
    assert payload[offset : offset + len(name)] == name


def test_a_picture_is_coded_alike_every_time(picture: Feature, file_format: FileFormat) -> None:
    assert code(picture, file_format, 6_000)[0] == code(picture, file_format, 6_000)[0]


def test_a_picture_of_another_size_is_shown_in_the_size_asked_for(
    picture: Feature, file_format: FileFormat
) -> None:
    packet = FileImageCodec(size_px=128, file_format=file_format).encode(picture)
    for size in (72, 256):
        codec = FileImageCodec(size_px=size, file_format=file_format)
        again = codec.decode(Delivery(payload=packet.payload)).values
        assert again.shape == (size, size, 3)
        wanted = Image.fromarray(picture.values).resize((size, size), Image.Resampling.BICUBIC)
        assert psnr_db(again, np.asarray(wanted)) > 30


def test_damaged_files_are_refused_or_shown_and_nothing_else(
    picture: Feature, file_format: FileFormat
) -> None:
    codec = FileImageCodec(size_px=128, file_format=file_format, budget_bits=12_000)
    whole = codec.encode(picture).payload
    rng = np.random.default_rng(5)
    refused = 0
    for trial in range(200):
        damaged = bytearray(whole)
        # Half of the damage falls on the headers, which say the size and where things are.
        reach = len(whole) if trial % 2 else 300 if file_format == "avif" else 30
        if trial % 4 == 0:
            del damaged[rng.integers(1, len(whole)) :]
        for place in rng.integers(0, min(reach, len(damaged)), rng.integers(1, 5)):
            damaged[place] = rng.integers(256)
        try:
            shown = codec.decode(Delivery(payload=bytes(damaged))).values
        except CodecError:
            refused += 1
        else:
            assert shown.shape == (128, 128, 3)
            assert shown.dtype == np.uint8
    assert refused > 50


def test_a_file_of_another_format_is_refused(picture: Feature, file_format: FileFormat) -> None:
    other: FileFormat = "avif" if file_format == "webp" else "webp"
    payload = code(picture, other, 12_000)[0].payload
    codec = FileImageCodec(size_px=128, file_format=file_format)
    for wrong in (payload, b"rose"):
        message = f"picture payload of {len(wrong)} bytes does not decode as {file_format}; both"
        with pytest.raises(CodecError, match=message):
            codec.decode(Delivery(payload=wrong))


def claim_size(payload: bytes, file_format: FileFormat, size_px: int) -> bytes:
    """The file with another size in its header."""
    if file_format == "webp":
        return payload[:26] + size_px.to_bytes(2, "little") * 2 + payload[30:]
    if file_format == "avif":
        place = payload.index(b"ispe") + 8
        return payload[:place] + size_px.to_bytes(4, "big") * 2 + payload[place + 8 :]
    size = 3 << 1 | (size_px - 1) << 3 | 1 << 33  # 30 bits of height, then a square's ratio
    return payload[:2] + size.to_bytes(6, "little") + payload[8:]


# Pillow warns of 10,000 px and raises at 16,000 px; warnings are errors here.
@pytest.mark.parametrize("size_px", [600, 10_000, 16_000])
def test_a_claim_to_be_huge_is_refused_before_anything_is_decoded(
    picture: Feature, file_format: FileFormat, size_px: int
) -> None:
    codec = FileImageCodec(size_px=128, file_format=file_format)
    bomb = claim_size(codec.encode(picture).payload, file_format, size_px)
    with pytest.raises(CodecError, match="does not decode") as caught:
        codec.decode(Delivery(payload=bomb))
    assert f"it claims {size_px} x {size_px} px" in str(caught.value.__cause__)


def test_the_size_that_a_jpeg_xl_file_claims_is_read_without_decoding_it() -> None:
    pytest.importorskip("pillow_jxl", reason="JPEG XL needs pillow-jxl-plugin")
    for size in (4, 10, 46, 128, 256, 360, 513):
        packet = FileImageCodec(size_px=size, file_format="jxl").encode(
            Feature(kind="image", values=np.zeros((size, size, 3), np.uint8))
        )
        assert image._jxl_size(packet.payload) == (size, size)


def test_a_format_that_is_not_installed_is_named_when_the_codec_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    with pytest.raises(MissingExtraError, match=r"jxl pictures need pillow_jxl.*'megdt\[images\]'"):
        FileImageCodec(size_px=128, file_format="jxl")
    FileImageCodec(size_px=128, file_format="webp")


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
    assert packet.bits == 3 * 16


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
        FileImageCodec(size_px=256, file_format="webp").encode(picture)
