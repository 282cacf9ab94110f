"""The planner among smaller sub-models: what they take, what they lose, and when they are worth it."""

from __future__ import annotations

import json
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
    for name in ("seed 0.05", "seed analog", "sketch"):
        way = WAYS[name]
        whole, with_it = costs.distance(way, 256), small.distance(costs, way, 256)
        # The sketch is encoded at the UE too, by the folder's encoder.
        least, most = (0.011, 0.053) if name == "sketch" else (0.01, 0.05)
        added = with_it - whole if name != "sketch" else None
        assert (with_it.mean(1) - whole.mean(1)).min() > least
        assert (with_it.mean(1) - whole.mean(1)).max() < most
        if added is not None:
            furthest = np.take_along_axis(added, whole.argsort(1), 1)
            assert (np.diff(furthest, axis=1) >= -1e-12).all()
    assert small.serves(WAYS["seed int8"], 256)
    assert not small.serves(WAYS["seed int8"], 512)  # not measured there
    assert not small.serves(WAYS["webp 0.5"], 256)
    assert small.memory_mb(costs, WAYS["steps 12 int8"]) == pytest.approx(
        1.0 + costs.model_mb("student")
    )


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
    "card", [{}, {"megabytes": 1.0}, {"megabytes": 1.0, "distances_to_teacher": {}}]
)
def test_a_folder_that_does_not_say_what_it_loses_is_refused(
    folder: Path, card: dict[str, Any]
) -> None:
    with pytest.raises(TwinError, match=r"does not say how far .* its decoder .* write it anew"):
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
    with open_store() as store:
        twin = open_twin(scenario, site, store, bundle)
        found = run_round(twin, site, refresh_bits=0)
        chosen = [a for a in found.answers if a.decision.candidate.variant is not None]
        assert chosen
        for answer in chosen:
            assert answer.served.outcome == "delivered"
            assert answer.served.distance is None or 0 < answer.served.distance < 0.1


def test_a_scenario_with_smaller_models_is_the_same_when_a_store_has_kept_it() -> None:
    scenario = read_twin_scenario("garden_drones", ['ues.variants=["small", "smaller"]'])
    kept = json.loads(json.dumps(scenario.table()))
    assert kept == scenario.table()  # a store takes JSON's values alone
    assert parse_twin_scenario(kept) == scenario


def test_folders_of_a_scenario_are_a_list_of_texts() -> None:
    with pytest.raises(ScenarioError, match=r"\[ues\] variants is 'small', expected a list of"):
        read_twin_scenario("garden_drones", ["ues.variants=small"])
