from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from megdt.diagram import as_svg, as_text
from megdt.mechanisms.single_user import UE_TO_ES
from megdt.mechanisms.stages import Stage
from megdt.models.bundle import Bundle
from megdt.scenario import MECHANISMS, parse_scenario
from megdt.trial import demonstrate

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", MECHANISMS)
def test_every_mechanism_is_drawn_with_all_its_stages_and_crossings(name: str) -> None:
    scenario = parse_scenario({"request": {"prompt": "x"}, "plan": {"mechanism": name}})
    mechanism = scenario.mechanism
    text = as_text(mechanism, scenario.plan.codecs)
    assert len(text.splitlines()) == 1 + len(mechanism.steps)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("─▶") + text.count("◀─") == len(mechanism.edges)
    drawing = ElementTree.fromstring(as_svg(mechanism, scenario.plan.codecs))
    shown = {node.text for node in drawing.iter(f"{SVG}text")}
    assert shown >= {stage.name for stage in mechanism.stages} | set(mechanism.sides)
    assert sum(1 for _ in drawing.iter(f"{SVG}line")) == len(mechanism.edges) + len(mechanism.sides)


def test_a_run_labels_crossings_with_bits_and_stages_with_time(bundle: Bundle) -> None:
    tables = {
        "request": {"prompt": "red poppies", "steps": 1},
        "plan": {"mechanism": "ue_to_es"},
        "link": {"coding": "abstract"},
    }
    scenario = parse_scenario(tables)
    ledger = demonstrate(scenario, bundle)[1].ledger
    lines = as_text(scenario.mechanism, scenario.plan.codecs, ledger).splitlines()
    assert lines[1:3] == ["sense", "encode  1.8 ms"]
    assert "seed, int8: 32,768 bit, 31.0 ms ─" in lines[3]
    assert lines[3].endswith("▶")
    assert lines[4].split() == ["decode", "0.4", "ms"]


def test_what_carries_no_bits_is_labelled_by_its_uses_and_what_is_lost_as_lost(
    bundle: Bundle,
) -> None:
    tables = {"request": {"prompt": "x"}, "plan": {"mechanism": "ue_to_es"}}
    analog = parse_scenario({**tables, "codecs": {"seed": "analog"}})
    text = as_text(analog.mechanism, analog.plan.codecs, demonstrate(analog, bundle)[1].ledger)
    assert "seed, analog: 2,520 uses" in text
    lost = parse_scenario({**tables, "link": {"snr_db": -30}})
    text = as_text(lost.mechanism, lost.plan.codecs, demonstrate(lost, bundle)[1].ledger)
    assert "bit, lost" in text


def test_a_drawing_escapes_what_a_name_holds() -> None:
    mechanism = UE_TO_ES
    assert isinstance(mechanism.steps[0], Stage)
    ElementTree.fromstring(as_svg(mechanism, {"seed": "<&>"}))


def test_a_round_on_the_air_says_how_many_share_its_uses(bundle: Bundle) -> None:
    tables = {
        "request": {"prompt": "x"},
        "plan": {"mechanism": "coordinated", "fusion": "air"},
        "link": {"bandwidth_hz": 20e6},
        "world": {"ues": 2},
    }
    scenario = parse_scenario(tables)
    text = as_text(
        scenario.mechanism, scenario.plan.codecs, demonstrate(scenario, bundle)[1].ledger
    )
    assert len(re.findall(r"▶ +superposed, analog: [\d,]+ uses by 2, [\d.]+ ms", text)) == 2


def test_a_codec_with_networks_is_charged_by_the_device(bundle: Bundle) -> None:
    """Not by how long this machine took, which in the first run also reads their file."""
    tables = {
        "request": {"prompt": "x"},
        "plan": {"mechanism": "ue_to_es"},
        "codecs": {"seed": "hybrid"},
        "link": {"snr_db": 0},
    }
    ledger = demonstrate(parse_scenario(tables), bundle)[1].ledger
    (decoded,) = (c for c in ledger.computations if c.task == "decode seed")
    assert decoded.flops > 1e9
    assert decoded.seconds < 0.1 * decoded.measured_s
