from __future__ import annotations

import numpy as np
import pytest

from megdt.worlds.captions import VALUES, Attributes, attributes, mention, phrase
from megdt.worlds.garden import Garden, View, draw_view
from megdt.worlds.scene import Conditions, Plot


def test_a_caption_tells_what_is_there() -> None:
    garden = Garden(
        1, length_m=6.0, conditions=Conditions(sky="sunset", weather="rainy"),
        plots=(Plot(species="lily", colour="white", stage="wilting", density="many"),),
    )  # fmt: skip
    said = attributes(garden.truth(View(position_m=3.0)))
    assert (said.species, said.colour, said.stage) == ("lily", "white", "wilting")
    assert (said.sky, said.weather) == ("sunset", "rainy")


@pytest.mark.parametrize("wording", ["training", "held out", "description"])
def test_every_value_has_words(wording: str) -> None:
    for name, values in VALUES.items():
        for value in values:
            text = phrase(Attributes(**{name: value}), np.random.default_rng(0), wording=wording)  # type: ignore[arg-type]
            assert text.strip()
            assert "{" not in text
            assert "  " not in text


def test_there_are_many_paraphrases() -> None:
    said = Attributes(species="poppy", colour="red", sky="sunset", density="many")
    texts = {phrase(said, np.random.default_rng(i)) for i in range(300)}
    assert len(texts) > 250


def test_held_out_wordings_are_not_drawn_for_training() -> None:
    said = Attributes(species="poppy", colour="red")
    seen = {phrase(said, np.random.default_rng(i)).lower() for i in range(400)}
    held_out = {
        phrase(said, np.random.default_rng(i), wording="held out").lower() for i in range(400)
    }
    assert not seen & held_out


def test_two_kinds_are_told_with_their_sides() -> None:
    said = Attributes(
        species="tulip", colour="red", side="left", second_species="lily", second_colour="white"
    )
    texts = [phrase(said, np.random.default_rng(i)).lower() for i in range(40)]
    assert all("left" in text or "right" in text for text in texts)
    assert all("tulip" in text and "lil" in text for text in texts)


def test_mention_leaves_out_but_never_adds() -> None:
    for seed in range(60):
        garden, view = draw_view(seed)
        said = attributes(garden.truth(view))
        left = mention(said, np.random.default_rng(seed))
        for name in VALUES:
            assert getattr(left, name) in ("", getattr(said, name))
