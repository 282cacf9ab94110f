from __future__ import annotations

from typing import Any

import pytest

from megdt.errors import RequestError
from megdt.records import Plan, Request


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": "lily \udcff"}, "not text at position 5"),
        (
            {"size_px": 300},
            "size_px is 300, the autoencoder needs a multiple of 8; take 296 or 304",
        ),
        ({"size_px": 2048}, "size_px is 2048, it goes from 256 to 1024"),
        ({"steps": 0}, "steps is 0, it goes from 1 to 500"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan, it goes from 0 to 30"),
        ({"rng_seed": -1}, "rng_seed is -1"),
    ],
)
def test_an_impossible_request_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Request(**({"prompt": "lilies"} | wrong))


def test_a_negative_budget_is_refused() -> None:
    with pytest.raises(RequestError, match="image_bits is -5"):
        Plan(image_bits=-5)
