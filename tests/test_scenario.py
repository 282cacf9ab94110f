from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from megdt.errors import LinkError, MegdtError, ScenarioError
from megdt.link.paper import PaperLink
from megdt.scenario import choose_codec, load_scenario, override, parse_scenario

ROOT = Path(__file__).parent.parent
PROMPT = {"request": {"prompt": "lilies"}}


def test_a_scenario_survives_its_own_table() -> None:
    tables = {
        "request": {"prompt": "lilies", "size_px": 512, "guidance_scale": 4},
        "plan": {"mode": "paper", "image_bits": 9000},
        "codecs": {"image": "webp"},
        "link": {"snr_db": -3},
        "video": {"motion": "track", "frames": 3, "to_prompt": "tulips"},
    }
    scenario = parse_scenario(tables)
    assert parse_scenario(scenario.table()) == scenario
    assert isinstance(scenario.link, PaperLink)


def test_each_mode_has_its_own_default_codecs() -> None:
    assert parse_scenario(PROMPT).plan.codecs["seed"] == "int8"
    assert parse_scenario(PROMPT | {"plan": {"mode": "paper"}}).plan.codecs["seed"] == "analog"


@pytest.mark.parametrize("path", sorted((ROOT / "scenarios").glob("*.toml")), ids=lambda p: p.name)
def test_every_scenario_in_the_tree_is_valid(path: Path) -> None:
    assert parse_scenario(load_scenario(path), source=path.name)


def test_settings_override_one_key() -> None:
    tables = override(
        PROMPT, ["link.snr_db=5", "codecs.seed=float16", "request.prompt=blue tulips"]
    )
    scenario = parse_scenario(tables)
    assert scenario.link.snr_db == 5.0
    assert scenario.plan.codecs["seed"] == "float16"
    assert scenario.request.prompt == "blue tulips"
    assert PROMPT == {"request": {"prompt": "lilies"}}


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            {"lnk": {}},
            "no table 'lnk'; known tables: codecs, devices, link, model, plan, request, video, world, writer",
        ),
        (
            {"link": {"bandwith_hz": 1}},
            r"\[link\] has no key 'bandwith_hz'; known keys: bandwidth_hz",
        ),
        ({"link": {"mode": "fair"}}, r"\[link\] has no key 'mode'"),
        ({"link": {"snr_db": "high"}}, "snr_db is 'high', expected a number"),
        ({"request": {"steps": 2.5}}, "steps is 2.5, expected a whole number"),
        ({"request": {"steps": True}}, "steps is True, expected a whole number"),
        ({"request": "lilies"}, r"expected a table \[request\]"),
        ({"codecs": {"seed": "int9"}}, "seed is 'int9', known: .*did you mean 'int8'"),
        ({"codecs": {"sound": "mp3"}}, "no key 'sound'"),
        ({"plan": {"mechanism": "es_to_eu"}}, "did you mean 'es_to_ue'"),
        ({"plan": {"mode": "unfair"}}, "known: fair, paper"),
        ({"plan": {"fusion": "sum"}}, r"\[plan\] fusion is 'sum', known: gate, air"),
        (
            {"plan": {"mechanism": "coordinated", "fusion": "air", "mode": "paper"}},
            "plan.fusion is 'air' in paper mode, which has one sender at a time; take fair mode",
        ),
        ({"video": {"frames": "8"}}, r"\[video\] frames is '8', expected a whole number"),
        ({"video": {"fps": 8}}, r"\[video\] has no key 'fps'; known keys: change, frames"),
    ],
)
def test_a_wrong_scenario_is_refused(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        parse_scenario(PROMPT | tables, source="campus.toml")


def test_an_error_names_the_file() -> None:
    with pytest.raises(ScenarioError, match=r"^campus.toml \[link\]"):
        parse_scenario({"link": {"snr": 1}}, source="campus.toml")


def test_the_link_checks_its_own_numbers() -> None:
    with pytest.raises(LinkError):
        parse_scenario(PROMPT | {"link": {"snr_db": float("nan")}})


def test_views_add_up_on_awgn_only() -> None:
    plan = {"mechanism": "coordinated", "fusion": "air"}
    assert parse_scenario(PROMPT | {"plan": plan}).watched_shape == (4, 32, 80)
    with pytest.raises(LinkError, match="channel is 'rayleigh', symbols of several senders add up"):
        parse_scenario(PROMPT | {"plan": plan, "link": {"channel": "rayleigh"}})
    # Who sends bits may have any channel.
    parse_scenario(PROMPT | {"plan": plan | {"fusion": "gate"}, "link": {"channel": "rayleigh"}})


def test_a_setting_of_another_form_is_refused() -> None:
    for setting in ("snr_db=3", "link.snr_db", "=3", ".x=3"):
        with pytest.raises(ScenarioError, match=r"is not table.key=value"):
            override({}, [setting])


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"cannot read scenario .*No such file"):
        load_scenario(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("[link\n")
    with pytest.raises(ScenarioError, match="is not TOML"):
        load_scenario(tmp_path / "bad.toml")


def test_every_error_is_in_the_tree_drawn_at_the_top() -> None:
    from megdt import errors

    names = [
        n for n, c in vars(errors).items() if isinstance(c, type) and issubclass(c, MegdtError)
    ]
    assert errors.__doc__ is not None
    assert all(name in errors.__doc__ for name in names)


@pytest.mark.parametrize(
    ("codec", "rate", "plan", "codecs"),
    [
        ("seed", 0.1, {"seed_bits": 6554}, {"seed": "progressive"}),
        ("sketch", 0.02, {"sketch_bits": 1311, "mechanism": "es_to_ue_sketch"}, {}),
        ("jscc", 0.5, {"symbol_rate": 0.5}, {"seed": "jscc"}),
        ("hybrid", None, {}, {"seed": "hybrid"}),
        ("float16", None, {}, {"seed": "float16"}),
        (None, None, {}, {}),
    ],
)
def test_a_codec_and_its_rate_become_settings(
    codec: str | None, rate: float | None, plan: dict[str, Any], codecs: dict[str, str]
) -> None:
    tables = choose_codec(PROMPT, codec, rate)
    assert tables["plan"] == plan
    assert tables["codecs"] == codecs
    parse_scenario(tables)


def test_a_rate_is_of_the_pixels_there_are() -> None:
    large = {"request": {"prompt": "lilies", "size_px": 1024}}
    assert choose_codec(large, "seed", 0.05)["plan"]["seed_bits"] == round(0.05 * 1024**2)


def test_a_sensed_picture_is_sketched_by_its_own_mechanism() -> None:
    tables = PROMPT | {"plan": {"mechanism": "ue_to_es"}}
    assert choose_codec(tables, "sketch", None)["plan"]["mechanism"] == "ue_to_es_sketch"


@pytest.mark.parametrize(
    ("codec", "rate", "mechanism", "words"),
    [
        ("seed", 3.0, "es_to_ue", "rate is 3 bit a pixel, seed goes from 0.005 to 1"),
        ("sketch", 0.5, "es_to_ue", "rate is 0.5 bit a pixel, sketch goes from"),
        ("int8", 0.5, "es_to_ue", "rate is 0.5, but codec int8 has none"),
        (None, 0.5, "es_to_ue", "rate is 0.5, but codec int8 has none"),
        ("sketch", None, "centralized", "mechanism is 'centralized', which sends no sketch"),
    ],
)
def test_a_rate_that_makes_no_sense_is_refused(
    codec: str | None, rate: float | None, mechanism: str, words: str
) -> None:
    with pytest.raises(ScenarioError, match=words):
        choose_codec(PROMPT | {"plan": {"mechanism": mechanism}}, codec, rate)


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        (
            {"request": {"prompt": "x", "size_px": "abc"}},
            "size_px is 'abc', expected a whole number",
        ),
        ({"plan": 3}, "plan = 3, expected a table"),
        ({"plan": {"mode": ["x"]}}, "mode is"),
    ],
)
def test_a_rate_for_a_broken_scenario_is_an_error_of_one_line(
    tables: dict[str, Any], words: str
) -> None:
    with pytest.raises(ScenarioError, match=words):
        choose_codec(tables, "seed", 0.1)


def test_a_broken_file_is_named_whatever_else_is_asked() -> None:
    with pytest.raises(ScenarioError, match=r"campus\.toml \[link\] has no key 'bandwith_hz'"):
        choose_codec(PROMPT | {"link": {"bandwith_hz": 1}}, None, None, source="campus.toml")


def test_a_mechanism_that_sends_a_sketch_takes_its_rate() -> None:
    tables = PROMPT | {"plan": {"mechanism": "es_to_ue_sketch"}}
    assert choose_codec(tables, None, 0.02)["plan"]["sketch_bits"] == round(0.02 * 256**2)
    first = {"request": {"prompt": "x", "size_px": 1024}, "plan": {"mechanism": "sketch_first"}}
    # Of the first grid's picture, whatever the size of the last.
    assert choose_codec(first, "sketch", 0.02)["plan"]["sketch_bits"] == round(0.02 * 256**2)
    tables = PROMPT | {"plan": {"mechanism": "preview_then_seed"}}
    assert choose_codec(tables, "sketch", 0.02)["plan"]["mechanism"] == "preview_then_seed"
