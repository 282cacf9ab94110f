"""How large a network a device can run just now: of several sizes, by how long the last calls took."""

from __future__ import annotations

from collections.abc import Sequence

_KEPT = 0.6
"""Weight of what was known before the last call: a load that comes is seen within three."""


class SizeController:
    """Chooses among sizes of a network, so that a call keeps a limit.

    Without a limit it is always the largest, so what comes out does not depend on the machine.

    Args:
        max_latency_s: That a call may take; None for no limit.

    >>> controller = SizeController(0.1)
    >>> controller.pick([1e9, 4e9])  # nothing is known of the machine yet
    0
    >>> controller.update(1e9, 0.01)
    >>> controller.pick([1e9, 4e9])
    1
    """

    def __init__(self, max_latency_s: float | None) -> None:
        self._limit = max_latency_s
        self._seconds_each: float | None = None

    def pick(self, flops: Sequence[float]) -> int:
        """The place of the size to run.

        Args:
            flops: Of a call at each size, the smallest first.
        """
        if self._limit is None:
            return len(flops) - 1
        if self._seconds_each is None:
            return 0
        within = [n for n, each in enumerate(flops) if each * self._seconds_each <= self._limit]
        return within[-1] if within else 0

    def update(self, flops: float, seconds: float) -> None:
        """Take in how long a call took.

        Args:
            flops: Of the call.
            seconds: By the clock.
        """
        now, before = seconds / flops, self._seconds_each
        self._seconds_each = now if before is None else _KEPT * before + (1 - _KEPT) * now
