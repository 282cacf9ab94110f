"""Rays through a city; without Sionna RT only what needs none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from megdt.errors import MissingExtraError, WorldError
from megdt.worlds.city import City, TracedMap, _sionna_rt


def has_sionna_rt() -> bool:
    try:
        _sionna_rt()
    except MissingExtraError:
        return False
    return True


needs_rays = pytest.mark.skipif(
    not has_sionna_rt(), reason="needs Sionna RT (the extra rt) and Debian's libllvm15"
)
SMALL = {"extent_m": 200.0, "cell_m": 10.0, "max_depth": 2, "rays": 100_000}


def test_a_place_has_the_gain_of_its_cell() -> None:
    gains = np.arange(8.0).reshape(2, 4)
    gains[0, 0] = math.nan
    made = TracedMap(gain_db=gains, station_m=(100.0, 50.0), cell_m=10.0)
    assert np.array_equal(
        made.gain_at_db(made.centres_m.reshape(-1, 2)), gains.ravel(), equal_nan=True
    )
    assert made.gain_at_db(np.array([[101.0, 51.0], [99.0, 49.0]])).tolist() == [6.0, 1.0]
    assert np.isnan(made.gain_at_db(np.array([[500.0, 50.0], [81.0, 41.0]]))).all()


def test_a_square_without_whole_cells_is_refused() -> None:
    for extent_m, cell_m in ((100.0, 7.0), (100.0, 0.0), (math.nan, 5.0), (50.0, 50.0)):
        with pytest.raises(WorldError, match="even number of cells"):
            City().trace(extent_m=extent_m, cell_m=cell_m)


@pytest.mark.skipif(has_sionna_rt(), reason="Sionna RT is here")
def test_without_sionna_rt_one_line_says_what_to_install() -> None:
    with pytest.raises(MissingExtraError, match=r"megdt\[rt\]"):
        City().trace()


@needs_rays
def test_rays_reach_the_square_before_the_station_and_weaken_with_distance() -> None:
    made = City().trace(**SMALL)  # type: ignore[arg-type]
    away = np.linalg.norm(made.centres_m - made.station_m, axis=-1)
    reached = np.isfinite(made.gain_db)
    assert made.gain_db.shape == (20, 20)
    assert 0.05 < reached.mean() < 0.95
    assert made.gain_db[reached].max() < -50
    near, far = (made.gain_db[reached & some].mean() for some in (away < 50, away > 90))
    assert near > far


@needs_rays
def test_another_material_is_another_map_and_an_unknown_one_is_refused() -> None:
    own, metal = (City(material=m).trace(**SMALL).gain_db for m in (None, "metal"))  # type: ignore[arg-type]
    both = np.isfinite(own) & np.isfinite(metal)
    assert metal[both].mean() > own[both].mean()
    with pytest.raises(WorldError, match="cheese"):
        City(material="cheese").trace(**SMALL)  # type: ignore[arg-type]
    with pytest.raises(WorldError, match="atlantis"):
        City(scene="atlantis").trace(**SMALL)  # type: ignore[arg-type]
