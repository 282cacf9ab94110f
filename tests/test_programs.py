"""Examples and studies run as their readers would run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.small_models import write_variant

ROOT = Path(__file__).parent.parent


def run(*arguments: str | Path, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_an_example_runs(path: Path, tmp_path: Path) -> None:
    assert run(path, cwd=tmp_path).strip()


def test_the_recipe_of_the_error_curves_finds_the_kept_ones_again(tmp_path: Path) -> None:
    out = tmp_path / "waterfalls.json"
    run(ROOT / "recipes" / "waterfalls.py", "--quick", "--out", out, cwd=tmp_path)
    kept = json.loads((ROOT / "src" / "megdt" / "link" / "waterfalls.json").read_text())["curves"]
    for curve in json.loads(out.read_text())["curves"]:
        (same,) = (c for c in kept if {**c, "points": curve["points"]} == curve)
        for (size, middle, _), (kept_size, kept_middle, _) in zip(
            curve["points"], same["points"], strict=True
        ):
            assert size == kept_size
            assert abs(middle - kept_middle) < 0.3  # few blocks: within their own uncertainty


def test_the_recipe_of_the_monitor_measures_what_its_limits_hold(tmp_path: Path) -> None:
    out = tmp_path / "monitor.json"
    run(ROOT / "recipes" / "monitor.py", "--quick", "--out", out, cwd=tmp_path)
    kept = json.loads((ROOT / "src" / "megdt" / "twin" / "monitor.json").read_text())
    found = json.loads(out.read_text())
    assert found.keys() == kept.keys()
    assert found["bundle_sha256"] == kept["bundle_sha256"]
    # A few clean arrivals score as the many did: the medians are of one size.
    for key in ("scene, 3 min", "patch, 3 min", "snr", "noise", "position"):
        assert abs(found["scores"][key][1] - kept["scores"][key][1]) < 1


def test_the_recipe_of_the_policy_writes_what_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "behaviour.json"
    run(ROOT / "recipes" / "behaviour.py", "--quick", "--out", out, cwd=tmp_path)
    kept = json.loads((ROOT / "src" / "megdt" / "twin" / "behaviour.json").read_text())
    found = json.loads(out.read_text())
    assert found.keys() == kept.keys()
    for network in ("counter", "policy"):
        shapes = [[layer["shape"] for layer in told[network]] for told in (found, kept)]
        assert shapes[0] == shapes[1]


needs_weights = pytest.mark.skipif(
    find_spec("stlpips_pytorch") is None or find_spec("skimage") is None,
    reason="needs the network weights in stlpips-pytorch and the pictures in scikit-image",
)


@needs_weights
@pytest.mark.parametrize(
    "name",
    [
        "bundle_quality",
        "compression",
        "fair_baseline",
        "fig6",
        "interactive",
        "meg_aids_twin",
        "mechanisms",
        "multi_user",
        "over_the_air",
        "step_split",
        "texts",
        "twin_aids_meg",
        "twin_maintenance",
        "twin_monitor",
        "twin_planner",
        "twin_prediction",
        "video",
    ],
)
def test_a_study_runs_and_writes_what_its_results_hold(name: str, tmp_path: Path) -> None:
    folder = ROOT / "studies" / name
    out = tmp_path / "results.json"
    run(folder / "run.py", "--quick", "--out", out, cwd=tmp_path)
    kept = json.loads((folder / "results.json").read_text())
    assert json.loads(out.read_text()).keys() == kept.keys()


@needs_weights
@pytest.mark.skipif(
    not (ROOT.parent / "shared" / "weights").is_dir(),
    reason="needs the weights of TAEF2 in ../shared/weights",
)
def test_a_study_takes_an_autoencoder_of_ones_own(tmp_path: Path) -> None:
    folder = ROOT / "studies" / "fair_baseline"
    out = tmp_path / "results.json"
    weights = ROOT.parent / "shared" / "weights"
    run(folder / "run.py", "--quick", "--model", weights, "--out", out, cwd=tmp_path)
    found, kept = (json.loads(p.read_text()) for p in (out, folder / "taef2.json"))
    assert found["bundle_sha256"] == kept["bundle_sha256"]
    assert found.keys() == kept.keys()
    run(folder / "plot.py", "--results", out, "--out", tmp_path, cwd=tmp_path)
    assert (tmp_path / "figure.png").is_file()


@needs_weights
def test_what_the_planner_makes_of_smaller_decoders_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    write_variant(tmp_path / "small", cards=True)
    folder, out = ROOT / "studies" / "compression", tmp_path / "planned.json"
    run(folder / "planned.py", "--quick", "--work", tmp_path, "--out", out, cwd=tmp_path)
    found, kept = (json.loads(p.read_text()) for p in (out, folder / "planned.json"))
    assert found.keys() == kept.keys()
    assert all(0.8 < row["ratio"] < 1.25 for row in found["sums"])
    (carried,) = found["carried_out"]
    assert "by small" in carried["plan"]
    assert carried["distance"] < carried["max_distance"]
    # The planner's sums are the ledger's.
    assert carried["expected_ms"] == pytest.approx(carried["latency_ms"], rel=0.05)
    assert carried["expected_ue_mj"] == pytest.approx(carried["ue_mj"], rel=0.05)


def test_kept_results_are_of_the_bundle_in_the_tree() -> None:
    from megdt.models.bundle import Bundle

    checksum = Bundle().checksum
    for path in sorted((ROOT / "studies").glob("*/results.json")):
        # Studies of the radio alone have no models.
        assert json.loads(path.read_text()).get("bundle_sha256", checksum) == checksum, path


def test_the_split_survives_less_snr_than_the_picture_as_in_the_paper() -> None:
    """The shape of Fig. 6(b) in the kept results: the split's distance falls far earlier."""
    results = json.loads((ROOT / "studies" / "fig6" / "results.json").read_text())
    curves = results["curves"]["generated"]
    split, centralized = (
        {p["snr_db"]: p["frechet"] for p in curves[f"{name}, paper mode"]}
        for name in ("MEG-DT", "centralized")
    )
    half = max(centralized.values()) / 2
    reached = [min(s for s, d in line.items() if d < half) for line in (split, centralized)]
    assert reached[0] < reached[1]
    for line in (split, centralized):
        assert line[40] < 0.05 * max(centralized.values())


@needs_weights
@pytest.mark.skipif(find_spec("diffusers") is None, reason="needs the extra diffusers")
@pytest.mark.filterwarnings("ignore")
def test_fig6_takes_a_pipeline_of_ones_own(tmp_path: Path) -> None:
    from tests.models.tiny_pipelines import write_pipeline

    folder, out = ROOT / "studies" / "fig6", tmp_path / "results.json"
    pipeline = write_pipeline("sdxl", tmp_path)
    run(folder / "run.py", "--quick", "--model", pipeline, "--out", out, cwd=tmp_path)
    curves = json.loads(out.read_text())["curves"]
    psnr_db = {name: {p["snr_db"]: p["psnr_db"] for p in each} for name, each in curves.items()}
    # Symbols suffer from noise; bits arrive or do not, and lose what eight of them leave out.
    assert psnr_db["split, analog"][10] > psnr_db["split, analog"][-10] + 5
    assert psnr_db["seed, int8"][10] == psnr_db["seed, int8"][-10] < 60
    assert curves["AVIF + LDPC"][1]["uses"] <= 1.5 * curves["split, analog"][1]["uses"]
    run(folder / "plot.py", "--results", out, "--out", tmp_path, cwd=tmp_path)
    assert (tmp_path / "own_model.png").is_file()
    assert (tmp_path / "own_model_paper.png").is_file()
