"""What studies/fig6 concludes from what it has measured."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

STUDY = Path(__file__).parent.parent / "studies" / "fig6"


@pytest.fixture(scope="module", autouse=True)
def study() -> Iterator[None]:
    """Its modules are beside each other, not in a package."""
    names = set(sys.modules)
    sys.path.insert(0, str(STUDY))
    yield
    sys.path.remove(str(STUDY))
    for name in set(sys.modules) - names:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(STUDY)):
            del sys.modules[name]


def module(name: str) -> Any:
    return importlib.import_module(name)


def table(**schemes: float) -> dict[Any, dict[str, np.ndarray]]:
    """Forty pictures at 0 dB, each scheme with its PSNR and its own blur of the features."""
    rng = np.random.default_rng(0)
    numbers, reference = np.arange(40), rng.standard_normal((40, 6))
    found = {("reference", 0.0, "uses"): {"number": numbers, "features": reference}}
    for name, psnr_db in schemes.items():
        away = rng.standard_normal((40, 6)) * (40 - psnr_db) / 10 + (40 - psnr_db) / 20
        values = psnr_db + rng.standard_normal(40)
        found[name.replace("_", ", "), 0.0, "uses"] = {
            "number": numbers, "features": reference + away, "psnr_db": values, "ms_ssim": values / 50,
            "perceptual": 1 - values / 50, "uses": np.full(40, 100.0), "bits": np.zeros(40),
            "radiated_j": np.ones(40), "lost": np.zeros(40),
        }  # fmt: skip
    return found


def test_a_difference_is_better_worse_or_within_its_interval() -> None:
    verdict = module("summary").verdict
    assert verdict(0.5, 0.2, "psnr_db") == "better"
    assert verdict(-0.5, 0.2, "psnr_db") == "worse"
    assert verdict(-0.5, 0.2, "perceptual") == "better"
    assert verdict(0.1, 0.2, "kid") == "level"


def test_schemes_are_compared_on_the_pictures_that_both_have() -> None:
    summary = module("summary")
    made = table(split_analog=20.0, hybrid=30.0)
    judge = summary.Judge(made, unbiased=False)
    whole = judge.minus(("hybrid", 0.0, "uses"), ("split, analog", 0.0, "uses"))
    few = {k: v[:16] for k, v in made["hybrid", 0.0, "uses"].items()}
    made["hybrid", 0.0, "uses"] = few
    part = summary.Judge(made, unbiased=False).minus(
        ("hybrid", 0.0, "uses"), ("split, analog", 0.0, "uses")
    )
    assert (whole["n"], part["n"]) == (40, 16)
    for found in (whole, part):
        assert found["psnr_db"] == pytest.approx(10, abs=1)
        assert found["kid"] < 0


def test_a_gain_is_the_split_s_own_snr_less_the_scheme_s() -> None:
    """The split gains a decibel of PSNR in two of SNR; three decibels more are six of SNR."""
    split = [{"snr_db": s, "psnr_db": 20 + s / 2} for s in (0.0, 10.0, 20.0)]
    ours = [{"snr_db": 0.0, "psnr_db": 23.0}]
    minus = [{"snr_db": 0.0, "psnr_db": 3.0, "psnr_db_95": 0.5}]
    (row,) = module("summary").gains(ours, split, minus)
    assert row["gain_db"] == pytest.approx(6)
    assert (row["gain_low_db"], row["gain_high_db"]) == (pytest.approx(5), pytest.approx(7))
    assert row["bound"] == ""


def rows(**verdicts: str) -> list[dict[str, Any]]:
    return [
        {"snr_db": float(name.split("_")[1]), "metric": name.split("_")[0], "verdict": verdict}
        for name, verdict in verdicts.items()
    ]


def test_a_target_with_a_point_that_was_not_measured_is_not_met() -> None:
    beats = module("claims")._beats
    both = {"kid_0": "better", "perceptual_0": "better", "kid_10": "better"}
    assert beats(rows(**both))[0] == "not run"
    assert beats(rows(**both, perceptual_10="better"))[0] == "met"
    assert beats(rows(**both, perceptual_10="level"))[0] == "missed"
    no_harm = module("claims")._no_harm
    assert no_harm(rows(kid_0="better", kid_10="level"))[0] == "met"
    assert no_harm(rows(kid_0="better", kid_10="worse"))[0] == "missed"


def test_the_readme_says_of_every_target_what_the_kept_results_say() -> None:
    results = json.loads((STUDY / "results.json").read_text())
    text = (STUDY / "README.md").read_text().split("## What the project set out to show")[1]
    said = re.findall(r"^\| .+? \| (\**(?:met|missed)\**[^|]*) \|", text, re.MULTILINE)
    kept = [target["verdict"] for target in results["targets"]]
    assert [s.strip("*").split("*")[0].split(",")[0] for s in said][: len(kept)] == kept


def test_the_kept_verdicts_follow_from_the_kept_figures() -> None:
    results = json.loads((STUDY / "results.json").read_text())
    claims = module("claims")
    assert results["claims"] == claims.list_claims(results)
    assert results["targets"] == claims.list_targets(results)
