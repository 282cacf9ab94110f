from __future__ import annotations

import numpy as np
import pytest

from megdt.errors import WorldError
from megdt.worlds.garden import Garden, View, draw_view
from megdt.worlds.scene import COLOURS, SKIES, SPECIES, VIEW_EXTENT_M, Conditions, Plot


def test_the_same_seed_draws_the_same_picture() -> None:
    view = View(position_m=5.0, size_px=128)
    assert (Garden(3).render(view) == Garden(3).render(view)).all()
    assert (Garden(3).render(view) != Garden(4).render(view)).any()


def test_there_is_variety_enough() -> None:
    assert len(SPECIES) >= 6
    assert len(COLOURS) >= 7
    assert len(SKIES) >= 4


def test_overlapping_views_show_the_same_flowers() -> None:
    garden, size = Garden(5), 128
    left = garden.render(View(position_m=6.0, size_px=size)).astype(int)
    right = garden.render(View(position_m=8.0, size_px=size)).astype(int)
    shared = np.abs(left[:, size // 2 :] - right[:, : size // 2])
    # Edges may fall on other sub-pixels; nothing may move.
    assert shared.mean() < 1.0


def test_a_view_is_a_part_of_the_panorama() -> None:
    garden = Garden(6, length_m=12.0)
    panorama = garden.panorama(128).astype(int)
    assert panorama.shape == (128, 384, 3)
    view = garden.render(View(position_m=6.0, size_px=128)).astype(int)
    assert np.abs(panorama[:, 128:256] - view).mean() < 1.0


def test_a_larger_size_shows_the_same_scene() -> None:
    garden, view = draw_view(11)
    small = garden.render(View(position_m=view.position_m, size_px=128)).astype(float)
    large = garden.render(View(position_m=view.position_m, size_px=512)).astype(float)
    shrunk = large.reshape(128, 4, 128, 4, 3).mean((1, 3))
    assert np.abs(shrunk - small).mean() < 4.0


def test_ground_truth_names_what_was_planted() -> None:
    garden = Garden(
        1, length_m=6.0, conditions=Conditions(sky="night"),
        plots=(Plot(species="tulip", colour="red", stage="bloom", density="many"),),
    )  # fmt: skip
    truth = garden.truth(View(position_m=3.0))
    first = truth.groups[0]
    assert (first.species, first.colour, first.stage) == ("tulip", "red", "bloom")
    assert first.share > 0.8
    assert first.foreground >= 4
    assert truth.conditions.sky == "night"
    assert sum(g.share for g in truth.groups) == pytest.approx(1.0)
    half = VIEW_EXTENT_M / 2
    assert all(abs(e.head_x_m - 3.0) < half + 0.5 for e in truth.entities)


def test_the_flower_mask_covers_the_flowers() -> None:
    garden = Garden(
        1, length_m=6.0, conditions=Conditions(sky="clear"),
        plots=(Plot(species="poppy", colour="red", stage="bloom", density="many"),),
    )  # fmt: skip
    view = View(position_m=3.0, size_px=256)
    mask = garden.flower_mask(view)
    picture = garden.render(view).astype(int)
    red = (picture[..., 0] > 150) & (picture[..., 1] < 90)
    assert red.sum() > 2000
    assert (mask & red).sum() > 0.85 * red.sum()
    assert not mask[:40].any()  # no flowers in the sky


@pytest.mark.parametrize("sky", SKIES)
def test_skies_look_different(sky: str) -> None:
    pictures = {
        s: Garden(2, conditions=Conditions(sky=s)).render(View(position_m=5, size_px=64))
        for s in SKIES
    }
    for other in SKIES:
        if other != sky:
            top = pictures[sky][:20].astype(int) - pictures[other][:20].astype(int)
            assert np.abs(top).mean() > 10


def test_a_view_outside_the_garden_is_refused() -> None:
    with pytest.raises(
        WorldError, match=r"view at 99 m leaves the garden; position_m goes from 2 to 22"
    ):
        Garden(1).render(View(position_m=99))


def test_an_impossible_size_is_refused() -> None:
    with pytest.raises(WorldError, match="view is 5 pixels high, the garden draws 16 to 4096"):
        Garden(1).render(View(position_m=5, size_px=5))


def test_a_garden_narrower_than_a_view_is_refused() -> None:
    with pytest.raises(WorldError, match="make length_m at least 4"):
        Garden(1, length_m=3)


def test_a_flower_that_nobody_can_draw_is_refused() -> None:
    with pytest.raises(WorldError, match="the garden has no 'rose', it has daisy, tulip"):
        Garden(1, plots=(Plot(species="rose", colour="red", stage="bloom", density="many"),))
    with pytest.raises(WorldError, match="the garden has no 'green'"):
        Garden(1, conditions=Conditions(sky="green"))


def stages(garden: Garden) -> list[str]:
    return [e.stage for e in garden.entities]


def test_the_garden_lives_and_comes_back() -> None:
    garden = Garden(3)
    assert stages(garden.later(0)) == stages(garden)
    changed = [
        np.mean([a != b for a, b in zip(stages(garden), stages(garden.later(d)), strict=True)])
        for d in (1, 3, 6)
    ]
    assert 0 < changed[0] < changed[1] < changed[2] < 1
    # Bud, bloom and wilting take 18 days; then the same flower stands there again.
    assert garden.later(18).entities == garden.entities
    assert garden.later(2).later(3).entities == garden.later(5).entities


def test_flowers_stay_where_they_are_rooted_and_only_wilting_ones_droop() -> None:
    garden = Garden(3)
    for before, after in zip(garden.entities, garden.later(7).entities, strict=True):
        assert (before.x_m, before.species, before.colour) == (
            after.x_m,
            after.species,
            after.colour,
        )
        assert abs(after.head_x_m - after.x_m) < 0.45
        if before.stage == "bloom" and after.stage == "wilting":
            assert abs(after.tilt_deg) > abs(before.tilt_deg) + 30


def test_another_hour_changes_the_light_alone() -> None:
    garden, view = draw_view(2, size_px=64)
    evening = garden.later(0, conditions=Conditions(sky="sunset"))
    assert evening.entities == garden.entities
    assert (evening.render(view) != garden.render(view)).mean() > 0.5
    with pytest.raises(WorldError, match="garden is -1 days old"):
        garden.later(-1)
