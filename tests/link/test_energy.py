from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from megdt.errors import ScenarioError
from megdt.link.energy import DEVICES, DeviceProfile, load_profile

SOURCES = dict.fromkeys(
    (
        "flops_per_s",
        "compute_power_w",
        "compute_idle_power_w",
        "core_power_w",
        "transmit_circuit_power_w",
        "amplifier_efficiency",
        "receive_power_w",
        "radio_idle_power_w",
    ),
    "a data sheet",
)
PLAIN = DeviceProfile(
    name="plain",
    description="Round numbers",
    flops_per_s=1e9,
    compute_power_w=4,
    compute_idle_power_w=1,
    core_power_w=0.7,
    transmit_circuit_power_w=0.5,
    amplifier_efficiency=0.25,
    receive_power_w=2,
    radio_idle_power_w=0.1,
    sources=SOURCES,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "plain.toml"
    path.write_text(PLAIN.toml())
    return path


def change(path: Path, before: str, after: str) -> str:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    return str(path)


def refused(name_or_path: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        load_profile(name_or_path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_devices_that_users_are_told_of_are_there() -> None:
    assert DEVICES == ("edge_gpu", "edge_server_cpu", "embedded_board", "laptop", "phone")


@pytest.mark.parametrize("name", DEVICES)
def test_every_device_loads_and_every_number_has_a_source(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert profile.description
    assert profile.sources.keys() == SOURCES.keys()
    for source in profile.sources.values():
        # Either plainly assumed, or with a year, a document, or what measured it.
        assert re.search(r"assumption: |\d{4}|data sheet|3GPP TR|Ultralytics|megdt profile", source)
    assert profile.compute_idle_power_w < profile.compute_power_w
    assert profile.radio_idle_power_w < profile.receive_power_w


def test_an_edge_server_with_a_card_outruns_a_phone() -> None:
    assert load_profile("edge_gpu").compute_s(1e12) < load_profile("phone").compute_s(1e12) / 2


def test_a_phone_sends_at_the_powers_of_the_standard() -> None:
    phone = load_profile("phone")
    unit = phone.receive_power_w / 300
    assert phone.transmit_j(1, 0.001) == pytest.approx(250 * unit, rel=0.01)
    assert phone.transmit_j(1, 0.1995) == pytest.approx(700 * unit, rel=0.01)
    assert phone.radio_idle_j(1) == pytest.approx(45 * unit, rel=0.01)


def test_times_and_joules_follow_from_the_numbers() -> None:
    assert PLAIN.compute_s(3e9) == pytest.approx(3)
    assert PLAIN.compute_j(3) == pytest.approx(12)
    assert PLAIN.transmit_j(2, 2.0) == pytest.approx(2 * (1 / 0.25 + 0.5))  # 1 W
    assert PLAIN.receive_j(2) == pytest.approx(4)
    assert PLAIN.radio_idle_j(2) == pytest.approx(0.2)


def test_a_profile_survives_its_file(file: Path) -> None:
    assert load_profile(str(file)) == PLAIN


@pytest.mark.parametrize("text", ['say "so" \\ thus', "line\nbreak\t", "\x7f\x01", "Hölzle – 5 €"])
def test_any_text_survives_the_file(file: Path, text: str) -> None:
    odd = replace(PLAIN, description=text, sources={**SOURCES, "flops_per_s": text + "."})
    file.write_text(odd.toml(), encoding="utf-8")
    assert load_profile(str(file)) == odd


def test_an_unknown_device_is_answered_with_the_known_ones() -> None:
    message = refused("fone")
    assert "device is 'fone', known: edge_gpu, edge_server_cpu" in message
    assert "did you mean 'phone'?" in message
    assert "did you mean" not in refused("zzz")


def test_a_file_that_is_not_there_is_refused() -> None:
    assert "cannot read device nowhere/my.toml (No such file" in refused("nowhere/my.toml")
    assert "cannot read device my.toml" in refused("my.toml")


@pytest.mark.parametrize("content", [b"name = ", b"\xff", b"name = 1" + b"0" * 5000])
def test_a_file_that_is_not_toml_is_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert "is not TOML" in refused(str(file))


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            "[radio]",
            "[radios]",
            "has no key 'radios'; known keys: name, description, precision, compute",
        ),
        ("receive_power_w", "recieve_power_w", "did you mean 'receive_power_w'?"),
        ('name = "plain"', "", "lacks 'name'"),
        ('name = "plain"', "name = 3", "has name = 3, expected text"),
        ("active_power_w = {", "x = {", "[compute] has no key 'x'"),
        ("value = 4,", "", "[compute] active_power_w lacks 'value'"),
        (
            'value = 4, source = "a data sheet"',
            "value = 4",
            "[compute] active_power_w lacks 'source'",
        ),
        (
            'value = 4, source = "a data sheet"',
            'value = 4, source = " "',
            "[compute] active_power_w has no source",
        ),
        (
            'value = 4, source = "a data sheet"',
            "value = 4, source = 7",
            "[compute] active_power_w has no source",
        ),
        (
            '{ value = 4, source = "a data sheet" }',
            "4",
            "[compute] active_power_w is 4, expected { value = 4, source =",
        ),
        ("value = 4,", "value = -4,", "[compute] active_power_w is -4, expected a number from 0"),
        ("value = 4,", "value = nan,", "active_power_w is nan"),
        ("value = 4,", "value = inf,", "active_power_w is inf"),
        ("value = 4,", f"value = 1{'0' * 400},", "active_power_w is too large"),
        ("value = 4,", 'value = "4",', "active_power_w is '4', expected a number"),
        ("value = 4,", "value = true,", "active_power_w is True, expected a number"),
        ("value = 1000000000.0", "value = 0", "flops_per_s is 0, expected a number from 1e3"),
        ("value = 0.25", "value = 0", "amplifier_efficiency is 0, expected a number from 0.0001"),
        (
            "value = 0.25",
            "value = 1.1",
            "amplifier_efficiency is 1.1, expected a number from 0.0001",
        ),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(
    file: Path, before: str, after: str, said: str
) -> None:
    message = refused(change(file, before, after))
    assert message.startswith(str(file))
    assert said in message


def test_a_table_that_is_a_number_is_refused(file: Path) -> None:
    file.write_text('name = "x"\ndescription = "y"\ncompute = 3\nradio = 4\n')
    assert "has compute = 3, expected a table [compute]" in refused(str(file))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"receive_power_w": -1.0}, r"plain \[radio\] receive_power_w is -1"),
        ({"name": " "}, "a device has an empty name"),
        ({"sources": {}}, r"plain \[compute\] flops_per_s has no source"),
        ({"amplifier_efficiency": 0.0}, "to 1"),
    ],
)
def test_a_profile_made_in_code_is_held_to_the_same(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        replace(PLAIN, **changes)


def test_an_efficiency_of_one_and_powers_of_zero_are_allowed() -> None:
    ideal = replace(PLAIN, amplifier_efficiency=1, transmit_circuit_power_w=0, receive_power_w=0)
    assert ideal.transmit_j(1, 1.0) == pytest.approx(1)
    assert tomllib.loads(ideal.toml())["radio"]["receive_power_w"]["value"] == 0
