"""The sun goes by the clock, clouds come and go."""

from __future__ import annotations

import numpy as np
import pytest

from megdt.errors import WorldError
from megdt.worlds.days import Days


def test_nights_are_dark_and_days_clear_or_cloudy() -> None:
    days = Days(1)
    assert [days.sky(n + 0.05) for n in range(5)] == ["night"] * 5
    assert [days.sky(n + 0.8) for n in range(5)] == ["sunset"] * 5
    assert {days.sky(n + 0.5) for n in range(60)} == {"clear", "cloudy"}


def test_spells_last_and_are_clear_three_fifths_of_the_time() -> None:
    days = Days(2, length_days=3000)
    noons = np.array([days.sky(n + 0.5) == "clear" for n in range(3000)])
    assert noons.mean() == pytest.approx(0.6, abs=0.04)
    soon = np.array([days.sky(n + 0.52) == "clear" for n in range(3000)])
    assert (noons == soon).mean() > 0.9


def test_a_day_beyond_is_refused() -> None:
    with pytest.raises(WorldError, match="from 0 to 60"):
        Days(1).sky(61.0)
