from __future__ import annotations

import numpy as np
import pytest

from megdt.models.bundle import Bundle
from megdt.models.text_encoder import EMBEDDING


def distance(bundle: Bundle, first: str, second: str) -> float:
    embeds = bundle.embed([first, second])
    return float(np.linalg.norm(embeds[0] - embeds[1]))


def test_an_embedding_does_not_depend_on_its_batch(bundle: Bundle) -> None:
    long = "a very long sentence about many things and flowers, with white lilies under the stars"
    together, alone = bundle.embed(["red poppies", long]), bundle.embed(["red poppies"])
    assert together.shape == (2, EMBEDDING)
    np.testing.assert_allclose(together[0], alone[0], atol=1e-5)


@pytest.mark.parametrize("prompt", ["?!", "12345", "éàü", "word " * 500])
def test_any_prompt_embeds(bundle: Bundle, prompt: str) -> None:
    assert np.isfinite(bundle.embed([prompt])).all()


def test_a_typing_error_changes_less_than_another_flower(bundle: Bundle) -> None:
    right, wrong, other = "red poppies at sunset", "red popies at sunset", "red lilies at sunset"
    assert distance(bundle, right, wrong) < distance(bundle, right, other)


def test_another_wording_changes_less_than_another_colour(bundle: Bundle) -> None:
    first, second = "many red tulips at night", "lots of crimson tulips by moonlight"
    assert distance(bundle, first, second) < distance(bundle, first, "many blue tulips at night")


def test_word_order_says_which_colour_belongs_to_which_flower(bundle: Bundle) -> None:
    first, second = "red tulips and white lilies", "white tulips and red lilies"
    assert distance(bundle, first, second) > 0.3  # blind to order, it would be 0
