"""What an edge server remembers of each UE."""

import numpy as np

from megdt.runtime.views import Views


def picture(size_px: int, level: int = 0) -> np.ndarray:
    return np.full((size_px, size_px, 3), level, np.uint8)


def test_the_last_view_of_each_owner_is_recalled_with_its_age() -> None:
    now_s = [10.0]
    views = Views(10_000, clock=lambda: now_s[0])
    assert views.recall("anna") is None
    views.remember("anna", picture(8, 1))
    now_s[0] = 12.0
    views.remember("ben", picture(8, 2))
    views.remember("anna", picture(8, 3))
    now_s[0] = 15.5
    for owner, level in (("anna", 3), ("ben", 2)):
        found = views.recall(owner)
        assert found is not None
        assert (found.kind, found.age_s) == ("image", 3.5)
        np.testing.assert_array_equal(found.values, picture(8, level))
    assert views.held_bytes == 2 * 8 * 8 * 3


def test_room_is_bounded_and_the_oldest_goes_first() -> None:
    views = Views(2 * 8 * 8 * 3)
    for owner in ("anna", "ben", "anna", "carl"):
        views.remember(owner, picture(8))
    assert views.recall("ben") is None
    assert views.recall("anna") is not None
    assert views.recall("carl") is not None
    views.remember("anna", picture(64))  # larger than all room
    assert views.recall("anna") is None
    assert views.held_bytes <= 2 * 8 * 8 * 3
