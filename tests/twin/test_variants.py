"""The planner among smaller sub-models: what they take, what they lose, and when they are worth it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="needs the extra export")

from megdt.errors import BundleError, ScenarioError, TwinError
from megdt.link.energy import load_profile
from megdt.models.bundle import load_bundle
from megdt.models.manifest import FILE
from megdt.scenario import parse_scenario
from megdt.scenario.twin import parse_twin_scenario, read_twin_scenario
from megdt.site import SimulatedSite, open_twin
from megdt.twin.loop import run_round
from megdt.twin.planner import Ask, Equipment, Planner
from megdt.twin.store import open_store
from megdt.twin.variants import Variant, read_variant
from megdt.twin.ways import WAYS, load_costs
from megdt.watching import keep_scenario, kept_scenario
from tests.small_models import write_variant

PHONE = load_profile("phone")
ES = load_profile("edge_gpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_variant(tmp_path / "small", cards=True)


def tell(folder: Path, change: dict[str, Any], part: str = "decoder") -> Variant:
    """The folder as it would be if its manifest said something else."""
    content = json.loads((folder / FILE).read_text())
    content["models"][part] |= change
    (folder / FILE).write_text(json.dumps(content))
    return read_variant(folder)


def test_a_ue_without_room_for_the_bundle_s_decoder_takes_a_smaller_one(folder: Path) -> None:
    ask = Ask(equipment=Equipment(profile=PHONE, memory_mb=2), snr_db=12.0, max_distance=0.1)
    (before,) = Planner(es=ES).plan([ask])
    assert before.candidate.way.mechanism == "centralized"
    variants = (read_variant(folder),)
    having = Ask(
        equipment=Equipment(profile=PHONE, memory_mb=2, variants=variants), snr_db=12.0,
        max_distance=0.1,
    )  # fmt: skip
    (decision,) = Planner(es=ES).plan([having])
    assert decision.candidate.variant == variants[0]
    assert "by small" in decision.candidate.name
    assert decision.latency_s < before.latency_s
    tables = {name: dict(table) for name, table in decision.tables.items()}
    assert tables["model"] == {"variant": str(folder)}
    tables["request"]["prompt"] = "poppies"
    assert parse_scenario(tables).model.variant == str(folder)


def test_what_is_quicker_is_taken_only_where_its_pictures_are_near_enough(folder: Path) -> None:
    near, far = [0.01 + 0.001 * n for n in range(9)], [0.2] * 9
    small = tell(
        folder,
        {
            "flops_per_cell": 8e5,
            "card": {"megabytes": 0.3, "distances_to_teacher": {"256": near, "512": far}},
        },
    )
    equipment = Equipment(profile=PHONE, memory_mb=6, variants=(small,))
    planner = Planner(es=ES, objective="ue_energy")
    loose, tight, large = planner.plan(
        [
            Ask(equipment=equipment, snr_db=20.0, max_distance=0.1),
            Ask(equipment=equipment, snr_db=20.0, max_distance=0.012),
            Ask(equipment=equipment, snr_db=20.0, size_px=512, max_distance=0.1),
        ]
    )
    assert loose.candidate.variant is not None
    assert tight.candidate.variant is None
    assert large.candidate.variant is None
    assert {loose.broken, tight.broken, large.broken} == {()}
    (without,) = planner.plan(
        [Ask(equipment=Equipment(profile=PHONE, memory_mb=6), snr_db=20.0, max_distance=0.1)]
    )
    assert loose.ue_energy_j < without.ue_energy_j


def test_distances_add_up_and_the_furthest_meet(folder: Path) -> None:
    values = np.linspace(0.01, 0.05, 7).tolist()
    small = tell(folder, {"card": {"megabytes": 1.0, "distances_to_teacher": {"256": values}}})
    costs = load_costs()
    for name in ("seed 0.05", "seed analog"):
        whole = costs.distance(WAYS[name], 256)
        added = small.distance(costs, WAYS[name], 256) - whole
        # All that is known of the decoder comes up, the furthest too, and goes with the hardest for the link.
        np.testing.assert_allclose(np.unique(added.round(9)), values)
        assert (np.diff(np.take_along_axis(added, whole.argsort(1), 1), axis=1) >= -1e-12).all()
    assert small.serves(WAYS["seed int8"], 256)
    assert not small.serves(WAYS["seed int8"], 512)  # not measured there
    for name in (
        "webp 0.5",
        "prompt",
        "sketch",
    ):  # who holds the whole model needs no smaller decoder
        assert not small.serves(WAYS[name], 256)
    assert small.memory_mb(costs, WAYS["steps 12 int8"]) == pytest.approx(
        1.0 + costs.model_mb("student")
    )


def test_an_encoder_alone_serves_no_request_for_a_picture(folder: Path) -> None:
    content = json.loads((folder / FILE).read_text())
    del content["models"]["decoder"]
    (folder / FILE).write_text(json.dumps(content))
    variant = read_variant(folder)
    assert not any(variant.serves(way, 256) for way in WAYS.values())


def test_what_a_smaller_decoder_saves_is_what_the_ledger_says(folder: Path) -> None:
    """The bundle's decoder in int8 has its operations, so nothing changes; a quarter of them is a quarter."""
    costs, way = load_costs(), WAYS["seed int8"]
    _, whole = costs.flops(way, 512)
    np.testing.assert_allclose(read_variant(folder).ue_flops(costs, way, 512), whole, rtol=1e-3)
    told = json.loads((folder / FILE).read_text())["models"]["decoder"]
    quarter = {key: told[key] / 4 for key in ("flops_per_cell", "flops_per_item")}
    np.testing.assert_allclose(
        tell(folder, quarter).ue_flops(costs, way, 512), whole / 4, rtol=1e-3
    )


@pytest.mark.parametrize(
    "card",
    [
        {},
        {"megabytes": 1.0},
        {"megabytes": 1.0, "distances_to_teacher": {}},
        {"megabytes": 1.0, "distances_to_teacher": {"256": [-0.1]}},
        {"megabytes": 10**400, "distances_to_teacher": {"256": [0.1]}},
        {"megabytes": math.nan, "distances_to_teacher": {"256": [0.1]}},
    ],
)
def test_a_folder_that_does_not_say_what_it_loses_is_refused(
    folder: Path, card: dict[str, Any]
) -> None:
    with pytest.raises(TwinError, match=r"does not say what its decoder takes .* write it anew"):
        tell(folder, {"card": card})


def test_a_folder_of_another_bundle_or_none_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no readable manifest\.json"):
        read_variant(tmp_path / "nothing")
    content = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps(content | {"bundle_sha256": "0" * 64}))
    with pytest.raises(BundleError, match="was made of bundle 000000000000"):
        read_variant(folder)


def test_a_site_s_ues_run_what_was_planned_for_them(folder: Path) -> None:
    settings = [
        "scene.length_m=8", "ues.count=2", "requests.each_round=2", "ues.memory_mb=2",
        f'ues.variants=["{folder}"]', "twin.refresh_bits=0", "requests.max_distance=0.1",
    ]  # fmt: skip
    scenario = read_twin_scenario("garden_drones", settings)
    bundle = load_bundle()
    site = SimulatedSite(scenario, bundle)
    before = site._smaller[folder].flops
    with open_store() as store:
        twin = open_twin(scenario, site, store, bundle)
        found = run_round(twin, site, refresh_bits=0)
        chosen = [a for a in found.answers if a.decision.candidate.variant is not None]
        assert chosen
        assert site._smaller[folder].flops > before
        for answer in chosen:
            assert answer.served.outcome == "delivered"
            assert answer.served.distance is None or 0 < answer.served.distance < 0.1


def test_a_folder_that_has_lost_a_file_is_refused_before_the_first_round(folder: Path) -> None:
    (folder / "decoder.int8.onnx").unlink()
    scenario = read_twin_scenario("garden_drones", [f'ues.variants=["{folder}"]'])
    with pytest.raises(BundleError, match="decoder"):
        SimulatedSite(scenario, load_bundle())


def test_folders_of_one_name_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = write_variant(tmp_path / "other" / "small", cards=True)
    with pytest.raises(TwinError, match="two folders of smaller models are called small; rename"):
        Equipment(profile=PHONE, variants=(read_variant(folder), read_variant(other)))


def test_a_twin_goes_on_when_its_ues_are_given_smaller_models(folder: Path) -> None:
    plain = read_twin_scenario("garden_drones")
    with open_store() as store:
        keep_scenario(store, plain)
        smaller = read_twin_scenario("garden_drones", [f'ues.variants=["{folder}"]'])
        keep_scenario(store, smaller)
        assert kept_scenario(store) == smaller
        with pytest.raises(TwinError, match=r"its ues\.count is 6"):
            keep_scenario(store, read_twin_scenario("garden_drones", ["ues.count=7"]))


def test_a_scenario_with_smaller_models_is_the_same_when_a_store_has_kept_it() -> None:
    scenario = read_twin_scenario("garden_drones", ['ues.variants=["small", "smaller"]'])
    kept = json.loads(json.dumps(scenario.table()))
    assert kept == scenario.table()  # a store takes JSON's values alone
    assert parse_twin_scenario(kept) == scenario


def test_folders_of_a_scenario_are_a_list_of_texts() -> None:
    with pytest.raises(ScenarioError, match=r"\[ues\] variants is 'small', expected a list of"):
        read_twin_scenario("garden_drones", ["ues.variants=small"])
