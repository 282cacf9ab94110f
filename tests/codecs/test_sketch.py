from __future__ import annotations

import binascii
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from megdt.codecs.sketch import BITS_PER_PIXEL, MIN_BITS, STYLES, SketchCodec
from megdt.codecs.sketch_coding import _code_thumbnail, _Writer, read_numbers, write_numbers
from megdt.codecs.sketch_styles import (
    CELLS,
    LEVELS,
    analyse,
    count_cells,
    draw,
    find_steps,
    simplify,
    synthesise,
)
from megdt.errors import CodecError
from megdt.records import Delivery, Feature, Packet, Style
from megdt.worlds.garden import draw_view

HELD_OUT = 10_000_000


def render(seed: int, size_px: int = 256) -> Feature:
    garden, view = draw_view(HELD_OUT + seed, size_px=size_px)
    return Feature(kind="sketch", values=garden.render(view))


PICTURE = render(3)
PAYLOADS = {
    style: SketchCodec(size_px=256, style=style).encode(PICTURE).payload for style in STYLES
}


def decode(codec: SketchCodec, packet: Packet) -> Feature:
    return codec.decode(Delivery(payload=packet.payload))


def coarse(picture: NDArray[np.uint8], cells: int) -> NDArray[np.float64]:
    side = len(picture) // cells
    return picture.reshape(cells, side, cells, side, 3).mean((1, 3))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("seed", range(4))
def test_a_sketch_stays_within_its_budget_and_uses_it(style: Style, seed: int) -> None:
    packet = SketchCodec(size_px=256, style=style).encode(render(seed))
    assert 0.7 * BITS_PER_PIXEL * 256**2 < packet.bits <= BITS_PER_PIXEL * 256**2
    assert packet.symbols is None


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("budget", [MIN_BITS, 1000, 4000])
def test_what_is_drawn_is_what_was_kept(style: Style, budget: int) -> None:
    codec = SketchCodec(size_px=256, style=style, budget_bits=budget)
    packet = codec.encode(PICTURE)
    assert packet.bits <= budget
    found = decode(codec, packet)
    level = packet.payload[1]
    kept = draw(simplify(PICTURE.values, style, level), style, level, 256)
    assert (found.kind, found.style) == ("sketch", style)
    assert found.values.dtype == np.uint8
    assert (found.values == kept).all()


@pytest.mark.parametrize("style", STYLES)
def test_less_budget_is_a_coarser_level(style: Style) -> None:
    levels = [
        SketchCodec(size_px=256, style=style, budget_bits=bits).encode(PICTURE).payload[1]
        for bits in (600, 1200, 2400)
    ]
    assert levels[0] > levels[1] > levels[2]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("size_px", [264, 512])
def test_a_sketch_comes_back_at_the_size_of_the_picture(style: Style, size_px: int) -> None:
    codec = SketchCodec(size_px=size_px, style=style)
    found = decode(codec, codec.encode(render(0, size_px)))
    assert found.values.shape == (size_px, size_px, 3)


def test_thumbnails_and_layouts_have_the_colours_of_the_picture() -> None:
    for style, worst in (("thumbnail", 6), ("layout", 12)):
        codec = SketchCodec(size_px=256, style=style)  # type: ignore[arg-type]
        found = decode(codec, codec.encode(PICTURE)).values
        assert np.abs(coarse(found, 16) - coarse(PICTURE.values, 16)).mean() < worst


def test_edges_are_ink_on_paper_where_the_picture_changes() -> None:
    square = np.full((256, 256, 3), 200, np.uint8)
    square[64:192, 64:192] = (180, 20, 20)
    codec = SketchCodec(size_px=256, style="edges")
    found = decode(codec, codec.encode(Feature(kind="sketch", values=square))).values
    ink = (found == 0).all(-1)
    assert set(np.unique(found)) == {0, 255}
    rows, columns = np.nonzero(ink)
    found_at = np.array((rows.min(), columns.min(), rows.max(), columns.max()))
    assert np.abs(found_at - (64, 64, 191, 191)).max() <= 2
    assert not ink[80:176, 80:176].any()


def random_pictures() -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    blocks = [
        (rng.integers(0, 2, (n, n, 3)) * 255).repeat(256 // n, 0).repeat(256 // n, 1)
        for n in (4, 8, 16, 32, 64, 256)
    ]
    return [picture.astype(np.uint8) for picture in [*blocks, np.zeros((256, 256, 3))]]


@pytest.mark.parametrize("style", STYLES)
def test_the_coarsest_sketch_of_any_picture_fits_the_least_budget(style: Style) -> None:
    codec = SketchCodec(size_px=256, style=style, budget_bits=MIN_BITS)
    for picture in random_pictures():
        packet = codec.encode(Feature(kind="sketch", values=picture))
        assert packet.bits <= MIN_BITS
        assert decode(codec, packet).values.shape == (256, 256, 3)


def test_a_wealth_of_bits_keeps_numbers_of_any_size() -> None:
    codec = SketchCodec(size_px=256, budget_bits=10**6)
    packet = codec.encode(PICTURE)
    assert packet.payload[1] == 0
    numbers = simplify(PICTURE.values, "thumbnail", 0)
    assert np.abs(numbers).max() > 100
    kept = draw(numbers, "thumbnail", 0, 256)
    assert (decode(codec, packet).values == kept).all()


@pytest.mark.parametrize("scale", [0.3, 2, 40, 2000])
def test_a_thumbnail_is_written_as_it_is_read(scale: float) -> None:
    numbers = np.rint(np.random.default_rng(0).laplace(0, scale, (CELLS, CELLS, 3)))
    numbers = numbers.clip(-4000, 4000).astype(np.int32)
    numbers[CELLS // 2 :, : CELLS // 2] = 0  # a band with nothing in it
    writer = _Writer()
    _code_thumbnail(0, numbers.copy(), writer)
    written = write_numbers(numbers, "thumbnail", 0)
    assert written == writer.finish()
    assert (read_numbers(written, "thumbnail", 0) == numbers).all()


def test_the_wavelet_transform_loses_nothing() -> None:
    rng = np.random.default_rng(0)
    planes = rng.integers(-255, 256, (CELLS, CELLS, 3)).astype(np.int32)
    assert (synthesise(analyse(planes)) == planes).all()


def test_a_quantisation_step_shows_alike_in_every_band() -> None:
    steps = find_steps(60)[..., 0]
    for place in ((1, 1), (2, 6), (12, 3), (5, 5), (10, 20), (24, 24), (50, 10), (50, 50)):
        one = np.zeros((CELLS, CELLS, 1), np.int32)
        one[place] = 64 * steps[place]
        shown = np.sqrt((synthesise(one).astype(float) ** 2).sum()) / (64 * steps[3, 40])
        assert shown == pytest.approx(17 / 16, rel=0.15)


def test_a_budget_out_of_range_is_refused() -> None:
    with pytest.raises(CodecError, match="budget of a sketch is 100 bits, the coarsest may take"):
        SketchCodec(size_px=256, budget_bits=100)


def test_a_picture_of_another_size_is_refused() -> None:
    with pytest.raises(CodecError, match=r"uint8 of shape \(256, 256, 3\), this codec takes uint8"):
        SketchCodec(size_px=512).encode(PICTURE)


def test_packets_of_another_style_or_size_are_refused() -> None:
    delivery = Delivery(payload=PAYLOADS["layout"])
    with pytest.raises(CodecError, match="sketch payload begins with bytes 81 and"):
        SketchCodec(size_px=256, style="edges").decode(delivery)
    with pytest.raises(CodecError, match="sketch payload has checksum"):
        SketchCodec(size_px=264, style="layout").decode(delivery)
    with pytest.raises(CodecError, match="sketch payload has 0 bytes"):
        SketchCodec(size_px=256).decode(Delivery())


def decode_or_refuse(style: Style, payload: bytes) -> bool:
    """Whether it was refused; anything but a CodecError or a sketch is a failure."""
    try:
        found = SketchCodec(size_px=256, style=style).decode(Delivery(payload=payload))
    except CodecError:
        return True
    assert found.values.shape == (256, 256, 3)
    return False


@settings(derandomize=True, max_examples=1500, deadline=None)
@given(st.sampled_from(STYLES), st.integers(0, 200), st.integers(0, 30), st.binary(max_size=3))
def test_damaged_packets_are_refused(style: Style, place: int, lost: int, new: bytes) -> None:
    """Bytes changed, lost and put in, anywhere: a checksum of 16 bits misses one in 65,536."""
    sent = PAYLOADS[style]
    payload = sent[:place] + new + sent[place + lost :]
    assert payload == sent or decode_or_refuse(style, payload)


@pytest.mark.parametrize("style", STYLES)
def test_every_flipped_bit_is_seen(style: Style) -> None:
    for bit in range(8 * len(PAYLOADS[style])):
        payload = bytearray(PAYLOADS[style])
        payload[bit // 8] ^= 1 << bit % 8
        assert decode_or_refuse(style, bytes(payload))


@pytest.mark.parametrize("style", STYLES)
def test_every_truncation_is_seen(style: Style) -> None:
    for length in range(len(PAYLOADS[style])):
        assert decode_or_refuse(style, PAYLOADS[style][:length])


@settings(derandomize=True, max_examples=800, deadline=None)
@given(style=st.sampled_from(STYLES), payload=st.binary(max_size=300))
def test_foreign_packets_are_refused(style: Style, payload: bytes) -> None:
    assert decode_or_refuse(style, payload)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    style=st.sampled_from(STYLES),
    level=st.integers(0, LEVELS - 1),
    body=st.binary(max_size=400),
)
def test_any_content_with_a_right_checksum_comes_to_an_end(
    style: Style, level: int, body: bytes
) -> None:
    """One damaged packet in 65,536 is read all the same: into a picture, or refused."""
    start = bytes((0x50 + STYLES.index(style), level))
    about = (256).to_bytes(4, "big") + start
    checksum = binascii.crc_hqx(about + body, 0xFFFF).to_bytes(2, "big")
    decode_or_refuse(style, start + checksum + body)


def test_every_level_of_every_style_has_a_grid() -> None:
    for style in STYLES:
        grids = [count_cells(style, level) for level in range(LEVELS)]
        assert grids == sorted(grids, reverse=True)
        assert grids[-1] >= 8


def test_the_packet_alone_tells_the_level() -> None:
    """A receiver whose budget differs still reads the sketch."""
    sender = SketchCodec(size_px=256, style="layout", budget_bits=1000)
    receiver = replace(sender, budget_bits=None)
    packet = sender.encode(PICTURE)
    assert (decode(sender, packet).values == decode(receiver, packet).values).all()
