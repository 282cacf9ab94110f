from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from megdt.codecs.jscc import read_card
from megdt.errors import BundleError, RequestError, ScenarioError
from megdt.link.recording import read_recording
from megdt.models.bundle import Bundle
from megdt.scenario import Scenario, jscc_codec, parse_scenario
from megdt.trial import check_comparable, feature_uses, generate, receive, record, transmit

PICTURE = np.asarray(
    np.stack([*np.meshgrid(np.arange(256), np.arange(256)), np.full((256, 256), 90)], 2), np.uint8
)


def scenario(mechanism: str = "es_to_ue", **link: object) -> Scenario:
    return parse_scenario(
        {
            "request": {"prompt": "red poppies at dusk", "steps": 1},
            "plan": {"mechanism": mechanism},
            "link": {"snr_db": 10, "coding": "abstract", **link},
        }
    )


def test_a_generation_is_judged_against_its_own_error_free_picture(bundle: Bundle) -> None:
    trial = generate(scenario(), bundle, baseline=None, progress=None)
    assert trial.outcome == "delivered"
    assert trial.psnr_db is not None
    assert trial.psnr_db > 40
    assert trial.baseline is None


def test_a_sketch_first_is_judged_by_its_finest_grid_and_compared(bundle: Bundle) -> None:
    wanted = scenario("sketch_first").table()
    wanted["request"]["size_px"] = 320
    trial = generate(parse_scenario(wanted), bundle, baseline="webp", progress=None)
    assert trial.error_free.shape == (320, 320, 3)
    assert trial.psnr_db is not None
    assert trial.psnr_db > 40
    assert trial.baseline is not None
    assert trial.baseline.scenario.plan.mechanism == "centralized"
    # Drawn at once it is the same picture.
    drawn = trial.baseline.result.features["denoise"].values
    assert (drawn == trial.result.features["enlarge"].values).all()


@pytest.mark.parametrize("baseline", ["webp", "avif"])
def test_a_baseline_takes_about_as_many_uses_and_shares_what_is_alike(
    bundle: Bundle, baseline: str
) -> None:
    trial = generate(scenario(), bundle, baseline=baseline, progress=None)
    assert trial.baseline is not None
    ours, theirs = (feature_uses(t.result.ledger) for t in (trial, trial.baseline))
    assert 0.7 * ours < theirs < 1.3 * ours
    assert trial.baseline.result.features["denoise"] is trial.result.features["denoise"]
    assert (trial.baseline.error_free == trial.error_free).all()
    assert trial.baseline.scenario.plan.codecs["image"] == baseline


def test_prompt_alone_gives_the_error_free_picture_for_hardly_any_uses(bundle: Bundle) -> None:
    trial = generate(scenario(), bundle, baseline="prompt", progress=None)
    assert trial.baseline is not None
    assert trial.baseline.psnr_db == np.inf
    assert feature_uses(trial.baseline.result.ledger) < 0.1 * feature_uses(trial.result.ledger)


def test_a_lost_prompt_still_leaves_the_baseline_judged(bundle: Bundle) -> None:
    # Nothing of either is in time.
    trial = generate(scenario(deadline_s=1e-3), bundle, baseline="prompt", progress=None)
    assert trial.outcome == "late"
    assert trial.psnr_db is None
    assert trial.baseline is not None
    assert trial.baseline.psnr_db is None
    whole = generate(scenario(), bundle, baseline=None, progress=None)
    assert (trial.error_free == whole.error_free).all()


def test_what_did_not_get_across_is_paid_once_by_each(bundle: Bundle) -> None:
    trial = generate(scenario(deadline_s=1e-3), bundle, baseline="webp", progress=None)
    assert trial.baseline is not None
    for ledger in (trial.result.ledger, trial.baseline.result.ledger):
        assert [(c.kind, c.outcome) for c in ledger.crossings] == [("prompt", "late")]
    assert trial.baseline.result.ledger.bits == trial.result.ledger.bits


def test_a_picture_is_sent_and_judged_against_itself(bundle: Bundle) -> None:
    trial = transmit(scenario("ue_to_es"), PICTURE, bundle, baseline="webp")
    assert trial.psnr_db is not None
    assert 15 < trial.psnr_db < 45
    assert (trial.error_free == PICTURE).all()
    assert trial.baseline is not None
    assert trial.baseline.scenario.plan.mechanism == "send_picture"


def test_a_recording_carries_a_picture(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("sigmf", reason="recordings need the package sigmf")
    path = tmp_path / "a.sigmf-meta"
    found = record(scenario("ue_to_es"), PICTURE, bundle, path)
    assert found["bits"] == 8 * 4096
    outcome, image = receive(path)
    assert outcome == "delivered"
    sent = transmit(scenario("ue_to_es", coding="ideal"), PICTURE, bundle, baseline=None)
    assert image is not None
    assert (image == sent.result.image).all()
    kept = path.read_text()
    for told, error, message in (
        (
            kept.replace(bundle.checksum, "0" * 64),
            BundleError,
            "is of bundle 0{12}, bundle is .*; install",
        ),
        (
            re.sub(r'"model": *{[^}]*}', '"model": {}', kept),
            ScenarioError,
            "does not say which models",
        ),
    ):
        assert told != kept
        path.write_text(told)
        with pytest.raises(error, match=message):
            receive(path)


def test_a_joint_codes_recording_builds_the_senders_codec(bundle: Bundle, tmp_path: Path) -> None:
    """With the SNR it was told, though 0 is no truth in Python, and the draw of what noise took."""
    pytest.importorskip("sigmf", reason="recordings need the package sigmf")
    tables = scenario("ue_to_es", coding="ideal", csi="perfect", snr_db=3).table()
    tables["request"]["rng_seed"] = 5
    tables["plan"]["told_snr_db"] = 0.0
    tables["codecs"]["seed"] = "jscc"
    sender = parse_scenario(tables)
    path = tmp_path / "a.sigmf-meta"
    record(sender, PICTURE, bundle, path)
    plan = read_recording(path)[1]
    del plan["model"]
    receiver = parse_scenario(plan)
    codecs = [jscc_codec(s) for s in (sender, receiver)]
    ours = read_card()["sha256"]
    assert replace(codecs[0], peer_sha256=ours) == codecs[1]
    outcome, image = receive(path)
    assert outcome == "delivered"
    assert image is not None


def test_a_recording_of_a_hybrid_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    tables = scenario("ue_to_es").table()
    tables["codecs"]["seed"] = "hybrid"
    with pytest.raises(RequestError, match="hybrid"):
        record(parse_scenario(tables), PICTURE, bundle, tmp_path / "a.sigmf-meta")


@pytest.mark.parametrize(
    ("mechanism", "baseline", "message"),
    [
        ("es_to_ue", "jpeg", "baseline is 'jpeg', known: webp, avif, jxl, raw, prompt"),
        ("centralized", "webp", "mechanism is centralized, which is a baseline itself"),
        ("prompt_only", "webp", "take one of es_to_ue, "),
        ("ue_to_es", "prompt", "a picture that is there already has none"),
    ],
)
def test_a_comparison_without_sense_is_refused(mechanism: str, baseline: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        check_comparable(scenario(mechanism), baseline)


def test_the_paper_compares_with_raw_pixels_alone() -> None:
    paper = parse_scenario({"request": {"prompt": "x"}, "plan": {"mode": "paper"}})
    check_comparable(paper, "raw")
    with pytest.raises(RequestError, match="the paper compares with raw pixels"):
        check_comparable(paper, "webp")


def test_a_recording_needs_a_link_with_a_waveform(bundle: Bundle, tmp_path: Path) -> None:
    paper = parse_scenario({"request": {"prompt": "x"}, "plan": {"mode": "paper"}})
    with pytest.raises(RequestError, match="a recording needs fair mode"):
        record(paper, PICTURE, bundle, tmp_path / "a.sigmf-meta")
