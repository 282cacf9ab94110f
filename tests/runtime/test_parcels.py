"""Frames that go through a WebSocket together."""

from collections.abc import Iterator
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from megdt.runtime.limits import Limits
from megdt.runtime.parcels import LENGTH_BYTES, join_frames, largest_message, split_message

LIMITS = Limits(parcel_bytes=100)


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_frames_come_out_as_they_went_in(frames: list[bytes]) -> None:
    messages = list(join_frames(frames, LIMITS))
    found = [bytes(frame) for message in messages for frame in split_message(message)]
    assert found == frames
    for message in messages:
        assert len(message) <= 100 or len(list(split_message(message))) == 1
    # As few messages as the order of the frames allows.
    for one, other in pairwise(messages):
        assert len(one) + LENGTH_BYTES + len(next(split_message(other))) > 100


def test_a_frame_is_taken_when_its_message_is_wanted() -> None:
    taken = []

    def frames() -> Iterator[bytes]:
        for number in range(4):
            taken.append(number)
            yield bytes(60)

    messages = join_frames(frames(), LIMITS)
    assert taken == []
    next(messages)
    assert taken == [0, 1]


def test_what_is_not_all_there_is_an_empty_frame() -> None:
    whole = next(join_frames([b"one", b"two"], LIMITS))
    assert [bytes(frame) for frame in split_message(whole[:-1])] == [b"one", b""]
    assert [bytes(frame) for frame in split_message(whole + b"\0\0")] == [b"one", b"two", b""]
    assert [bytes(frame) for frame in split_message(b"\xff\xff\xff\xff????")] == [b""]
    assert list(split_message(b"")) == []


def test_the_largest_frame_fits_a_message() -> None:
    (message,) = join_frames([bytes(Limits.frame_bytes)], Limits())
    assert len(message) == largest_message(Limits())
