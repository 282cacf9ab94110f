"""What an edge server remembers of each UE: the last picture that it made of what that UE sensed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from megdt.records import Feature


class Views:
    """The last view of each owner, the oldest given up where room is lacking. For many threads.

    Args:
        room_bytes: For all pictures together.
        clock: Of this memory, in seconds.
    """

    def __init__(self, room_bytes: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._room_bytes, self._clock = room_bytes, clock
        self._kept: dict[str, tuple[NDArray[np.uint8], float]] = {}
        """In the order in which they came."""
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Of all pictures."""
        with self._lock:
            return sum(picture.nbytes for picture, _ in self._kept.values())

    def remember(self, owner: str, picture: NDArray[np.uint8]) -> None:
        """Keep a picture in the place of the owner's last; not one that is larger than all room.

        Args:
            owner: Whose UE has sensed it.
            picture: As the ES has it. [height, width, 3]
        """
        with self._lock:
            self._kept.pop(owner, None)
            held = sum(kept.nbytes for kept, _ in self._kept.values()) + picture.nbytes
            while self._kept and held > self._room_bytes:
                held -= self._kept.pop(next(iter(self._kept)))[0].nbytes
            if held <= self._room_bytes:
                self._kept[owner] = picture, self._clock()

    def recall(self, owner: str) -> Feature | None:
        """The owner's last view as an image with its age; None where there is none."""
        with self._lock:
            found = self._kept.get(owner)
            if found is None:
                return None
            picture, seen_s = found
            return Feature(kind="image", values=picture, age_s=self._clock() - seen_s)
