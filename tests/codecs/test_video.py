from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from megdt.codecs.progressive import ProgressiveSeedCodec
from megdt.codecs.video import CHANGED, KEY, MOVED, Canvas, VideoSeedCodec
from megdt.errors import CodecError
from megdt.models.bundle import Bundle
from megdt.records import Delivery, Feature, Packet
from megdt.worlds.garden import Garden, View

SIDE = 96
KEY_BITS = 3000
Picture = NDArray[np.uint8]


class Squares:
    """An autoencoder without a network: a latent is the mean colour of its square."""

    flops = 7.0

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        batch, height, width, _ = images.shape
        squares = images.reshape(batch, height // 8, 8, width // 8, 8, 3).mean((2, 4))
        colours = (squares / 64 - 2).transpose(0, 3, 1, 2)
        return np.concatenate((colours, colours[:, :1] - colours[:, 2:]), 1).astype(np.float32)

    def decode(self, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
        colours = np.clip(np.round((latents[:, :3] + 2) * 64), 0, 255).astype(np.uint8)
        return colours.repeat(8, 2).repeat(8, 3).transpose(0, 2, 3, 1)


def land(rng_seed: int = 0, width: int = 1200) -> Picture:
    """A wide picture of smooth hills and coloured stones."""
    rng = np.random.default_rng(rng_seed)
    rows, columns = np.mgrid[:SIDE, :width]
    picture = 90 + 40 * np.sin(columns / 37 + rows / 29)[..., None] + np.zeros(3)
    for _ in range(width // 12):
        y, x, radius = rng.integers(0, SIDE), rng.integers(0, width), rng.integers(4, 14)
        picture[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = rng.integers(0, 255, 3)
    return np.asarray(np.round(picture), np.uint8)


LAND = land()


def frame(at: int, of: Picture = LAND) -> Feature:
    return Feature(kind="image", values=np.ascontiguousarray(of[:, at : at + SIDE]))


def codec(**changes: int) -> VideoSeedCodec:
    given = {"height_px": SIDE, "width_px": SIDE, "key_bits": KEY_BITS, "reach_px": 40}
    return VideoSeedCodec(Squares(), **(given | changes))


def receive(receiver: VideoSeedCodec, packet: Packet) -> Picture:
    picture: Picture = receiver.decode(Delivery(payload=packet.payload)).values
    return picture


def error(picture: Picture, wanted: Feature) -> float:
    return float(np.mean((picture.astype(float) - wanted.values) ** 2))


def same(ours: Canvas | None, theirs: Canvas | None) -> bool:
    assert ours is not None
    assert theirs is not None
    return (
        np.array_equal(ours.steps, theirs.steps)
        and ours.checksum == theirs.checksum
        and (ours.left, ours.camera_px, ours.number)
        == (theirs.left, theirs.camera_px, theirs.number)
    )


@pytest.mark.parametrize("step", [1, 3, 8, 13, 37, -5])
def test_both_ends_hold_the_same_canvas_after_every_frame(step: int) -> None:
    sender, receiver = codec(), codec()
    for number in range(14):
        packet = sender.encode(frame(600 + step * number))
        assert packet.bits == 8 * len(packet.payload)
        assert packet.symbols is None
        receive(receiver, packet)
        assert same(sender.sent, receiver.canvas)
        # Where the camera stands is found from the pictures alone.
        assert receiver.canvas is not None
        assert receiver.canvas.camera_px == step * number


def test_a_camera_track_takes_less_than_a_quarter_and_stays_as_good() -> None:
    alone, along, receiver = codec(key_every=1), codec(), codec()
    spent, errors = np.zeros(2), []
    for number in range(16):
        wanted = frame(200 + 4 * number)
        single, packet = alone.encode(wanted), along.encode(wanted)
        spent += single.bits, packet.bits
        fresh = codec()
        errors.append(
            (error(receive(fresh, single), wanted), error(receive(receiver, packet), wanted))
        )
    assert spent[1] < 0.25 * spent[0]
    singles, together = np.mean(errors, 0)
    assert together < 1.3 * singles


def test_many_moves_between_the_cells_do_not_blur() -> None:
    sender, receiver = codec(), codec()
    errors = []
    for number in range(30):
        at = 300 + 3 * (number % 10)
        errors.append(error(receive(receiver, sender.encode(frame(at))), frame(at)))
    assert np.mean(errors[-10:]) < 1.05 * np.mean(errors[1:11])


def test_a_static_scene_costs_nine_bytes_a_frame_after_the_key_frame() -> None:
    sender, receiver = codec(), codec()
    first = receive(receiver, sender.encode(frame(0)))
    for _ in range(5):
        packet = sender.encode(frame(0))
        assert packet.payload[0] == MOVED
        assert packet.bits == 72
        np.testing.assert_array_equal(receive(receiver, packet), first)


def test_what_was_seen_before_costs_nothing_when_the_camera_comes_back() -> None:
    sender, receiver = codec(), codec()
    for at in (200, 220, 240):
        receive(receiver, sender.encode(frame(at)))
    for at in (220, 200):
        packet = sender.encode(frame(at))
        receive(receiver, packet)
        assert packet.bits == 72


def test_what_changes_is_told_and_nothing_else() -> None:
    sender, receiver = codec(), codec()
    receive(receiver, sender.encode(frame(100)))
    changed = LAND.copy()
    changed[32:48, 140:156] = (250, 20, 20)
    packet = sender.encode(frame(100, changed))
    assert packet.payload[0] == CHANGED
    assert packet.bits < KEY_BITS / 3
    picture = receive(receiver, packet)
    assert np.abs(picture[36:44, 44:52].astype(int) - (250, 20, 20)).mean() < 40
    assert same(sender.sent, receiver.canvas)


def test_another_scene_is_a_key_frame() -> None:
    sender, receiver = codec(), codec()
    receive(receiver, sender.encode(frame(100)))
    noise = np.random.default_rng(1).integers(0, 255, (SIDE // 8, SIDE // 8, 3), np.uint8)
    cut = Feature(kind="image", values=noise.repeat(8, 0).repeat(8, 1))
    packet = sender.encode(cut)
    assert packet.payload[0] == KEY
    receive(receiver, packet)
    assert same(sender.sent, receiver.canvas)


def test_key_frames_come_as_often_as_set_and_when_asked_for() -> None:
    sender = codec(key_every=4)
    kinds = [sender.encode(frame(0)).payload[0] for _ in range(9)]
    assert [kind == KEY for kind in kinds] == [n % 4 == 0 for n in range(9)]
    sender.ask_key()
    assert sender.encode(frame(0)).payload[0] == KEY
    assert sender.encode(frame(0)).payload[0] == MOVED


def test_known_motion_is_not_looked_for() -> None:
    sender, receiver = codec(reach_px=0), codec(reach_px=0)
    receive(receiver, sender.encode(frame(0)))
    receive(receiver, sender.encode(frame(50), moved_px=50))
    assert receiver.canvas is not None
    assert receiver.canvas.camera_px == 50
    with pytest.raises(CodecError, match=r"camera moved by 96 pixels, a view is 96 wide"):
        sender.encode(frame(146), moved_px=96)


def test_after_a_lost_frame_nothing_is_shown_until_the_next_key_frame() -> None:
    sender, receiver = codec(key_every=6), codec(key_every=6)
    packets = [sender.encode(frame(10 * n)) for n in range(8)]
    for packet in packets[:2]:
        receive(receiver, packet)
    held = receiver.canvas
    for packet in packets[3:6]:
        with pytest.raises(CodecError, match="here frame 1 came last; wait for the next key frame"):
            receive(receiver, packet)
    assert receiver.canvas is held
    for packet in packets[6:]:
        receive(receiver, packet)
    assert same(sender.sent, receiver.canvas)


def test_a_lost_key_frame_is_noticed() -> None:
    sender, late, other = codec(key_every=3), codec(), codec()
    packets = [sender.encode(frame(8 * n)) for n in range(5)]
    with pytest.raises(CodecError, match="since frame 0, here no key frame has come"):
        receive(late, packets[1])
    for packet in packets[:3]:
        receive(other, packet)
    with pytest.raises(CodecError, match="here frame 2 came last"):
        receive(other, packets[4])


def test_late_and_repeated_frames_are_refused() -> None:
    sender, receiver = codec(key_every=3), codec(key_every=3)
    packets = [sender.encode(frame(8 * n)) for n in range(5)]
    for packet in packets:
        receive(receiver, packet)
    for number in (4, 3, 1):
        with pytest.raises(CodecError, match=f"frame {number} came after frame 4; it is late"):
            receive(receiver, packets[number])
    assert same(sender.sent, receiver.canvas)


def test_frames_are_counted_beyond_sixteen_bits() -> None:
    sender, receiver = codec(), codec()
    sender._number = 2**16 - 1
    for at in (0, 8, 16):
        receive(receiver, sender.encode(frame(at)))
    assert receiver.canvas is not None
    assert receiver.canvas.number == 1


def test_a_frame_of_another_video_is_refused() -> None:
    ours, theirs, receiver = codec(), codec(), codec()
    receive(receiver, ours.encode(frame(0)))
    theirs.encode(frame(0, land(1)))
    with pytest.raises(CodecError, match="it is damaged or of another video"):
        receive(receiver, theirs.encode(frame(8, land(1))))
    wide = VideoSeedCodec(Squares(), height_px=SIDE, width_px=2 * SIDE)
    with pytest.raises(CodecError, match="damaged or of another video"):
        receive(wide, codec().encode(frame(0)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height_px": 100}, "height_px is 100, frames have 64 to 2032 pixels a side"),
        ({"width_px": 4096}, "width_px is 4096, frames have 64 to 2032"),
        ({"key_bits": 23}, "budget of 23 bits is below the 24 of a seed packet"),
        ({"key_every": 0}, "key_every is 0, a key frame comes every 1 or more frames"),
        ({"reach_px": 96}, "reach_px is 96, a camera is found again within 0 to 95 pixels"),
    ],
)
def test_wrong_settings_are_one_clear_line(changes: dict[str, int], message: str) -> None:
    with pytest.raises(CodecError, match=message) as found:
        codec(**changes)
    assert "\n" not in str(found.value)


def test_wrong_frames_are_refused() -> None:
    for values in (np.zeros((8, 8, 3), np.uint8), np.zeros((SIDE, SIDE, 3), np.float32)):
        with pytest.raises(
            CodecError, match=r"frame is .*, this codec carries uint8 \(96, 96, 3\)"
        ):
            codec().encode(Feature(kind="image", values=values))


def test_it_says_how_it_was_built_and_what_its_networks_have_done() -> None:
    built = codec()
    assert repr(built) == (
        "VideoSeedCodec(height_px=96, width_px=96, key_bits=3000, key_every=32, reach_px=40)"
    )
    assert built.flops == 7.0


SENDER = codec()
KEPT = [SENDER.encode(frame(at)).payload for at in (0, 16)]
assert [payload[0] for payload in KEPT] == [KEY, CHANGED]


def receiver_before(number: int) -> VideoSeedCodec:
    """One that has had the kept frames before this one."""
    receiver = codec()
    for payload in KEPT[:number]:
        receiver.decode(Delivery(payload=payload))
    return receiver


WAITING = [receiver_before(number) for number in range(2)]
quick = settings(
    max_examples=200,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def refused(number: int, payload: bytes) -> None:
    receiver = WAITING[number]
    held = receiver.canvas
    with pytest.raises(CodecError) as found:
        receiver.decode(Delivery(payload=payload))
    assert "\n" not in str(found.value)
    assert receiver.canvas is held


@quick
@given(st.integers(0, 1), st.data())
def test_damaged_packets_are_refused_and_leave_the_receiver_as_it_was(
    number: int, data: st.DataObject
) -> None:
    payload = KEPT[number]
    places = data.draw(st.lists(st.integers(0, 8 * len(payload) - 1), min_size=1, max_size=6))
    damaged = bytearray(payload)
    for place in places:
        damaged[place // 8] ^= 1 << place % 8
    if bytes(damaged) != payload:
        refused(number, bytes(damaged))
    cut = data.draw(st.integers(0, len(payload) - 1))
    refused(number, payload[:cut])
    refused(number, payload + payload[:1])


@quick
@given(st.integers(0, 1), st.binary(max_size=60), st.integers(0, 20))
def test_foreign_bytes_never_pass_for_a_frame(number: int, foreign: bytes, cut: int) -> None:
    refused(number, foreign)
    if KEPT[number][:cut] + foreign != KEPT[number]:
        refused(number, KEPT[number][:cut] + foreign)


def test_the_garden_goes_by_at_a_fraction_of_its_seeds_bits() -> None:
    bundle = Bundle()
    garden = Garden(10_000_000, length_m=12.0)
    sender, receiver = VideoSeedCodec(bundle), VideoSeedCodec(bundle)
    single = ProgressiveSeedCodec(shape=(4, 32, 32))
    bits, errors = [], []
    for number in range(4):
        view = garden.render(View(position_m=4.0 + 13 * number / 64))
        packet = sender.encode(Feature(kind="image", values=view))
        picture = receive(receiver, packet)
        assert same(sender.sent, receiver.canvas)
        seed = single.encode(Feature(kind="seed", values=bundle.encode(view[None])[0]))
        alone = bundle.decode(single.decode(Delivery(payload=seed.payload)).values[None])[0]
        wanted = Feature(kind="image", values=view)
        bits.append(packet.bits / seed.bits)
        errors.append(error(picture, wanted) / error(alone, wanted))
    assert max(bits[1:]) < 0.25
    assert max(errors) < 1.6
