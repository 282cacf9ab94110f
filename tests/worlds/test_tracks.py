"""UEs keep to the streets, to their speed, and to their seed."""

from __future__ import annotations

import numpy as np
import pytest

from megdt.errors import WorldError
from megdt.worlds.tracks import BLOCK_M, walk_streets


@pytest.mark.parametrize("speed_m_s", [1.5, 12.0])
def test_ues_stay_near_the_streets_and_below_their_speed(speed_m_s: float) -> None:
    tracks = walk_streets(1, ues=40, duration_s=60, speed_m_s=speed_m_s, blocks=4)
    assert tracks.shape == (601, 40, 2)
    assert np.abs(tracks).max() < 2 * BLOCK_M + 20
    from_street = np.abs((tracks + BLOCK_M / 2) % BLOCK_M - BLOCK_M / 2).min(-1)
    assert np.percentile(from_street, 95) < 6
    speeds = np.linalg.norm(np.diff(tracks, axis=0), axis=-1) / 0.1
    assert speeds.max() < 1.26 * speed_m_s
    assert np.median(speeds) > 0.5 * speed_m_s


def test_some_turn_and_some_stop() -> None:
    tracks = walk_streets(2, ues=40, duration_s=120, speed_m_s=6.0, step_s=0.5)
    steps = np.diff(tracks, axis=0)
    stands = np.linalg.norm(steps, axis=-1) < 0.05
    assert 0.02 < stands.mean() < 0.5
    both_ways = (np.abs(steps[..., 0]).sum(0) > 100) & (np.abs(steps[..., 1]).sum(0) > 100)
    assert both_ways.mean() > 0.5


def test_the_seed_decides_the_tracks() -> None:
    first, again, other = (walk_streets(seed, ues=3, duration_s=5) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("wrong", [{"step_s": 0.25}, {"speed_m_s": 0.0}, {"duration_s": -1.0}])
def test_impossible_tracks_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(WorldError):
        walk_streets(0, **{"ues": 2, "duration_s": 1.0, **wrong})  # type: ignore[arg-type]
