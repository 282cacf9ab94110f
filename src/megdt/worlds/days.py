"""Days: which sky stands over the garden at what time."""

from __future__ import annotations

import math

import numpy as np

from megdt.errors import WorldError

NIGHT_ENDS, SUNSET_BEGINS, NIGHT_BEGINS = 0.24, 0.78, 0.87
"""Times of the day, as shares of it since midnight."""

_CLEAR_DAYS, _CLOUDY_DAYS = 0.6, 0.4
"""How long clear and cloudy spells last on average."""


class Days:
    """The skies of one place over time: the sun by the clock, clouds in spells.

    Args:
        rng_seed: Draws the spells; the same seed gives the same skies everywhere.
        length_days: How far they reach.

    Raises:
        WorldError: If length_days is not above 0 and finite.
    """

    def __init__(self, rng_seed: int, *, length_days: float = 60.0) -> None:
        if not 0 < length_days <= 10_000:
            raise WorldError(
                f"length_days is {length_days:g}; skies reach above 0 and to 10000 days"
            )
        rng = np.random.default_rng((rng_seed, 23))
        self.length_days = length_days
        self._clear_first = bool(rng.uniform() < _CLEAR_DAYS / (_CLEAR_DAYS + _CLOUDY_DAYS))
        ends: list[float] = []
        end = 0.0
        while end < length_days:
            clear = self._clear_first == (len(ends) % 2 == 0)
            end += rng.exponential(_CLEAR_DAYS if clear else _CLOUDY_DAYS)
            ends.append(end)
        self._ends = np.array(ends)

    def sky(self, time_days: float) -> str:
        """One of `scene.SKIES`.

        Args:
            time_days: Since the midnight before the first day.

        Raises:
            WorldError: If the time is outside 0 to length_days.
        """
        if not 0 <= time_days <= self.length_days:
            raise WorldError(
                f"no sky is known for day {time_days:g}; these skies go from 0 to "
                f"{self.length_days:g}"
            )
        spell = int(np.searchsorted(self._ends, time_days, side="right"))
        clouds = "clear" if self._clear_first == (spell % 2 == 0) else "cloudy"
        return by_the_clock(time_days) or clouds


def by_the_clock(time_days: float) -> str | None:
    """The sky that the sun alone decides, `night` or `sunset`; None by day, when clouds decide."""
    hour = time_days - math.floor(time_days)
    if hour < NIGHT_ENDS or hour >= NIGHT_BEGINS:
        return "night"
    return "sunset" if hour >= SUNSET_BEGINS else None
