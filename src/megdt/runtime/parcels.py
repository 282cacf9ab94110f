"""Frames on their way through a WebSocket: several in one message, each after its length.

A message costs each end a call of the system and a turn of its event loop, whatever it holds. So what
is due at the same time goes together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from megdt.runtime.limits import Limits

LENGTH_BYTES = 4
"""Of a length before its frame, big-endian."""


def largest_message(limits: Limits) -> int:
    """Bytes of the largest WebSocket message that an end of these limits takes."""
    return limits.frame_bytes + LENGTH_BYTES


def join_frames(frames: Iterable[bytes], limits: Limits) -> Iterator[bytes]:
    """Frames as messages, each of no more than `limits.parcel_bytes` unless it is one frame alone.

    The next frame is taken once the message before it was, or once it is known not to fit.
    """
    parts: list[bytes] = []
    size_bytes = 0
    for frame in frames:
        added_bytes = LENGTH_BYTES + len(frame)
        if parts and size_bytes + added_bytes > limits.parcel_bytes:
            yield b"".join(parts)
            parts, size_bytes = [], 0
        parts += (len(frame).to_bytes(LENGTH_BYTES), frame)
        size_bytes += added_bytes
    if parts:
        yield b"".join(parts)


def split_message(message: bytes) -> Iterator[memoryview]:
    """The frames of a message, as views of it; an empty one, which no session takes, for one that is
    not all there.
    """
    view, at = memoryview(message), 0
    while at < len(message):
        begins = at + LENGTH_BYTES
        at = begins + int.from_bytes(view[at:begins])
        yield view[begins:at] if begins <= at <= len(message) else view[:0]
