"""Tasks: every entry of the table runs, and says what is shown where and when."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megdt.errors import RequestError
from megdt.models.bundle import Bundle
from megdt.records import Side
from megdt.scenario import Scenario, parse_scenario
from megdt.showing import as_json, name_files, save_shown
from megdt.tasks import TASKS, Done, check_suits, defaults, find_task, run_task

QUICK = {"steps": 2, "size_px": 256}
ENTRIES = [(task, mechanism) for task in TASKS for mechanism in TASKS[task].suits]


def make(task: str, mechanism: str, **tables: dict[str, Any]) -> Scenario:
    given = defaults(TASKS[task])
    request = {"prompt": "red poppies at sunset", **given.get("request", {}), **QUICK}
    return parse_scenario(
        {
            "request": {**request, **tables.get("request", {})},
            "plan": {"mechanism": mechanism, **tables.get("plan", {})},
            "link": {"coding": "abstract", "snr_db": 20, "bandwidth_hz": 20e6, **tables.get("link", {})},
            "world": {"ues": 2, **tables.get("world", {})},
        }
    )  # fmt: skip


def done(bundle: Bundle, task: str, mechanism: str, **tables: dict[str, Any]) -> Done:
    return run_task(TASKS[task], make(task, mechanism, **tables), bundle)


@pytest.mark.parametrize(("task", "mechanism"), ENTRIES)
def test_every_entry_runs_and_shows_something(task: str, mechanism: str, bundle: Bundle) -> None:
    found = done(bundle, task, mechanism)
    assert found.result.outcome == "delivered"
    assert found.shown
    assert [s.at_s for s in found.shown] == sorted(s.at_s for s in found.shown)
    assert 0 < found.shown[-1].at_s <= found.result.ledger.duration_s


def test_many_ues_show_each_their_own_view_of_the_world_now(bundle: Bundle) -> None:
    quality = {}
    for mechanism in ("individual", "decentralized", "coordinated"):
        found = done(bundle, "shared-scene", mechanism, world={"hidden": 0.1})
        assert {s.side for s in found.shown} == {Side.ue(1), Side.ue(2)}
        for shown in found.shown:
            assert shown.truth is not None
            assert shown.truth.shape == shown.feature.values.shape
        errors = [
            np.square(s.feature.values.astype(float) - s.truth).mean()
            for s in found.shown
            if s.truth is not None
        ]
        quality[mechanism] = float(np.mean(errors))
    assert quality["decentralized"] < quality["individual"]
    assert quality["coordinated"] < quality["individual"]


def test_on_a_fast_link_views_that_add_up_on_the_air_come_near_to_the_gate(bundle: Bundle) -> None:
    errors, uses = {}, {}
    for fusion in ("gate", "air"):
        found = done(
            bundle, "shared-scene", "coordinated", plan={"fusion": fusion}, world={"ues": 3}
        )
        first = found.shown[0]
        assert first.truth is not None
        errors[fusion] = np.square(first.feature.values.astype(float) - first.truth).mean()
        up = [c for c in found.result.ledger.crossings if c.to_side == Side.ES]
        uses[fusion] = sum(c.channel_uses / c.among for c in up)
    assert errors["air"] < 1.1 * errors["gate"]
    assert uses["air"] < uses["gate"] / 2


def test_a_parallel_ue_shows_its_own_view_first_and_a_better_one_then(bundle: Bundle) -> None:
    found = done(bundle, "image-to-image", "parallel", world={"hidden": 0.25})
    first, then = (s for s in found.shown if s.side == Side.UE)
    assert (first.stage, then.stage) == ("first", "decode")
    assert first.at_s < then.at_s
    assert first.truth is not None
    errors = [np.square(s.feature.values.astype(float) - first.truth).mean() for s in (first, then)]
    assert errors[1] < errors[0]


def test_a_picture_of_the_users_is_what_the_ue_senses(bundle: Bundle) -> None:
    picture = np.full((256, 256, 3), 90, np.uint8)
    scenario = make("image-to-image", "ue_to_es")
    found = run_task(TASKS["image-to-image"], scenario, bundle, picture=picture)
    assert abs(float(found.shown[-1].feature.values.mean()) - 90) < 8
    for mechanism, words in (("parallel", "a picture is given, and parallel also takes remember"),):
        with pytest.raises(RequestError, match=words):
            run_task(
                TASKS["image-to-image"], make("image-to-image", mechanism), bundle, picture=picture
            )
    with pytest.raises(RequestError, match="a picture is given, and es_to_ue senses nothing"):
        run_task(TASKS["text-to-image"], make("text-to-image", "es_to_ue"), bundle, picture=picture)


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(RequestError, match="no task 'video'; known: text"):
        find_task("video")
    with pytest.raises(
        RequestError, match="mechanism is parallel, which does not do text-to-image"
    ):
        check_suits(TASKS["text-to-image"], "parallel")


def test_what_was_shown_is_written_and_told(bundle: Bundle, tmp_path: Path) -> None:
    found = done(bundle, "shared-scene", "decentralized")
    path = tmp_path / "a.png"
    written = save_shown(found, path, name_files(found.scenario, path))
    assert {p.name for p in written.values()} == {"a.png", "a-ue1.png", "a-ue2.png"}
    assert all(p.exists() for p in written.values())
    told = as_json(found, written)
    assert {row["file"] for row in told["shown"]} == {str(written[f"decode_{n}"]) for n in (1, 2)}
    assert all(15 < row["psnr_db"] < 45 for row in told["shown"])
    assert told["scenario"]["world"]["ues"] == 2


def test_a_video_of_which_no_frame_came_is_lost_and_one_that_came_is_played(
    bundle: Bundle, tmp_path: Path
) -> None:
    tables = {"link": {"snr_db": 10}}
    found = done(bundle, "image-to-video", "video_parallel", **tables)
    path = tmp_path / "a.webp"
    written = save_shown(found, path, name_files(found.scenario, path))
    assert {p.name for p in written.values()} == {"a.webp", "a-sheet.png"}
    playback = as_json(found, written)["playback"]
    assert (playback["lost"], len(playback["shown_s"])) == (0, 8)
    assert playback["picture_s"] < playback["first_s"]
    # The observation comes up; nothing comes down.
    lost = replace(found, result=replace(found.result, arrived={}))
    assert lost.outcome == "lost"
    assert as_json(lost, written)["playback"]["first_s"] is None
