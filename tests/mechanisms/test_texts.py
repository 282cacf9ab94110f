"""The mechanisms that end in a text."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from megdt.errors import RequestError, ScenarioError
from megdt.mechanisms.single_user import DESCRIBE
from megdt.models.bundle import Bundle
from megdt.models.writing import KEY, ServerWriter
from megdt.records import Feature, Part, Side
from megdt.scenario import Scenario, parse_scenario
from megdt.trial import check_comparable, demonstrate
from tests.plain_models import PlainModels

PICTURE = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
SENSED = Part(features={"sense": Feature(kind="image", values=PICTURE)})


def scenario(mechanism: str, **tables: Any) -> Scenario:
    return parse_scenario(
        {
            "request": {"prompt": "red poppies", "rng_seed": 9},
            "plan": {"mechanism": mechanism},
            "link": {"coding": "abstract"},
            **tables,
        }
    )


def test_a_prompt_goes_up_and_a_text_comes_down(models: PlainModels) -> None:
    result = scenario("text").run(models)
    assert result.text == "red poppies, 9"
    assert result.image is None
    prompt, text = result.ledger.crossings
    assert (prompt.kind, prompt.to_side, prompt.bits) == ("prompt", Side.ES, 8 * 11)
    assert (text.kind, text.to_side, text.bits) == ("text", Side.UE, 8 * 14)


def test_a_picture_goes_up_as_its_seed_and_what_it_shows_comes_down(models: PlainModels) -> None:
    result = scenario("describe").run(models, done=SENSED)
    # The request's prompt has not crossed, so nobody at the ES may know it.
    shown = result.features["decode"].values
    assert result.text == models.write(DESCRIBE, shown, rng_seed=9)
    assert "poppies" not in result.text
    seed, text = result.ledger.crossings
    assert (seed.kind, seed.from_side, text.kind, text.from_side) == ("seed", "UE", "text", "ES")
    assert 20 * text.bits < seed.bits


def test_a_picture_that_is_lost_has_no_text(models: PlainModels) -> None:
    lost = scenario("describe", link={"snr_db": -30}).run(models, done=SENSED)
    assert (lost.outcome, lost.text) == ("lost", None)


def test_the_bundle_writes_both_offline(bundle: Bundle) -> None:
    texts = [demonstrate(scenario(name), bundle)[1].text for name in ("text", "describe")]
    assert texts[0] is not None
    assert "popp" in texts[0].lower()
    assert texts[1] is not None
    assert texts[1].endswith(".")


def test_a_text_is_no_picture_to_compare() -> None:
    for baseline in (None, "webp"):
        with pytest.raises(RequestError, match="mechanism is text, which ends in a text and not"):
            check_comparable(scenario("text"), baseline)


def test_a_scenario_names_the_server_that_writes(
    models: PlainModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def write(self: ServerWriter, prompt: str, image: object = None, *, rng_seed: int) -> str:
        asked.append((self, prompt, image is not None, rng_seed))
        return "from the server"

    monkeypatch.setattr(ServerWriter, "write", write)
    monkeypatch.setenv(KEY, "sk-secret")
    address = "http://127.0.0.1:8080/v1"
    tables = {"base_url": address, "model": "small", "max_tokens": 9, "timeout_s": 3}
    wanted = scenario("describe", writer=tables)
    assert wanted.run(models, done=SENSED).text == "from the server"
    server = ServerWriter(base_url=address, model="small", max_tokens=9, timeout_s=3.0)
    assert asked == [(server, DESCRIBE, True, 9)]
    assert parse_scenario(wanted.table()) == wanted
    assert "sk-secret" not in json.dumps(wanted.table())
    # Where none is named the models write, and count what they do.
    assert scenario("text").run(models).text == "red poppies, 9"
    assert len(asked) == 1


def test_what_the_server_takes_is_measured_and_the_rest_still_counted(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ServerWriter, "write", lambda *_, **__: "a text")
    wanted = scenario("describe", writer={"base_url": "http://a"})
    counted = {
        c.stage: c.flops
        for c in demonstrate(wanted, bundle)[1].ledger.computations
        if c.task == "run"
    }
    assert counted["write"] == 0
    assert counted["decode"] > 1e9


@pytest.mark.parametrize(
    ("writer", "message"),
    [
        ({"model": "small"}, "writer model is 'small' and no server is named; set writer.base_url"),
        ({"base_url": "localhost"}, "writer base_url is 'localhost', expected an address"),
        ({"base_url": "http://a", "max_tokens": 0}, "writer max_tokens is 0, it goes from 1"),
        ({"key": "sk"}, r"\[writer\] has no key 'key'; known keys: base_url, max_tokens, model"),
        ({"timeout_s": "long"}, "timeout_s is 'long', expected a number"),
    ],
)
def test_a_wrong_writer_is_refused_before_anything_runs(
    writer: dict[str, Any], message: str
) -> None:
    with pytest.raises(ScenarioError, match=message):
        scenario("text", writer=writer)
