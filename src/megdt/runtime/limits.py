"""What one end of a session lets the other ask of it; all in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from megdt.errors import SessionError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Caps and times of one end. The other end may have others.

    Raises:
        SessionError: If a number is not above 0, or two do not go together.
    """

    frame_bytes: int = 2**20
    """Of one frame."""
    parcel_bytes: int = 2**17
    """Of frames that go together; a larger frame goes alone."""
    depth: int = 8
    """Maps and lists inside each other."""
    text_bytes: int = 2**14
    """Of one text in a frame."""
    elements: int = 2**15
    """Values in a frame, keys included."""

    chunk_bytes: int = 2**16
    """Of a feature in one frame, when sent from here; small beside any peer's frame_bytes."""
    window_bytes: int = 2**22
    """That the peer may send before what it has sent is released here, so the largest feature too."""
    queue_bytes: int = 2**24
    """Of features that wait here to be sent."""
    queue_frames: int = 2**10
    """Messages that wait here to be sent."""
    replay_bytes: int = 2**22
    """Sent and kept until the peer has acknowledged it; no less than two frames."""
    ack_bytes: int = 2**17
    """Taken since the last acknowledgement, after which the next is due at once."""
    ack_delay_s: float = 0.05
    """Otherwise it is due after this long."""

    greeting_s: float = 10.0
    """From a connection until both ends have greeted."""
    ping_s: float = 20.0
    """Without a frame from the peer, until it is asked whether it is there."""
    silence_s: float = 60.0
    """Without a frame from the peer, until the connection counts as cut."""
    resume_s: float = 120.0
    """That a session is kept at the ES after a cut."""
    deadline_s: float = 600.0
    """Longest that a request may run."""
    requests: int = 8
    """Of one session, running at once."""
    features: int = 2**10
    """Of one request, from the UE."""
    states: int = 64
    """That one request may name at each end."""

    sessions: int = 1024
    """Of one ES, cut ones included."""
    running: int = 64
    """Generations of one ES, at once."""
    kept_bytes: int = 2**28
    """Of answers that one ES keeps in case that a request comes again."""
    kept_keys: int = 2**14
    """Requests that one ES remembers to have answered, longer than their answers."""
    view_bytes: int = 2**27
    """Of pictures that one ES remembers, the last of each owner's UE."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (value > 0 and math.isfinite(value)):
                raise SessionError(f"limit {field.name} is {value}, expected a number above 0")
        for small, large, factor in (
            ("frame_bytes", "replay_bytes", 2),
            ("chunk_bytes", "frame_bytes", 1),
            ("parcel_bytes", "frame_bytes", 1),
        ):
            if factor * getattr(self, small) > getattr(self, large):
                raise SessionError(
                    f"limit {large} is {getattr(self, large)} and {small} {getattr(self, small)}; "
                    f"{large} has to be at least {f'{factor} times ' if factor > 1 else ''}{small}"
                )
